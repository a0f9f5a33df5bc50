"""Reads what a training step handed to the callbacks, whatever kind of step it was."""
from dataclasses import dataclass

import numpy as np


@dataclass
class StepValues:
    """Numbers of one step; None where the step does not say.

    Attributes: loss (float), overflow (bool), loss_scale, lr, global_norm (float).
    """

    loss: float
    overflow: object = None
    loss_scale: object = None
    lr: object = None
    global_norm: object = None


def step_values(outputs):
    """Return StepValues from a StepOutput, a tuple (loss, overflow, loss_scale, lr, global_norm, ...) or a loss.

    A tuple of three is MindSpore's (loss, overflow, loss_scale). Entries may be tensors, arrays or numbers.
    """
    names = ("loss", "overflow", "loss_scale", "lr", "global_norm")
    if hasattr(outputs, "global_norm"):
        parts = [getattr(outputs, name) for name in names]
    elif isinstance(outputs, (tuple, list)):
        parts = list(outputs[:len(names)])
    else:
        parts = [outputs]
    parts = [_number(part) for part in parts] + [None] * (len(names) - len(parts))
    return StepValues(**dict(zip(names, parts)))


def _number(value):
    """A tensor, array or number as a Python number (the mean of several); None stays None."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (tuple, list)):
        value = value[0]
    array = np.asarray(value.asnumpy() if hasattr(value, "asnumpy") else value)
    return bool(array.any()) if array.dtype == bool else float(np.mean(array, dtype=np.float64))


def compact(number):
    """A float32 number in at most six digits: 0.005, not 0.004999999888241291."""
    return f"{number:.6g}"
