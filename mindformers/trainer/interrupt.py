"""Ctrl-C and SIGTERM: finish the step, save, leave with a message; a second Ctrl-C aborts at once."""
import signal
import threading

import numpy as np

from mindformers.tools.logger import logger


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
        self._rank_size = rank_size
        self._previous = {}
        self._any_rank = _AnyRank() if rank_size > 1 else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # only the main thread may install handlers
            self._previous = {signum: signal.signal(signum, self._on_signal) for signum in self.SIGNALS}
        return self

    def __exit__(self, *error):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def _on_signal(self, signum, frame):
        if self.signum is not None and signum == signal.SIGINT:
            raise KeyboardInterrupt("aborted by a second Ctrl-C; the state since the last checkpoint is lost")
        self.signum = signum
        logger.warning("%s: finishing this step, then saving. Press Ctrl-C again to abort without saving.",
                       signal.Signals(signum).name)

    def asked(self, wish=False):
        """Whether to stop now: `wish` of the callbacks or a signal, on this rank or on any other."""
        if self._any_rank is None:
            return bool(wish or self.signum)
        code = self._any_rank(float(self.signum or 0), float(wish))
        if code.signum and self.signum is None:
            self.signum = code.signum
        return bool(code.signum or code.wish)


class _AnyRank:
    """What any rank asks for, told to all ranks (fp32 AllReduce SUM; there is no MAX on CPU)."""

    def __init__(self):
        import mindspore as ms
        from mindspore import ops
        self._tensor, self._all_reduce = ms.Tensor, ops.AllReduce()
        self.signum, self.wish = 0, False

    def __call__(self, signum, wish):
        flags = np.array([signum == signal.SIGINT, signum == signal.SIGTERM, wish], np.float32)
        interrupt, terminate, wish = self._all_reduce(self._tensor(flags)).asnumpy() > 0
        self.signum = signal.SIGINT if interrupt else signal.SIGTERM if terminate else 0
        self.wish = bool(wish)
        return self
