"""A loss scale whose patience adapts."""
import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops


class AdaptiveLossScaleUpdateCell(nn.Cell):
    """Dynamic loss scale with an adaptive window.

    After an overflow the scale is divided by `scale_factor` (not below 1) and the window doubles: the scale was too
    high, wait longer before the next try. After a full window without overflow the scale is multiplied and the window
    halves. The window stays within [min_scale_window, max_scale_window].

    Args:
        loss_scale_value (float): initial scale, > 0.
        scale_factor (int): factor of a change, > 1.
        scale_window (int): steps without overflow before the scale grows.
        max_scale_window (int): Default: 1000.
        min_scale_window (int): Default: 20.

    Inputs: loss_scale (Parameter, updated in place), overflow (bool scalar). Returns overflow.

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(self, loss_scale_value, scale_factor, scale_window, max_scale_window=1000, min_scale_window=20):
        super().__init__(auto_prefix=False)
        if not loss_scale_value > 0 or not scale_factor > 1:
            raise ValueError(f"loss_scale_value must be > 0 and scale_factor > 1, but got {loss_scale_value} and "
                             f"{scale_factor}")
        if not 0 < min_scale_window <= scale_window <= max_scale_window:
            raise ValueError("scale windows must satisfy 0 < min <= scale_window <= max, but got "
                             f"{min_scale_window}, {scale_window}, {max_scale_window}")
        self.loss_scale_value = loss_scale_value
        self.scale_factor = float(scale_factor)
        self.longest, self.shortest = Tensor(max_scale_window, ms.int32), Tensor(min_scale_window, ms.int32)
        self.window = Parameter(Tensor(scale_window, ms.int32), name="scale_window", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, ms.int32), name="good_steps", requires_grad=False)

    def get_loss_scale(self):
        """The initial scale."""
        return self.loss_scale_value

    def construct(self, loss_scale, overflow):
        good = (self.good_steps + 1) * ops.cast(ops.logical_not(overflow), ms.int32)
        grow = good >= self.window
        shrunk = ops.maximum(loss_scale / self.scale_factor, ops.ones_like(loss_scale))
        scale = ops.select(grow, loss_scale * self.scale_factor, ops.select(overflow, shrunk, loss_scale + 0.0))
        window = ops.select(overflow, ops.minimum(self.window * 2, self.longest), self.window + 0)
        window = ops.select(grow, ops.maximum(window // 2, self.shortest), window)
        ops.assign(loss_scale, scale)
        ops.assign(self.window, window)
        ops.assign(self.good_steps, good * ops.cast(ops.logical_not(grow), ms.int32))
        return overflow
