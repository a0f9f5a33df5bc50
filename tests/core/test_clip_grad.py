"""ClipGradNorm against numpy."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindformers.core.clip_grad import ClipGradNorm

GRADS = [np.array([[3.0, 0.0], [0.0, 4.0]], np.float32), np.array([12.0], np.float32), np.array(0.0, np.float32)]


def clip(cell, dtype=ms.float32):
    clipped, norm = cell(tuple(Tensor(grad, dtype) for grad in GRADS))
    return [item.astype(ms.float32).asnumpy() for item in clipped], float(norm.asnumpy()), clipped


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_over_the_bound(mode):
    ms.set_context(mode=mode)
    clipped, norm, _ = clip(ClipGradNorm(max_norm=1.3))
    assert abs(norm - 13.0) < 1e-5
    for got, grad in zip(clipped, GRADS):
        np.testing.assert_allclose(got, grad / 10, rtol=1e-6)


def test_within_the_bound_nothing_changes():
    clipped, norm, _ = clip(ClipGradNorm(max_norm=13.1))
    assert abs(norm - 13.0) < 1e-5
    assert all((got == grad).all() for got, grad in zip(clipped, GRADS))


def test_given_norm_and_dtype():
    clipped, norm, raw = clip(ClipGradNorm(max_norm=1.0, use_norm=2.0), ms.float16)
    assert norm == 2.0
    assert raw[0].dtype == ms.float16
    np.testing.assert_allclose(clipped[0], GRADS[0] / 2, rtol=1e-3)


def test_long_vectors_do_not_saturate():
    """A plain float32 running sum of 2^25 ones would stop at 2^24."""
    ones = Tensor(np.ones((2 ** 13, 2 ** 12), np.float32))
    _, norm = ClipGradNorm(1.0)((ones,))
    assert abs(float(norm.asnumpy()) - 2 ** 12.5) < 1e-2


def test_wrong_bound():
    with pytest.raises(ValueError, match="max_norm"):
        ClipGradNorm(0.0)
