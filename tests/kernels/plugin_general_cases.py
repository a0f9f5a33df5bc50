"""General ops of the op plugin against numpy: ``python plugin_general_cases.py GRAPH|PYNATIVE`` prints one JSON object.

A process of its own, since MindSpore reads MS_OP_PLUGIN_PATH once, at its first op. Values are small whole numbers, so
that every type holds sums exactly and results are compared bit for bit.
"""
import json
import sys

import mindspore as ms
import mindspore.common.np_dtype as np_dtype
import numpy as np
from mindspore import Parameter, Tensor, mint, nn, ops

from mindformers.kernels import library

bf16 = np_dtype.bfloat16
FLOATS = ("float32", "float16", "bfloat16")
REAL = (*FLOATS, "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
ALL = (*REAL, "complex64")
SIGNED = (*FLOATS, "int8", "int16", "int32", "int64")
I = np.array([1, 0, -1], np.int64)


def array(dtype, shape, rng):
    values = rng.integers(-6, 7, shape)
    if dtype == "bool":
        return values > 0
    if dtype.startswith("uint"):
        values = np.abs(values)
    return values.astype(np.float32).astype(bf16 if dtype == "bfloat16" else dtype)


def descending(x, axis, count=None):
    order = np.argsort(-x, axis, kind="stable")
    order = order if count is None else np.take(order, range(count), axis)
    return np.take_along_axis(x, order, axis), order


class Cell(nn.Cell):
    def __init__(self, function):
        super().__init__(auto_prefix=False)
        self.function = function

    def construct(self, *inputs):
        return self.function(*inputs)


# Functions with a name each: GRAPH_MODE does not parse a lambda in a larger expression.
def argmax(x): return mint.argmax(x, 1)
def argmax_keep(x): return mint.argmax(x, 0, True)
def argmax_all(x): return mint.argmax(x)
def argmin(x): return mint.argmin(x, 0)
def argmin_all(x): return mint.argmin(x)
def sort(x): return mint.sort(x, dim=1)
def sort_down(x): return mint.sort(x, dim=0, descending=True, stable=True)
def argsort(x): return mint.argsort(x, 1)
def topk(x): return mint.topk(x, 2, 0)
def topk_least(x): return mint.topk(x, 2, 1, False)
def ops_topk(x): return ops.topk(x, 2)
def cumsum(x): return mint.cumsum(x, 1)
def cumsum_cast(x): return mint.cumsum(x, 0, dtype=ms.float32)
def ops_cumsum(x): return ops.CumSum(True, True)(x, 1)
def transpose(x): return ops.transpose(x, (1, 0))
def transpose3(x): return ops.transpose(x.reshape((x.shape[0], 1, x.shape[1])), (2, 0, 1))
def rows(x): return x[1:3]
def columns(x): return x[:, ::-2]
def last(x): return x[..., None, -1]
def strided(x): return ops.strided_slice(x, (0, 1), (3, 3), (2, 1))
def cut(x): return ops.slice(x, (1, 0), (2, 2))
def flat(x): return mint.flatten(x)
def reshape(x): return mint.reshape(x, (-1, 1))
def expand(x): return ops.expand_dims(x, 1)
def squeeze(x): return ops.squeeze(ops.expand_dims(x, 0), 0)
def tile(x): return mint.tile(x, (2, 1, 3))
def broadcast(x): return ops.broadcast_to(x, (2, *x.shape))
def repeat(x): return mint.repeat_interleave(x, 2, 1)
def repeat_flat(x): return mint.repeat_interleave(x, 3)
def stack(x): return mint.stack((x, x), 1)
def roll(x): return mint.roll(x, (1, -2), (0, 1))
def roll_flat(x): return mint.roll(x, 2)
def clone(x): return mint.clone(x)
def tril(x): return mint.tril(x, 1)
def triu(x): return mint.triu(x, -1)
def pad(x): return mint.nn.functional.pad(x, (1, 2, 0, 1), value=1)
def pad_negative(x): return mint.nn.functional.pad(x, (-1, 2))
def zeros_like(x): return mint.zeros_like(x)
def ones_like(x): return mint.ones_like(x)
def full_like(x): return mint.full_like(x, 3)
def full(x): return mint.full((2, 3), 3, dtype=x.dtype)
def gather(x): return mint.gather(x, 1, Tensor(I[None]))
def index_select(x): return mint.index_select(x, 0, Tensor(np.array([2, 0, 2], np.int32)))
def gather_nd(x): return ops.gather_nd(x, Tensor(np.array([[0, 1], [2, 0]], np.int32)))
def select(x): return ops.select(Tensor(np.array([[True]])), x, x)
def pick(x, i): return mint.gather(x, 0, i)
def four_classes(x): return mint.nn.functional.one_hot(x, 4)
def get_status(x): return ops.auto_generate.NPUGetFloatStatusV2()(x)
def clear_status(x): return ops.auto_generate.NPUClearFloatStatusV2()(x)
def where(x): return mint.where(Tensor(np.array([True, False])).reshape((2, 1, 1)), x, x[:1])


CASES = {  # function: (dtypes, numpy's word on it)
    argmax: (REAL, lambda x: np.argmax(x, 1)),
    argmax_keep: (REAL, lambda x: np.argmax(x, 0)[None]),
    argmax_all: (REAL, np.argmax),
    argmin: (REAL, lambda x: np.argmin(x, 0)),
    argmin_all: (REAL, np.argmin),
    sort: (SIGNED, lambda x: (np.sort(x, 1), np.argsort(x, 1, kind="stable"))),
    sort_down: (SIGNED, lambda x: descending(x, 0)),
    argsort: (REAL, lambda x: np.argsort(x, 1, kind="stable")),
    topk: (SIGNED, lambda x: descending(x, 0, 2)),
    topk_least: (SIGNED, lambda x: (np.sort(x, 1)[:, :2], np.argsort(x, 1, kind="stable")[:, :2])),
    ops_topk: (FLOATS, lambda x: descending(x, 1, 2)),
    cumsum: (ALL, lambda x: np.cumsum(x, 1)),
    cumsum_cast: (REAL, lambda x: np.cumsum(x, 0)),
    ops_cumsum: (SIGNED, lambda x: np.cumsum(x[:, ::-1], 1)[:, ::-1] - x),
    transpose: (ALL, lambda x: x.T),
    transpose3: (ALL, lambda x: x[:, None].transpose(2, 0, 1)),
    rows: (ALL, lambda x: x[1:3]),
    columns: (ALL, lambda x: x[:, ::-2]),
    last: (ALL, lambda x: x[..., None, -1]),
    strided: (ALL, lambda x: x[0:3:2, 1:3]),
    cut: (REAL, lambda x: x[1:3, :2]),
    flat: (ALL, np.ravel),
    reshape: (ALL, lambda x: x.reshape(-1, 1)),
    expand: (ALL, lambda x: x[:, None]),
    squeeze: (ALL, lambda x: x),
    tile: (REAL, lambda x: np.tile(x, (2, 1, 3))),
    broadcast: (ALL, lambda x: np.broadcast_to(x, (2, *x.shape))),
    repeat: (REAL, lambda x: np.repeat(x, 2, 1)),
    repeat_flat: (REAL, lambda x: np.repeat(x, 3)),
    stack: (ALL, lambda x: np.stack((x, x), 1)),
    roll: (SIGNED, lambda x: np.roll(x, (1, -2), (0, 1))),
    roll_flat: (SIGNED, lambda x: np.roll(x, 2)),
    clone: (ALL, lambda x: x),
    tril: (REAL, lambda x: np.tril(x, 1)),
    triu: (REAL, lambda x: np.triu(x, -1)),
    pad: (SIGNED, lambda x: np.pad(x, ((0, 1), (1, 2)), constant_values=1)),
    pad_negative: (SIGNED, lambda x: np.pad(x[:, 1:], ((0, 0), (0, 2)))),
    zeros_like: (ALL, np.zeros_like),
    ones_like: (ALL, np.ones_like),
    full_like: (SIGNED, lambda x: np.full_like(x, 3)),
    full: (SIGNED, lambda x: np.full((2, 3), 3)),
    gather: (ALL, lambda x: x[:1, I]),
    index_select: (ALL, lambda x: x[[2, 0, 2]]),
    gather_nd: (REAL, lambda x: x[[0, 2], [1, 0]]),
    select: (ALL, lambda x: x),
    where: (SIGNED, lambda x: np.where(np.array([True, False]).reshape(2, 1, 1), x, x[:1])),
}


def tuple_of(value):
    return value if isinstance(value, tuple) else (value,)


def same(got, expected):
    got, expected = tuple_of(got), tuple_of(expected)
    return len(got) == len(expected) and all(
        np.shape(g) == np.shape(e) and np.array_equal(g.astype(np.asarray(e).dtype), e) for g, e in zip(got, expected))


def changed(expected):
    """The expected result with one element changed: a comparison that takes it for right proves nothing."""
    parts = [np.array(part) for part in tuple_of(expected)]
    parts[-1].flat[parts[-1].size - 1] += 1
    return tuple(parts)


class Several(nn.Cell):
    """Functions on one input, as one graph: a compilation costs more than what it computes."""

    def __init__(self, functions):
        super().__init__(auto_prefix=False)
        self.functions = functions

    def construct(self, x):
        results = ()
        for function in self.functions:
            results = results + (function(x),)
        return results


def words(error):
    return " ".join(str(error).split())[:160]


def compared(function, got, values, dtype):
    """What is wrong with the result of `function` on `values`, as a list of at most one text."""
    expected = CASES[function][1](values.astype(np.complex128 if dtype == "complex64" else np.float64))
    got = tuple(part.asnumpy() for part in tuple_of(got))
    if not same(got, expected):
        return [f"{function.__name__} {dtype} {list(values.shape)}: differs from numpy"]
    return [f"{function.__name__} {dtype}: the comparison sees no change"] if same(got, changed(expected)) else []


def one_by_one(functions, tensors, values, dtype):
    """Each function on its own, so that the one that fails is named."""
    failures = []
    for function in functions:
        for tensor in tensors:
            try:
                failures += compared(function, Cell(function)(tensor), values, dtype)
            except Exception as error:  # pylint: disable=broad-except  # every failure is reported by name
                failures.append(f"{function.__name__} {dtype}: {words(error)}")
    return failures


def spread(values):
    """The same values as a view that is neither dense nor at the start of its memory."""
    height, width = values.shape
    wide = np.zeros((2 * width + 1, height), values.dtype)
    wide[1::2] = values.T
    return Tensor(wide)[1::2].T


def table(pynative):
    """Failures of all CASES: odd sizes of each dtype; as graphs, or dense and as views."""
    failures = []
    for number, dtype in enumerate(ALL):
        functions = [function for function, (dtypes, _) in CASES.items() if dtype in dtypes]
        rng = np.random.default_rng(number)
        for _ in range(2 if pynative else 1):
            values = array(dtype, (int(rng.integers(3, 41)), int(rng.integers(3, 71))), rng)
            if pynative:
                failures += one_by_one(functions, [Tensor(values), spread(values)], values, dtype)
                continue
            try:
                results = Several(functions)(Tensor(values))
                found = [failure for function, got in zip(functions, results)
                         for failure in compared(function, got, values, dtype)]
            except Exception as error:  # pylint: disable=broad-except  # every failure is reported by name
                found = one_by_one(functions, [Tensor(values)], values, dtype) or [f"all of {dtype}: {words(error)}"]
            failures += found
    return failures


class Cache(nn.Cell):
    def __init__(self, axis):
        super().__init__()
        self.axis = axis
        self.cache = Parameter(Tensor(np.zeros((2, 3, 8, 8)).astype(bf16)), name="cache")
        self.write = ops.auto_generate.KVCacheScatterUpdate()

    def construct(self, places, updates):
        return self.write(self.cache, places, updates, self.axis, "update")


def kv_cache():
    updates = np.arange(2 * 3 * 1 * 8).reshape(2, 3, 1, 8).astype(bf16)
    cell, expected = Cache(-2), np.zeros((2, 3, 8, 8), np.float32)
    cell(Tensor(np.array([1, 7], np.int64)), Tensor(updates))
    expected[0, :, 1:2], expected[1, :, 7:8] = updates[0], updates[1]
    assert np.array_equal(cell.cache.asnumpy().astype(np.float32), expected)
    cell = Cache(-1)
    cell(Tensor(np.array([3, 0], np.int64)), Tensor(updates.reshape(2, 3, 8, 1)))
    assert np.array_equal(cell.cache.asnumpy()[0, 1, :, 3], updates[0, 1, 0])
    try:
        Cache(-2)(Tensor(np.array([1, 8], np.int64)), Tensor(updates)).asnumpy()
    except RuntimeError:
        return
    raise AssertionError("a place past the cache was written")


def not_a_number():
    x = np.array([[1, np.nan, 3], [-0.0, 0.0, -np.inf]], np.float32)
    assert mint.argmax(Tensor(x), 1).asnumpy().tolist() == [1, 0]
    assert mint.argmin(Tensor(x), 1).asnumpy().tolist() == [1, 2]
    assert mint.sort(Tensor(x), dim=1)[1].asnumpy().tolist() == [[0, 2, 1], [2, 0, 1]]


def index_out_of_range():
    for bad in (4, -5):
        try:
            Cell(pick)(Tensor(np.ones((4, 1), np.float32)), Tensor([[bad]])).asnumpy()
        except RuntimeError:
            continue
        raise AssertionError(f"index {bad} of an axis of length 4 was taken")


def vocabulary():
    x = np.random.default_rng(3).standard_normal((2, 32000)).astype(np.float32)
    assert np.array_equal(mint.argmax(Tensor(x), -1).asnumpy(), x.argmax(-1))
    values, places = (t.asnumpy() for t in mint.topk(Tensor(x), 50))
    assert np.array_equal(places, np.argsort(-x, -1, kind="stable")[:, :50])
    assert np.array_equal(values, np.take_along_axis(x, places, -1))


def range_of_numbers():
    assert np.array_equal(mint.arange(2, 11, 3).asnumpy(), np.arange(2, 11, 3))
    assert np.allclose(mint.arange(0, 1, 0.1).asnumpy(), np.arange(0, 1, 0.1))


def one_hot():
    got = Cell(four_classes)(Tensor(np.array([[1, 0], [3, 2]]))).asnumpy()
    assert np.array_equal(got, np.eye(4)[[[1, 0], [3, 2]]])


def status():
    for function in (get_status, clear_status):
        assert not Cell(function)(Tensor(np.ones(8, np.int32))).asnumpy().any()


def adamw_reference(w, grads, rate, decay, b1=0.9, b2=0.999, eps=1e-8):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step, g in enumerate(grads, 1):
        w = w * (1 - rate * decay)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w = w - rate / (1 - b1**step) * m / (np.sqrt(v) / np.sqrt(1 - b2**step) + eps)
    return w


def adamw():
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal((33, 70)), rng.standard_normal((4, 33, 70))
    expected = adamw_reference(start, grads, 0.1, 0.05)
    for dtype, bound in ((ms.float32, 2e-6), (ms.bfloat16, 0.05), (ms.float16, 5e-3)):
        weight = Parameter(Tensor(start.astype(np.float32)).astype(dtype), name="w")
        optimizer = mint.optim.AdamW([weight], lr=0.1, weight_decay=0.05)
        for g in grads:
            optimizer((Tensor(g.astype(np.float32)).astype(dtype),))
        error = np.abs(weight.asnumpy().astype(np.float64) - expected).max()
        assert error < bound, f"{dtype}: off by {error}"
        assert np.abs(start - expected).max() > 4 * bound


def add_in_place():
    for dtype in REAL[:-1]:
        x = Tensor(array(dtype, (3, 4), np.random.default_rng(1)))
        before = x.asnumpy().astype(np.float64)
        x.add_(Tensor(array(dtype, (4,), np.random.default_rng(2))), alpha=2)
        if ms.get_context("mode") == ms.PYNATIVE_MODE:
            added = array(dtype, (4,), np.random.default_rng(2)).astype(np.float64)
            assert np.array_equal(x.asnumpy().astype(np.float64), before + 2 * added), dtype
            assert added.any()


def views_of_stock_ops():
    """MindSpore's own kernels on views, which a plugin breaks unless csrc/plugin/views.cpp is at work."""
    a = np.arange(6).reshape(3, 2).astype(np.float32)

    def net(x):
        t, n = mint.transpose(x, 0, 1), mint.narrow(x, 0, 1, 2)
        return t + t, mint.exp(t), ops.MatMul()(t, x), n * 2.0, mint.cat((t, t))
    got = [t.asnumpy() for t in Cell(net)(Tensor(a))]
    for g, e in zip(got, (a.T + a.T, np.exp(a.T), a.T @ a, a[1:] * 2, np.concatenate((a.T, a.T)))):
        assert np.allclose(g, e, rtol=1e-5), (g, e)


def main(mode):
    library.offer_plugin()
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE if mode == "PYNATIVE" else ms.GRAPH_MODE)
    failures = []
    for check in (views_of_stock_ops, kv_cache, not_a_number, index_out_of_range, vocabulary, range_of_numbers, one_hot,
                  status, add_in_place, adamw):
        try:
            check()
        except Exception as error:  # pylint: disable=broad-except  # every failure is reported by name
            failures.append(f"{check.__name__}: {type(error).__name__} {' '.join(str(error).split())[:300]}")
    failures += table(mode == "PYNATIVE")
    print(json.dumps({"failures": failures, "plugin": library.plugin_offer(), "cases": len(CASES)}))


if __name__ == "__main__":
    main(sys.argv[1])
