"""The ops in MindSpore's fused primitives against their portable twins, forward and backward, as they run on Ascend."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from plugin_twins import as_numpy, close, differs, plugin, random  # noqa: F401

from mindformers.kernels import fused, portable

HEADS = (4, 2, 16)  # N, K, H


class _Op(nn.Cell):
    """One op of a form as a graph."""

    def __init__(self, form, name, *constants):
        super().__init__(auto_prefix=False)
        self.op, self.constants = getattr(form, name), constants

    def construct(self, *inputs):
        return self.op(*inputs, *self.constants)


class _Loss(nn.Cell):
    """Sum of an op's output times fixed numbers, so that every element has a gradient of its own."""

    def __init__(self, op, weights):
        super().__init__(auto_prefix=False)
        self.op, self.weights = op, weights

    def construct(self, *inputs):
        return ops.ReduceSum()(ops.cast(self.op(*inputs), ms.float32) * self.weights)


def compare(name, inputs, constants=(), trained=None, dtype="float32"):
    """The op and its gradients for the first `trained` inputs (default: all) in both forms; float32 unless said."""
    ours, twin = _Op(fused, name, *constants), _Op(portable, name, *constants)
    out, expected = ours(*inputs), as_numpy(twin(*inputs))
    assert out.dtype == ms.float32
    close(out, expected, dtype)
    trained = len(inputs) if trained is None else trained
    if trained:
        weights = random(expected.shape, seed=99)[0]
        slopes = [ms.grad(_Loss(op, weights), grad_position=tuple(range(trained)))(*inputs) for op in (ours, twin)]
        for got, wanted in zip(*(s if isinstance(s, tuple) else (s,) for s in slopes)):
            close(got, as_numpy(wanted), dtype, factor=1.5)
            differs(got, as_numpy(wanted) * 1.5, dtype)


