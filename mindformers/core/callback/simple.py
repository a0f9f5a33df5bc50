"""Callbacks of a few lines: evaluate now and then, stop early."""
from mindspore.train import Callback

from mindformers.tools.logger import logger


class EvalCallBack(Callback):
    """Evaluate during training.

    Args:
        eval_func (Callable): takes nothing; returns what is logged (a dict of metrics).
        step_interval (int): every that many steps; below 1 never. Default: 100.
        epoch_interval (int): every that many epochs; below 1 never. Default: -1.

    Raises:
        TypeError: eval_func is not callable.
    """

    def __init__(self, eval_func, step_interval=100, epoch_interval=-1):
        super().__init__()
        if not callable(eval_func):
            raise TypeError(f"eval_func must be callable, but got {type(eval_func).__name__}")
        self.eval_func = eval_func
        self.step_interval = step_interval
        self.epoch_interval = epoch_interval
        self.results = []

    def epoch_end(self, run_context):
        """Evaluate after each `epoch_interval` epochs."""
        epoch = run_context.original_args()["cur_epoch_num"]
        if self.epoch_interval > 0 and epoch % self.epoch_interval == 0:
            self._evaluate(run_context)

    def step_end(self, run_context):
        """Evaluate after each `step_interval` steps."""
        step = run_context.original_args()["cur_step_num"]
        if self.step_interval > 0 and step % self.step_interval == 0:
            self._evaluate(run_context)

    def _evaluate(self, run_context):
        params = run_context.original_args()
        step = params["cur_step_num"]
        if self.results and self.results[-1][0] == step:
            return
        output = self.eval_func()
        self.results.append((step, output))
        logger.info("Eval result: epoch %d, step %d: %s", params["cur_epoch_num"], step, output)


class TrainCallBack(Callback):
    """Ask for the end of the run after step `stop_step`; None or 0 never does."""

    def __init__(self, stop_step=None):
        super().__init__()
        self.stop_step = stop_step

    def step_end(self, run_context):
        """Stop when the step is reached."""
        step = run_context.original_args()["cur_step_num"]
        if self.stop_step and step >= self.stop_step:
            run_context.request_stop()
            logger.info("stop_step %d reached: training stops", self.stop_step)
