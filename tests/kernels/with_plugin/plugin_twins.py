"""What the tests of the op plugin share: tensors with their values, bounds by dtype, numeric gradients."""
import mindspore as ms
import numpy as np
import pytest
from hypothesis import Phase, settings
from mindspore import Tensor, ops

from mindformers.kernels import library

library.offer_plugin()  # before the first op of this process
prims = ops.auto_generate
DTYPES = {"float32": (ms.float32, 2e-5), "float16": (ms.float16, 3e-3), "bfloat16": (ms.bfloat16, 2e-2)}
few = settings(max_examples=6, deadline=None, phases=[Phase.generate], derandomize=True)
dtypes = pytest.mark.parametrize("dtype", list(DTYPES))
halves = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


@pytest.fixture(autouse=True, scope="module")
def plugin():
    """MindSpore with our op plugin; the tests fail where the library is there and not taken."""
    if not library.PATH.is_file():
        pytest.skip("the native library is not built")
    usable, reason = library.plugin_verdict()
    assert usable, reason


@pytest.fixture(autouse=True)
def pynative():
    """Views with strides are of PYNATIVE; GRAPH_MODE has tests of its own below."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def grads(function, *inputs):
    """Tuple of the gradients for all inputs."""
    got = ms.grad(function, grad_position=tuple(range(len(inputs))))(*inputs)
    return got if isinstance(got, tuple) else (got,)


def random(shape, dtype="float32", seed=0, scale=1.0):
    """A tensor and its values as float64."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32) * scale
    tensor = Tensor(values).astype(DTYPES[dtype][0])
    return tensor, as_numpy(tensor)


def as_numpy(tensor):
    return tensor.astype(ms.float32).asnumpy().astype(np.float64)


def close(got, expected, dtype="float32", factor=1.0):
    got, bound = as_numpy(got), max(1e-3, np.abs(expected).max(initial=0))
    assert got.shape == expected.shape
    assert np.abs(got - expected).max(initial=0) <= factor * DTYPES[dtype][1] * bound


def differs(got, expected, dtype="float32"):
    assert np.abs(as_numpy(got) - expected).max() > 5 * DTYPES[dtype][1] * np.abs(expected).max()


def numeric(function, grad_out, *inputs):
    """Gradients of sum(function * grad_out) by central differences; float64."""
    result = []
    for i, x in enumerate(inputs):
        slope = np.zeros_like(x)
        for at in np.ndindex(*x.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = [y.copy() for y in inputs]
                moved[i][at] += step
                sides.append((function(*moved) * grad_out).sum())
            slope[at] = (sides[0] - sides[1]) / 2e-5
        result.append(slope)
    return result
