"""Writing of a tokenizer folder, readable here and by transformers 4 and 5."""
import json
import os
from pathlib import Path

from mindformers.models import tokenization_files as files
from mindformers.models.custom_code import save_code
from mindformers.models.special_tokens import NAMED_SPECIAL_TOKENS, added_token_to_dict
from mindformers.tools.env import get_env
from mindformers.tools.utils import atomic_write, make_folder

# written from the live object, or in files of their own
_NOT_COPIED = ("vocab_file", "tokenizer_file", "tokenizer_object", "chat_template", "name_or_path", "verbose",
               "added_tokens_decoder", "special_tokens_map_file", "max_len", *NAMED_SPECIAL_TOKENS,
               "additional_special_tokens", "extra_special_tokens")


def save_tokenizer(tokenizer, save_directory, save_name, file_format, filename_prefix, legacy_format):
    """The work of `PreTrainedTokenizerBase.save_pretrained`; arguments as there, returns the paths written."""
    folder = get_env("CHECKPOINT_SAVE_FOLDER") if save_directory is None else save_directory
    if not isinstance(folder, (str, os.PathLike)) or not isinstance(save_name, str):
        raise TypeError(f"save_directory and save_name should be a str, but got {save_directory!r} and {save_name!r}")
    folder = Path(make_folder(folder))
    prefix = f"{filename_prefix}-" if filename_prefix else ""
    config = tokenizer_config(tokenizer)
    if tokenizer._auto_class is not None:
        reference = save_code(type(tokenizer), folder)
        config["auto_map"] = {tokenizer._auto_class: [None, reference] if tokenizer.is_fast else [reference, None]}
    written = [_write_json(folder / f"{prefix}{files.CONFIG_FILE}", config),
               _write_json(folder / f"{prefix}{files.SPECIAL_FILE}", _special_map(tokenizer))]
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()
             if index >= tokenizer.vocab_size}
    added_path = folder / f"{prefix}{files.ADDED_FILE}"
    if added:
        written.append(_write_json(added_path, added))
    else:
        added_path.unlink(missing_ok=True)  # of an earlier save: it would add its tokens again
    written += _write_templates(tokenizer.chat_template, folder, prefix)
    written += tokenizer.save_vocabulary_files(str(folder), filename_prefix, legacy_format)
    if file_format == "yaml":
        settings = {"type": type(tokenizer).__name__,
                    **{key: value for key, value in config.items() if key != "tokenizer_class"}}
        path = folder / f"{save_name}.yaml"
        written.append(_write_text(path, files.dump_yaml(path, settings)))
    return tuple(map(str, written))


def tokenizer_config(tokenizer):
    """Return the content of tokenizer_config.json."""
    config = {key: value for key, value in tokenizer.init_kwargs.items()
              if key not in _NOT_COPIED and _is_json(value)}
    for key in (*tokenizer.init_argument_names(), "model_max_length", "padding_side", "truncation_side",
                "clean_up_tokenization_spaces", "model_input_names", "split_special_tokens"):
        if isinstance(getattr(type(tokenizer), key, None), property):
            continue  # what was set is in init_kwargs; what was not follows from the vocabulary file
        value = getattr(tokenizer, key, None)
        if key not in _NOT_COPIED and value is not None and _is_json(value):
            config[key] = value
    special = tokenizer.special_tokens_map
    for key in NAMED_SPECIAL_TOKENS:
        if key in special or key in tokenizer.init_kwargs:
            config[key] = special.get(key)
    own = {key: value for key, value in special.items()
           if key not in NAMED_SPECIAL_TOKENS and key != "additional_special_tokens"}
    if own:
        config["extra_special_tokens"] = own
    if "additional_special_tokens" in special:
        config["additional_special_tokens"] = special["additional_special_tokens"]
    config["added_tokens_decoder"] = {str(index): added_token_to_dict(token)
                                      for index, token in tokenizer.added_tokens_decoder.items()}
    config["tokenizer_class"] = type(tokenizer).__name__
    return dict(sorted(config.items()))


def _special_map(tokenizer):
    """Special tokens as special_tokens_map.json has them: texts, or dicts where a flag is set."""
    def plain(token):
        flags = token.lstrip or token.rstrip or token.single_word
        return added_token_to_dict(token, with_special=False) if flags else token.content
    return {key: [plain(token) for token in value] if isinstance(value, list) else plain(value)
            for key, value in tokenizer.special_tokens_map_extended.items()}


def _write_templates(template, folder, prefix):
    """Write chat_template.jinja, and the others of several under additional_chat_templates/; drop stale ones."""
    templates = {"default": template} if isinstance(template, str) else dict(template or {})
    wanted = {folder / f"{prefix}{files.TEMPLATE_FILE}" if name == "default"
              else folder / files.TEMPLATE_FOLDER / f"{name}.jinja": text for name, text in templates.items()}
    stale = {folder / f"{prefix}{files.TEMPLATE_FILE}", *(folder / files.TEMPLATE_FOLDER).glob("*.jinja")} - set(wanted)
    for path in stale:
        path.unlink(missing_ok=True)
    return [_write_text(path, text) for path, text in wanted.items()]


def _write_json(path, content):
    return _write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write_text(path, text):
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return path


def _is_json(value):
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
