"""ProgressMonitor: a live line on the terminal."""
import logging
import sys
import time

from mindspore.train import Callback
from tqdm import tqdm

from mindformers.core.callback.step_values import compact, step_values
from mindformers.tools.logger import logger


class _ClearBeforeRecord(logging.Filter):
    """Takes the live line away before a log record is written; it comes back with the next step."""

    def __init__(self, bar):
        super().__init__()
        self.bar = bar

    def filter(self, record):
        self.bar.clear()
        return True


class ProgressMonitor(Callback):
    """Live line: step, loss (mean of the last steps), learning rate, tokens/s and time left.

    Args:
        total_steps (int): steps of the whole run. Default: None, epochs * steps per epoch of the run.
        tokens_per_step (int): tokens trained per step over all ranks. Default: None, rows * (columns - 1) of the
            batch's first array times the ranks (rows hold one token more than they train).
        enabled (bool): Default: None, when stderr is a terminal (elsewhere the log lines are enough).
        smoothing (float): weight of the newest step in the shown loss and speed, in (0, 1]. Default: 0.1.
    """

    def __init__(self, total_steps=None, tokens_per_step=None, enabled=None, smoothing=0.1):
        super().__init__()
        if not 0.0 < smoothing <= 1.0:
            raise ValueError(f"smoothing must be in (0, 1], but got {smoothing}")
        self.total_steps = total_steps
        self.tokens_per_step = tokens_per_step
        self.enabled = enabled
        self.smoothing = smoothing
        self.tokens_per_second = None
        self._loss = None
        self._bar = None
        self._filter = None
        self._start = time.time()

    def begin(self, run_context):
        """Show the line."""
        params = run_context.original_args()
        total = self.total_steps or (params.get("epoch_num") or 1) * (params.get("batch_num") or 1)
        shown = sys.stderr.isatty() if self.enabled is None else self.enabled
        self._bar = tqdm(total=total, initial=params.get("cur_step_num") or 0, unit="step", dynamic_ncols=True,
                         disable=not shown, file=sys.stderr, smoothing=self.smoothing, leave=True)
        self._filter = _ClearBeforeRecord(self._bar)
        for handler in logger.handlers:
            handler.addFilter(self._filter)

    def step_begin(self, run_context):
        """Take the time."""
        del run_context
        self._start = time.time()

    def step_end(self, run_context):
        """Refresh the line."""
        params = run_context.original_args()
        values = step_values(params["net_outputs"])
        tokens = self.tokens_per_step or _tokens(params)
        speed = tokens / max(time.time() - self._start, 1e-9)
        self._loss = self._smooth(self._loss, values.loss)
        self.tokens_per_second = self._smooth(self.tokens_per_second, speed)
        shown = {"loss": f"{self._loss:.4f}"}
        if values.lr is not None:
            shown["lr"] = compact(values.lr)
        if tokens:
            shown["tok/s"] = f"{self.tokens_per_second:.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(params["cur_step_num"] - self._bar.n)

    def end(self, run_context):
        """Leave the last state of the line."""
        del run_context
        for handler in logger.handlers:
            handler.removeFilter(self._filter)
        self._bar.close()

    def _smooth(self, old, new):
        return new if old is None or old != old else old + self.smoothing * (new - old)


def _tokens(params):
    """Tokens of one step by the shape of the batch; 0 when there is none."""
    batch = params.get("train_dataset_element")
    batch = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    shape = getattr(batch, "shape", ())
    if len(shape) < 2:
        return 0
    return shape[0] * (shape[1] - 1) * (params.get("device_number") or 1)
