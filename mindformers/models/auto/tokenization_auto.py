"""AutoTokenizer: the tokenizer of a folder, a YAML, a vocabulary file or a known name."""
import os

from mindformers.models import tokenization_files as files
from mindformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES, model_type_of_name
from mindformers.models.auto.lazy_mapping import LazyMapping
from mindformers.models.auto.remote_code import CodeSource, load_remote_class
from mindformers.models.config_sources import find_yaml, known_names
from mindformers.models.hub_sources import is_remote, pinned
from mindformers.models.tokenization_options import check_kwargs
from mindformers.models.tokenization_utils_base import PreTrainedTokenizerBase
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import UnsupportedError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

# model type -> (class name of the slow tokenizer, of the fast one)
TOKENIZER_MAPPING_NAMES = {"llama": ("LlamaTokenizer", "LlamaTokenizerFast"), "glm2": ("ChatGLM2Tokenizer", None),
                           "glm3": ("ChatGLM3Tokenizer", None), "glm4": ("ChatGLM4Tokenizer", None)}

# model types and class names that several generations of GLM share: the folder says which one it is
_GLM_TYPES, _GLM_CLASSES = ("glm2", "chatglm"), ("ChatGLMTokenizer", "ChatGLM4Tokenizer")

# names that tokenizer_config.json uses for "whatever tokenizer.json says"
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")


def tokenizer_class_from_name(class_name):
    """Return the tokenizer class of a name (built-in, registered, or of AutoTokenizer.register), or None."""
    if class_name in _GENERIC:
        return PreTrainedTokenizerFast
    if MindFormerRegister.is_exist(MindFormerModuleType.TOKENIZER, class_name):
        return MindFormerRegister.get_cls(MindFormerModuleType.TOKENIZER, class_name)
    return next((one for pair in TOKENIZER_MAPPING.registered.values() for one in pair
                 if one is not None and one.__name__ == class_name), None)


def get_tokenizer_config(pretrained_model_name_or_path, subfolder="", **kwargs):
    """Return the settings the files of a folder, YAML or name hold, as a dict; {} when it has none.

    Raises:
        FileNotFoundError: no such folder or name.
        ValueError: a file that does not parse.
    """
    check_kwargs(kwargs, files.LOADING_KEYS, "get_tokenizer_config")
    return files.read_tokenizer_config(files.locate(pretrained_model_name_or_path, subfolder, kwargs))


class TokenizerMapping(LazyMapping):
    """``configuration class -> (slow class or None, fast class or None)``, built-in and registered."""

    def __init__(self):
        super().__init__("TOKENIZER_MAPPING", {})
        self.registered = {}

    def __getitem__(self, config_class):
        if config_class in self.registered:
            return self.registered[config_class]
        names = TOKENIZER_MAPPING_NAMES.get(self._model_type(config_class))
        if names is None:
            raise KeyError(f"no tokenizer is known for {getattr(config_class, '__name__', config_class)!r}; add it "
                           f"with AutoTokenizer.register")
        return tuple(None if name is None else tokenizer_class_from_name(name) for name in names)

    @staticmethod
    def _model_type(config_class):
        name = config_class if isinstance(config_class, str) else config_class.__name__
        return next((kind for kind, held in CONFIG_MAPPING_NAMES.items() if held == name), None)

    def __contains__(self, config_class):
        return config_class in self.registered or self._model_type(config_class) in TOKENIZER_MAPPING_NAMES

    def keys(self):
        """Configuration classes, built-in and registered."""
        built_in = list(dict.fromkeys(CONFIG_MAPPING[kind] for kind in TOKENIZER_MAPPING_NAMES
                                      if kind in CONFIG_MAPPING))
        return [*built_in, *(key for key in self.registered if key not in built_in)]

    def register(self, config_class, pair, exist_ok=False):
        """Add a pair; a class that is there already needs `exist_ok`."""
        if config_class in self and not exist_ok:
            raise ValueError(f"{config_class.__name__} already has tokenizers; pass exist_ok=True to replace them")
        self.registered[config_class] = pair


