"""Ctrl-C around graph runs: put off to the end of the block, and never lost to the handler that MindSpore installs."""
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mindformers.tools.interrupt import _SIGINT, interruptible

LIBC = ctypes.CDLL(None)
LIBC.signal.argtypes, LIBC.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
IGNORE = 1  # SIG_IGN


@pytest.fixture(autouse=True)
def handlers():
    """Python's own handlers before and after."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def displace():
    """Replace the C-level handler of SIGINT, as a graph run does."""
    LIBC.signal(signal.SIGINT, IGNORE)


def python_handles():
    """Whether the C-level handler of SIGINT is Python's: neither the default nor to ignore."""
    current = LIBC.signal(signal.SIGINT, IGNORE)
    LIBC.signal(signal.SIGINT, current)
    return current not in (None, 0, IGNORE)


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            done.append("the step")
    assert done == ["the step"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interruptible():
        done.append("the next")
    assert len(done) == 2  # nothing is left over


def test_the_second_one_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("never")
    assert not done


def test_the_handler_is_put_back():
    with interruptible():
        displace()
        assert not python_handles()
    assert python_handles()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_translated_interrupt_is_one():
    with pytest.raises(KeyboardInterrupt):
        with interruptible():
            displace()
            os.kill(os.getpid(), signal.SIGTERM)  # what MindSpore's handler makes of a Ctrl-C
    assert python_handles()


def test_a_block_inside_a_block():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interruptible():
            with interruptible():
                signal.raise_signal(signal.SIGINT)
            done.append("after the inner one")
    assert done == ["after the inner one"]


def test_handlers_of_the_program_are_kept():
    called = []
    signal.signal(signal.SIGINT, lambda *_: called.append("int"))
    signal.signal(signal.SIGTERM, lambda *_: called.append("term"))
    mine = signal.getsignal(signal.SIGTERM)
    with interruptible():
        displace()
        os.kill(os.getpid(), signal.SIGTERM)
        assert called == ["term"]
    with interruptible():
        signal.raise_signal(signal.SIGINT)
        assert called == ["term"]
    assert called == ["term", "int"] and signal.getsignal(signal.SIGTERM) is mine
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
    assert called == ["term", "int"] and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_an_error_of_the_block_goes_on():
    with pytest.raises(ValueError, match="mine"):
        with interruptible():
            raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_put_the_handler_back():
    with interruptible():
        pass

    def work():
        with interruptible():
            displace()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert python_handles()


def test_a_translated_interrupt_is_one_though_the_handler_is_back():
    with pytest.raises(KeyboardInterrupt):
        with interruptible():
            displace()
            _SIGINT.put_back()  # as MindSpore's compiler does at its end, before Python sees the signal
            os.kill(os.getpid(), signal.SIGTERM)
    assert python_handles()


def test_a_handler_displaced_after_the_end():
    with interruptible():
        pass
    displace()  # as a thread of MindSpore does, late
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert python_handles()


def test_a_sigterm_elsewhere_ends_the_process():
    code = ("import os, signal; from mindformers.tools.interrupt import interruptible\n"
            "with interruptible():\n    pass\nos.kill(os.getpid(), signal.SIGTERM)\nprint('still here')")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGTERM and not done.stdout
