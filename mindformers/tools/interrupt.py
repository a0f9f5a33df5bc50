"""Ctrl-C while MindSpore's graphs compile and run.

Each graph run replaces the C-level handler of SIGINT by one that sends SIGTERM to the own process: a Ctrl-C during or
after it would end Python without a KeyboardInterrupt. One amid compiling would leave a graph that never runs.
"""
import contextlib
import ctypes
import os
import signal
import threading

_POINTER = ctypes.sizeof(ctypes.c_void_p)  # the handler leads struct sigaction; the rest is partly undefined


class _Sigint:
    """The handler of SIGINT: kept at the C level, put off at Python's."""

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._kept = None  # Python's C-level handler
        self._handler = None
        self._pending = None
        self.depth = 0  # of `interruptible` in the main thread

    def begin(self):
        """Put interrupts off, from now on."""
        self._pending = None
        self._handler = signal.signal(signal.SIGINT, self._on_sigint)
        self._kept = self._current()
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)  # to stay: see `_on_sigterm`
        self.depth = 1

    def end(self):
        """Python handles SIGINT as before; an interrupt that came meanwhile is handled now."""
        self.put_back()
        self.depth = 0
        signal.signal(signal.SIGINT, self._handler)
        if self._pending is not None:
            self._handler(signal.SIGINT, *self._pending)

    def put_back(self):
        """Put Python's C-level handler back, from any thread; returns whether it was displaced."""
        displaced = self._kept is not None and self._current().raw[:_POINTER] != self._kept.raw[:_POINTER]
        if displaced:
            self._libc.sigaction(int(signal.SIGINT), self._kept, None)
        return displaced

    def _on_sigint(self, signum, frame):
        if self._pending is not None:  # the second one does not wait
            self._pending = None
            self._handler(signal.SIGINT, frame)
        self._pending = (frame,)

    def _on_sigterm(self, signum, frame):
        """A Ctrl-C that was translated, or the end of the process.

        In the block the handler of SIGINT need not be displaced any more when Python gets to know; outside, a thread of
        MindSpore may displace it again milliseconds after the graph's end.
        """
        displaced = self.put_back()
        handler = signal.getsignal(signal.SIGINT)
        if (displaced or self.depth) and callable(handler):
            handler(signal.SIGINT, frame)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    def _current(self):
        action = ctypes.create_string_buffer(512)  # larger than any struct sigaction
        self._libc.sigaction(int(signal.SIGINT), None, action)
        return action


_SIGINT = _Sigint()


@contextlib.contextmanager
def interruptible():
    """Let a Ctrl-C in the block be a KeyboardInterrupt at its end, all graphs in order; a second one does not wait.

    In the main thread, a SIGTERM that arrives in the block counts as the Ctrl-C that it nearly always is; from the
    first block on, so does one that arrives while MindSpore's handler of SIGINT is in force. Another one ends the process
    as ever. Handlers of the program stay in force: that of SIGINT is called at the end, one of SIGTERM at once. In
    other threads the block only puts Python's handler back at its end.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or _SIGINT.depth or not callable(signal.getsignal(signal.SIGINT)):
        try:
            yield
        finally:
            if not _SIGINT.depth:
                _SIGINT.put_back()
        return
    _SIGINT.begin()
    try:
        yield
    finally:
        _SIGINT.end()
