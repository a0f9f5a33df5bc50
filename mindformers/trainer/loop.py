"""The training loop on one page.

A run is: a step function, an endless supply of batches, a list of MindSpore callbacks, and the number of the step to
stop after. Everything else (what a step is, when to save, what to print) is decided by whoever built those.
"""
from dataclasses import dataclass, field

from mindspore.train.callback import RunContext

from mindformers.tools.register import DictConfig


@dataclass
class Loop:
    """What one run of the loop needs.

    Args:
        step (Callable): ``step(*batch) -> StepOutput(loss, overflow, loss_scale, lr, global_norm)``.
        batches (Callable): ``batches(start_step) -> iterator`` of tuples of arrays, beginning with the batch of step
            `start_step` + 1; it must not end before `last_step`.
        steps_per_epoch (int): optimizer steps of one pass over the data.
        last_step (int): number of the step after which the run is over; steps count from 1.
        first_step (int): steps already done by the run that is being resumed. Default: 0.
        callbacks (list[mindspore.train.Callback]): called in order at each hook.
        params (dict): entries of `run_context.original_args()` that callbacks read (network, optimizer, ...).
        should_stop (Callable): asked after each step with the callbacks' own wish (bool); returns what to do (bool).
    """

    step: object
    batches: object
    steps_per_epoch: int
    last_step: int
    first_step: int = 0
    callbacks: list = field(default_factory=list)
    params: dict = field(default_factory=dict)
    should_stop: object = bool

    def run(self):
        """Train; return the number of the last finished step. `on_train_end` is called however the run ends well."""
        params = DictConfig(**self.params)
        params.update(batch_num=self.steps_per_epoch, cur_step_num=self.first_step, net_outputs=None,
                      epoch_num=-(-self.last_step // self.steps_per_epoch),
                      cur_epoch_num=self.first_step // self.steps_per_epoch + 1)
        context = RunContext(params)
        batches = iter(self.batches(self.first_step))
        self._call("on_train_begin", context)
        for number in range(self.first_step + 1, self.last_step + 1):
            params.update(cur_step_num=number, cur_epoch_num=(number - 1) // self.steps_per_epoch + 1)
            if number == self.first_step + 1 or (number - 1) % self.steps_per_epoch == 0:
                self._call("on_train_epoch_begin", context)
            batch = next(batches)
            params.train_dataset_element = batch
            self._call("on_train_step_begin", context)
            params.net_outputs = self.step(*batch)
            self._call("on_train_step_end", context)
            if number % self.steps_per_epoch == 0:
                self._call("on_train_epoch_end", context)
            if self.should_stop(context.get_stop_requested()):
                break
        self._call("on_train_end", context)
        return params.cur_step_num

    def _call(self, hook, context):
        for callback in self.callbacks:
            getattr(callback, hook)(context)
