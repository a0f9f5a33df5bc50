"""A step from token ids to logits in numpy: the portable twin of `native_step`, without a graph or a compiler.

MindSpore's MatMul of one row reads weights at half the speed of BLAS, and its casts from 16 bits are slower still;
so products run in scipy's BLAS, which comes with MindSpore.

Shape legend: B batch, T tokens of the call, S keys, N heads, K kv heads, G = N / K, H head dim, D hidden, V vocab,
M = B * T rows.
"""
import functools
import os
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import sgemm, sgemv
from threadpoolctl import threadpool_limits

from mindformers.kernels.places import Places
from mindformers.tools.env import get_env
from mindformers.tools.errors import ConfigError

_BLOCK = 2 ** 18  # weights that are made float32 at a time: they stay in the cache of a core until they are used
_MASKED = np.finfo(np.float32).min
_MOST_THREADS = 256  # as in csrc/pool.cpp


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
        _give_blas_its_threads()

    def run(self, tokens, positions, last, block_tables, slot_mapping):
        """See `native_step.DecoderStep.run`."""
        if self._parameters.moved():
            self._look()
        plan = self._plan(positions, block_tables, slot_mapping)
        rotation = self._rotation(positions)
        x = _float32(self._embedding[tokens.reshape(-1)])
        with np.errstate(over="ignore"):  # of exp in silu: a quotient by infinity is the 0 that it shall be
            for layer in self._layers:
                layer.run(x, rotation, plan, self)
        return self._head(_rms_norm(x if tokens.shape[1] == 1 else x[last], self._norm, self._eps[1]))

    def _look(self):
        """Arrays on the Parameters, where they lie now."""
        arrays = iter(self._parameters.arrays())
        self._embedding = next(arrays)
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
        """Slots that are written [M]; those that are read [B, S], or a slice where they lie in a row; additive mask
        [B, 1, T, S]; which of those that are read lie behind their row's end [B, S], None if none does."""
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
        return (np.where(slot_mapping < 0, spare, slot_mapping), read, hidden * _MASKED,
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

    def attend(self, qkv, rotation, plan, keys, values):
        """Rotate, store keys and values, attend; returns [M, N*H].

        Args:
            qkv (list): rows of queries, keys and values, or the three as one [M, (N+2K)*H].
            rotation, plan: from `_rotation` and `_plan`. keys, values: [slots + 1, K, H].
        """
        (n, k, h), (write, read, mask, behind) = self._heads, plan
        rows = qkv[0] if len(qkv) == 1 else np.concatenate(qkv, 1)
        rows = rows.reshape(len(rows), -1, h)
        turned = _rotate(rows[:, :n + k], rotation)
        keys[write], values[write] = turned[:, n:], rows[:, n + k:]
        b, _, t, _ = mask.shape
        q = turned[:, :n].reshape(b, t, k, n // k, h)
        keys, values = keys[read].reshape(b, -1, k, h), values[read].reshape(b, -1, k, h)
        if behind is not None:  # what a failed generation left there may be NaN, which no mask hides
            keys[behind] = values[behind] = 0
        return (_attend_one if t == 1 else _attend_many)(q, keys, values, mask).reshape(-1, n * h)

    def norm(self, x, weight):
        """The norm of a layer."""
        return _rms_norm(x, weight, self._eps[0])


@functools.cache
def _give_blas_its_threads():
    """The cores that this process may use, or MF_NUM_THREADS: MindSpore sets OMP_NUM_THREADS=1 when it is imported.

    Raises:
        ConfigError: MF_NUM_THREADS is no number from 1 to 256.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = get_env("MF_NUM_THREADS")
    if text:
        if not (text.isdecimal() and 1 <= int(text) <= _MOST_THREADS):
            raise ConfigError(f"MF_NUM_THREADS={text!r} is no number of threads from 1 to {_MOST_THREADS}")
        threads = int(text)
    threadpool_limits(threads, user_api="blas")


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
        out = _matmul(x, self.weight) if self.weight.dtype == np.float32 else self._by_blocks(x)
        return out if self.bias is None else np.add(out, _float32(self.bias), out=out)

    def _by_blocks(self, x):
        outputs, inputs = self.weight.shape
        out, rows = np.empty((len(x), outputs), np.float32), max(1, _BLOCK // inputs)
        for begin in range(0, outputs, rows):
            block = _float32(self.weight[begin:begin + rows])
            if self.scale is not None:
                groups = block.reshape(len(block), -1, inputs // self.scale.reshape(outputs, -1).shape[1])
                groups *= self.scale.reshape(outputs, -1, 1)[begin:begin + rows]
            out[:, begin:begin + rows] = _matmul(x, block)
        return out


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

    def run(self, x, rotation, plan, step):
        """Add what attention and MLP say to the rows x [M, D], in place."""
        normed = step.norm(x, self.norm)
        x += self.output(step.attend([product(normed) for product in self.qkv], rotation, plan, self.keys, self.values))
        normed = step.norm(x, self.mlp_norm)
        gate, up = np.split(self.gate_up[0](normed), 2, 1) if len(self.gate_up) == 1 else (
            product(normed) for product in self.gate_up)
        x += self.down(_swiglu(gate, up))


def _matmul(x, weight):
    """x [M, I] @ weight [O, I]^T; BLAS counts columns first, so both are handed over as they are, transposed."""
    if len(x) == 1:
        return sgemv(1.0, weight.T, x[0], trans=1)[None]
    return sgemm(1.0, weight.T, x.T, trans_a=True).T


def _float32(values):
    """float32 of any stored dtype; bfloat16 is its upper half."""
    if values.dtype.itemsize == 2 and values.dtype != np.float16:
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def _rms_norm(x, weight, eps):
    squares = np.einsum("md,md->m", x, x)[:, None] / np.float32(x.shape[1])
    out = x / np.sqrt(squares + np.float32(eps))
    out *= _float32(weight)
    return out


def _rotate(x, rotation):
    """x [M, N + K, H] by what `PortableStep._rotation` gives."""
    cos, sin, other = rotation
    out, turned = x * cos, x.take(other, -1)
    turned *= sin
    out += turned
    return out


def _attend_one(q, keys, values, mask):
    """q [B, 1, K, G, H], keys and values [B, S, K, H], mask [B, 1, 1, S] -> [B, 1, K, G, H]; read as they lie."""
    probs = _softmax(np.einsum("btkgh,bskh->bkgts", q, keys), mask[:, None])
    return np.einsum("bkgts,bskh->btkgh", probs, values)


def _attend_many(q, keys, values, mask):
    """The same for q [B, T, K, G, H] and mask [B, 1, T, S], a sequence and a head at a time."""
    b, t, k, g, h = q.shape
    out = np.empty_like(q)
    for row in range(b):
        for head in range(k):
            queries = q[row, :, head].reshape(t * g, h)  # the queries that share this head
            scores = _matmul(queries, keys[row, :, head]).reshape(t, g, -1)
            probs = _softmax(scores, mask[row, 0][:, None]).reshape(t * g, -1)
            out[row, :, head] = _matmul(probs, values[row, :, head].T).reshape(t, g, h)
    return out


def _softmax(scores, mask):
    """Of scores + mask over the last axis, in place."""
    scores += mask
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def _swiglu(gate, up):
    """silu(gate) * up."""
    out = np.negative(gate)
    np.exp(out, out=out)
    out += 1
    np.divide(gate, out, out=out)
    out *= up
    return out
