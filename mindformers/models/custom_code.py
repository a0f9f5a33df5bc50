"""A user's own classes travel with their model folder: the code is copied beside it, and `auto_map` names it.

`AutoConfig`, `AutoModel...`, `AutoTokenizer` and `AutoProcessor` run such code with ``trust_remote_code=True`` only.
"""
import ast
import inspect
import os

from mindformers.tools.errors import ConfigError
from mindformers.tools.utils import atomic_write


def check_auto_class(auto_class, wanted):
    """Return the name of `auto_class` (a name or class).

    Raises:
        ValueError: it is not `wanted`.
    """
    name = auto_class if isinstance(auto_class, str) else getattr(auto_class, "__name__", repr(auto_class))
    if name != wanted:
        raise ValueError(f"{name!r} is not a valid auto class here; use {wanted!r}")
    return name


def save_code(cls, folder):
    """Copy the source file of class `cls` into `folder`; returns "file.Class", the reference of an `auto_map`.

    Raises:
        ConfigError: the class has no source file (a notebook, a prompt), or the file imports its neighbours, which
            would be missing.
    """
    module = inspect.getmodule(cls)
    path = None if module is None or module.__name__ == "__main__" else inspect.getsourcefile(cls)
    if path is None or not os.path.isfile(path):
        raise ConfigError(f"{cls.__name__} cannot be saved with its code: it is not defined in a module file. Write it "
                          "into one and import it")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ConfigError(f"{path}:{node.lineno}: a relative import cannot be saved with {cls.__name__}; put "
                              "everything the class needs into one file")
    name = os.path.splitext(os.path.basename(path))[0]
    target = os.path.join(folder, f"{name}.py")
    if os.path.realpath(target) != os.path.realpath(path):
        with atomic_write(target) as temporary:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text)
    return f"{name}.{cls.__name__}"
