"""Cross entropy of rows: native against portable and numpy."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindformers.kernels import library, portable

needs_library = pytest.mark.skipif(not library.verdict().usable, reason=f"native library: {library.verdict().reason}")


class Sum(nn.Cell):
    def __init__(self, token_loss):
        super().__init__(auto_prefix=False)
        self.token_loss = token_loss

    def construct(self, logits, labels, weight):
        return ops.sum(self.token_loss(logits, labels, weight) * weight)


def expected(logits, labels, weight):
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    rows = np.arange(len(x))
    used = np.where(weight != 0, labels, 0)
    loss = -np.log(probs[rows, used])
    probs[rows, used] -= 1
    return (loss * weight).sum(), probs * weight[:, None]


def inputs(n, v, scale=3.0):
    rng = np.random.default_rng(n * v)
    return ((rng.standard_normal((n, v)) * scale).astype(np.float32), rng.integers(0, v, n).astype(np.int32),
            (rng.random(n) > 0.3).astype(np.float32))


def forms():
    from mindformers.kernels import native
    return {"native": native.token_loss, "portable": portable.token_loss}


@needs_library
@pytest.mark.parametrize("form", ["native", "portable"])
@pytest.mark.parametrize("n, v, scale", [(1, 1, 1), (3, 7, 3), (5, 67, 50), (9, 1000, 3)])
def test_loss_and_gradient_equal_numpy(form, n, v, scale):
    logits, labels, weight = inputs(n, v, scale)
    weight[0] = 0.5
    loss, grad = ms.value_and_grad(Sum(forms()[form]), 0)(Tensor(logits), Tensor(labels), Tensor(weight))
    want, want_grad = expected(logits, labels, weight)
    assert np.allclose(loss.asnumpy(), want, rtol=2e-6, atol=2e-6)
    assert np.allclose(grad.asnumpy(), want_grad, atol=3e-6)
    assert not grad.asnumpy()[weight == 0].any()
    if v > 1:
        assert not np.allclose(want, expected(logits, (labels + 1) % v, weight)[0], rtol=1e-4)


@needs_library
@pytest.mark.parametrize("dtype, bound", [(ms.float16, 2e-3), (ms.bfloat16, 1e-2)])
def test_half_logits(dtype, bound):
    logits, labels, weight = inputs(6, 130)
    half = Tensor(logits).astype(dtype)
    loss, grad = ms.value_and_grad(Sum(forms()["native"]), 0)(half, Tensor(labels), Tensor(weight))
    want, want_grad = expected(half.astype(ms.float32).asnumpy(), labels, weight)
    assert grad.dtype == dtype and np.allclose(loss.asnumpy(), want, rtol=1e-5)
    assert np.abs(grad.astype(ms.float32).asnumpy() - want_grad).max() < bound


@needs_library
def test_a_label_is_checked_only_where_it_counts():
    logits, labels, weight = inputs(4, 10)
    labels[1], weight[:] = -100, 1
    with pytest.raises(RuntimeError):
        Sum(forms()["native"])(Tensor(logits), Tensor(labels), Tensor(weight)).asnumpy()
    assert "label -100 of row 1" in library.last_error()
    weight[1] = 0
    assert np.isfinite(Sum(forms()["native"])(Tensor(logits), Tensor(labels), Tensor(weight)).asnumpy())


@needs_library
def test_infinite_logits_stay_visible():
    logits, labels, weight = inputs(2, 40)
    logits[0, 3], logits[1, 5], weight[:], labels[:] = np.inf, np.nan, 1, 0
    loss = forms()["native"](Tensor(logits), Tensor(labels), Tensor(weight)).asnumpy()
    assert not np.isfinite(loss).any()
