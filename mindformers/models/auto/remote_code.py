"""Classes from the code of a model folder or repository: imported only with ``trust_remote_code=True``."""
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mindformers.hub import parse, resolve
from mindformers.models.custom_code import code_files
from mindformers.models.hub_sources import hub_options, is_remote
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger


@dataclass
class CodeSource:
    """Where the code beside a configuration is.

    Args:
        name (str | PathLike): what the user gave: a folder, a file, or a repository.
        folder (str): the local folder of the configuration.
        trust (bool | None): `trust_remote_code` of the user.
        options (dict): arguments of the hubs; `code_revision` is the revision of the code.
        subfolder (str): folder of the repository. Default: "".
    """

    name: object
    folder: str
    trust: object = None
    options: dict = field(default_factory=dict)
    subfolder: str = ""


def remote_reference(auto_map, auto_class):
    """Return the "file.Class" of `auto_class` in the ``auto_map`` of a configuration, or None.

    Raises:
        ConfigError: no dict, or no text for the class.
    """
    if not auto_map:
        return None
    if not isinstance(auto_map, dict):
        raise ConfigError(f"auto_map must map names of auto classes to 'file.Class', but is {auto_map!r}; correct or "
                          "remove it in the file")
    reference = auto_map.get(auto_class)
    if reference is not None and not isinstance(reference, str):
        raise ConfigError(f"auto_map.{auto_class} must be a text 'file.Class', but is {reference!r}; correct or remove "
                          "it in the file")
    return reference


def load_remote_class(code, reference, auto_class):
    """Return the class that ``auto_map[auto_class]`` names as "file.Class", or "repository--file.Class".

    Nothing is fetched or run before `trust` is known to be True; the log names the files that are run. Relative
    imports between files of one folder work. Saving an object of the class copies the code again.

    Raises:
        ValueError: `trust` is not True, or the reference is neither form.
        FileNotFoundError: the folder has no such file, or no file that it imports.
        ConfigError: a file that leads out of the folder, or the class is not in it.
        OSError: of a hub.
    """
    repository, _, local_part = reference.rpartition("--")
    module_name, _, class_name = local_part.rpartition(".")
    if not module_name.isidentifier() or not class_name.isidentifier() or repository and parse(repository) is None:
        raise ValueError(f"auto_map {reference!r} must be 'file.Class' or 'owner/name--file.Class'")
    if code.trust is not True:
        where = f"the repository {repository}" if repository else os.fspath(code.name)
        raise ValueError(f"{os.fspath(code.name)} needs the code of {module_name}.py in {where} to be run; read it, "
                         "then pass trust_remote_code=True (and code_revision= of the commit that was read)")
    folder = Path(_code_folder(code, repository))
    sources = code_files(module_name, lambda name: _inside(folder, name))
    logger.warning("running code from %s: %s (trust_remote_code=True)", folder,
                   ", ".join(f"{name}.py" for name in sources))
    module = _import(folder, module_name, sources)
    remote = getattr(module, class_name, None)
    if not isinstance(remote, type):
        raise ConfigError(f"auto_map names {reference!r}, but {folder / module_name}.py has no class {class_name}")
    remote.register_for_auto_class(auto_class)
    return remote


def _code_folder(code, repository):
    """The local folder of the code, fetched when it is in a repository."""
    options = hub_options(code.options)
    revision = options.pop("code_revision", None)
    if repository:
        if revision is None:
            logger.warning("the code of %s is not pinned: give code_revision= of a commit", repository)
        return resolve(repository, kind="code", **{**options, "revision": revision})
    if not is_remote(code.name):
        return code.folder
    if revision is not None:
        options["revision"] = revision
    return os.path.join(resolve(code.name, kind="code", subfolder=code.subfolder, **options), code.subfolder)


def _inside(folder, name):
    """The file of a module, which may be a link only into the blobs of the same repository in a hub's cache."""
    path = folder / f"{name}.py"
    real, root = path.resolve(), folder.resolve()
    cache = next((parent.parent for parent in [root, *root.parents] if parent.name == "snapshots"), None)
    if not real.is_relative_to(root) and not (cache is not None and real.is_relative_to(cache / "blobs")):
        raise ConfigError(f"{path} is a link to {real} outside its folder; put the file itself there")
    return path


def _import(folder, module_name, sources):
    """Import a module of `folder` as part of a package of its own, from source alone.

    Modules that are imported already stay, so that all classes of a folder know each other, unless a file changed.
    """
    package = "mindformers_remote_" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    contents = {name: path.read_bytes() for name, path in sources.items()}
    known = _FINDER.contents.setdefault(package, {})
    if any(known.get(name, content) != content for name, content in contents.items()):
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
        known.clear()
    known.update(contents)
    _FINDER.paths.update({f"{package}.{name}": str(path) for name, path in sources.items()})
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)
    return importlib.import_module(f"{package}.{module_name}")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of packages of remote code: those that were looked through, and no others."""

    def __init__(self):
        self.contents, self.paths = {}, {}  # package -> {module: bytes}; full name -> file

    def find_spec(self, fullname, path=None, target=None):
        """The spec of a module of a package, None for any other."""
        if fullname in self.contents:
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        if fullname not in self.paths:
            return None
        source = self.paths[fullname]
        return importlib.util.spec_from_file_location(fullname, source, loader=_SourceLoader(fullname, source))


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Runs the source: compiled files beside it may say something else, and none are written."""

    def get_code(self, fullname):
        """Compile the file."""
        return self.source_to_code(self.get_data(self.path), self.path)


_FINDER = _Finder()
