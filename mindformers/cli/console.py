"""What every verb shares: one-line errors, exit codes, plain or rich tables."""
import argparse
import os
import sys
import traceback

from mindformers.tools.env import get_env, set_env
from mindformers.tools.errors import (CheckpointMismatchError, ConfigError, DamagedFileError, UnsupportedError,
                                      did_you_mean)
from mindformers.tools.utils import str2bool

EXIT_OK, EXIT_JOB_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are one line, with the nearest argument named."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message):
        """Print one line and exit with code 2."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message}\n")

    def unknown(self, argument):
        """Report an argument that is not known."""
        name = argument.split("=")[0]
        choices = [option for option in self._option_string_actions if option.startswith("--")]
        self.error(f"unknown argument {name}.{did_you_mean(name, choices)}")

    def parse_known_args(self, args=None, namespace=None):
        try:
            return super().parse_known_args(args, namespace)
        except ValueError as error:  # from an action, such as ActionDict
            return self.error(str(error))

    def parse_args(self, args=None, namespace=None):
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            self.unknown(rest[0])
        return parsed


def boolean(text):
    """argparse type for True/False."""
    return _argument(str2bool, text)


def boolean_or_text(text):
    """argparse type for True/False or a name."""
    return str2bool(text) if text.lower() in ("true", "false") else text


def positive(text):
    """argparse type for an integer of at least 1."""
    return _integer(text, 1)


def not_negative(text):
    """argparse type for an integer of at least 0."""
    return _integer(text, 0)


def not_empty(text):
    """argparse type for a text with at least one character."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _integer(text, low):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < low:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {low}, but got {text!r}")
    return value


def _argument(convert, text):
    try:
        return convert(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_debug(parser):
    """Add ``--debug``: the traceback of an error, and the DEBUG log."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error and the debug log")


def guarded(job, debug=False, interrupted="interrupted"):
    """Run `job()` and return an exit code; an error becomes one line on stderr.

    Codes: 0 done, 1 the job failed, 2 the input is wrong (`is_wrong_input`), 130 interrupted. With `debug` or
    MF_LOG_LEVEL=DEBUG the traceback is shown too.
    """
    if debug:
        set_env("MF_LOG_LEVEL", "DEBUG")
        from mindformers.tools.logger import set_console_level
        set_console_level("DEBUG")
    _print_anything()
    try:
        job()
        sys.stdout.flush()
        return EXIT_OK
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else EXIT_OK if stop.code is None else EXIT_JOB_FAILED
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:  # pylint: disable=broad-except  # the door: everything becomes a message and a code
        if get_env("MF_LOG_LEVEL").upper() == "DEBUG":
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT if is_wrong_input(error) else EXIT_JOB_FAILED


def _print_anything():
    """Let characters that the terminal's encoding lacks be printed as "?" instead of ending the job."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors == "strict":
            stream.reconfigure(errors="replace")


class InputError(ConfigError):
    """The command line or the configuration is wrong, and no job was started."""


def is_wrong_input(error):
    """Whether an error is about what the user gave: settings, weights, files; not about what became of the job.

    A file that is not there counts when one of our checks names it, not when the system calls fail on the way.
    """
    if isinstance(error, FileNotFoundError):
        return error.errno is None
    return isinstance(error, (ConfigError, CheckpointMismatchError, DamagedFileError, UnsupportedError,
                              NotADirectoryError, IsADirectoryError))


def describe(error):
    """Return the message of an exception; for kinds whose text says little, with the kind."""
    text = str(error).strip()
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("mindformers"):
        return f"{text}; install it with: pip install -r requirements.txt"
    if isinstance(error, KeyError):
        return f"missing key {text}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ConfigError, FileNotFoundError, ValueError, NotImplementedError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def print_table(title, header, rows):
    """Print rows as a rich table on a terminal, as tab-separated lines elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(str, row))
        Console().print(table)
        return
    print(f"# {title}")
    for row in rows:
        print("\t".join(map(str, row)))
