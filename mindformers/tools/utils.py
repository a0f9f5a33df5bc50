"""Small helpers every room uses: enumerations, lazy exports, value parsing, atomic files, paths, ranks."""
import contextlib
import importlib
import json
import math
import os
import re
import sys
import types
from enum import Enum
from pathlib import Path

from mindformers.tools.env import get_env, get_env_int, set_env
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.not_carried import refuse_name

MODE = {"GRAPH_MODE": 0, "PYNATIVE_MODE": 1, 0: 0, 1: 1}
PARALLEL_MODE = {"DATA_PARALLEL": 0, "SEMI_AUTO_PARALLEL": 1, "AUTO_PARALLEL": 2, "HYBRID_PARALLEL": 3,
                 "STAND_ALONE": "stand_alone", 0: "data_parallel", 1: "semi_auto_parallel", 2: "auto_parallel",
                 3: "hybrid_parallel"}


class ExplicitEnum(str, Enum):
    """A str enum whose miss lists the values and names the nearest."""

    @classmethod
    def _missing_(cls, value):
        values = [member.value for member in cls]
        raise ValueError(f"{value!r} is not a valid {cls.__name__}, please select one of {', '.join(values)}."
                         f"{did_you_mean(value, values)}")


def lazy_exports(module_name, table):
    """Return ``(__getattr__, __dir__, __all__)`` of a package whose names are imported on first use (PEP 562).

    Use: ``__getattr__, __dir__, __all__ = lazy_exports(__name__, {"Trainer": "mindformers.trainer.trainer:Trainer"})``.
    A name that is also a submodule (`mindformers.pipeline`) always yields what the table says, whichever is
    imported first.

    Args:
        module_name (str): ``__name__`` of the package.
        table (dict[str, str]): public name -> "package.module:Name", or "package.module" for the module itself.

    Raises (the returned ``__getattr__``):
        NotCarriedError: a name of MindFormers that is in no table; it names the nearest thing that works.
        AttributeError: any other name.
    """
    names = sorted(table)

    def module_getattr(name):
        if name not in table:
            refuse_name(name)
            raise AttributeError(f"module {module_name!r} has no attribute {name!r}.{did_you_mean(name, names)}")
        module, _, attribute = table[name].partition(":")
        value = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
        sys.modules[module_name].__dict__[name] = value
        return value

    def module_dir():
        return sorted({*sys.modules[module_name].__dict__, *names})

    clashes = {name for name in names if ":" in table[name] and name.islower()}
    if clashes:
        sys.modules[module_name].__class__ = _package_type(clashes)
    return module_getattr, module_dir, names


def _package_type(clashes):
    """A module type that does not let the import of submodule `x` replace the exported object `x`."""

    class LazyPackage(types.ModuleType):
        """Package with exported names that win over submodules of the same name."""

        def __setattr__(self, name, value):
            if not (name in clashes and isinstance(value, types.ModuleType)):
                super().__setattr__(name, value)

    return LazyPackage


