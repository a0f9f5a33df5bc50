"""A step from token ids to logits in numpy: the portable twin of `native_step`, without a graph or a compiler.

Shape legend: B batch, T tokens of the call, S keys, N heads, K kv heads, G = N / K, H head dim, D hidden, F width of
the MLP, V vocab, M = B * T rows.
"""
import functools
import math
from typing import NamedTuple

import numpy as np

from mindformers.kernels import blas
from mindformers.kernels.places import Places

_BLOCK = 2 ** 18  # weights that are made float32 at a time: they stay in the cache of a core until they are used
_MASKED = np.finfo(np.float32).min


class PortableStep:
    """Embedding, the layers of a pre-norm decoder on a paged cache, and the head.

    Arguments as `native_step.DecoderStep`. Products run in float32 whatever the weights are stored in. Keys and values
    are float32 [(slots + 1) * K, H]; padding writes to the last slot.
    """

    def __init__(self, embedding, layout, layers, head, eps, rope, heads, scale, block_size, past_length):
        self._parameters = Places([embedding, *(x for x in head if x is not None), *layers])
        self._layout, self._head_has = layout, [x is not None for x in head]
        self._eps, self._rope, self._heads, self._scale = eps, rope, heads, np.float32(scale)
        self._block_size, self._past_length = block_size, past_length
        self._embedding, self._layers, self._norm, self._head = None, [], None, None
        self._rows = None
        blas.use_all_cores()

    def run(self, tokens, positions, last, block_tables, slot_mapping):
        """See `native_step.DecoderStep.run`."""
        if self._parameters.moved():
            self._look()
        if self._rows is None or len(self._rows.x) != tokens.size:
            self._rows = _Rows(self._embedding.shape[1], self._heads, self._layers, self._eps[0], tokens.size)
        x = self._rows.x
        x[...] = _float32(self._embedding[tokens.reshape(-1)])
        plan, rotation = self._plan(positions, block_tables, slot_mapping), self._rotation(positions)
        with np.errstate(over="ignore"):  # of exp in silu: a quotient by infinity is the 0 that it shall be
            self._rows.run(plan, rotation)
        x = x if tokens.shape[1] == 1 else x[last]
        return self._head(_rms_norm(x, self._norm, self._eps[1], np.empty_like(x)))

    def _look(self):
        """Arrays on the Parameters, where they lie now."""
        arrays = iter(self._parameters.arrays())
        self._embedding, self._rows = next(arrays), None
        _, *has = self._head_has
        self._norm, self._head = next(arrays), _Product.of(arrays, *has[1:])
        count, qkv, gate_up, *has, scaled = self._layout
        shape = (-1, *self._heads[1:])
        self._layers = [_Layer(next(arrays), [_Product.of(arrays, has[0], scaled) for _ in range(qkv)],
                               _Product.of(arrays, has[1], scaled), next(arrays).reshape(shape),
                               next(arrays).reshape(shape), next(arrays),
                               [_Product.of(arrays, has[2], scaled) for _ in range(gate_up)],
                               _Product.of(arrays, has[2], scaled)) for _ in range(count)]

    def _plan(self, positions, block_tables, slot_mapping):
        """Where a step writes and reads; raises RuntimeError for what lies outside the cache."""
        (b, t), size = positions.shape, self._block_size
        spare = len(self._layers[0].keys) - 1
        blocks = block_tables[:, :positions.max() // size + 1]
        for name, values, end in (("slot", slot_mapping, spare), ("block", blocks, spare // size)):
            if values.max() >= end:
                raise RuntimeError(f"{name} {values.max()} is outside the cache, which has {end} {name}s")
        read = (blocks[:, :, None] * size + np.arange(size)).reshape(b, -1)[:, :positions.max() + 1]
        hidden = np.arange(read.shape[1]) > positions.reshape(b, 1, t, 1)
        behind = hidden.all((1, 2))
        if b == 1 and (np.diff(blocks) == 1).all():
            read = slice(read[0, 0], read[0, 0] + read.shape[1])
        write = np.where(slot_mapping < 0, spare, slot_mapping)
        if len(write) == 1:
            write = slice(write[0], write[0] + 1)
        return _Plan((b, t), write, read, hidden * _MASKED if hidden.any() else None,
                     behind if behind.any() else None)

    def _rotation(self, positions):
        """Cosines and sines [M, N + K, H] of the elements, for queries times the factor of the scores, and where the
        other one of each pair stands [H].

        The first of a pair (a, b) becomes a cos - b sin, the second b cos + a sin: x * cos + x[other] * sin with the
        sign in sin.
        """
        n, k, h = self._heads
        turns = positions.reshape(-1) - self._past_length
        angles = turns[:, None, None].astype(np.float32) * self._rope.step_frequencies(turns)
        cos, sin = (wave(angles) * np.float32(self._rope.factor) for wave in (np.cos, np.sin))
        elements, half = np.arange(h), h // 2
        if self._rope.interleaved:
            other, both = elements ^ 1, functools.partial(np.stack, axis=-1)
        else:
            other, both = (elements + half) % (2 * half), functools.partial(np.concatenate, axis=-1)
        factors = np.ones((n + k, 1), np.float32)
        factors[:n] = self._scale
        return (both((cos, cos)).reshape(-1, 1, h) * factors, both((-sin, sin)).reshape(-1, 1, h) * factors, other)


class _Plan(NamedTuple):
    """A step on the cache.

    shape: (B, T). write: slots [M] that are written. read: slots [B, S] that are read; either is a slice where slots
    lie in a row. mask: additive [B, 1, T, S], None if nothing is hidden. behind: which of the slots that are read lie
    behind their row's end [B, S], None if none does.
    """

    shape: tuple
    write: object
    read: object
    mask: np.ndarray
    behind: np.ndarray


class _Product(NamedTuple):
    """weight [O, I], bias [O] or None, int8 scale [O] or [O, groups] or None."""

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, arrays, has_bias, has_scale):
        """The next of an iterator."""
        return cls(next(arrays), next(arrays) if has_bias else None, next(arrays) if has_scale else None)

    def __call__(self, x):
        """x [M, I] -> [M, O]."""
        out = np.empty((len(x), len(self.weight)), np.float32)
        self.prepare(x, out)()
        return out

    def prepare(self, x, out, add=False):
        """A function that writes the product of x [M, I] to out [M, O], or adds it, as `blas.prepare`."""
        if self.weight.dtype == np.float32:
            multiply = blas.prepare(x, self.weight, out, add)
        else:
            multiply = functools.partial(self._by_blocks, x, out, add)
        if self.bias is None:
            return multiply

        def multiply_and_add():
            multiply()
            np.add(out, _float32(self.bias), out=out)

        return multiply_and_add

    def _by_blocks(self, x, out, add):
        outputs, inputs = self.weight.shape
        rows = max(1, _BLOCK // inputs)
        for begin in range(0, outputs, rows):
            block = _float32(self.weight[begin:begin + rows])
            if self.scale is not None:
                groups = block.reshape(len(block), -1, inputs // self.scale.reshape(outputs, -1).shape[1])
                groups *= self.scale.reshape(outputs, -1, 1)[begin:begin + rows]
            blas.prepare(x, block, out[:, begin:begin + rows], add)()


class _Layer(NamedTuple):
    """The arrays of a layer; keys and values [slots + 1, K, H]."""

    norm: np.ndarray
    qkv: list
    output: _Product
    keys: np.ndarray
    values: np.ndarray
    mlp_norm: np.ndarray
    gate_up: list
    down: _Product


class _Rows:
    """The layers on M rows: memory for what a layer computes, and its products on that memory.

    A product finds the caches of a core full of weights, so a step is as few calls as can be, and none makes arrays
    that could have been there.

    Attributes:
        x: float32 [M, D], what the layers start from and end with.
    """

    def __init__(self, width, heads, layers, eps, count):
        (n, k, h), self._eps = heads, eps
        self.x, self._normed = np.empty((count, width), np.float32), np.empty((count, width), np.float32)
        self._qkv = np.empty((count, n + 2 * k, h), np.float32)
        self._turned, self._others = (np.empty((count, n + k, h), np.float32) for _ in range(2))
        self._attended = np.empty((count, n, h), np.float32)
        mlp = sum(len(product.weight) for product in layers[0].gate_up)
        gate_up = np.empty((count, mlp), np.float32)
        self._gate, self._up, self._inverse = *np.split(gate_up, 2, 1), np.empty((count, mlp // 2), np.float32)
        self._layers = [(layer, _side_by_side(layer.qkv, self._normed, self._qkv.reshape(count, -1)),
                         layer.output.prepare(self._attended.reshape(count, -1), self.x, add=True),
                         _side_by_side(layer.gate_up, self._normed, gate_up),
                         layer.down.prepare(self._gate, self.x, add=True)) for layer in layers]

    def run(self, plan, rotation):
        """Take x through the layers, in place."""
        for layer, qkv, output, gate_up, down in self._layers:
            _rms_norm(self.x, layer.norm, self._eps, self._normed)
            for product in qkv:
                product()
            self._attend(plan, rotation, layer.keys, layer.values)
            output()
            _rms_norm(self.x, layer.mlp_norm, self._eps, self._normed)
            for product in gate_up:
                product()
            self._swiglu()
            down()

    def _attend(self, plan, rotation, keys, values):
        """Rotate queries and keys, store keys and values, attend."""
        (m, n, h), (b, t), k = self._attended.shape, plan.shape, keys.shape[1]
        self._rotate(rotation)
        keys[plan.write], values[plan.write] = self._turned[:, n:], self._qkv[:, n + k:]
        keys, values = keys[plan.read].reshape(b, -1, k, h), values[plan.read].reshape(b, -1, k, h)
        if plan.behind is not None:  # what a failed generation left there may be NaN, which no mask hides
            keys[plan.behind] = values[plan.behind] = 0
        q, out = (array[:, :n].reshape(b, t, k, n // k, h) for array in (self._turned, self._attended))
        (_attend_one if t == 1 and n == k else _attend_many)(q, keys, values, plan.mask, out)

    def _rotate(self, rotation):
        """By what `PortableStep._rotation` gives."""
        cos, sin, other = rotation
        x = self._qkv[:, :self._turned.shape[1]]
        np.multiply(x, cos, out=self._turned)
        x.take(other, -1, out=self._others, mode="clip")  # "raise" would make a copy first
        self._others *= sin
        self._turned += self._others

    def _swiglu(self):
        """silu(gate) * up, in the place of gate."""
        inverse = np.negative(self._gate, out=self._inverse)
        np.exp(inverse, out=inverse)
        inverse += 1
        self._gate /= inverse
        self._gate *= self._up


def _side_by_side(products, x, out):
    """Calls that write the products of x one beside the other into out."""
    ends = np.cumsum([len(product.weight) for product in products])
    return [product.prepare(x, out[:, end - len(product.weight):end]) for product, end in zip(products, ends)]


def _float32(values):
    """float32 of any stored dtype; bfloat16 is its upper half."""
    if values.dtype == np.float32:
        return values
    if values.dtype.itemsize == 2 and values.dtype != np.float16:
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _rms_norm(x, weight, eps, out):
    np.multiply(x, _float32(weight), out=out)
    if len(x) == 1:  # a number of Python costs less than three arrays of one element
        out /= math.sqrt(np.dot(x[0], x[0]) / x.shape[1] + eps)
    else:
        out /= np.sqrt(np.einsum("md,md->m", x, x) / np.float32(x.shape[1]) + np.float32(eps))[:, None]
    return out


def _attend_one(q, keys, values, mask, out):
    """q and out [B, 1, K, 1, H], keys and values [B, S, K, H], mask [B, 1, 1, S] or None; read as they lie."""
    probs = _softmax(np.einsum("btkgh,bskh->bkgts", q, keys), None if mask is None else mask[:, None])
    np.einsum("bkgts,bskh->btkgh", probs, values, out=out)


def _attend_many(q, keys, values, mask, out):
    """The same for q [B, T, K, G, H] and mask [B, 1, T, S], a sequence and a head at a time."""
    b, t, k, g, h = q.shape
    for row in range(b):
        for head in range(k):
            queries = q[row, :, head].reshape(t * g, h)  # the queries that share this head
            scores = blas.matmul(queries, keys[row, :, head]).reshape(t, g, -1)
            probs = _softmax(scores, None if mask is None else mask[row, 0][:, None]).reshape(t * g, -1)
            out[row, :, head] = blas.matmul(probs, values[row, :, head].T).reshape(t, g, h)


def _softmax(scores, mask):
    """Of scores + mask over the last axis, in place."""
    if mask is not None:
        scores += mask
    scores -= np.maximum.reduce(scores, -1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, -1, keepdims=True)
    return scores
