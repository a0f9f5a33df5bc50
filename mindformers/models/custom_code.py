"""A user's own classes travel with their model folder: the code is copied beside it, and `auto_map` names it.

`AutoConfig`, `AutoModel...`, `AutoTokenizer` and `AutoProcessor` run such code with ``trust_remote_code=True`` only.
"""
import ast
import inspect
import os
from pathlib import Path

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
    """Copy the source file of class `cls`, and those of its folder that it imports, into `folder`.

    Returns:
        str, "file.Class": the reference of an `auto_map`.

    Raises:
        ConfigError: the class has no source file (a notebook, a prompt), or a relative import leads out of its folder.
    """
    module = inspect.getmodule(cls)
    path = None if module is None or module.__name__ == "__main__" else inspect.getsourcefile(cls)
    if path is None or not os.path.isfile(path):
        raise ConfigError(f"{cls.__name__} cannot be saved with its code: it is not defined in a module file. Write it "
                          "into one and import it")
    name = os.path.splitext(os.path.basename(path))[0]
    beside = Path(path).parent
    for source in code_files(name, lambda one: beside / f"{one}.py").values():
        target = os.path.join(folder, source.name)
        if os.path.realpath(target) != os.path.realpath(source):
            with atomic_write(target) as temporary:
                temporary.write_bytes(source.read_bytes())
    return f"{name}.{cls.__name__}"


def code_files(first, find):
    """Return ``{module name: Path}`` of a module and what it imports from its own folder, directly or not.

    Args:
        first (str): name of the module.
        find (Callable): module name -> Path of its file; raises what fits.

    Raises:
        FileNotFoundError: a file that is imported but not there.
        ConfigError: an import of another folder, or a file that is no Python.
    """
    found, waiting = {}, [first]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = path = find(name)
        if not path.is_file():
            raise FileNotFoundError(f"the code of {first}.py needs {path}, which is not a file of that folder")
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        except (SyntaxError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(f"{path} is no Python that can be read: {error}") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                waiting += _neighbours(node, path)
    return found


def _neighbours(node, path):
    """Names of the files that a relative import needs."""
    if node.level > 1 or node.module and "." in node.module:
        raise ConfigError(f"{path}:{node.lineno}: only files of the same folder travel with a class: "
                          "from .file import name")
    return [node.module] if node.module else [alias.name for alias in node.names]
