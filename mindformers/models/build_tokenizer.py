"""Build a tokenizer from the ``processor.tokenizer`` section of a YAML."""
import os

from mindformers.tools.errors import ConfigError
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.utils import resolve_path

_FILES = ("vocab_file", "tokenizer_file", "merges_file")


def build_tokenizer(config=None, default_args=None, module_type="tokenizer", class_name=None, base_dir=None,
                    folder=None, **kwargs):
    """Return the tokenizer that a section, a name or a class name says.

    Args:
        config (dict | str | None): ``{"type": "LlamaTokenizer", "vocab_file": ..., ...}``, or a name or folder for
            AutoTokenizer. Default: None.
        default_args (dict | None): arguments that win over the section's. Default: None.
        module_type (str): shelf of the registry. Default: "tokenizer".
        class_name (str | None): the class, when there is no `config`; `kwargs` are its arguments. Default: None.
        base_dir (str | None): folder of the YAML; relative paths are tried in the working directory, then here.
        folder (str | None): where the files of a section that names none are looked for: the model's. Default: None.
        **kwargs: with `config` more arguments, which win.

    Returns:
        The tokenizer, or None when neither `config` nor `class_name` is given.

    Raises:
        ConfigError: a section without `type`, or one that names no vocabulary.
        ValueError: an unknown type; the message names the nearest.
        FileNotFoundError: a vocabulary file that is not there.
    """
    if isinstance(config, (str, os.PathLike)):
        from mindformers.models.auto.tokenization_auto import AutoTokenizer
        return AutoTokenizer.from_pretrained(config, **(default_args or {}), **kwargs)
    if not config:
        return None if class_name is None else MindFormerRegister.get_instance(module_type, class_name, **kwargs)
    section = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    section.update({**(default_args or {}), **kwargs})
    if "type" not in section:
        raise ConfigError(f"processor.tokenizer needs type (such as LlamaTokenizer), but has only {sorted(section)}")
    if section.pop("auto_register", None) is not None:
        MindFormerRegister.auto_register(config["auto_register"], module_type)
    kind = section.pop("type")
    kind = MindFormerRegister.get_cls(module_type, kind) if isinstance(kind, str) else kind
    for key in _FILES:
        if isinstance(section.get(key), str):
            section[key] = str(resolve_path(section[key], base_dir))
    wanted = getattr(kind, "vocab_files_names", {})
    if wanted and not set(wanted) & {key for key, value in section.items() if value is not None}:
        if folder and any(os.path.isfile(os.path.join(folder, name)) for name in wanted.values()):
            return kind.from_pretrained(folder, **{key: value for key, value in section.items() if key not in _FILES})
        raise ConfigError(f"processor.tokenizer of type {kind.__name__} names no vocabulary: set "
                          f"{' or '.join(f'{key} (a {name})' for key, name in wanted.items())}, or put it into the folder "
                          "of the weights")
    return kind(**section)
