"""Products in BLAS: against numpy, on rows that lie apart, and what the output held before."""
import numpy as np
import pytest

from mindformers.kernels import blas

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("inputs, outputs", [(8, 16), (5, 3), (64, 200), (1, 4), (4, 1)])
def test_products(rows, inputs, outputs):
    blas.use_all_cores()
    x = random(rows, inputs + 3)[:, :inputs]
    apart, by_columns = random(outputs, inputs + 2)[:, :inputs], random(inputs, outputs + 5)[:, :outputs].T
    for weight in (apart, by_columns, apart.copy()):
        expected, around = x @ weight.T, np.full((rows, outputs + 2), np.nan, np.float32)
        out = around[:, 1:outputs + 1]
        multiply = blas.prepare(x, weight, out)
        multiply()
        np.testing.assert_allclose(out, expected, atol=5e-5)
        blas.prepare(x, weight, out, add=True)()
        np.testing.assert_allclose(out, 2 * expected, atol=5e-5)
        np.testing.assert_allclose(blas.matmul(x, weight), expected, atol=5e-5)
        x *= -1
        multiply()  # reads what is there now
        np.testing.assert_allclose(out, -expected, atol=5e-5)
        assert np.isnan(around[:, [0, -1]]).all(), "only the output is written"
