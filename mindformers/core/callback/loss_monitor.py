"""MFLossMonitor: one log line per step, and the end of a run whose loss is not a number."""
import math
import time
from datetime import timedelta

import mindspore as ms
from mindspore.train import Callback

from mindformers.core.callback.step_values import compact, step_values
from mindformers.tools.logger import logger

_BAR = 50


class MFLossMonitor(Callback):
    """Log loss, time per step, learning rate, overflow, loss scale, gradient norm, progress and time left.

    Args:
        learning_rate (float | LearningRateSchedule): used when the step does not return its rate. Default: None.
        per_print_times (int): log every that many steps. Default: 1.
        micro_batch_num, micro_batch_interleave_num, gradient_accumulation_steps (int): the loss is divided by their
            product; for steps that return a sum over them. TrainStep returns a mean: leave them at 1. Default: 1.
        origin_epochs (int): epochs to show as the total. Default: None, those of the run.
        dataset_size (int): steps per epoch. Default: None, those of the run.
        initial_epoch, initial_step (int): where the run began, for loops that count from 0 again after a resume.
            Default: 0.
        global_batch_size (int): rows per step over all ranks, for samples/s/p. Default: 0.
        check_for_nan_in_loss_and_grad (bool): raise when loss or gradient norm is not finite. Default: False, which
            warns once.
        calculate_per_token_loss (bool): the loss is a mean over tokens already; no division. Default: False.

    Raises:
        TypeError: an argument of another type. ValueError: per_print_times < 1; at a step with a loss that is not
            finite when check_for_nan_in_loss_and_grad is set: "loss is nan, terminate training."
    """

    def __init__(self, learning_rate=None, per_print_times=1, micro_batch_num=1, micro_batch_interleave_num=1,
                 origin_epochs=None, dataset_size=None, initial_epoch=0, initial_step=0, global_batch_size=0,
                 gradient_accumulation_steps=1, check_for_nan_in_loss_and_grad=False, calculate_per_token_loss=False):
        super().__init__()
        self.check_type(int, per_print_times=per_print_times, micro_batch_num=micro_batch_num,
                        micro_batch_interleave_num=micro_batch_interleave_num, initial_epoch=initial_epoch,
                        initial_step=initial_step, global_batch_size=global_batch_size,
                        gradient_accumulation_steps=gradient_accumulation_steps)
        self.check_type((int, type(None)), origin_epochs=origin_epochs, dataset_size=dataset_size)
        self.check_type(bool, check_for_nan_in_loss_and_grad=check_for_nan_in_loss_and_grad,
                        calculate_per_token_loss=calculate_per_token_loss)
        if per_print_times < 1:
            raise ValueError(f"per_print_times must be at least 1, but got {per_print_times}")
        self.learning_rate = learning_rate
        self.per_print_times = per_print_times
        self.mirco_size = micro_batch_num
        self.micro_batch_interleave_num = micro_batch_interleave_num
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.origin_epochs = origin_epochs
        self.steps_per_epoch = dataset_size
        self.initial_epoch, self.initial_step = initial_epoch, initial_step
        self.global_batch_size = global_batch_size
        self.check_for_nan_in_loss_and_grad = check_for_nan_in_loss_and_grad
        self.calculate_per_token_loss = calculate_per_token_loss
        self.loss_list = []
        self.run_context = None
        self.epoch_time = self.step_time = time.time()
        self.last_print_time = 0
        self.print_warning_flag = True
        self._skipped = initial_step

    @staticmethod
    def check_type(expected_types, *args, **named):
        """Raise TypeError for an argument that is not of `expected_types`; a bool is no int."""
        named.update({f"argument {i}": value for i, value in enumerate(args)})
        expected = expected_types if isinstance(expected_types, tuple) else (expected_types,)
        for name, value in named.items():
            if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
                names = " or ".join(kind.__name__ for kind in expected)
                raise TypeError(f"{name} must be {names}, but got {value!r} ({type(value).__name__})")

    def begin(self, run_context):
        """Find out whether the loop's step counter includes the steps of the run that is resumed."""
        params = run_context.original_args()
        before = self.initial_epoch * (self.steps_per_epoch or params.get("batch_num") or 0) + self.initial_step
        self._skipped = max(0, before - (params.get("cur_step_num") or 0)) if before else 0
        self.step_time = time.time()

    def epoch_begin(self, run_context):
        """Start the mean of a new epoch."""
        self.loss_list = []
        self.epoch_time = time.time()
        self.run_context = run_context

    def epoch_end(self, run_context):
        """Nothing is due at the end of an epoch: the last step has said everything."""
        self.run_context = run_context

    def step_begin(self, run_context):
        """Take the time."""
        self.step_time = time.time()
        self.run_context = run_context

    def step_end(self, run_context):
        """Check the loss, and log when it is time."""
        params = run_context.original_args()
        seconds = time.time() - self.step_time
        values = step_values(params["net_outputs"])
        if not self.calculate_per_token_loss:
            values.loss /= self.mirco_size * self.micro_batch_interleave_num * self.gradient_accumulation_steps
        self._check_finite(values, params["cur_step_num"])
        self.loss_list.append(values.loss)
        steps_per_epoch = self.steps_per_epoch or params.get("batch_num") or 1
        step = params["cur_step_num"] + self._skipped
        sink = bool(params.get("dataset_sink_mode"))
        done = params["cur_step_num"] - self.last_print_time
        last = (step - 1) % steps_per_epoch + 1 == steps_per_epoch
        if done >= self.per_print_times or last or sink:
            self.last_print_time = params["cur_step_num"]
            rate = values.lr if values.lr is not None else self._scheduled_rate(step - 1)
            self.print_output_info(params, step, steps_per_epoch, values, seconds, rate, sink)

    def _check_finite(self, values, step):
        if math.isfinite(values.loss) and (values.global_norm is None or math.isfinite(values.global_norm)):
            return
        if not math.isfinite(values.loss) and self.check_for_nan_in_loss_and_grad:
            raise ValueError(f"loss is {values.loss}, terminate training.")
        scaled = (values.loss_scale or 1.0) > 1.0
        if not math.isfinite(values.loss):
            self._warn_once(f"the loss of step {step} is {values.loss}; set check_for_nan_in_loss_and_grad: True to "
                            "end such a run")
        elif not scaled and self.check_for_nan_in_loss_and_grad:
            raise ValueError(f"global_norm is {values.global_norm}, terminate training.")
        elif not scaled:
            self._warn_once(f"the gradient norm of step {step} is {values.global_norm}: its update was skipped")

    def _warn_once(self, text):
        if not getattr(self, "_warned", False):
            self._warned = True
            logger.warning(text)

    def _scheduled_rate(self, step):
        """The rate of `step` (from 0) by `learning_rate`; None (and one warning) when it is not known."""
        rate = self.learning_rate
        if isinstance(rate, (int, float)):
            return rate
        if isinstance(rate, ms.Tensor):
            return float(rate.asnumpy().reshape(-1)[0])
        if isinstance(rate, ms.nn.learning_rate_schedule.LearningRateSchedule):
            return float(rate(ms.Tensor([step], ms.int32)).asnumpy().reshape(-1)[0])
        if self.print_warning_flag:
            self.print_warning_flag = False
            logger.warning("the learning rate is not shown: the step does not return it and none was given")
        return None

    def print_output_info(self, params, step, steps_per_epoch, values, seconds, rate, sink):
        """Log the line of `step` (from 1, over all epochs)."""
        epochs = self.origin_epochs or params.get("epoch_num") or 1
        total = epochs * steps_per_epoch
        if sink:
            loss = f"loss: {values.loss:5.3f}"
        else:
            loss = f"loss:[{values.loss:5.3f}/{sum(self.loss_list) / len(self.loss_list):5.3f}]"
        lr = "" if rate is None else f" lr: {compact(rate)},"
        overflow = "False" if values.overflow is None else str(bool(values.overflow))
        scale = "unavailable" if values.loss_scale is None else f"{values.loss_scale:g}"
        norm = "unavailable" if values.global_norm is None else f"{values.global_norm:.6f}"
        logger.info("{ Epoch:[%3d/%3d], step:[%5d/%5d], %s, per_step_time: %dms,%s overflow cond: %s, loss_scale: %s, "
                    "global_norm: %s", (step - 1) // steps_per_epoch + 1, epochs, (step - 1) % steps_per_epoch + 1,
                    steps_per_epoch, loss, int(seconds * 1000), lr, overflow, scale, norm)
        percent = 100.0 * step / total
        ranks = params.get("device_number") or 1
        speed = self.global_batch_size / ranks / max(seconds, 1e-9)
        left = timedelta(seconds=int(max(0, total - step) * seconds))
        bar = "█" * min(_BAR, int(percent / 100.0 * _BAR))
        logger.info("  %4.1f%% |%s| %.5f samples/s/p  %s }", percent, bar.ljust(_BAR), speed, left)
