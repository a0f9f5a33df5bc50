"""Clipping gradients by their global norm."""
import mindspore as ms
from mindspore import Tensor, nn, ops

_EPSILON = 1e-6


class ClipGradNorm(nn.Cell):
    """Scale gradients so that their global L2 norm is at most `max_norm`.

    Args:
        max_norm (float): the bound, > 0. Default: 1.0.
        use_norm (float): a norm to use instead of the computed one. Default: None.

    Inputs: tuple of gradient tensors of any float dtype.

    Returns: (gradients in their own dtypes, global norm before clipping as float32 scalar). Gradients within the
    bound are returned unscaled.

    Raises:
        ValueError: max_norm <= 0.
    """

    def __init__(self, max_norm=1.0, use_norm=None):
        super().__init__(auto_prefix=False)
        if not max_norm > 0:
            raise ValueError(f"max_norm must be greater than 0, but got {max_norm}")
        self.max_norm = float(max_norm)
        self.use_norm = None if use_norm is None else float(use_norm)

    def construct(self, x):
        if self.use_norm is None:
            total = Tensor(0.0, ms.float32)
            for gradient in x:
                squares = ops.square(ops.cast(gradient, ms.float32))
                total = total + (ops.sum(ops.sum(squares, -1)) if gradient.ndim > 0 else squares)
            norm = ops.sqrt(total)
        else:
            norm = Tensor(self.use_norm, ms.float32)
        factor = ops.minimum(self.max_norm / (norm + _EPSILON), ops.ones_like(norm))
        clipped = ()
        for gradient in x:
            clipped = clipped + (ops.cast(ops.cast(gradient, ms.float32) * factor, gradient.dtype),)
        return clipped, norm
