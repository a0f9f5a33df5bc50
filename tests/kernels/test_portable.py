"""The portable ops against numpy, their gradients against differences, and the choice of the form."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from mindformers.kernels import portable

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_linear_computes_in_float32_from_any_stored_dtype(dtype):
    x, w, b = random(5, 12), random(7, 12), random(7)
    stored = Tensor(w).astype(getattr(ms, dtype))
    expected = x @ stored.astype(ms.float32).asnumpy().T + b
    out = portable.linear(Tensor(x), stored, Tensor(b))
    assert out.dtype == ms.float32
    np.testing.assert_allclose(out.asnumpy(), expected, atol=1e-5)
    assert np.abs(out.asnumpy() - x @ w.T).max() > 1e-2  # the bias counts


def test_rms_norm():
    x, w = random(4, 16), random(16)
    expected = x / np.sqrt((x ** 2).mean(-1, keepdims=True) + 1e-5) * w
    np.testing.assert_allclose(portable.rms_norm(Tensor(x), Tensor(w), 1e-5).asnumpy(), expected, atol=1e-5)


def rotated(x, angles):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


@pytest.mark.parametrize("single", [True, False])
def test_rope_rotates_halves(single):
    x, positions, inv_freq = random(6, 3, 8), np.arange(6, dtype=np.int32), np.abs(random(4))
    rotation = portable.step_rotation(Tensor(positions), Tensor(inv_freq), 1.0, single)
    out, angles = portable.rope(Tensor(x), rotation).asnumpy(), positions[:, None] * inv_freq
    np.testing.assert_allclose(out, rotated(x, angles), atol=1e-5)
    np.testing.assert_allclose(
        portable.rope(Tensor(x), portable.rope_plan(Tensor(positions), Tensor(inv_freq), 2.0)).asnumpy(), 2 * out,
        atol=1e-5)
    interleaved = rotated(x.reshape(6, 3, 4, 2).swapaxes(2, 3).reshape(6, 3, 8), angles)
    assert np.abs(out - interleaved).max() > 0.1  # the other convention is told apart


def attention_by_numpy(q, k, v, mask, scale):
    scores = q @ k.swapaxes(-1, -2) * scale + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def test_attention_and_its_gradient():
    q, k, v = random(2, 3, 4, 8), random(2, 3, 5, 8), random(2, 3, 5, 8)
    mask = np.where(np.tri(4, 5, 1) > 0, 0, -1e9).astype(np.float32).reshape(1, 1, 4, 5)
    out = portable.attention(Tensor(q), Tensor(k), Tensor(v), Tensor(mask), 0.3).asnumpy()
    np.testing.assert_allclose(out, attention_by_numpy(q, k, v, mask, 0.3), atol=1e-5)
    weights = random(*out.shape)

    def loss(q, k, v):
        return (portable.attention(q, k, v, Tensor(mask), 0.3) * Tensor(weights)).sum()

    grads = ms.grad(loss, (0, 1, 2))(Tensor(q), Tensor(k), Tensor(v))
    for index, array in enumerate((q, k, v)):
        slope = []
        for place in [(0, 0, 0, 0), (1, 2, 3, 7), (0, 1, 2, 3)]:
            values = []
            for step in (1e-3, -1e-3):
                moved = [item.astype(np.float64) for item in (q, k, v)]
                moved[index][place] += step
                values.append((attention_by_numpy(*moved, mask, 0.3) * weights).sum())
            slope.append(((values[0] - values[1]) / 2e-3, grads[index].asnumpy()[place]))
        np.testing.assert_allclose([b for _, b in slope], [a for a, _ in slope], atol=2e-4)
        assert np.abs(array).max() > 0


def test_cache_write_is_in_place_and_padding_lands_in_the_spare_slot():
    kv_heads, block_size, blocks = 2, 4, 3
    cache = Parameter(Tensor(np.zeros(((blocks * block_size + 1) * kv_heads, 3), np.float32)), name="cache")
    tables = Tensor(np.array([[2, 0]], np.int32))
    slots = Tensor(np.array([8, 9, -1], np.int32))
    write, read = portable.cache_rows(tables, slots, kv_heads, block_size, blocks * block_size)
    values = random(3 * kv_heads, 3)
    portable.cache_write(cache, write, Tensor(values))
    out = portable.cache_read(cache, read).asnumpy()
    assert out.shape == (1, kv_heads, 8, 3)
    np.testing.assert_array_equal(out[0, :, :2], values[:4].reshape(2, kv_heads, 3).swapaxes(0, 1))
    assert not out[0, :, 2:].any()
    np.testing.assert_array_equal(cache.asnumpy()[-kv_heads:], values[4:])