TOKENIZER_MAPPING = TokenizerMapping()


class AutoTokenizer:
    """Not constructible: `AutoTokenizer.from_pretrained` chooses the class and builds it."""

    def __init__(self):
        raise EnvironmentError("AutoTokenizer is not constructible; use AutoTokenizer.from_pretrained(name_or_folder)")

    @classmethod
    def from_pretrained(cls, yaml_name_or_path=None, *args, use_fast=True, tokenizer_type=None, config=None,
                        trust_remote_code=None, **kwargs):
        """Build the tokenizer of a folder, a YAML, a vocabulary file, a known name or a repository of a hub.

        The class is, in this order: `tokenizer_type`; what the YAML's ``processor.tokenizer.type`` or
        tokenizer_config.json names; the one of `config` or of the folder's config.json; for a folder with nothing but a
        vocabulary, PreTrainedTokenizerFast (tokenizer.json) or Llama's (tokenizer.model).

        Args:
            yaml_name_or_path (str | PathLike): also as `pretrained_model_name_or_path`.
            *args: for the constructor.
            use_fast (bool): take the fast class where there is one. A YAML's type is taken as it is. Default: True.
            tokenizer_type (str | None): model type, such as "llama". Default: None.
            config (PretrainedConfig | None): its class chooses the tokenizer. Default: None.
            trust_remote_code (bool | None): run code of the folder that ``auto_map`` names; needed only when no class
                here fits. Default: None, never.
            **kwargs: override settings of the folder (`padding_side="left"`, ...); `subfolder`; `revision`, `token`,
                `cache_dir`, ... of the hubs, see `hub.resolve`; `code_revision`, the revision of the code.

        Raises:
            TypeError: not a str or path, or an unknown argument.
            FileNotFoundError: nothing there; the message lists what was looked for.
            ValueError: no class fits, code that is not trusted, or a file that cannot be read.
        """
        name = kwargs.pop("pretrained_model_name_or_path", None) if yaml_name_or_path is None else yaml_name_or_path
        subfolder = kwargs.get("subfolder") or ""
        source = files.locate(name, subfolder, kwargs)
        kwargs = pinned(kwargs, source.folder) if is_remote(name) else kwargs
        settings = files.read_tokenizer_config(source)
        if tokenizer_type is not None:
            known = TOKENIZER_MAPPING_NAMES
            if tokenizer_type not in known:
                raise ValueError(f"tokenizer_type {tokenizer_type!r} is unknown; known: {', '.join(known)}."
                                 f"{did_you_mean(tokenizer_type, known)}")
            pair = [None if one is None else tokenizer_class_from_name(one)
                    for one in TOKENIZER_MAPPING_NAMES[tokenizer_type]]
            return _build(pair, source, name, use_fast, args, kwargs)
        code = CodeSource(name, "", trust_remote_code, kwargs, subfolder)
        return _build(_candidates(source, settings, config, use_fast, code), source, name, use_fast, args, kwargs)

    @staticmethod
    def register(config_class, slow_tokenizer_class=None, fast_tokenizer_class=None, exist_ok=False):
        """Add the tokenizers of a configuration class.

        Args:
            config_class (type): subclass of PretrainedConfig.
            slow_tokenizer_class, fast_tokenizer_class (type | None): at least one; the other half is kept.
            exist_ok (bool): replace what is there. Default: False.

        Raises:
            ValueError: no class, a class of the wrong kind, two that do not belong together, or a configuration class
                that has tokenizers already.
        """
        slow, fast = slow_tokenizer_class, fast_tokenizer_class
        if slow is None and fast is None:
            raise ValueError("pass slow_tokenizer_class, fast_tokenizer_class, or both")
        if slow is not None and issubclass(slow, PreTrainedTokenizerFast):
            raise ValueError(f"slow_tokenizer_class {slow.__name__} is a fast tokenizer: pass it as "
                             f"fast_tokenizer_class")
        if fast is not None and not issubclass(fast, PreTrainedTokenizerFast):
            raise ValueError(f"fast_tokenizer_class {fast.__name__} is not a subclass of PreTrainedTokenizerFast")
        if slow and fast and fast.slow_tokenizer_class is not None and fast.slow_tokenizer_class is not slow:
            raise ValueError(f"{fast.__name__}.slow_tokenizer_class is {fast.slow_tokenizer_class.__name__}, but "
                             f"slow_tokenizer_class is {slow.__name__}; make one of them match")
        if config_class in TOKENIZER_MAPPING.registered:
            held_slow, held_fast = TOKENIZER_MAPPING.registered[config_class]
            if (slow is None or held_slow is None) and (fast is None or held_fast is None):
                exist_ok = True  # the other half of a pair
            slow, fast = slow or held_slow, fast or held_fast
        TOKENIZER_MAPPING.register(config_class, (slow, fast), exist_ok)

    @classmethod
    def get_support_list(cls):
        """Return ``{model type: [names]}`` of the names whose YAML builds a tokenizer."""
        found = {}
        for name in known_names():
            kind = files.locate(find_yaml(name)).settings.get("type")
            for model_type, pair in TOKENIZER_MAPPING_NAMES.items():
                if kind in pair:
                    found.setdefault(model_type, []).append(name)
        return found

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of AutoTokenizer is: %s", cls.get_support_list())


