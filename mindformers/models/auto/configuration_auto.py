"""AutoConfig: the configuration class of a name, folder or file."""
import os

from mindformers.models.auto.lazy_mapping import LazyMapping
from mindformers.models.auto.remote_code import CodeSource, load_remote_class, remote_reference
from mindformers.models.config_keys import take_hub_keys
from mindformers.models.config_sources import find_config, known_names, model_config_dict
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.hub_sources import is_remote, local, pinned
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.dynamic import load_registered_module
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

CONFIG_MAPPING_NAMES = {"llama": "LlamaConfig", "glm2": "ChatGLM2Config", "chatglm": "ChatGLM2Config",
                        "glm3": "ChatGLM2Config", "glm4": "ChatGLM2Config", "glm": "GlmConfig"}
_CLASSES = {"LlamaConfig": "mindformers.models.llama.llama_config:LlamaConfig",
            "ChatGLM2Config": "mindformers.models.glm2.glm2_config:ChatGLM2Config",
            "GlmConfig": "mindformers.models.glm2.glm_config:GlmConfig"}
CONFIG_MAPPING = LazyMapping("CONFIG_MAPPING", {kind: _CLASSES[name] for kind, name in CONFIG_MAPPING_NAMES.items()})


def config_class_to_model_type(config):
    """Return the model type of a config class name, or None."""
    return next((kind for kind, name in CONFIG_MAPPING_NAMES.items() if name == config), None)


def model_type_of_name(name):
    """The model type that a folder's or repository's name suggests, or None; longest pattern first."""
    base = os.path.basename(os.path.normpath(str(name))).lower()
    return next((kind for kind in sorted(CONFIG_MAPPING, key=len, reverse=True) if kind in base), None)


class AutoConfig:
    """Reads the configuration of a name, a folder, a config.json or a YAML with the class that fits it."""

    def __init__(self):
        raise EnvironmentError("AutoConfig is not constructible; use AutoConfig.from_pretrained(name_or_path) or "
                               "AutoConfig.for_model(model_type)")

    @classmethod
    def for_model(cls, model_type, *args, **kwargs):
        """Build the default configuration of `model_type`.

        Raises:
            ValueError: an unknown model type.
        """
        if model_type not in CONFIG_MAPPING:
            raise ValueError(f"Unrecognized model identifier: {model_type!r}; known: {', '.join(CONFIG_MAPPING)}."
                             f"{did_you_mean(model_type, CONFIG_MAPPING)}")
        return CONFIG_MAPPING[model_type](*args, **kwargs)

    @classmethod
    def from_pretrained(cls, yaml_name_or_path=None, pretrained_model_name_or_path=None, return_unused_kwargs=False,
                        trust_remote_code=False, subfolder="", **kwargs):
        """Read a configuration.

        Args:
            yaml_name_or_path (str): known name (``mindformers ls``), folder, config.json, YAML, or repository of a hub
                (owner/name, hf://owner/name, openmind://owner/name).
            return_unused_kwargs (bool): return (config, kwargs that are no fields). Default: False.
            subfolder (str): folder within the one named. Default: "".
            trust_remote_code (bool): run the code that a folder's ``auto_map`` names. Default: False.
            **kwargs: fields that replace the file's; arguments of the hubs (`revision`, `token`, `cache_dir`, ...), see
                `hub.resolve`; `code_revision`, the revision of the code.

        Raises:
            ValueError: not a string, a file that says nothing of its model, both `token` and `use_auth_token`.
            ConfigError: an argument that is no field; the message names the nearest.
            FileNotFoundError: nothing there; the message names the nearest known name.
        """
        name = pretrained_model_name_or_path or yaml_name_or_path
        if not isinstance(name, (str, os.PathLike)):
            raise ValueError(f"yaml_name_or_path should be a str, but got {type(name).__name__}")
        options = take_hub_keys(kwargs)
        folder = local(name, "config", options, subfolder=subfolder)
        path = find_config(os.path.join(folder, subfolder) if subfolder else folder)
        if path.endswith(".json"):
            config_dict = PretrainedConfig.read_json(path)
            code = CodeSource(name, os.path.dirname(path), trust_remote_code, pinned(options, folder), subfolder)
            config_class = cls._class_of_json(config_dict, name, path, code)
        else:
            config_dict = model_config_dict(MindFormerConfig(path), path)
            config_class = config_class_of(config_dict, path)
        config_dict.setdefault("name_or_path", str(name))
        config, unused = config_class.from_dict(config_dict, return_unused_kwargs=True, **kwargs)
        if return_unused_kwargs:
            return config, unused
        for key in unused:
            raise ConfigError(f"{config_class.__name__} has no field {key!r}."
                              f"{did_you_mean(key, config_class.allowed_keys())}")
        return config

    @classmethod
    def _class_of_json(cls, config_dict, name, path, code):
        reference = remote_reference(config_dict.get("auto_map"), "AutoConfig")
        model_type = config_dict.get("model_type")
        if model_type is not None and not isinstance(model_type, str):
            raise ConfigError(f"{path}: model_type must be a string, but is {model_type!r}")
        if model_type and model_type not in CONFIG_MAPPING:
            load_registered_module(model_type)
        if reference and model_type not in CONFIG_MAPPING:
            return load_remote_class(code, reference, "AutoConfig")
        if model_type is None:
            model_type = model_type_of_name(name if is_remote(name) else os.path.dirname(os.path.abspath(path)))
        if model_type not in CONFIG_MAPPING:
            raise ConfigError(f"Unrecognized model in {name}: model_type {model_type!r} is not carried; known: "
                             f"{', '.join(CONFIG_MAPPING)}.{did_you_mean(model_type, CONFIG_MAPPING)} A model of your "
                             f"own is registered by {model_type}.py in the folder that --register_path or "
                             "REGISTER_PATH names")
        return CONFIG_MAPPING[model_type]

    @staticmethod
    def register(model_type, config, exist_ok=False):
        """Make `config` the class of `model_type`.

        Raises:
            ValueError: the class says another model type, or the type is taken.
        """
        if config.model_type != model_type:
            raise ValueError(f"{config.__name__}.model_type is {config.model_type!r}, but it is registered as "
                             f"{model_type!r}; make one of them match")
        CONFIG_MAPPING.register(model_type, config, exist_ok)

    @classmethod
    def get_support_list(cls):
        """Known names: the YAMLs found in configs/."""
        return known_names()

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("known configurations: %s", ", ".join(cls.get_support_list()))


def config_class_of(model_config, path="the configuration"):
    """Return the config class that ``model_config.type`` names in the registry."""
    kind = model_config.get("type")
    if kind is None:
        raise ConfigError(f"{path}: model.model_config has no type; write for example type: LlamaConfig")
    if isinstance(kind, type):
        return kind
    if model_config.get("auto_register"):
        MindFormerRegister.auto_register(model_config["auto_register"], MindFormerModuleType.CONFIG)
    return MindFormerRegister.get_cls(MindFormerModuleType.CONFIG, kind)
