"""A small language model for tests of the step: embedding, two dense layers, cross entropy."""
import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from mindformers.core.loss import CrossEntropyLoss

VOCAB, HIDDEN = 17, 8


class TinyLM(nn.Cell):
    """Predicts the next token from the current one; tokens equal to 0 do not count."""

    def __init__(self, per_token=False, seed=0):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.table = Parameter(Tensor(rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32)), name="table")
        self.dense = Parameter(Tensor(rng.normal(size=(HIDDEN, HIDDEN)).astype(np.float32)), name="dense")
        self.bias = Parameter(Tensor(rng.normal(size=(HIDDEN,)).astype(np.float32)), name="bias")
        self.head = Parameter(Tensor(rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32)), name="head")
        self.loss = CrossEntropyLoss(calculate_per_token_loss=per_token)
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, ids):
        tokens, labels = ids[:, :-1].reshape(-1), ids[:, 1:].reshape(-1)
        hidden = ops.tanh(self.matmul(ops.gather(self.table, tokens, 0), self.dense) + self.bias)
        return self.loss(self.matmul(hidden, self.head), labels, ops.cast(labels != 0, ms.float32))


class Poisoned(nn.Cell):
    """A network whose loss is multiplied by its second input."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, ids, gain):
        total, count = self.network(ids)
        return total * ops.mean(gain), count


def rows(count, length=9, seed=1, pad=True):
    """int32 [count, length] random tokens; with `pad`, row i ends in i % length - 2 zeros."""
    ids = np.random.default_rng(seed).integers(1, VOCAB, (count, length)).astype(np.int32)
    for i in range(count if pad else 0):
        ids[i, length - i % (length - 2):] = 0
    return ids


def values(cell):
    """Parameters of `cell` by name, as arrays."""
    return {parameter.name: parameter.asnumpy().copy() for parameter in cell.get_parameters()}