def _candidates(source, settings, config, use_fast, code):
    """Return ``(slow class or None, fast class or None)`` for a source."""
    if source.settings.get("auto_register"):
        MindFormerRegister.auto_register(source.settings["auto_register"], MindFormerModuleType.TOKENIZER)
    class_name = settings.get("tokenizer_class")
    if isinstance(class_name, type):
        return (class_name, None)
    json_config = _json_config(source)
    class_name = class_name or json_config.get("tokenizer_class")
    if class_name in _GLM_CLASSES and source.find(files.FAST_FILE) and not source.find(files.SLOW_FILE):
        return (None, PreTrainedTokenizerFast)
    if class_name in _GLM_CLASSES or (class_name is None and _holds_glm(source, json_config)):
        return (tokenizer_class_from_name(glm_class_name(source, settings, json_config)), None)
    remote = _remote_reference(settings, json_config, use_fast)
    pair = _local_pair(class_name, source) if class_name else None
    if remote and (pair is None or code.trust and class_name in _GENERIC):
        code.folder = str((source.find(files.CONFIG_FILE) or source.find("config.json")).parent)
        return (load_remote_class(code, remote, "AutoTokenizer"), None)
    if pair is not None:
        return pair
    if class_name and source.find(files.FAST_FILE):
        logger.info("tokenizer_class %s is not known here; its %s says all, so PreTrainedTokenizerFast reads it",
                    class_name, files.FAST_FILE)
        return (None, PreTrainedTokenizerFast)
    if class_name:
        names = [*MindFormerRegister.names(MindFormerModuleType.TOKENIZER), *_GENERIC]
        raise ValueError(f"tokenizer_class {class_name!r} of {source.name} is not carried here, and there is no "
                         f"{files.FAST_FILE} to read instead.{did_you_mean(class_name, names)} "
                         f"Known: {', '.join(names)}.")
    return _pair_of_config(source, config, json_config)


def _holds_glm(source, json_config):
    """Whether a folder that names no tokenizer class is of a GLM and has the file its tokenizers read."""
    is_glm = json_config.get("model_type") in _GLM_TYPES or model_type_of_name(source.name) in _GLM_TYPES
    return is_glm and source.find(files.FAST_FILE) is None and source.find(files.SLOW_FILE) is not None


