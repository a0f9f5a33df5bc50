"""Learning rate schedules: cells called with the step (int Tensor, [1] or scalar) that return the rate in float32.

Legend: s step (counted from 0), W warm-up steps, T total steps, lr the base rate. Branches are selects, not control
flow, so a schedule is a handful of scalar operations inside the training graph.
"""
import math

import mindspore as ms
from mindspore import Tensor, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

_LAST_STEP = 2 ** 31 - 1


def _check_number(name, value, low=None):
    """Raise TypeError unless `value` is a number, ValueError when it is below `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, but got {value!r} ({type(value).__name__})")
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, but got {value}")


def ratio_to_steps(name, ratio, steps, total_steps, default=None):
    """Return the number of steps given either as a share of `total_steps` or directly.

    Args:
        name (str): "warmup" or "decay", for messages.
        ratio (float): share in [0, 1], or None; wins over `steps`.
        steps (int): number of steps, or None.
        total_steps (int): needed with a ratio.
        default (int): value when neither is given; None makes that an error. Default: None.

    Raises:
        TypeError: neither is given, or one is not a number.
        ValueError: ratio outside [0, 1] or without `total_steps`; negative steps.
    """
    if ratio is not None:
        _check_number(f"{name}_ratio", ratio)
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"{name}_ratio must be in [0, 1], but got {ratio}")
        if total_steps is None:
            raise ValueError(f"{name}_ratio={ratio} needs total_steps, which is not given")
        return int(total_steps * ratio)
    if steps is None and default is not None:
        return default
    if steps is None:
        raise TypeError(f"give {name}_steps or {name}_ratio (with total_steps); both are None")
    _check_number(f"{name}_steps", steps, low=0)
    return int(steps)


class _WarmUpSchedule(LearningRateSchedule):
    """Linear warm-up ``warmup_lr_init + (lr - warmup_lr_init) * s / W`` for s < W, then `after_warmup(s)`."""

    def __init__(self, learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps, needs_total=True):
        super().__init__()
        _check_number("learning_rate", learning_rate, low=0.0)
        _check_number("warmup_lr_init", warmup_lr_init, low=0.0)
        if total_steps is None and needs_total:
            raise ValueError(f"{type(self).__name__} needs total_steps, which is None")
        if total_steps is not None:
            _check_number("total_steps", total_steps, low=1)
        self.learning_rate = float(learning_rate)
        self.warmup_lr_init = float(warmup_lr_init)
        self.warmup_steps = ratio_to_steps("warmup", warmup_ratio, warmup_steps, total_steps)
        self.total_steps = total_steps

    def after_warmup(self, step):
        """The rate at float32 `step` >= warmup_steps."""
        raise AttributeError(f"{type(self).__name__} defines no after_warmup")

    def construct(self, global_step):
        step = ops.cast(global_step, ms.float32)
        rate = self.after_warmup(step)
        if self.warmup_steps > 0:
            slope = (self.learning_rate - self.warmup_lr_init) / self.warmup_steps
            rate = ops.select(step < self.warmup_steps, self.warmup_lr_init + slope * step, rate)
        return rate


class ConstantWarmUpLR(_WarmUpSchedule):
    """`learning_rate` after the warm-up.

    Args:
        learning_rate (float): the rate. warmup_steps (int), warmup_ratio (float), total_steps (int): length of the
            warm-up; the ratio wins and needs total_steps. warmup_lr_init (float): rate at step 0. Default: 0.0.

    Raises:
        TypeError, ValueError: see `ratio_to_steps`.
    """

    def __init__(self, learning_rate, warmup_steps=None, warmup_lr_init=0.0, warmup_ratio=None, total_steps=None):
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps, needs_total=False)

    def after_warmup(self, step):
        return ops.ones_like(step) * self.learning_rate


class LinearWithWarmUpLR(_WarmUpSchedule):
    """``lr * max(0, (T - s) / max(1, T - W))``; arguments as for ConstantWarmUpLR, total_steps required."""

    def __init__(self, learning_rate, total_steps, warmup_steps=None, warmup_lr_init=0.0, warmup_ratio=None):
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps)

    def after_warmup(self, step):
        left = (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return self.learning_rate * ops.maximum(left, ops.zeros_like(left))


class _CosineSchedule(_WarmUpSchedule):
    """What the two cosine schedules share: progress p = (s - W) / max(1, T - W), and lr_end from decay_steps on."""

    def __init__(self, learning_rate, warmup_steps, total_steps, num_cycles, lr_end, warmup_lr_init, warmup_ratio,
                 decay_steps):
        if total_steps is None and decay_steps is None:
            raise ValueError(f"{type(self).__name__} needs total_steps or decay_steps; both are None")
        total_steps = decay_steps if total_steps is None else total_steps
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps)
        _check_number("lr_end", lr_end, low=0.0)
        _check_number("num_cycles", num_cycles, low=0.0)
        self.decay_steps = total_steps if decay_steps is None else decay_steps
        _check_number("decay_steps", self.decay_steps, low=1)
        self.num_cycles = float(num_cycles)
        self.lr_end = float(lr_end)

    def angle(self, progress):
        """Angle of the cosine at `progress`."""
        raise AttributeError(f"{type(self).__name__} defines no angle")

    def after_warmup(self, step):
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        wave = 0.5 * (1.0 + ops.cos(self.angle(progress)))
        rate = self.lr_end + (self.learning_rate - self.lr_end) * ops.maximum(wave, ops.zeros_like(wave))
        return ops.select(step < self.decay_steps, rate, ops.ones_like(rate) * self.lr_end)


class CosineWithWarmUpLR(_CosineSchedule):
    """``lr_end + (lr - lr_end) * (1 + cos(2 pi num_cycles p)) / 2``; lr_end from step decay_steps on.

    Args:
        learning_rate (float): rate at the end of the warm-up.
        warmup_steps (int): Default: 0. total_steps (int): T. num_cycles (float): waves over T - W. Default: 0.5.
        lr_end (float): final rate. Default: 0.0. warmup_lr_init (float): rate at step 0. Default: 0.0.
        warmup_ratio (float): W as a share of T; wins over warmup_steps.
        decay_steps (int): step from which lr_end holds. Default: T (and T defaults to it).

    Raises:
        TypeError, ValueError: see `ratio_to_steps`; neither total_steps nor decay_steps given.
    """

    def __init__(self, learning_rate, warmup_steps=0, total_steps=None, num_cycles=0.5, lr_end=0.0, warmup_lr_init=0.0,
                 warmup_ratio=None, decay_steps=None):
        super().__init__(learning_rate, warmup_steps, total_steps, num_cycles, lr_end, warmup_lr_init, warmup_ratio,
                         decay_steps)

    def angle(self, progress):
        return 2.0 * math.pi * self.num_cycles * progress


class CosineWithRestartsAndWarmUpLR(_CosineSchedule):
    """Like CosineWithWarmUpLR with hard restarts: the angle is ``pi * ((num_cycles * p) mod 1)``."""

    def __init__(self, learning_rate, warmup_steps=None, total_steps=None, num_cycles=1.0, lr_end=0.0,
                 warmup_lr_init=0.0, warmup_ratio=None, decay_steps=None):
        super().__init__(learning_rate, warmup_steps, total_steps, num_cycles, lr_end, warmup_lr_init, warmup_ratio,
                         decay_steps)

    def angle(self, progress):
        cycles = self.num_cycles * progress
        return math.pi * (cycles - ops.floor(cycles))


class PolynomialWithWarmUpLR(_WarmUpSchedule):
    """``(lr - lr_end) * (1 - (s - W) / D)^power + lr_end``, D = decay_steps or T - W; lr_end after step T.

    Raises:
        ValueError: learning_rate <= lr_end.
    """

    def __init__(self, learning_rate, total_steps, warmup_steps=None, lr_end=1e-7, power=1.0, warmup_lr_init=0.0,
                 warmup_ratio=None, decay_steps=None):
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps)
        _check_number("lr_end", lr_end, low=0.0)
        _check_number("power", power, low=0.0)
        if learning_rate <= lr_end:
            raise ValueError(f"learning_rate {learning_rate} must be greater than lr_end {lr_end}")
        self.decay_steps = max(1, total_steps - self.warmup_steps) if decay_steps is None else decay_steps
        _check_number("decay_steps", self.decay_steps, low=1)
        self.lr_end = float(lr_end)
        self.power = float(power)

    def after_warmup(self, step):
        left = 1.0 - (step - self.warmup_steps) / self.decay_steps
        left = ops.clamp(left, 0.0, 1.0)
        rate = (self.learning_rate - self.lr_end) * ops.pow(left, self.power) + self.lr_end
        return ops.select(step <= self.total_steps, rate, ops.ones_like(rate) * self.lr_end)


class CosineAnnealingLR(LearningRateSchedule):
    """``eta_min + (base_lr - eta_min) * (1 + cos(pi s / t_max)) / 2`` (Loshchilov & Hutter 2017, without restarts).

    Raises:
        ValueError: t_max < 1.
    """

    def __init__(self, base_lr, t_max, eta_min=0.0):
        super().__init__()
        _check_number("base_lr", base_lr, low=0.0)
        _check_number("t_max", t_max, low=1)
        _check_number("eta_min", eta_min, low=0.0)
        self.base_lr, self.t_max, self.eta_min = float(base_lr), float(t_max), float(eta_min)

    def construct(self, global_step):
        step = ops.cast(global_step, ms.float32)
        return self.eta_min + (self.base_lr - self.eta_min) * 0.5 * (1.0 + ops.cos(math.pi * step / self.t_max))


class CosineAnnealingWarmRestarts(LearningRateSchedule):
    """SGDR (Loshchilov & Hutter 2017): cosine periods of length t_0, t_0 * t_mult, t_0 * t_mult^2, ...

    Raises:
        ValueError: t_0 < 1 or t_mult < 1.
    """

    def __init__(self, base_lr, t_0, t_mult=1, eta_min=0.0):
        super().__init__()
        _check_number("base_lr", base_lr, low=0.0)
        _check_number("t_0", t_0, low=1)
        _check_number("t_mult", t_mult, low=1)
        _check_number("eta_min", eta_min, low=0.0)
        self.base_lr, self.eta_min, self.t_0 = float(base_lr), float(eta_min), float(t_0)
        starts, lengths = [0.0], [float(t_0)]
        while t_mult > 1 and starts[-1] + lengths[-1] < _LAST_STEP:
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * t_mult)
        self.equal_periods = t_mult == 1
        self.starts, self.lengths = Tensor(starts, ms.float32), Tensor(lengths, ms.float32)

    def construct(self, global_step):
        step = ops.cast(global_step, ms.float32)
        if self.equal_periods:
            progress = step / self.t_0 - ops.floor(step / self.t_0)
        else:
            # the period that holds this step is the last one begun: starts and lengths both grow
            begun = ops.cast(self.starts <= step, ms.float32)
            progress = (step - ops.max(self.starts * begun)[0]) / ops.max(self.lengths * begun)[0]
        return self.eta_min + (self.base_lr - self.eta_min) * 0.5 * (1.0 + ops.cos(math.pi * progress))


class LearningRateWiseLayer(LearningRateSchedule):
    """``lr_scale * base_lr(step)``: the schedule of one layer.

    Args:
        base_lr (LearningRateSchedule): the common schedule. lr_scale (float): factor of this layer.
    """

    def __init__(self, base_lr, lr_scale):
        super().__init__()
        _check_number("lr_scale", lr_scale, low=0.0)
        self.base_lr, self.lr_scale = base_lr, float(lr_scale)

    def construct(self, global_step):
        return self.lr_scale * self.base_lr(global_step)


class ConstantWithCoolDownLR(_WarmUpSchedule):
    """Keep `learning_rate` for keep_steps, fall to lr_end1 over decay_steps, hold for final_steps, then lr_end2.

    The fall is ``lr_end1 + (lr - lr_end1) * (1 + cos(2 pi num_cycles q)) / 2`` for q from 0 to 1 over decay_steps.

    Args:
        keep_steps (int): steps at full rate after the warm-up. Default: 0.
        decay_steps (int), decay_ratio (float): length of the fall; the ratio is of total_steps and wins.
        num_cycles (float): Default: 0.5. lr_end1 (float): Default: 0. final_steps (int): Default: 0.
        lr_end2 (float): Default: lr_end1.

    Raises:
        TypeError, ValueError: see `ratio_to_steps`.
    """

    def __init__(self, learning_rate, warmup_steps=None, warmup_lr_init=0.0, warmup_ratio=None, keep_steps=0,
                 decay_steps=None, decay_ratio=None, total_steps=None, num_cycles=0.5, lr_end1=0, final_steps=0,
                 lr_end2=None):
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps, needs_total=False)
        _check_number("keep_steps", keep_steps, low=0)
        _check_number("final_steps", final_steps, low=0)
        _check_number("num_cycles", num_cycles, low=0.0)
        lr_end2 = lr_end1 if lr_end2 is None else lr_end2
        _check_number("lr_end1", lr_end1, low=0.0)
        _check_number("lr_end2", lr_end2, low=0.0)
        self.decay_start = self.warmup_steps + keep_steps
        self.decay_steps = max(1, ratio_to_steps("decay", decay_ratio, decay_steps, total_steps))
        self.final_start = self.decay_start + self.decay_steps + final_steps
        self.num_cycles, self.lr_end1, self.lr_end2 = float(num_cycles), float(lr_end1), float(lr_end2)

    def after_warmup(self, step):
        progress = ops.maximum(step - self.decay_start, ops.zeros_like(step)) / self.decay_steps
        wave = 0.5 * (1.0 + ops.cos(2.0 * math.pi * self.num_cycles * progress))
        falling = self.lr_end1 + (self.learning_rate - self.lr_end1) * wave
        held = ops.select(step < self.final_start, ops.ones_like(step) * self.lr_end1,
                          ops.ones_like(step) * self.lr_end2)
        return ops.select(progress < 1.0, falling, held)


class WarmUpStableDecayLR(_WarmUpSchedule):
    """Warm-up, constant until decay_start_steps, then linear to lr_end at total_steps (WSD).

    Args:
        lr_end (float): rate at total_steps. Default: 1e-7.
        decay_start_steps (int), decay_start_ratio (float): step at which the fall begins; the ratio is of total_steps
            and wins.

    Raises:
        TypeError, ValueError: see `ratio_to_steps`; total_steps missing; the fall begins before the warm-up ends or
            after total_steps.
    """

    def __init__(self, learning_rate, lr_end=1e-7, warmup_steps=None, warmup_lr_init=0.0, warmup_ratio=None,
                 total_steps=None, decay_start_steps=None, decay_start_ratio=None):
        super().__init__(learning_rate, warmup_steps, warmup_lr_init, warmup_ratio, total_steps)
        _check_number("lr_end", lr_end, low=0.0)
        self.lr_end = float(lr_end)
        self.decay_start = ratio_to_steps("decay_start", decay_start_ratio, decay_start_steps, total_steps)
        if not self.warmup_steps <= self.decay_start <= total_steps:
            raise ValueError(f"the decay must start between the end of the warm-up ({self.warmup_steps}) and "
                             f"total_steps ({total_steps}), but starts at {self.decay_start}")

    def after_warmup(self, step):
        progress = (step - self.decay_start) / max(1, self.total_steps - self.decay_start)
        progress = ops.clamp(progress, 0.0, 1.0)
        return self.learning_rate + (self.lr_end - self.learning_rate) * progress
