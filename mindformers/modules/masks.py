"""Additive attention masks: 0 where a query may look, a large negative number elsewhere.

Attention holds the G queries that share a kv head together, group-major, so a mask repeats its T rows G times.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindformers.kernels.portable import MASKED, counted, repeat_rows


class CausalMask(nn.Cell):
    """Mask of a forward pass without a cache.

    Args:
        groups (int): queries G per kv head.

    Inputs: keep int32 [B, T], 1 for real tokens, 0 for padding on either side. Outputs: [B, 1, G*T, T] float32.
    """

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def construct(self, keep):
        b, t = keep.shape
        steps = counted(t)
        causal = ops.reshape(steps, (1, 1, 1, -1)) <= ops.reshape(steps, (1, 1, -1, 1))
        allowed = ops.logical_and(causal, ops.reshape(keep, (b, 1, 1, t)) > 0)
        return repeat_rows((1.0 - ops.cast(allowed, ms.float32)) * MASKED, self.groups)


class TrainMask(nn.Cell):
    """Mask of a training step: causal, a constant of the fixed length; padding sits behind and needs none.

    Inputs: tokens int32 [B, T]. Outputs: [1, 1, G*T, T] float32.
    """

    def __init__(self, groups):
        super().__init__()
        self.groups = groups

    def construct(self, tokens):
        return _causal_constant(tokens.shape[1], self.groups)


@ms.constexpr
def _causal_constant(t, groups):
    rows = np.tile(np.triu(np.full((t, t), MASKED, np.float32), 1), (groups, 1))
    return Tensor(rows.reshape(1, 1, groups * t, t))
