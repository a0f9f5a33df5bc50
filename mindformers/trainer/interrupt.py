"""Ctrl-C and SIGTERM: finish the step, save, leave with a message; a second Ctrl-C aborts at once."""
import ctypes
import math
import os
import signal
import threading
import time

import numpy as np


class TrainingInterrupted(SystemExit):
    """Raised after a requested stop was honoured and the state saved; `code` is 128 + the signal (130 or 143).

    Being a SystemExit, it ends a script without a traceback.
    """

    def __init__(self, signum):
        super().__init__(128 + signum)


class StopRequest:
    """Context manager that turns SIGINT and SIGTERM into a flag, asked once per step.

    In a job of several processes the flag is agreed upon with a tiny AllReduce, so that all ranks stop after the
    same step wherever the signal arrived.

    Args:
        rank_size (int): number of processes. Default: 1.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, rank_size=1):
        self.signum = None
        self._previous = {}
        self._keeper = None
        self._any_rank = _AnyRank() if rank_size > 1 else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # only the main thread may install handlers
            self._previous = {signum: signal.signal(signum, self._on_signal) for signum in self.SIGNALS}
            self._keeper = _HandlerKeeper()
        return self

    def __exit__(self, *error):
        if self._keeper is not None:
            self._keeper.stop()
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def _on_signal(self, signum, frame):
        if signum == signal.SIGTERM and self._keeper.displaced():
            signum = signal.SIGINT  # a Ctrl-C that MindSpore's handler has translated
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt("aborted by a second Ctrl-C; the state since the last checkpoint is lost")
        self.signum = signum
        # not through the log: a handler may run in the middle of a write to the same stream
        os.write(2, f"\n{signal.Signals(signum).name}: finishing this step, then saving; Ctrl-C aborts without saving\n"
                    .encode())

    def asked(self, wish=False):
        """Whether to stop now: `wish` of the callbacks or a signal, on this rank or on any other."""
        if self._any_rank is None:
            return bool(wish or self.signum)
        signum, wish = self._any_rank(self.signum, wish)
        if signum and self.signum is None:
            self.signum = signum
        return bool(signum or wish)


class _HandlerKeeper:
    """Keeps the C-level handler of SIGINT as it is now.

    Each graph that MindSpore runs with control flow in it replaces the SIGINT handler by one that sends SIGTERM, so a
    Ctrl-C would look like a SIGTERM, and a second one would not abort. A thread puts the handler back.
    """

    SECONDS = 0.01
    HANDLER = slice(0, ctypes.sizeof(ctypes.c_void_p))  # of struct sigaction; the rest is partly undefined

    def __init__(self):
        self._libc = ctypes.CDLL(None)
        self._kept = self._current()
        self._displaced_at = -math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sigint-keeper", daemon=True)
        self._thread.start()

    def _current(self):
        action = ctypes.create_string_buffer(512)  # larger than any struct sigaction
        self._libc.sigaction(int(signal.SIGINT), None, action)
        return action

    def _put_back(self):
        if self._current().raw[self.HANDLER] != self._kept.raw[self.HANDLER]:
            self._displaced_at = time.monotonic()
            self._libc.sigaction(int(signal.SIGINT), self._kept, None)

    def _keep(self):
        while not self._stopped.wait(self.SECONDS):
            self._put_back()

    def displaced(self):
        """Whether the handler is, or was within a tenth of a second, not the kept one."""
        self._put_back()
        return time.monotonic() - self._displaced_at < 0.1

    def stop(self):
        """End the thread; the handler is the kept one."""
        self._stopped.set()
        self._thread.join()
        self._put_back()


class _AnyRank:
    """What any rank asks for, told to all ranks (fp32 AllReduce SUM; there is no MAX on CPU)."""

    def __init__(self):
        import mindspore as ms
        from mindspore import ops
        self._tensor, self._all_reduce = ms.Tensor, ops.AllReduce()

    def __call__(self, signum, wish):
        """Return (signal or None, wish) of all ranks together."""
        flags = np.array([signum == signal.SIGINT, signum == signal.SIGTERM, wish], np.float32)
        interrupt, terminate, wish = self._all_reduce(self._tensor(flags)).asnumpy() > 0
        return (signal.SIGINT if interrupt else signal.SIGTERM if terminate else None), bool(wish)