def str2bool(value):
    """Return the bool that "true" / "false" (any case) or a bool means.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(value, bool):
        return value
    lowered = str(value).lower()
    if lowered not in ("true", "false"):
        raise ConfigError(f"{value!r} is not a bool: write True or False.{did_you_mean(value, ('True', 'False'))}")
    return lowered == "true"


def parse_value(text):
    """Return the int, float, bool or JSON value that `text` spells, else `text` itself.

    ``"1e3"`` is the int 1000 (an exponent without a decimal point whose value is whole), ``"1.0"`` a float.
    """
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        number = float(text)
        whole = math.isfinite(number) and number == int(number) and "." not in text
        return int(number) if whole else number
    with contextlib.suppress(ValueError):
        return json.loads(text)
    return text


@contextlib.contextmanager
def atomic_write(path):
    """Context manager that yields a temporary path beside `path`, renamed to `path` only when the body succeeds.

    The temporary name starts with a dot and keeps the suffix. On success the file is fsynced and replaces
    `path`; on any exception it is deleted and `path` is as it was.

    Args:
        path (str | Path): the file to write; its folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.tmp{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path, argument="save_directory"):
    """Return `path` as a string with ~ replaced, after making the folder.

    Raises:
        NotADirectoryError: it is a file, or lies below one; the message names `argument`.
    """
    folder = os.path.expanduser(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(f"{argument} {folder!r} is a file or lies below one; give a folder") from None
    return folder


def make_output_folder(folder):
    """Make a folder of a job's output, unless it is there, and return it.

    Raises:
        ConfigError: it cannot be made or written to; the message says why and names --output_dir.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "no permission to write, or a read-only file system"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise ConfigError(f"nothing can be written to {folder}: {reason}; name another folder with --output_dir "
                          "(output_dir)")
    return folder


def resolve_path(path, base_dir=None):
    """Return `path` as a Path, looking for a relative one in the working directory, then in `base_dir`.

    Nothing found: the path relative to the working directory, so that the error of the reader names it.
    """
    path = Path(path).expanduser()
    if path.is_absolute() or path.exists() or base_dir is None:
        return path
    beside = Path(base_dir) / path
    return beside if beside.exists() else path


def configs_dir():
    """Return the folder of the shipped YAML files: inside an installed package, else the `configs/` of the source."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def get_output_root_path():
    """Return the root of everything a job writes (``LOCAL_DEFAULT_PATH``, default ./output), absolute."""
    return os.path.abspath(os.path.expanduser(get_env("LOCAL_DEFAULT_PATH")))


def set_output_path(path):
    """Make `path` the output root of this process and its children; nothing is created.

    Raises:
        ValueError: `path` is empty or not a string.
        NotADirectoryError: it is a file.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ValueError(f"output path must be a non-empty string, but got {path!r}")
    if os.path.isfile(os.path.expanduser(path)):
        raise NotADirectoryError(f"output_dir {str(path)!r} is a file; give a folder")
    set_env("LOCAL_DEFAULT_PATH", os.path.abspath(os.path.expanduser(str(path))))


def get_output_subpath(sub_class, rank_id=0, append_rank=True):
    """Return (and create) ``<output root>/<sub_class>[/rank_<rank_id>]``."""
    folder = os.path.join(get_output_root_path(), sub_class)
    if append_rank:
        folder = os.path.join(folder, f"rank_{rank_id}")
    return make_output_folder(folder)


def get_log_path():
    """Return the folder of the log files: ``LOG_MF_PATH``, else ``<output root>/log``."""
    return get_env("LOG_MF_PATH") or os.path.join(get_output_root_path(), "log")


def _communication():
    """Return mindspore.communication when it is imported and initialised, else None (never imports it)."""
    communication = sys.modules.get("mindspore.communication")
    return communication if communication is not None and communication.GlobalComm.INITED else None


def get_real_rank():
    """Return the rank of this process: from the communication group when there is one, else ``RANK_ID``."""
    communication = _communication()
    return communication.get_rank() if communication else get_env_int("RANK_ID")


def get_real_group_size():
    """Return the number of processes: from the communication group when there is one, else ``RANK_SIZE``."""
    communication = _communication()
    return communication.get_group_size() if communication else get_env_int("RANK_SIZE")


def get_rank_info():
    """Return ``(rank, number of processes)``."""
    return get_real_rank(), get_real_group_size()


def is_main_rank():
    """Whether this process is rank 0."""
    return get_real_rank() == 0


def version_key(version):
    """Return the leading numbers of a version as a tuple: ``"2.10.0rc1" -> (2, 10, 0)``."""
    numbers = re.match(r"\d+(?:\.\d+)*", str(version))
    if numbers is None:
        raise ValueError(f"{version!r} is not a version")
    return tuple(int(part) for part in numbers.group().split("."))


def is_version_ge(current_version, base_version):
    """Whether `current_version` >= `base_version`, number by number (2.10 is later than 2.9)."""
    return version_key(current_version) >= version_key(base_version)


def is_version_le(current_version, base_version):
    """Whether `current_version` <= `base_version`, number by number."""
    return version_key(current_version) <= version_key(base_version)
