"""Classes from the code of a model folder: imported only with ``trust_remote_code=True``."""
import importlib.util
import os
import sys

from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger


def load_remote_class(folder, reference, trust_remote_code, auto_class):
    """Return the class that ``auto_map[auto_class]`` names as "file.Class" in `folder`.

    Saving an object of the class copies the code again (`register_for_auto_class`).

    Raises:
        ValueError: `trust_remote_code` is not True, or the reference is not "file.Class".
        UnsupportedError: code of another repository ("repo--file.Class").
        FileNotFoundError: the folder has no such file.
    """
    if "--" in reference:
        raise UnsupportedError(f"auto_map {reference!r} names code of another repository; copy it into {folder}")
    module_name, _, class_name = reference.rpartition(".")
    if not module_name.isidentifier() or not class_name.isidentifier():
        raise ValueError(f"auto_map {reference!r} must be 'file.Class'")
    path = os.path.join(folder, module_name + ".py")
    if trust_remote_code is not True:
        raise ValueError(f"{folder} needs the code in {path} to be run; read it, then pass trust_remote_code=True")
    if not os.path.isfile(path) or os.path.islink(path):
        raise FileNotFoundError(f"auto_map names {reference!r}, but {path} is not a file of that folder")
    logger.warning("running code from %s (trust_remote_code=True)", path)
    unique = f"mindformers_remote_{abs(hash(os.path.realpath(path)))}_{module_name}"
    spec = importlib.util.spec_from_file_location(unique, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    remote = getattr(module, class_name)
    remote.register_for_auto_class(auto_class)
    return remote
