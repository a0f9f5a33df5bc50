"""PretrainedConfig: the fields of a model, read from and written to YAML and config.json."""
import contextlib
import copy
import json
import os

from mindformers.generation.generation_config import known_names
from mindformers.hub import PushToHubMixin
from mindformers.hub.upload import check_push_options, uploading
from mindformers.models.config_keys import check_extra_keys, take_hub_keys
from mindformers.models.config_sources import find_config, read_yaml_model_config
from mindformers.models.custom_code import check_auto_class, save_code
from mindformers.models.hub_sources import local
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write, make_folder

CONFIG_NAME = "config.json"


class _NoSuchField(AttributeError):
    """Looks for the nearest name only when it is shown: `getattr` with a default asks for many fields in vain."""

    def __str__(self):
        owner, key, fields = self.args
        known = [name for name in fields if not name.startswith("_")]
        return f"{owner} has no field {key!r}.{did_you_mean(key, known)}"


class PretrainedConfig(PushToHubMixin):
    """Base of every model configuration.

    Subclasses name their fields in `__init__`; `attribute_map` translates other spellings (``{"num_hidden_layers":
    "num_layers"}``) for construction, reading and writing. Keys that are no field are kept as attributes, are written
    back, and are listed in `extra_keys`; one that is a letter or two off a field is refused.

    Args:
        name_or_path (str): where the config came from. Default: "".
        checkpoint_name_or_path (str | None): weights that belong to it. Default: None.
        architectures (list[str] | None): class names of the model. Default: None.
        tokenizer_class (str | None): class name of its tokenizer. Default: None.
        is_encoder_decoder (bool | None): kept for compatibility. Default: None.
        **kwargs: anything else becomes an attribute.

    Raises:
        ConfigError: a key that looks like a misspelt field; the message names the field.
    """

    model_type = ""
    is_composition = False
    attribute_map = {}
    ignored_keys = {}  # field -> why it has no effect here

    _auto_class = None
    _support_list = ()

    def __init__(self, **kwargs):
        self.name_or_path = str(kwargs.pop("name_or_path", None) or "")
        self.checkpoint_name_or_path = kwargs.pop("checkpoint_name_or_path", None)
        self.architectures = kwargs.pop("architectures", None)
        self.tokenizer_class = kwargs.pop("tokenizer_class", None)
        self.is_encoder_decoder = kwargs.pop("is_encoder_decoder", None)
        self.is_sample_acceleration = kwargs.pop("is_sample_acceleration", None)
        for bookkeeping in ("mindformers_version", "transformers_version", "model_type", "type", "auto_register",
                            "_commit_hash"):
            kwargs.pop(bookkeeping, None)
        fields = {*type(self).field_names(), *self.attribute_map}
        self.extra_keys = [key for key in kwargs if key not in fields]
        check_extra_keys(type(self).__name__, self.extra_keys, type(self).allowed_keys())
        for key, value in kwargs.items():
            setattr(self, key, value)

    def __setattr__(self, key, value):
        super().__setattr__(self.attribute_map.get(key, key), value)

    def __getattr__(self, key):
        # only called when normal lookup failed: a translated spelling, or a miss
        target = type(self).attribute_map.get(key)
        if target is None:
            raise _NoSuchField(type(self).__name__, key, self.__dict__)
        return getattr(self, target)

    def __eq__(self, other):
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__} {self.to_json_string()}"

    # -- what the class knows -------------------------------------------------------------------------------------

    @classmethod
    def field_names(cls):
        """Names of the fields, own and inherited, in the class' own dialect: the arguments of all constructors."""
        codes = [kind.__init__.__code__ for kind in cls.__mro__
                 if issubclass(kind, PretrainedConfig) and "__init__" in vars(kind)]
        named = dict.fromkeys(name for code in codes
                              for name in code.co_varnames[1:code.co_argcount + code.co_kwonlyargcount])
        base = ("checkpoint_name_or_path", "architectures", "tokenizer_class", "is_encoder_decoder",
                "is_sample_acceleration", "name_or_path")
        return (*named, *base)

    @classmethod
    def allowed_keys(cls):
        """Every key that a YAML's ``model_config`` may hold for this class, in any spelling.

        These are the fields, and the settings of generation, which `generate` takes from a model's config.
        """
        return {*cls.field_names(), *cls.attribute_map, *known_names()}

    # -- reading --------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, config_dict, return_unused_kwargs=False, **kwargs):
        """Build from a dict in either dialect; `kwargs` win over it.

        Returns:
            The config; with `return_unused_kwargs` (config, kwargs that are no fields).

        Raises:
            ConfigError: kwargs that are no fields, without `return_unused_kwargs`; a fault of the values.
        """
        values = cls.read_dialect(dict(config_dict))
        known = cls.allowed_keys() | set(values)
        unused = {key: kwargs.pop(key) for key in list(kwargs) if key not in known}
        for key in () if return_unused_kwargs else unused:
            raise ConfigError(f"{cls.__name__} has no field {key!r}.{did_you_mean(key, cls.allowed_keys())}")
        cls.override(values, cls.translate(kwargs))
        config = cls(**values)
        return (config, unused) if return_unused_kwargs else config

    @classmethod
    def override(cls, values, given):
        """Put the fields `given` by a caller over `values` of a file, in place."""
        values.update(given)

    @classmethod
    def translate(cls, values):
        """Return `values` in the class' own field names."""
        return {cls.attribute_map.get(key, key): value for key, value in values.items()}

    @classmethod
    def read_dialect(cls, config_dict):
        """Return a stored config in the class' own names; subclasses apply a foreign dialect's defaults here."""
        return cls.translate(config_dict)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Return (dict as stored, unused kwargs) of a folder, a config.json, a YAML, a known name or a repository."""
        options, subfolder = take_hub_keys(kwargs), kwargs.pop("subfolder", None) or ""
        folder = local(pretrained_model_name_or_path, "config", options, subfolder=subfolder)
        source = find_config(os.path.join(folder, subfolder) if subfolder else folder)
        if source.endswith(".json"):
            return cls.read_json(source), kwargs
        return read_yaml_model_config(source), kwargs

    @classmethod
    def from_pretrained(cls, yaml_name_or_path, return_unused_kwargs=False, **kwargs):
        """Read the config of a folder, a config.json, a YAML, a known name or a repository of a hub.

        `kwargs` update its fields; `subfolder` and the arguments of the hubs (`revision`, `token`, `cache_dir`, ...)
        say where a repository's file is, see `hub.resolve`.

        Raises:
            FileNotFoundError: nothing is there; the message says what was looked for.
            ConfigError: the file is not a configuration, or belongs to another model type; `kwargs` that are no fields,
                without `return_unused_kwargs`.
            ValueError: both `token` and `use_auth_token`.
        """
        config_dict, kwargs = cls.get_config_dict(yaml_name_or_path, **kwargs)
        found = config_dict.get("model_type")
        if cls.model_type and found and found not in (cls.model_type, *cls.model_types()):
            raise ConfigError(f"{yaml_name_or_path} holds a {found!r} model, but {cls.__name__} reads "
                              f"{' or '.join(map(repr, cls.model_types()))}; use AutoConfig.from_pretrained")
        config_dict.setdefault("name_or_path", str(yaml_name_or_path))
        return cls.from_dict(config_dict, return_unused_kwargs, **kwargs)

    @classmethod
    def model_types(cls):
        """Spellings of `model_type` in files that this class reads."""
        return (cls.model_type,)

    @classmethod
    def from_json_file(cls, json_file):
        """Read a config.json."""
        return cls.from_dict(cls.read_json(json_file))

    @staticmethod
    def read_json(path):
        """Return the object in the JSON file `path`; ConfigError when it is no JSON object."""
        try:
            with open(path, encoding="utf-8-sig") as file:  # some editors put a byte order mark in front
                data = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(data, dict):
            raise ConfigError(f"{path} must hold a JSON object, but holds {type(data).__name__}")
        return data

    # -- writing --------------------------------------------------------------------------------------------------

    def to_dict(self):
        """Return every field in the class' own names, plus `model_type`; nested configs become dicts."""
        out = {}
        for key, value in self.__dict__.items():
            if key.startswith("_") or key in ("extra_keys", "name_or_path"):
                continue
            out[key] = value.to_dict() if hasattr(value, "to_dict") else copy.deepcopy(value)
        out["model_type"] = self.model_type
        return out

    def to_diff_dict(self):
        """Return the fields that differ from the class' defaults, plus `model_type`."""
        default = type(self)().to_dict()
        return {key: value for key, value in self.to_dict().items()
                if key == "model_type" or key not in default or default[key] != value}

    def to_hf_dict(self):
        """Return the config.json that other suites read; the base class has no foreign dialect."""
        return self.to_dict()

    def file_model_type(self, published):
        """Return the `model_type` of config.json: `published`, or that of a subclass which has one of its own."""
        return published if self.model_type in type(self).model_types() else self.model_type

    def to_json_string(self, use_diff=True):
        """Return the fields as JSON, by default only those that differ from the defaults."""
        data = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(data, indent=2, sort_keys=True, default=str) + "\n"

    def to_json_file(self, json_file_path, use_diff=True):
        """Write `to_json_string` to a file."""
        with atomic_write(json_file_path) as temp:
            with open(temp, "w", encoding="utf-8") as file:
                file.write(self.to_json_string(use_diff))

    def save_pretrained(self, save_directory=None, save_name="mindspore_model", save_json=True, push_to_hub=False,
                        **kwargs):
        """Write ``config.json`` (Hugging Face names), or with ``save_json=False`` ``<save_name>.yaml`` (MindFormers').

        Args:
            save_directory (str | None): folder, made when missing. Default: "./checkpoint_save".
            save_name (str): stem of the YAML. Default: "mindspore_model".
            save_json (bool): which of the two. Default: True.
            push_to_hub (bool): upload what was written, in one commit. Default: False.
            **kwargs: where to, see `hub.upload.PUSH_OPTIONS`; `repo_id` defaults to the folder's name.

        Raises:
            TypeError: a name is not a string, or an unknown keyword.
            NotADirectoryError: `save_directory` is a file.
            OSError: of a hub, see `hub.resolve`.
        """
        from mindformers.tools.env import get_env
        check_push_options(kwargs)
        folder = get_env("CHECKPOINT_SAVE_FOLDER") if save_directory is None else save_directory
        if not isinstance(folder, (str, os.PathLike)) or not isinstance(save_name, str):
            raise TypeError(f"save_directory and save_name should be a str, but got {folder!r} and {save_name!r}")
        folder = make_folder(folder)
        with uploading(self, folder, kwargs) if push_to_hub else contextlib.nullcontext():
            return self._write(folder, save_name, save_json)

    def _write(self, folder, save_name, save_json):
        if save_json:
            data = self.to_hf_dict()
            if self._auto_class is not None:
                data["auto_map"] = {**(data.get("auto_map") or {}), self._auto_class: save_code(type(self), folder)}
            data = json.dumps(data, indent=2, default=str) + "\n"
            path = os.path.join(folder, CONFIG_NAME)
        else:
            data = self.to_yaml()
            path = os.path.join(folder, f"{save_name}.yaml")
        with atomic_write(path) as temp:
            with open(temp, "w", encoding="utf-8") as file:
                file.write(data)
        return path

    def to_yaml(self):
        """Return ``{model: {model_config, arch}}`` as a MindFormers YAML text."""
        import yaml
        arch = (self.architectures or [self.default_architecture()])[0]
        return yaml.safe_dump({"model": {"model_config": self.inverse_parse_config(), "arch": {"type": arch}}},
                              sort_keys=False)

    def inverse_parse_config(self):
        """Return ``model.model_config`` of a MindFormers YAML as plain values: `type`, and what is no default.

        The config stays as it is; `build_model_config` reads the dict back.
        """
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in self.to_diff_dict().items()
                  if key not in ("model_type", "architectures")}
        return {"type": type(self).__name__, **fields}

    def remove_type(self):
        """Drop the attribute `type`, which a YAML has beside the fields; a config made here never holds it."""
        self.__dict__.pop("type", None)

    @classmethod
    def default_architecture(cls):
        """Class name of the model that is built when a file names none."""
        return cls.__name__.replace("Config", "ForCausalLM")

    def update(self, config_dict):
        """Set the fields named in `config_dict`, in any spelling."""
        for key, value in config_dict.items():
            setattr(self, key, value)

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoConfig"):
        """Let `save_pretrained` copy the code of this class beside config.json, which then names it for `auto_class`.

        Raises:
            ValueError: another auto class than AutoConfig.
        """
        cls._auto_class = check_auto_class(auto_class, "AutoConfig")

    @classmethod
    def get_support_list(cls):
        """Names that `from_pretrained` knows for this class: the YAMLs found in configs/."""
        from mindformers.models.config_sources import known_names
        return known_names(cls.__name__)

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("%s: %s", cls.__name__, ", ".join(cls.get_support_list()))


def check_config(config, wanted=None):
    """Raise ConfigError unless `config` is an object of the config class `wanted`; None takes those of all models."""
    wanted = wanted or PretrainedConfig
    if not isinstance(config, PretrainedConfig):
        raise ConfigError(f"config= must be a {wanted.__name__}, a path or a name, but is a {type(config).__name__}; "
                          f"make one of a dict with {wanted.__name__}.from_dict")
    if not isinstance(config, wanted):
        raise ConfigError(f"config= is a {type(config).__name__}, but this model has a {wanted.__name__}; give one of "
                          "these, or use AutoModel, which finds the model of a config")
