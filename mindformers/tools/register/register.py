"""The registry: ``(module type, name) -> class``, filled lazily from the table of strings in `catalog`."""
import importlib
import inspect

from mindformers.tools.errors import did_you_mean
from mindformers.tools.register.catalog import CATALOG


class MindFormerModuleType:
    """Names of the registry's shelves, as YAML and `MindFormerRegister` use them."""

    TRAINER = "trainer"
    PIPELINE = "pipeline"
    PROCESSOR = "processor"
    TOKENIZER = "tokenizer"
    DATASET = "dataset"
    MASK_POLICY = "mask_policy"
    DATASET_LOADER = "dataset_loader"
    DATASET_SAMPLER = "dataset_sampler"
    TRANSFORMS = "transforms"
    ENCODER = "encoder"
    MODELS = "models"
    MODULES = "modules"
    TRANSFORMER = "transformer"
    BASE_LAYER = "base_layer"
    CORE = "core"
    HEAD = "head"
    LOSS = "loss"
    LR = "lr"
    OPTIMIZER = "optimizer"
    CONTEXT = "context"
    CALLBACK = "callback"
    WRAPPER = "wrapper"
    METRIC = "metric"
    CONFIG = "config"
    TOOLS = "tools"
    FEATURE_EXTRACTOR = "feature_extractor"
    DATA_HANDLER = "data_handler"
    PET = "pet"


class MindFormerRegister:
    """Class registry with lazy built-ins.

    Built-in classes are named in `catalog.CATALOG` and imported on first use; user classes are added with
    `register` or `register_cls`. Two different classes under one name are an error.
    """

    registry = {}

    @classmethod
    def register(cls, module_type=MindFormerModuleType.TOOLS, alias=None):
        """Decorator that registers a class under `alias` or its own name."""

        def wrapper(register_class):
            return cls.register_cls(register_class, module_type, alias)

        return wrapper

    @classmethod
    def register_cls(cls, register_class, module_type=MindFormerModuleType.TOOLS, alias=None):
        """Register `register_class` and return it.

        Raises:
            ValueError: another class already holds the name.
        """
        name = alias or register_class.__name__
        shelf = cls.registry.setdefault(module_type, {})
        path = f"{register_class.__module__}:{register_class.__qualname__}"
        held = shelf.get(name) or CATALOG.get(module_type, {}).get(name)
        held_path = held if isinstance(held, (str, type(None))) else f"{held.__module__}:{held.__qualname__}"
        if held_path is not None and held_path != path:
            raise ValueError(f"{module_type} name {name!r} is taken by {held_path}; "
                             f"register {path} under another alias")
        shelf[name] = register_class
        return register_class

    @classmethod
    def names(cls, module_type):
        """Return the sorted names of one shelf, built-in and registered."""
        return sorted({*CATALOG.get(module_type, {}), *cls.registry.get(module_type, {})})

    @classmethod
    def is_exist(cls, module_type, class_name=None):
        """Whether the shelf exists (no `class_name`) or holds `class_name`."""
        if class_name is None:
            return module_type in CATALOG or module_type in cls.registry
        return class_name in cls.names(module_type)

    @classmethod
    def get_cls(cls, module_type, class_name=None):
        """Return the class registered as `class_name` on shelf `module_type`.

        Raises:
            ValueError: no such shelf or name; the message names the nearest ones.
        """
        if not cls.is_exist(module_type):
            shelves = {*CATALOG, *cls.registry}
            raise ValueError(f"Can't find class type {module_type!r} in class registry."
                             f"{did_you_mean(module_type, shelves)}")
        found = cls.registry.get(module_type, {}).get(class_name)
        if found is None and class_name in CATALOG.get(module_type, {}):
            found = load_object(CATALOG[module_type][class_name])
            cls.registry.setdefault(module_type, {})[class_name] = found
        if found is None:
            names = cls.names(module_type)
            raise ValueError(f"Can't find class type {module_type} class name {class_name} in class registry."
                             f"{did_you_mean(class_name, names) or ' Known: ' + ', '.join(names) + '.'}")
        return found

    @classmethod
    def get_instance_from_cfg(cls, cfg, module_type=MindFormerModuleType.TOOLS, default_args=None):
        """Build the class named by ``cfg['type']`` with the other keys of `cfg` as keyword arguments.

        `cfg` is left as it was. Keys of `default_args` win over keys of `cfg` (MindFormers' rule).

        Raises:
            TypeError: `cfg` or `default_args` is not a dict.
            KeyError: `cfg` has no `type`.
            ValueError: `type` is neither a string nor a class, or is not registered.
        """
        if not isinstance(cfg, dict):
            raise TypeError(f"Cfg must be a dict, but got {type(cfg).__name__}")
        if "type" not in cfg:
            raise KeyError(f"`cfg` or `default_args` must contain the key `type`, but got {sorted(cfg)}")
        if not isinstance(default_args, (dict, type(None))):
            raise TypeError(f"default_args must be a dict or None, but got {type(default_args).__name__}")
        args = dict(cfg)
        if args.pop("auto_register", None) is not None:
            cls.auto_register(cfg["auto_register"], module_type)
        args.update(default_args or {})
        kind = args.pop("type")
        if isinstance(kind, str):
            kind = cls.get_cls(module_type, kind)
        elif not inspect.isclass(kind):
            raise ValueError(f"`type` must be a string or a class, but got {kind!r}")
        return kind(**args)

    @classmethod
    def get_instance(cls, module_type=MindFormerModuleType.TOOLS, class_name=None, **kwargs):
        """Build the class `class_name` of shelf `module_type` with `kwargs`."""
        if class_name is None:
            raise ValueError("Class name cannot be None.")
        return cls.get_cls(module_type, class_name)(**kwargs)

    @classmethod
    def auto_register(cls, class_reference, module_type):
        """Import ``"module_file.ClassName"`` from the folder REGISTER_PATH and register the class.

        The folder is named by the user (``--register_path``); nothing is imported from anywhere else.

        Raises:
            ValueError: `class_reference` is not "module.Class".
            EnvironmentError: REGISTER_PATH is not set.
        """
        from mindformers.tools.register.dynamic import load_registered_class
        return cls.register_cls(load_registered_class(class_reference), module_type)


def load_object(path):
    """Import and return the object at ``"package.module:Name"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
