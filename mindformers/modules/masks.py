"""Additive attention masks: 0 where a query may look, a large negative number elsewhere."""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

MASKED = float(np.finfo(np.float32).min)


class CausalMask(nn.Cell):
    """Mask of a forward pass without a cache.

    Inputs: keep int32 [B, T], 1 for real tokens, 0 for padding on either side. Outputs: [B, 1, T, T] float32.
    """

    def construct(self, keep):
        b, t = keep.shape
        steps = ops.arange(0, t, 1, dtype=ms.int32)
        causal = ops.reshape(steps, (1, 1, 1, -1)) <= ops.reshape(steps, (1, 1, -1, 1))
        allowed = ops.logical_and(causal, ops.reshape(keep, (b, 1, 1, t)) > 0)
        return (1.0 - ops.cast(allowed, ms.float32)) * MASKED


class TrainMask(nn.Cell):
    """Mask of a training step: causal, built once for a fixed length; padding needs none because it sits behind.

    Inputs: tokens int32 [B, T]. Outputs: [1, 1, T, T] float32.
    """

    def construct(self, tokens):
        t = tokens.shape[1]
        return Tensor(np.triu(np.full((t, t), MASKED, np.float32), 1).reshape(1, 1, t, t))


class CacheMask(nn.Cell):
    """Mask of a step on the cache.

    Inputs: positions int32 [B, T] of the queries; keys (int): number of cached slots S that are read.
    Outputs: [B, 1, T, S] float32; a query sees the keys up to its own position.
    """

    def construct(self, positions, keys):
        b, t = positions.shape
        slots = ops.reshape(ops.arange(0, keys, 1, dtype=ms.int32), (1, 1, 1, -1))
        return ops.cast(slots > ops.reshape(positions, (b, 1, t, 1)), ms.float32) * MASKED
