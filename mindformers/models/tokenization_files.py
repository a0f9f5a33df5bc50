"""Tokenizer folders: found, read (every layout transformers 4 and 5 and MindFormers write), and written."""
import json
import os
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mindformers.hub import HUB_OPTIONS
from mindformers.models.config_keys import refuse_two_tokens
from mindformers.models.config_sources import find_yaml, known_names
from mindformers.models.hub_sources import hub_folder_of, local
from mindformers.models.special_tokens import as_added_token
from mindformers.tools.env import get_env
from mindformers.tools.errors import DamagedFileError, did_you_mean
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.utils import atomic_write, resolve_path

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"
TEMPLATE_FOLDER = "additional_chat_templates"
FAST_FILE = "tokenizer.json"
SLOW_FILE = "tokenizer.model"

# arguments of from_pretrained that belong to finding the folder, not to the tokenizer
LOADING_KEYS = (*HUB_OPTIONS, "subfolder", "trust_remote_code", "use_fast", "config", "tokenizer_type")
# keys of tokenizer_config.json that say how it was written, not what the tokenizer is
_BOOKKEEPING = ("tokenizer_file", "vocab_file", "special_tokens_map_file", "name_or_path", "backend", "is_local",
                "device_map", "from_slow", "tokenizer_object", "use_fast", "files_loaded", "transformers_version")

# keys that came from a file: the strict check of arguments lets them pass, they are kept and written back
LOADED_KEYS = ContextVar("LOADED_KEYS", default=frozenset())


@dataclass
class TokenizerSource:
    """Where a tokenizer comes from: a folder, what its YAML says, or one vocabulary file of it."""

    name: str
    folder: Path
    settings: dict = field(default_factory=dict)  # processor.tokenizer of a YAML
    only_file: Path | None = None
    more_folders: tuple = ()
    yaml: Path | None = None

    @property
    def folders(self):
        """Folders to look in, in order."""
        return (self.folder, *self.more_folders)

    @property
    def yamls(self):
        """YAML files that may hold sections for it: the one that was named, else those of the folder."""
        return (self.yaml,) if self.yaml else tuple(sorted([*self.folder.glob("*.yaml"), *self.folder.glob("*.yml")]))

    def find(self, file_name):
        """Return the path of `file_name` in the folders, or None."""
        return next((folder / file_name for folder in self.folders if (folder / file_name).is_file()), None)


def locate(name_or_path, subfolder="", options=None, kind="tokenizer"):
    """Return the TokenizerSource of a folder, YAML, vocabulary file, known name, or repository of a hub.

    Args:
        subfolder (str): folder within the one named. Default: "".
        options (dict | None): arguments of `from_pretrained`, of which those of the hubs count. None asks no hub for
            the tokenizer of a known name. Default: None.
        kind (str): "tokenizer" or "processor": which files of a repository are needed. Default: "tokenizer".

    Raises:
        TypeError: not a str or path.
        FileNotFoundError: no such thing; the message lists what was looked for.
        OSError: of a hub, see `hub.resolve`.
    """
    if not isinstance(name_or_path, (str, os.PathLike)) or not str(name_or_path):
        raise TypeError(f"a tokenizer name or path must be a non-empty str, but got {name_or_path!r}")
    name = os.fspath(name_or_path)
    path = Path(local(name, kind, options, subfolder=subfolder)).expanduser()
    if path.is_dir():
        folder = path / subfolder if subfolder else path
        if not folder.is_dir():
            raise FileNotFoundError(f"{path} has no subfolder {subfolder!r}")
        return _source_of_folder(name, folder)
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            return _with_hub(_source_of_yaml(name, path), options, kind)
        return TokenizerSource(name, path.parent, only_file=path)
    found = find_yaml(name)
    if found is None:
        names = known_names()
        raise FileNotFoundError(
            f"no tokenizer {name!r}: it is neither a folder (with {FAST_FILE} or {SLOW_FILE}), nor a YAML, nor a "
            f"vocabulary file, nor a known name, nor the owner/name of a repository on a hub."
            f"{did_you_mean(name, names) or ' Known names: ' + ', '.join(names) + '.'}")
    return _with_hub(_source_of_yaml(name, Path(found)), options, kind)


def _with_hub(source, options, kind):
    """The source of a YAML; one whose vocabulary is not here takes it from the repository its section `hub` names."""
    named = [source.settings.get(key) for key in ("tokenizer_file", "vocab_file")]
    if options is None or source.find(FAST_FILE) or source.find(SLOW_FILE) or \
            any(isinstance(value, str) and os.path.isfile(value) for value in named):
        return source
    folder = hub_folder_of(source.yaml, kind, options)
    if folder is not None:
        source.more_folders = (*source.more_folders, Path(folder))
        source.settings = {key: value for key, value in source.settings.items()
                           if key not in ("tokenizer_file", "vocab_file", "merges_file")}
    return source