def glm_class_name(source, settings, json_config):
    """Return which GLM tokenizer a folder is for: ChatGLM2Tokenizer, ChatGLM3Tokenizer or ChatGLM4Tokenizer.

    ChatGLM2 and ChatGLM3 publish one class name, ChatGLMTokenizer, and one SentencePiece model, but number four more
    tokens in ChatGLM3. A file of tiktoken ranks is GLM-4's; ChatGLM2 is what the names in the folder's JSON files, or
    of the folder, say; else it is ChatGLM3, which reads what ChatGLM2 reads.
    """
    path = source.only_file or source.find(files.SLOW_FILE) or settings.get("vocab_file")
    if path is not None and os.path.isfile(path) and files.is_tiktoken_file(path):
        return "ChatGLM4Tokenizer"
    written = source.find(files.CONFIG_FILE)
    named = {} if written is None else files.read_json(written)
    names = " ".join(str(value) for value in (
        named.get("name_or_path"), json_config.get("_name_or_path"), json_config.get("name_or_path"), source.name))
    has_roles = any(token.content == "<|user|>" for token in (settings.get("added_tokens_decoder") or {}).values())
    older = any(name in names.lower() for name in ("glm2", "geex2", "glm-2"))
    return "ChatGLM2Tokenizer" if older and not has_roles else "ChatGLM3Tokenizer"


def _local_pair(class_name, source):
    """The (slow, fast) classes for a class name; for a YAML's type exactly that class."""
    exact = tokenizer_class_from_name(class_name)
    if source.settings.get("type") == class_name:
        if exact is None:
            MindFormerRegister.get_cls(MindFormerModuleType.TOKENIZER, class_name)  # raises, naming the nearest
        return (exact, None)
    for pair in TOKENIZER_MAPPING_NAMES.values():
        if class_name in pair:
            return tuple(tokenizer_class_from_name(name) if name else None for name in pair)
    for pair in TOKENIZER_MAPPING.registered.values():
        if exact is not None and exact in pair:
            return pair
    if exact is None:
        return None
    return (None, exact) if issubclass(exact, PreTrainedTokenizerFast) else (exact, None)


def _json_config(source):
    path = source.find("config.json")
    return {} if path is None else files.read_json(path)


def _remote_reference(settings, json_config, use_fast):
    """The "file.Class" that auto_map names for a tokenizer, or None."""
    named = (settings.get("auto_map") or json_config.get("auto_map") or {})
    named = named.get("AutoTokenizer") if isinstance(named, dict) else named  # older files: the list itself
    if not isinstance(named, (list, tuple)):
        return named
    slow, fast = [*named, None, None][:2]
    return (fast if use_fast else None) or slow or fast


def _pair_of_config(source, config, json_config):
    """The classes for a `config` object, a config.json, or a folder with nothing but a vocabulary."""
    if config is not None and type(config) in TOKENIZER_MAPPING:
        return TOKENIZER_MAPPING[type(config)]
    if json_config.get("model_type") in CONFIG_MAPPING:
        pair = TOKENIZER_MAPPING.get(CONFIG_MAPPING[json_config["model_type"]])
        if pair is not None:
            return pair
    is_json = source.only_file is not None and source.only_file.open("rb").read(1) == b"{"
    if is_json or source.find(files.FAST_FILE):
        return (None, PreTrainedTokenizerFast)
    kind = model_type_of_name(source.name) or "llama"
    if source.only_file is not None or source.find(files.SLOW_FILE):
        names = TOKENIZER_MAPPING_NAMES.get(kind, TOKENIZER_MAPPING_NAMES["llama"])
        return tuple(None if name is None else tokenizer_class_from_name(name) for name in names)
    held = ", ".join(sorted(os.listdir(source.folder))[:20]) or "nothing"
    raise FileNotFoundError(f"no tokenizer in {source.folder}: looked for {files.CONFIG_FILE}, {files.FAST_FILE}, "
                            f"{files.SLOW_FILE}, config.json and a YAML with processor.tokenizer; it holds {held}")


def _build(pair, source, name, use_fast, args, kwargs):
    """Build the fast class of a pair when asked for and possible, else the slow one."""
    slow, fast = pair
    if fast is not None and (use_fast or slow is None) and issubclass(fast, PreTrainedTokenizerBase):
        try:
            return fast.from_pretrained(name, *args, **kwargs)
        except UnsupportedError as reason:
            if slow is None or source.find(files.FAST_FILE):
                raise
            logger.info("%s", reason)
    return (slow or fast).from_pretrained(name, *args, **kwargs)
