"""Components named by `type:`: is the name known, and what does its constructor take, read without importing it."""
import ast
import functools
from pathlib import Path

from mindformers.tools.errors import did_you_mean
from mindformers.tools.register.catalog import CATALOG
from mindformers.tools.register.register import MindFormerRegister

_ROOT = Path(__file__).resolve().parents[3]


def check_type(report, values, shelf, path):
    """Check `values["type"]` on a registry shelf.

    Returns:
        set | None: parameter names of the constructor; None when they are not known (any key may follow).
    """
    name = values.get("type")
    if name is None or name == "":
        if values:
            report.fault(path + ("type",), "is missing: it names the class to build. Known: "
                         + ", ".join(MindFormerRegister.names(shelf)))
        return None
    if not isinstance(name, str):
        return None
    if values.get("auto_register"):
        return None
    if not MindFormerRegister.is_exist(shelf, name):
        names = MindFormerRegister.names(shelf)
        report.refuse(path + ("type",), f"no {shelf.removesuffix('s')} is called {name!r}."
                     + (did_you_mean(name, names) or f" Known: {', '.join(names) or 'none'}."))
        return None
    return constructor_keys(shelf, name)


def constructor_keys(shelf, name):
    """Return the parameter names of the class `name` of a registry shelf, or None when any may follow."""
    if not isinstance(name, str):
        return None
    registered = MindFormerRegister.registry.get(shelf, {}).get(name)
    path = CATALOG.get(shelf, {}).get(name)
    if registered is not None:
        path = f"{registered.__module__}:{registered.__qualname__}"
    return _parameters(path) if path and path.startswith("mindformers.") else None


@functools.lru_cache(maxsize=None)
def _parameters(class_path):
    """Return the constructor's parameters of "package.module:Name", following base classes of our own modules."""
    module, _, name = class_path.partition(":")
    tree = _parse(module)
    if tree is None:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _names_of(node, skip_first=False)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class_parameters(node, tree)
    imported = _imported_from(tree, name)
    return _parameters(imported) if imported else None


def _class_parameters(node, tree):
    constructors = [item for item in node.body if isinstance(item, ast.FunctionDef)
                    and item.name in ("__init__", "__new__")]
    if constructors:
        return _names_of(constructors[-1], skip_first=True)
    if any(isinstance(item, ast.Name) and item.id == "dataclass" or
           isinstance(item, ast.Call) and getattr(item.func, "id", "") == "dataclass" for item in node.decorator_list):
        return {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
    for base in node.bases:
        if not isinstance(base, ast.Name):
            return None
        local = next((item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == base.id), None)
        if local is not None:
            return _class_parameters(local, tree)
        imported = _imported_from(tree, base.id)
        return _parameters(imported) if imported else None
    return set()


def _names_of(function, skip_first):
    """Return the parameter names of a function node, None when it takes **kwargs."""
    if function.args.kwarg is not None:
        return None
    names = [item.arg for item in (*function.args.posonlyargs, *function.args.args)]
    return {*(names[1:] if skip_first else names), *(item.arg for item in function.args.kwonlyargs)}


def _imported_from(tree, name):
    """Return "module:Name" when the module imports `name` from one of ours, else None."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mindformers."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{node.module}:{alias.name}"
    return None


@functools.lru_cache(maxsize=None)
def _parse(module):
    """Return the syntax tree of one of our modules, None when it has no source here."""
    base = _ROOT.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None