def test_rms_norm_and_swiglu():
    compare("rms_norm", (random((5, 24))[0], random((24,), seed=1)[0]), (1e-5,))
    compare("swiglu", (random((5, 24))[0], random((5, 24), seed=1)[0]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_linear_and_embedding(dtype):
    x, w, bias = random((5, 24))[0], random((7, 24), dtype, 1)[0], random((7,), dtype, 2)[0]
    compare("linear", (x, w), dtype=dtype, trained=None if dtype == "float32" else 0)
    compare("linear", (x, w, bias), dtype=dtype, trained=None if dtype == "float32" else 0)
    ids = Tensor([[0, 4, 6], [1, 1, 3]], ms.int32)
    out, expected = _Op(fused, "embedding")(ids, w), as_numpy(_Op(portable, "embedding")(ids, w))
    assert out.dtype == ms.float32 and np.array_equal(as_numpy(out), expected)


class _Rope(nn.Cell):
    def __init__(self, form, interleaved):
        super().__init__(auto_prefix=False)
        self.plan, self.rope, self.interleaved = form.rope_plan, form.rope, interleaved

    def construct(self, x, positions, inv_freq):
        return self.rope(x, self.plan(positions, inv_freq, 1.25, self.interleaved))


@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
def test_rope(interleaved):
    inputs = random((6, 3, 8))[0], Tensor([0, 1, 2, 9, 10, 500], ms.int32), Tensor([1, 0.3, 0.1, 0], ms.float32)
    out = _Rope(fused, interleaved)(*inputs)
    close(out, as_numpy(_Rope(portable, interleaved)(*inputs)))
    differs(out, as_numpy(_Rope(portable, not interleaved)(*inputs)))
    weights = random((6, 3, 8), seed=1)[0]
    got, expected = (ms.grad(_Loss(_Rope(form, interleaved), weights))(*inputs) for form in (fused, portable))
    close(got, as_numpy(expected))


def additive(hidden):
    return Tensor(np.where(hidden, portable.MASKED, 0).astype(np.float32))


@pytest.mark.parametrize("half", [False, True], ids=["float32", "as on Ascend"])
@pytest.mark.parametrize("batches", [1, 2], ids=["one mask", "a mask each"])
def test_attention(half, batches, monkeypatch):
    monkeypatch.setattr(fused, "HALF_ATTENTION", half)
    b, t, (n, k, h) = 2, 7, HEADS
    q, keys, values = random((b, k, n // k * t, h))[0], random((b, k, t, h), seed=1)[0], random((b, k, t, h), seed=2)[0]
    hidden = np.tile(np.triu(np.ones((t, t), bool), 1), (batches, 1, n // k, 1))
    hidden[batches - 1, :, :, 0] |= batches == 2  # padding on the left of the second row
    hidden[:, :, ::t] &= False  # its first query sees something, so that both forms define it
    inputs = q, keys, values, additive(hidden)
    compare("attention", inputs, (0.25,), trained=3, dtype="bfloat16" if half else "float32")


class _Block(nn.Cell):
    """A layer of training: norm, projections, rope, attention, gated MLP."""

    def __init__(self, form):
        super().__init__(auto_prefix=False)
        for name in ("rms_norm", "linear", "rope_plan", "rope", "attention", "swiglu"):
            setattr(self, name, getattr(form, name))

    def construct(self, x, norm, wqkv, wo, wg, wd, positions, inv_freq, mask):
        n, k, h = HEADS
        q, keys, values = portable.split_qkv((self.linear(self.rms_norm(x, norm, 1e-5), wqkv),), HEADS)
        plan = self.rope_plan(positions, inv_freq, 1.0)
        q = portable.group_queries(self.rope(q, plan), HEADS, 2, 6)
        keys = ops.transpose(ops.reshape(self.rope(keys, plan), (2, 6, k, h)), (0, 2, 1, 3))
        values = ops.transpose(ops.reshape(values, (2, 6, k, h)), (0, 2, 1, 3))
        x = x + self.linear(portable.ungroup(self.attention(q, keys, values, mask, 0.25), HEADS, 2, 6), wo)
        inner = self.linear(self.rms_norm(x, norm, 1e-5), wg)
        return x + self.linear(self.swiglu(inner[:, :40], inner[:, 40:]), wd)


def test_a_training_layer_and_its_gradients():
    shapes = [(12, 32), (32,), (128, 32), (32, 64), (80, 32), (32, 40)]
    inputs = [random(shape, seed=i, scale=0.3)[0] for i, shape in enumerate(shapes)]
    hidden = np.tile(np.triu(np.ones((6, 6), bool), 1), (1, 1, 2, 1))
    inputs += [Tensor(np.tile(np.arange(6, dtype=np.int32), 2)), random((8,), scale=0.1)[0], additive(hidden)]
    weights = random((12, 32), seed=20)[0]
    slopes = [ms.grad(_Loss(_Block(form), weights), grad_position=tuple(range(6)))(*inputs)
              for form in (fused, portable)]
    for got, wanted in zip(*slopes):
        close(got, as_numpy(wanted), factor=1.5)


# -- steps on the cache ----------------------------------------------------------------------------------------------

BLOCK = 16
BOUND = "bfloat16"


class _Step(nn.Cell):
    """Projections, cache write and attention of a step."""

    def __init__(self, form, caches, single, interleaved):
        super().__init__(auto_prefix=False)
        self.single, self.interleaved = single, interleaved
        self.key, self.value = caches
        for name in ("norm_qkv", "step_rotation", "cache_plan", "paged_attention", "linear_add", "norm_gate_up"):
            setattr(self, name, getattr(form, name))

    def construct(self, x, norm, wqkv, wo, wg, positions, slots, tables, inv_freq):
        qkv = self.norm_qkv(x, norm, 1e-5, (wqkv,), (None,), (None,))
        rotation = self.step_rotation(ops.reshape(positions, (-1,)), inv_freq, 1.0, self.single, self.interleaved)
        plan = self.cache_plan(positions, tables, slots, HEADS, BLOCK, 96, self.single)
        out = self.paged_attention(qkv, rotation, plan, self.key, self.value, HEADS, BLOCK, 0.25)
        x = self.linear_add(out, wo, None, None, x)
        return x, self.norm_gate_up(x, norm, 1e-5, (wg,), (None,), (None,))


@pytest.mark.parametrize("packed", [True, False])
def test_norm_qkv_and_gate_up_packed_or_not(packed):
    x, norm = random((3, 24))[0], random((24,), seed=1)[0]
    weights = tuple(random((8, 24), "bfloat16", i)[0] for i in range(2 if packed else 3))
    joined = Tensor(np.concatenate([as_numpy(w) for w in weights]).astype(np.float32)).astype(ms.bfloat16)
    none = (None,) * 3
    if packed:
        got = fused.norm_gate_up(x, norm, 1e-5, (joined,), none, none)
        close(got, as_numpy(portable.norm_gate_up(x, norm, 1e-5, weights, none, none)), BOUND)
    else:
        parts = fused.norm_qkv(x, norm, 1e-5, weights, none, none)
        whole = as_numpy(portable.norm_qkv(x, norm, 1e-5, (joined,), none, none)[0])
        close(ops.concat(parts, -1), whole, BOUND)


@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
def test_steps_on_the_cache_of_ascend_form(interleaved):
    n, k, h = HEADS
    shape = fused.cache_shape(6, BLOCK, k, h)
    ours = [Parameter(Tensor(np.zeros(shape, np.float32)).astype(ms.bfloat16), name=f"c{i}") for i in (0, 1)]
    twin = [Parameter(Tensor(np.zeros((97 * k, h), np.float32)), name=f"p{i}") for i in (0, 1)]
    weights = [random((64,), seed=1)[0]]
    weights += [random((rows, 64), seed=rows, scale=0.1)[0] for rows in (128, 64, 48)]
    tables, inv_freq = np.array([[3, 0], [1, 4]], np.int32), random((8,), scale=0.1)[0]
    lengths = np.zeros(2, np.int32)
    for counts in ((14, 9), (1, 1), (1, 1), (1, 1), (3, 5)):
        width = max(counts)
        steps = np.arange(width)
        real = steps < np.array(counts)[:, None]
        positions = np.where(real, lengths[:, None] + steps, 0).astype(np.int32)
        slots = np.where(real, np.take_along_axis(tables, positions // BLOCK, 1) * BLOCK + positions % BLOCK, -1)
        inputs = (random((2 * width, 64), seed=sum(lengths))[0], *weights, Tensor(positions),
                  Tensor(slots.reshape(-1).astype(np.int32)), Tensor(tables), inv_freq)
        got, expected = (_Step(form, caches, width == 1, interleaved)(*inputs)
                         for form, caches in ((fused, ours), (portable, twin)))
        kept = real.reshape(-1)
        for one, wanted in zip(got, expected):
            close(Tensor(as_numpy(one)[kept].astype(np.float32)), as_numpy(wanted)[kept], BOUND)
        lengths += np.array(counts, np.int32)


def test_copy_rows():
    _, k, h = HEADS
    cache = Parameter(random((6, BLOCK, k, h), "bfloat16")[0])
    before = as_numpy(cache).reshape(6, -1)
    rows = np.arange(BLOCK * k, dtype=np.int32)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    fused.copy_rows(cache, Tensor(rows + 2 * BLOCK * k), Tensor(rows + 5 * BLOCK * k))
    ms.set_context(mode=ms.GRAPH_MODE)
    after = as_numpy(cache).reshape(6, -1)
    assert np.array_equal(after[5], before[2]) and np.array_equal(after[:5], before[:5])
