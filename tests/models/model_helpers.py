"""What the tests of the model families share: inputs, logits, cached steps, damaged models, gradients, greedy text."""
from contextlib import contextmanager
from functools import lru_cache

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn


def mostly_slow(cases, fast):
    """Parameters of a test: `fast` cases always run, the others are marked slow (each compiles graphs for seconds)."""
    return [case if case in fast else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def ints(array):
    """An int32 Tensor."""
    return Tensor(np.asarray(array, np.int32))


def logits(model, ids, **kwargs):
    """Logits of a forward pass as a numpy array."""
    return model(ints(ids), **kwargs).logits.asnumpy()


def steps_with_cache(model, ids, cuts):
    """Logits [B, len(cuts)+1, V] behind each piece of `ids` when it is fed in pieces to one cache."""
    out = []
    with model.make_cache(len(ids), ids.shape[1]) as cache:
        for piece in np.split(ids, cuts, axis=1):
            out.append(model.forward_step(piece, np.full(len(ids), piece.shape[1], np.int32), cache))
        assert list(cache.lengths) == [ids.shape[1] + model.model.past_length] * len(ids)
    return np.stack(out, 1)


def edit(model, ending, change):
    """Replace every parameter whose name ends with `ending` by change(array)."""
    hit = [p for p in model.get_parameters() if p.name.endswith(ending)]
    assert hit, ending
    for p in hit:
        p.set_data(Tensor(np.ascontiguousarray(change(p.asnumpy())).astype(np.float32)))


@contextmanager
def changed(model, change):
    """A shared model with change(model) applied, and repaired afterwards."""
    kept = {p.name: p.asnumpy().copy() for p in model.get_parameters()}
    try:
        change(model)
        yield model
    finally:
        for p in model.get_parameters():
            p.set_data(Tensor(kept[p.name]))


class TrainingStep(nn.Cell):
    """Loss and gradients in one cell: a compiled value_and_grad outside a cell does not see a later `set_data`."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.step = ms.value_and_grad(model, None, model.trainable_params())

    def construct(self, input_ids, labels):
        return self.step(input_ids, labels)


@lru_cache(maxsize=None)
def _training_step(model):
    return TrainingStep(model)


def loss_and_gradients(model, *inputs):
    """Loss and {name: gradient} of a shared model, whose training step is compiled once."""
    model.set_train()
    try:
        loss, gradients = _training_step(model)(*map(ints, inputs))
    finally:
        model.set_train(False)
    return float(loss.asnumpy()), {p.name: grad.asnumpy() for p, grad in zip(model.trainable_params(), gradients)}


def greedy(model, prompts, count, **kwargs):
    """`count` new tokens for each prompt, all prompts in one left padded batch."""
    width = max(map(len, prompts))
    ids = np.stack([np.pad(p, (width - len(p), 0)) for p in prompts])
    mask = np.stack([np.pad(np.ones(len(p), np.int32), (width - len(p), 0)) for p in prompts])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=count, do_sample=False, **kwargs)
    return [np.asarray(row)[-count:] for row in out]