def _source_of_folder(name, folder):
    source = TokenizerSource(name, folder)
    if source.find(CONFIG_FILE) is None:
        for path in source.yamls:
            settings = _yaml_settings(path)
            if settings:
                source.settings = settings
                source.more_folders = _yaml_folders(path)
                break
    return source


def _source_of_yaml(name, path):
    folders = _yaml_folders(path)
    downloads = Path(get_env("CHECKPOINT_DOWNLOAD_FOLDER"))
    stem = Path(name).stem
    return TokenizerSource(name, path.parent, _yaml_settings(path), yaml=path,
                           more_folders=(*folders, downloads / stem, downloads / stem.split("_")[0]))


def _yaml_settings(path):
    """Return ``processor.tokenizer`` of a YAML as a dict, its file paths resolved; {} when it has none."""
    config = MindFormerConfig(str(path))
    section = (config.get("processor") or {}).get("tokenizer") or {}
    settings = section.to_dict() if hasattr(section, "to_dict") else dict(section)
    for key in ("vocab_file", "tokenizer_file", "merges_file"):
        if isinstance(settings.get(key), str):
            settings[key] = str(resolve_path(settings[key], path.parent))
    return settings


def _yaml_folders(path):
    """Folders a YAML names that may hold the tokenizer: of its checkpoint."""
    config = MindFormerConfig(str(path))
    named = [config.get("pretrained_model_dir"), config.get("load_checkpoint"),
             ((config.get("model") or {}).get("model_config") or {}).get("checkpoint_name_or_path")]
    folders = [resolve_path(value, path.parent) for value in named if isinstance(value, str) and value]
    return tuple(folder if folder.is_dir() else folder.parent for folder in folders if folder.exists())


