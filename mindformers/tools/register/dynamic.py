"""The user's own modules in the folder REGISTER_PATH: ``auto_register: module.Class`` of a YAML, and model types."""
import importlib.util
import os
import sys

from mindformers.tools.env import get_env
from mindformers.tools.errors import did_you_mean


def load_registered_class(class_reference):
    """Import ``"module_file.ClassName"`` from the folder REGISTER_PATH and return the class.

    The folder is appended to the module search path, so that its modules may import each other.

    Raises:
        ValueError: not of the form "module.Class", or the module has no such class.
        EnvironmentError: REGISTER_PATH is not set, or names no folder.
        FileNotFoundError: no such module in the folder.
    """
    parts = class_reference.split(".") if isinstance(class_reference, str) else []
    if len(parts) != 2 or not all(part.isidentifier() for part in parts):
        raise ValueError(f"auto_register must be 'module_file.ClassName', but got {class_reference!r}")
    module_name, class_name = parts
    folder = get_env("REGISTER_PATH")
    if not os.path.isdir(folder):
        raise EnvironmentError(f"auto_register {class_reference!r} needs the folder of your modules: give "
                               f"--register_path (REGISTER_PATH is {folder!r})")
    module = _load_module(module_name, os.path.abspath(folder))
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(f"{module.__file__} has no class {class_name!r}.{did_you_mean(class_name, classes)}")
    return found


def load_registered_module(name):
    """Import `name`.py of the folder REGISTER_PATH, which registers its classes itself; returns whether it is there."""
    folder = get_env("REGISTER_PATH")
    if not (folder and name.isidentifier() and os.path.isfile(os.path.join(folder, f"{name}.py"))):
        return False
    _load_module(name, os.path.abspath(folder))
    return True


def _load_module(name, folder):
    path = os.path.join(folder, f"{name}.py")
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == path:
        return loaded
    if not os.path.isfile(path):
        names = [file[:-3] for file in os.listdir(folder) if file.endswith(".py")]
        raise FileNotFoundError(f"no module {name!r} in {folder}.{did_you_mean(name, names)}")
    if loaded is not None:
        raise ValueError(f"auto_register: {name!r} is the name of another module ({loaded.__name__}); rename {path}")
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
