"""The log of the suite: the standard `logging`, console on stderr, files only when a job names a folder."""
import logging
import os
import sys
from logging.handlers import RotatingFileHandler

from mindformers.tools.env import get_env, get_env_int
from mindformers.tools.errors import ConfigError
from mindformers.tools.utils import make_output_folder

CONSOLE_FORMAT = "%(asctime)s - %(name)s[%(filepath)s:%(lineno)d] - %(levelname)s - %(message)s"
FILE_FORMAT = "[%(levelname)s] %(asctime)s [%(filepath)s:%(lineno)d] %(funcName)s: %(message)s"
MAX_REPEATS = 10
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _PathFilter(logging.Filter):
    """Adds `filepath` (path below the package's parent) to each record."""

    _root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep

    def filter(self, record):
        record.filepath = record.pathname.removeprefix(self._root)
        return True


class _RepeatFilter(logging.Filter):
    """Drops a message after it came MAX_REPEATS times in a row."""

    def __init__(self):
        super().__init__()
        self._last = None
        self._count = 0

    def filter(self, record):
        message = (record.levelno, record.getMessage())
        self._count = self._count + 1 if message == self._last else 1
        self._last = message
        return self._count <= MAX_REPEATS


class _ConsoleHandler(logging.StreamHandler):
    """Writes to whatever sys.stderr is at the time of the message."""

    def __init__(self):
        logging.Handler.__init__(self)

    @property
    def stream(self):
        """The current sys.stderr."""
        return sys.stderr


class _FileHandler(RotatingFileHandler):
    """Gives up with one line when its file cannot be written (disk full): the job goes on, the console has it all."""

    def handleError(self, record):
        """Called by `logging` for an error on the way; prints it, and takes the handler away."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self.setLevel(logging.CRITICAL + 1)
        print(f"log file {self.baseFilename} is given up: {error.strerror}", file=sys.stderr)


def _check_level(level):
    if str(level).upper() not in LEVELS:
        raise ConfigError(f"log level {level!r} is unknown; choose one of {', '.join(LEVELS)}")
    return str(level).upper()


def _rank_is_shown():
    """Whether this rank logs to the console: all ranks, or those listed in STDOUT_DEVICES."""
    listed = get_env("STDOUT_DEVICES").strip("()[] ")
    return not listed or str(get_env_int("RANK_ID")) in {item.strip() for item in listed.split(",")}


def get_logger(logger_name="mindformers", *, to_std=True, stdout_level=None, stdout_format="", file_save_dir="",
               append_rank_dir=True):
    """Return the logger `logger_name`, set up once.

    Args:
        logger_name (str): name. Default: "mindformers".
        to_std (bool): write to the console (stderr). Default: True.
        stdout_level (str): level of the console. Default: the variable MF_LOG_LEVEL, which is INFO when not set.
        stdout_format (str): format of the console; `%(filepath)s` is known. Default: CONSOLE_FORMAT.
        file_save_dir (str): write info.log and error.log there too. Default: no files.
        append_rank_dir (bool): put the files into ``rank_N`` below it. Default: True.

    Raises:
        ConfigError: an unknown level.
    """
    found = logging.getLogger(logger_name)
    if not found.handlers and to_std and _rank_is_shown():
        handler = _ConsoleHandler()
        handler.setFormatter(logging.Formatter(stdout_format or CONSOLE_FORMAT))
        handler.addFilter(_PathFilter())
        handler.addFilter(_RepeatFilter())
        handler.setLevel(_check_level(stdout_level or get_env("MF_LOG_LEVEL")))
        found.addHandler(handler)
    found.setLevel(logging.DEBUG)
    found.propagate = False
    if file_save_dir:
        set_log_dir(file_save_dir, logger_name, append_rank_dir)
    return found


def set_log_dir(path, logger_name="mindformers", append_rank_dir=True):
    """Write info.log (INFO and above) and error.log (ERROR and above) into ``<path>/rank_N``; returns the folder.

    A second call moves the files: the first ones are closed. Each file holds 50 MB, five old ones are kept.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    folder = os.path.join(path, f"rank_{get_env_int('RANK_ID')}") if append_rank_dir else str(path)
    make_output_folder(folder)
    target = logging.getLogger(logger_name)
    for old in [handler for handler in target.handlers if isinstance(handler, RotatingFileHandler)]:
        target.removeHandler(old)
        old.close()
    for name, level in (("info.log", logging.INFO), ("error.log", logging.ERROR)):
        handler = _FileHandler(os.path.join(folder, name), maxBytes=50 << 20, backupCount=5, encoding="utf-8",
                               delay=True)
        handler.setFormatter(logging.Formatter(FILE_FORMAT))
        handler.addFilter(_PathFilter())
        handler.addFilter(_RepeatFilter())
        handler.setLevel(level)
        target.addHandler(handler)
    return folder


def set_console_level(level, logger_name="mindformers"):
    """Set the level of the console handlers of `logger_name`.

    Raises:
        ConfigError: an unknown level.
    """
    for handler in logging.getLogger(logger_name).handlers:
        if isinstance(handler, _ConsoleHandler):
            handler.setLevel(_check_level(level))


logger = get_logger()
