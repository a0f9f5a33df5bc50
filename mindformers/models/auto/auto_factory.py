"""What every AutoModel class does: find the model class of a configuration, build it, load it."""
import copy
import os

from mindformers.models.auto.configuration_auto import AutoConfig, config_class_of
from mindformers.models.auto.remote_code import CodeSource, load_remote_class, remote_reference
from mindformers.models.config_keys import refuse_two_tokens
from mindformers.models.config_sources import find_config, model_config_dict
from mindformers.models.configuration_utils import PretrainedConfig, check_config
from mindformers.models.hub_sources import hub_options, local, pinned
from mindformers.pet.adapter_base import base_of_adapters
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister


class BaseAutoModel:
    """Not constructible; `from_config` builds, `from_pretrained` builds and loads.

    Subclasses set ``mapping``, a LazyMapping from config class name to model class.
    """

    mapping = None

    def __init__(self, *args, **kwargs):
        name = type(self).__name__
        raise EnvironmentError(f"{name} is not constructible; use {name}.from_pretrained(name_or_folder) or "
                               f"{name}.from_config(config)")

    @classmethod
    def model_class(cls, config):
        """The model class for a PretrainedConfig object: that of the mapping, or one of its kind in `architectures`.

        Raises:
            ValueError: no class of this kind for it.
        """
        name = type(config).__name__
        if name in cls.mapping:
            return cls.mapping[name]
        for architecture in config.architectures or ():
            if MindFormerRegister.is_exist(MindFormerModuleType.MODELS, architecture):
                named = MindFormerRegister.get_cls(MindFormerModuleType.MODELS, architecture)
                if issubclass(named, tuple(cls.mapping.values())):  # another head would answer something else
                    return named
        raise ValueError(f"Unrecognized configuration class {name} for {cls.__name__}; "
                         f"it works with {', '.join(cls.mapping) or 'no built-in family yet'}; "
                         f"add yours with {cls.__name__}.register")

    @classmethod
    def from_config(cls, config, **kwargs):
        """Build a model with random weights.

        Args:
            config: PretrainedConfig (the model gets a copy), MindFormerConfig or the path (or known name) of a YAML.
            **kwargs: fields that replace the config's.

        Raises:
            ValueError: anything else, or no class for it.
        """
        kwargs.pop("download_checkpoint", None)
        config = as_model_config(config, **kwargs)
        return cls.model_class(config)(config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_dir, *model_args, **kwargs):
        """Build the model of a folder, a YAML, a known name or a repository of a hub and load its weights.

        Of a folder of LoRA adapters, it is the base model that their adapter_config.json names, with the adapters.
        The name may be None when `config` and `state_dict` say everything.

        Keyword arguments: `models.pretrained_io.load`, and config fields, which replace the folder's:
        ``from_pretrained(folder, num_layers=2)``.

        Raises:
            TypeError: not a string, or an unknown keyword.
            ValueError: both `token` and `use_auth_token`.
            FileNotFoundError: no configuration or no weights.
            OSError: of a hub, see `hub.resolve`.
            CheckpointMismatchError: weights that do not fit.
        """
        name = pretrained_model_name_or_dir
        complete = kwargs.get("config") is not None and kwargs.get("state_dict") is not None
        if not isinstance(name, (str, os.PathLike)) and not (name is None and complete):
            raise TypeError(f"pretrained_model_name_or_dir should be a str, but got {type(name).__name__}")
        refuse_two_tokens(kwargs)
        base = None if name is None else base_of_adapters(name)
        if base is not None:
            return cls.from_pretrained(base, *model_args, **kwargs).load_adapter(name)
        config = kwargs.get("config")
        trust, subfolder = bool(kwargs.get("trust_remote_code")), kwargs.get("subfolder") or ""
        if config is None:
            folder = local(name, "config", kwargs, subfolder=subfolder)
            kwargs = pinned(kwargs, folder) if folder is not name else kwargs
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust, subfolder=subfolder,
                                                **hub_options(kwargs))
        elif isinstance(config, (str, os.PathLike)):
            config = AutoConfig.from_pretrained(config, trust_remote_code=trust, **hub_options(kwargs))
        else:
            check_config(config)
        remote = cls._remote_class(config, name, kwargs)
        model_class = remote or cls.model_class(config)
        return model_class.from_pretrained(name, *model_args, **kwargs)

    @classmethod
    def _remote_class(cls, config, name, kwargs):
        """The class that a folder's ``auto_map`` names, when no built-in class fits and code is trusted."""
        reference = remote_reference(getattr(config, "auto_map", None), cls.__name__)
        if not reference or name is None or type(config).__name__ in cls.mapping:
            return None
        subfolder = kwargs.get("subfolder") or ""
        folder = os.path.join(local(name, "config", kwargs, subfolder=subfolder), subfolder)
        code = CodeSource(name, os.path.dirname(find_config(folder)), kwargs.get("trust_remote_code"),
                          hub_options(kwargs), subfolder)
        return load_remote_class(code, reference, cls.__name__)

    @classmethod
    def register(cls, config_class, model_class, exist_ok=False):
        """Add the pair (config class, model class).

        Raises:
            ValueError: the model class names another config class, or the config class is taken.
        """
        own = getattr(model_class, "config_class", None)
        if own is not None and own is not config_class:
            raise ValueError(f"{model_class.__name__}.config_class is {own.__name__}, but it is registered for "
                             f"{config_class.__name__}; make one of them match")
        cls.mapping.register(config_class.__name__, model_class, exist_ok)

    @classmethod
    def get_support_list(cls):
        """Known names: the YAMLs found in configs/."""
        return AutoConfig.get_support_list()

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("%s: %s", cls.__name__, ", ".join(cls.get_support_list()))


def as_model_config(config, **overrides):
    """Return a new PretrainedConfig with `overrides` applied, from an object, a MindFormerConfig, a path or a name.

    Raises:
        ValueError: anything else.
    """
    if isinstance(config, PretrainedConfig):
        return type(config).from_dict(config.to_dict(), **overrides) if overrides else copy.deepcopy(config)
    if isinstance(config, (str, os.PathLike)):
        return AutoConfig.from_pretrained(config, **overrides)
    if isinstance(config, dict):
        section = config if isinstance(config, MindFormerConfig) else MindFormerConfig(**config)
        fields = model_config_dict(section)
        return config_class_of(fields).from_dict(fields, **overrides)
    raise ValueError(f"config must be a PretrainedConfig, a MindFormerConfig or the path of a YAML, "
                     f"but got {type(config).__name__}")


def not_carried(name, families):
    """An auto class without a family: every use of it says so."""
    message = f"{name}: no family with this head is carried yet ({families}); AutoModelForCausalLM and " \
              f"AutoModelForSequenceClassification work"

    def refuse(cls, *args, **kwargs):
        raise UnsupportedError(message)

    return type(name, (BaseAutoModel,), {"__doc__": message, "__init__": refuse, "mapping": None,
                                         "from_config": classmethod(refuse), "from_pretrained": classmethod(refuse)})
