"""Rotary embedding in both layouts of pairs: against numpy, its gradient, and steps on the cache in native form."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from mindformers.kernels import library, portable

HEADS = (4, 2, 16)  # N, K, H
BLOCK = 16
FREQUENCIES = (1.0 / 10 ** np.linspace(0, 3, 8)).astype(np.float32)
PARTIAL = np.where(np.arange(8) < 4, FREQUENCIES, 0).astype(np.float32)  # half of the pairs do not turn
RNG = np.random.default_rng(3)
layouts = pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "interleaved"])
native_only = pytest.mark.skipif(not library.verdict().usable, reason=f"no native library: {library.verdict().reason}")


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def rotated(x, positions, inv_freq, interleaved):
    """x [M, N, H] rotated pair by pair."""
    out, half = np.empty_like(x), x.shape[2] // 2
    angles = positions[:, None] * inv_freq
    for i in range(half):
        first, second = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        cos, sin = np.cos(angles[:, i])[:, None], np.sin(angles[:, i])[:, None]
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


class _Rope(nn.Cell):
    """rope(x), or with `weights` the sum of its elements times them."""

    def __init__(self, single, interleaved, weights=None):
        super().__init__(auto_prefix=False)
        self.single, self.interleaved, self.weights = single, interleaved, weights

    def construct(self, x, positions, inv_freq):
        out = portable.rope(x, portable.step_rotation(positions, inv_freq, 1.0, self.single, self.interleaved))
        return out if self.weights is None else ops.ReduceSum()(out * self.weights)


@layouts
@pytest.mark.parametrize("single", [True, False], ids=["step", "rows"])
@pytest.mark.parametrize("inv_freq", [FREQUENCIES, PARTIAL], ids=["whole", "partial"])
def test_portable_rope_and_its_gradient(single, interleaved, inv_freq):
    x, weights, positions = random(6, 3, 16), random(6, 3, 16), np.array([0, 1, 2, 9, 10, 500], np.int32)
    inputs = Tensor(x), Tensor(positions), Tensor(inv_freq)
    out = _Rope(single, interleaved)(*inputs).asnumpy()
    np.testing.assert_allclose(out, rotated(x, positions, inv_freq, interleaved), atol=1e-5)
    assert np.abs(out - rotated(x, positions, inv_freq, not interleaved)).max() > 0.1
    if inv_freq is PARTIAL:
        still = slice(8, None) if interleaved else np.r_[4:8, 12:16]
        np.testing.assert_array_equal(out[..., still], x[..., still])
        assert np.abs(out - rotated(x, positions, FREQUENCIES, interleaved)).max() > 0.1
    grad = ms.grad(_Rope(single, interleaved, Tensor(weights)))(*inputs).asnumpy()  # a rotation's transpose turns back
    np.testing.assert_allclose(grad, rotated(weights, -positions, inv_freq, interleaved), atol=1e-5)


class _Step(nn.Cell):
    """Projections, rope, cache write and attention of a step, on caches of its own."""

    def __init__(self, form, caches, single, interleaved):
        super().__init__(auto_prefix=False)
        self.key, self.value = caches
        self.single, self.interleaved = single, interleaved
        for name in ("norm_qkv", "step_rotation", "cache_plan", "paged_attention"):
            setattr(self, name, getattr(form, name))

    def construct(self, x, norm, weight, positions, slots, tables, inv_freq):
        qkv = self.norm_qkv(x, norm, 1e-5, (weight,), (None,), (None,))
        rotation = self.step_rotation(ops.reshape(positions, (-1,)), inv_freq, 1.0, self.single, self.interleaved)
        plan = self.cache_plan(positions, tables, slots, HEADS, BLOCK, 8 * BLOCK, self.single)
        return self.paged_attention(qkv, rotation, plan, self.key, self.value, HEADS, BLOCK, 0.25)


def answers(form, dtype, interleaved, inv_freq):
    """Outputs of a prompt of two sequences, 19 tokens each, and of two steps of one token behind it."""
    (n, k, h), rng = HEADS, np.random.default_rng(7)
    shape = portable.cache_shape(8, BLOCK, k, h)
    caches = [Parameter(Tensor(np.zeros(shape, np.float32)).astype(dtype), name=name) for name in ("key", "value")]
    weight = Tensor((0.2 * rng.standard_normal(((n + 2 * k) * h, 24))).astype(np.float32))
    norm = Tensor(np.ones(24, np.float32))
    tables, held, outs = np.array([[3, 0, 5], [1, 4, 2]], np.int32), 0, []
    cells = {single: _Step(form, caches, single, interleaved) for single in (False, True)}
    for t in (19, 1, 1):
        positions = np.tile(np.arange(held, held + t, dtype=np.int32), (2, 1))
        slots = np.take_along_axis(tables, positions // BLOCK, 1) * BLOCK + positions % BLOCK
        x = Tensor(rng.standard_normal((2 * t, 24)).astype(np.float32))
        outs.append(cells[t == 1](x, norm, weight, Tensor(positions), Tensor(slots.reshape(-1)), Tensor(tables),
                                  Tensor(inv_freq)).asnumpy())
        held += t
    return outs


@native_only
@layouts
@pytest.mark.parametrize("inv_freq", [FREQUENCIES, PARTIAL], ids=["whole", "partial"])
def test_steps_of_the_native_form_equal_portable(interleaved, inv_freq):
    from mindformers.kernels import native
    ms.set_context(mode=ms.PYNATIVE_MODE)  # the native form below runs as graphs, as it does in models
    expected = answers(portable, ms.float32, interleaved, inv_freq)
    other = answers(portable, ms.float32, not interleaved, inv_freq)
    ms.set_context(mode=ms.GRAPH_MODE)
    # a bfloat16 cache rounds keys and values, 2^-9, and blocks of queries their query and probabilities too
    for dtype, bound in ((ms.float32, 1e-5), (ms.bfloat16, 1.5e-2)):
        for found, wanted, wrong in zip(answers(native, dtype, interleaved, inv_freq), expected, other):
            scale = np.abs(wanted).max()
            assert np.abs(found - wanted).max() <= bound * scale
            assert np.abs(found - wrong).max() > 0.1 * scale