def read_json(path, kind=dict):
    """Return the content of a JSON file that must hold a `kind`.

    Raises:
        ValueError: it does not parse, or holds something else; the message names the file and the place.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as fault:
        raise DamagedFileError(f"{path} is not valid JSON (cut off?): line {fault.lineno}, column {fault.colno}: "
                         f"{fault.msg}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path} is not a text file: {fault}") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(content).__name__}")
    return content


def read_tokenizer_config(source):
    """Return what the files of a source say, as keyword arguments of a tokenizer (class names included)."""
    path = source.find(CONFIG_FILE)
    config = {} if path is None else read_json(path)
    for key in (*_BOOKKEEPING, *LOADING_KEYS):
        config.pop(key, None)
    if "type" in source.settings:
        config["tokenizer_class"] = source.settings["type"]
    config.update({key: value for key, value in source.settings.items() if key not in ("type", "auto_register")})
    special_path = source.find(SPECIAL_FILE)
    if "added_tokens_decoder" in config:
        config["added_tokens_decoder"] = _read_added_decoder(config["added_tokens_decoder"], path)
    elif special_path is not None:
        config.update({key: value for key, value in read_json(special_path).items() if value is not None})
    added_path = source.find(ADDED_FILE)
    if added_path is not None and not config.get("added_tokens_decoder"):
        special = _special_texts(config)
        config["added_tokens_decoder"] = {
            index: as_added_token(token, special=token in special) for token, index in read_json(added_path).items()}
    template = read_templates(source)
    if template is not None:
        config["chat_template"] = template
    return config


def _read_added_decoder(entries, path):
    try:
        return {int(index): as_added_token(token, special=False) for index, token in entries.items()}
    except (AttributeError, TypeError, ValueError) as fault:
        raise ValueError(f"{path}: added_tokens_decoder must map ids to tokens: {fault}") from None


def _special_texts(config):
    values = [value for key, value in config.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        values += list(config.get(key) or ())
    return {as_added_token(value).content for value in values if isinstance(value, (str, dict))}


def read_templates(source):
    """Return the chat template of the template files: a str, a dict of several, or None."""
    found = {}
    main = source.find(TEMPLATE_FILE)
    if main is not None:
        found["default"] = main.read_text(encoding="utf-8")
    elif source.find(TEMPLATE_JSON) is not None:
        found["default"] = template_from_config(read_json(source.find(TEMPLATE_JSON)).get("chat_template"))
    for path in sorted((source.folder / TEMPLATE_FOLDER).glob("*.jinja")):
        found[path.stem] = path.read_text(encoding="utf-8")
    return found["default"] if list(found) == ["default"] else found or None


def template_from_config(value):
    """Return a chat template from its JSON form: a str, ``[{"name": ..., "template": ...}]``, a dict, or None."""
    if value is None or isinstance(value, (str, dict)):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(one, dict) and {"name", "template"} <= set(one)
                                                for one in value):
        return {one["name"]: one["template"] for one in value}
    raise ValueError(f"chat_template must be a str, or a list of {{'name', 'template'}}, but got {value!r:.120}")


def vocabulary_files(source, cls):
    """Return ``{argument: path}`` of the vocabulary files of `cls` that the source has."""
    names = cls.vocab_files_names
    if source.only_file is None:
        found = {key: source.find(name) for key, name in names.items()}
        return {key: str(path) for key, path in found.items() if path is not None}
    is_json = source.only_file.open("rb").read(1) == b"{"
    key = "tokenizer_file" if is_json else "vocab_file"
    if key not in names:
        raise ValueError(f"{source.only_file} is no vocabulary file of {cls.__name__}, which reads "
                         f"{' or '.join(names.values())}")
    return {key: str(source.only_file)}


def load_tokenizer(cls, name_or_path, args, kwargs):
    """The work of `PreTrainedTokenizerBase.from_pretrained`; arguments as there."""
    kwargs = dict(kwargs)
    refuse_two_tokens(kwargs)
    loading = {key: kwargs.pop(key) for key in LOADING_KEYS if key in kwargs}
    source = locate(name_or_path, loading.get("subfolder") or "", loading)
    config = read_tokenizer_config(source)
    config.pop("tokenizer_class", None)
    found = vocabulary_files(source, cls)
    given = {**found, **config}
    if cls.vocab_files_names and not args and not {*cls.vocab_files_names} & {*given, *kwargs}:
        raise FileNotFoundError(_nothing_found(source, cls))
    given["name_or_path"] = source.name
    arguments = {**given, **kwargs}
    token = LOADED_KEYS.set(frozenset(given))
    try:
        return cls(*args, **arguments)
    finally:
        LOADED_KEYS.reset(token)


def _nothing_found(source, cls):
    wanted = " or ".join(cls.vocab_files_names.values())
    folders = ", ".join(str(folder) for folder in source.folders)
    held = sorted(path.name for path in source.folder.iterdir())
    message = f"{cls.__name__} found no {wanted} for {source.name!r}; looked in {folders}, where "
    message += f"{source.folder} holds {', '.join(held[:20])}." if held else f"{source.folder} is empty."
    if "tekken.json" in held:
        message += " tekken.json is not read here: use the tokenizer.json of the same model."
    if SLOW_FILE in held:
        message += f" {SLOW_FILE} is read by LlamaTokenizer."
    if FAST_FILE in held:
        message += f" {FAST_FILE} is read by PreTrainedTokenizerFast and AutoTokenizer."
    return message


def names_of_class(class_name, section="tokenizer"):
    """Return the known names whose YAML builds `class_name` as its ``processor.tokenizer`` or as its ``processor``."""
    def named(path):
        processor = MindFormerConfig(path).get("processor") or {}
        return (processor if section == "processor" else processor.get("tokenizer") or {}).get("type")
    return [name for name in known_names() if named(find_yaml(name)) == class_name]


def is_tiktoken_file(path):
    """Whether a file is a tiktoken ranks file (lines of base64 and a number), as original Llama 3 weights have."""
    with open(path, "rb") as stream:
        return re.fullmatch(rb"[A-Za-z0-9+/=]+ \d+\s*", stream.readline(200)) is not None


def save_vocabulary_file(vocab_file, content, save_directory, filename_prefix=None):
    """Write the tokenizer.model of a tokenizer into a folder; returns its path in a tuple.

    Args:
        vocab_file (str): the file it was loaded from, copied as it is while it is there.
        content (Callable[[], bytes]): the same vocabulary out of memory, for when that file has gone.
        save_directory (str): the folder.
        filename_prefix (str | None): put before the file's name with a "-". Default: None.

    Raises:
        NotADirectoryError: no such folder.
    """
    if not os.path.isdir(save_directory):
        raise NotADirectoryError(f"{save_directory} is not a folder")
    path = os.path.join(save_directory, (f"{filename_prefix}-" if filename_prefix else "") + SLOW_FILE)
    there = os.path.isfile(vocab_file)
    if not (there and os.path.exists(path) and os.path.samefile(vocab_file, path)):
        with atomic_write(path) as temporary:
            temporary.write_bytes(Path(vocab_file).read_bytes() if there else content())
    return (path,)


def dump_yaml(path, settings):
    """Write ``processor.tokenizer`` into a YAML, beside what it holds already."""
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None
    content = content or {}
    content.setdefault("processor", {})["tokenizer"] = settings
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
