"""The kernels of MindSpore's fused primitives against numpy: norms, rotary embedding, products, gather.

PYNATIVE, which hands over views with strides; GRAPH_MODE with dynamic shapes is at the end.
"""
import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor, mint, nn, ops
from plugin_twins import (close, differs, dtypes, few, grads, halves, numeric, plugin, prims, pynative,  # noqa: F401
                          random)

from mindformers.kernels import library


# -- norms and activations -------------------------------------------------------------------------------------------


def rms_norm(x, gamma, eps):
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    return x / np.sqrt((x * x).mean(axes, keepdims=True) + eps) * gamma


@dtypes
@few
@given(rows=st.integers(1, 9), width=st.integers(1, 70))
def test_rms_norm(dtype, rows, width):
    x, x_np = random((rows, width), dtype)
    gamma, gamma_np = random((width,), dtype, 1)
    out, rstd = ops.rms_norm(x, gamma, 0.25)
    close(out, rms_norm(x_np, gamma_np, 0.25), dtype)
    assert rstd.shape == (rows, 1) and rstd.dtype == ms.float32
    if rows * width > 20:
        differs(out, rms_norm(x_np, gamma_np, 3.0), dtype)


def test_rms_norm_of_views_and_wide_gamma():
    x, x_np = random((6, 4, 10))
    gamma, gamma_np = random((4,))
    close(ops.rms_norm(x[1:5].transpose(0, 2, 1), gamma, 0.1)[0], rms_norm(x_np[1:5].transpose(0, 2, 1), gamma_np, 0.1))
    gamma, gamma_np = random((4, 10))
    close(ops.rms_norm(x, gamma, 0.1)[0], rms_norm(x_np, gamma_np, 0.1))


def test_rms_norm_grad():
    (x, x_np), (gamma, gamma_np), (dy, dy_np) = random((3, 7)), random((7,), seed=1), random((3, 7), seed=2)
    got = grads(lambda x, gamma: (ops.rms_norm(x, gamma, 0.1)[0] * dy).sum(), x, gamma)
    for one, expected in zip(got, numeric(lambda x, gamma: rms_norm(x, gamma, 0.1), dy_np, x_np, gamma_np)):
        close(one, expected)


def swiglu(x, axis):
    gate, up = np.split(x, 2, axis)
    return gate / (1 + np.exp(-gate)) * up


@dtypes
@few
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 20)), axis=st.integers(-3, 2))
def test_swiglu(dtype, shape, axis):
    shape = [2 * n if i == axis % 3 else n for i, n in enumerate(shape)]
    x, x_np = random(tuple(shape), dtype)
    out = prims.Swiglu()(x, axis)
    close(out, swiglu(x_np, axis), dtype)
    close(prims.Swiglu()(x.transpose(2, 1, 0), 2 - axis % 3), swiglu(x_np.transpose(2, 1, 0), 2 - axis % 3), dtype)


@pytest.mark.parametrize("axis", [0, -1])
def test_swiglu_grad(axis):
    (x, x_np), dy_np = random((4, 6)), swiglu(random((4, 6), seed=1)[1], axis)
    got = grads(lambda x: (prims.Swiglu()(x, axis) * Tensor(dy_np, ms.float32)).sum(), x)
    close(got[0], numeric(lambda x: swiglu(x, axis), dy_np, x_np)[0])


def test_swiglu_refuses_float64():
    with pytest.raises(RuntimeError):
        prims.Swiglu()(Tensor(np.ones((2, 4))), -1).asnumpy()
    assert "float64" in library.last_error()


# -- rotary embedding ------------------------------------------------------------------------------------------------


def rotated(x, interleaved):
    if interleaved:
        return np.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    half = x.shape[-1] // 2
    return np.concatenate((-x[..., half:], x[..., :half]), -1)


@dtypes
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("table", [(1, 5, 1, 8), (2, 5, 3, 8), (2, 1, 1, 8)])
def test_rotary_position_embedding(dtype, interleaved, table):
    (x, x_np), (cos, cos_np), (sin, sin_np) = random((2, 5, 3, 8), dtype), *(random(table, dtype, i) for i in (1, 2))
    out = prims.RotaryPositionEmbedding()(x, cos, sin, interleaved)
    close(out, x_np * cos_np + rotated(x_np, interleaved) * sin_np, dtype)
    differs(out, x_np * cos_np + rotated(x_np, not interleaved) * sin_np, dtype)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_position_embedding_grad(interleaved):
    x, x_np = random((1, 2, 2, 6))
    (cos, cos_np), (sin, sin_np), (dy, dy_np) = random((1, 2, 1, 6), seed=1), random((1, 2, 1, 6), seed=2), random(
        (1, 2, 2, 6), seed=3)
    got = grads(lambda x: (prims.RotaryPositionEmbedding()(x, cos, sin, interleaved) * dy).sum(), x)

    def forward(x, cos, sin):
        return x * cos + rotated(x, interleaved) * sin

    expected = numeric(forward, dy_np, x_np, cos_np, sin_np)
    close(got[0], expected[0])
    for one, wanted in zip(prims.RotaryPositionEmbeddingGrad()(dy, cos, sin, x, interleaved), expected):
        close(one, wanted)


@halves
@pytest.mark.parametrize("form", [0, 1, 2, 3])
def test_apply_rotary_pos_emb(dtype, form):
    (q, q_np), (k, k_np) = random((2, 3, 32), dtype), random((2, 3, 16), dtype, 1)
    (cos, cos_np), (sin, sin_np) = random((6, 8), dtype, 2), random((6, 8), dtype, 3)
    positions = np.array([4, 0, 2], np.int32)
    out_q, out_k = prims.ApplyRotaryPosEmb(form)(q, k, cos, sin, Tensor(positions))
    rows = np.arange(6) if form >= 2 else np.tile(positions, 2)
    for out, x in ((out_q, q_np), (out_k, k_np)):
        heads = x.reshape(6, -1, 8)
        expected = heads * cos_np[rows, None] + rotated(heads, form % 2) * sin_np[rows, None]
        close(out, expected.reshape(x.shape), dtype)


def test_apply_rotary_pos_emb_refuses_a_position_past_the_table():
    x, table = random((1, 1, 8), "float16")[0], random((6, 8), "float16")[0]
    with pytest.raises(RuntimeError):
        prims.ApplyRotaryPosEmb(0)(x, x, table, table, Tensor([6], ms.int32))[0].asnumpy()
    assert "position 6" in library.last_error()


# -- products and gather ---------------------------------------------------------------------------------------------

PRODUCTS = {
    "Dense": (lambda a, b: prims.Dense()(a, b, None), lambda a, b: a @ b.T),
    "MatMul": (lambda a, b: ops.MatMul(False, True)(a, b), lambda a, b: a @ b.T),
    "MatMulT": (lambda a, b: ops.MatMul(True, True)(a.T, b), lambda a, b: a @ b.T),
    "MatMulExt": (lambda a, b: mint.matmul(a, b.T), lambda a, b: a @ b.T),
    "BatchMatMul": (lambda a, b: ops.BatchMatMul(False, True)(a.reshape(1, *a.shape), b.reshape(1, *b.shape)),
                    lambda a, b: (a @ b.T)[None]),
}


@dtypes
@pytest.mark.parametrize("name", list(PRODUCTS))
@few
@given(m=st.integers(0, 40), i=st.integers(1, 70), o=st.integers(1, 70))
def test_products(name, dtype, m, i, o):
    ours, twin = PRODUCTS[name]
    (a, a_np), (b, b_np) = random((m, i), dtype), random((o, i), dtype, 1)
    close(ours(a, b), twin(a_np, b_np), dtype)


def test_products_of_batches_and_vectors():
    (a, a_np), (b, b_np), (row, row_np) = random((3, 1, 4, 5)), random((2, 5, 6), seed=1), random((5,), seed=2)
    close(mint.matmul(a, b), a_np @ b_np)
    close(mint.matmul(row, b), row_np @ b_np)
    close(mint.matmul(a, row), a_np @ row_np)
    close(mint.bmm(b, b.transpose(0, 2, 1)), b_np @ b_np.transpose(0, 2, 1))
    close(ops.BatchMatMul(True, False)(b, b), b_np.transpose(0, 2, 1) @ b_np)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float64, np.complex64])
def test_products_of_other_types(dtype):
    a, b = (np.random.default_rng(seed).integers(-9, 9, (4, 5)).astype(dtype) for seed in (0, 1))
    got = ops.MatMul(False, True)(Tensor(a), Tensor(b)).asnumpy()
    assert got.dtype == dtype and np.array_equal(got, a @ b.T)


def test_dense_with_bias_and_its_gradients():
    (x, x_np), (w, w_np), (bias, bias_np) = random((2, 3, 4)), random((5, 4), seed=1), random((5,), seed=2)
    dy, dy_np = random((2, 3, 5), seed=3)
    got = grads(lambda x, w, bias: (prims.Dense()(x, w, bias) * dy).sum(), x, w, bias)
    for one, expected in zip(got, numeric(lambda x, w, bias: x @ w.T + bias, dy_np, x_np, w_np, bias_np)):
        close(one, expected)


@pytest.mark.parametrize("dtype", [ms.float32, ms.float16, ms.bfloat16, ms.int8, ms.int64, ms.bool_, ms.complex64])
def test_gather(dtype):
    values = np.random.default_rng(0).integers(0, 2, (3, 5, 2))
    ids = np.array([[4, 0], [1, -1]])
    got = ops.Gather()(Tensor(values).astype(dtype), Tensor(ids, ms.int32), 1)
    assert got.dtype == dtype and np.array_equal(got.astype(ms.int32).asnumpy(), values[:, ids])


def test_gather_with_batches_and_an_index_past_the_end():
    (x, x_np), ids = random((2, 5, 3)), np.array([[1, 0], [2, 4]])
    got = ops.Gather(1)(x, Tensor(ids), 1).asnumpy()
    assert np.array_equal(got, np.stack([x_np[0][[1, 0]], x_np[1][[2, 4]]]).astype(np.float32))
    with pytest.raises(RuntimeError):
        ops.Gather()(x, Tensor([[1], [5]]), 1).asnumpy()
    assert "index 5" in library.last_error()


# -- GRAPH_MODE ------------------------------------------------------------------------------------------------------


class _Layer(nn.Cell):
    """Every op of this file once, on rows of any number."""

    def __init__(self):
        super().__init__()
        self.rotate, self.swiglu, self.dense = prims.RotaryPositionEmbedding(), prims.Swiglu(), prims.Dense()
        self.product, self.gather = ops.MatMul(False, True), ops.Gather()

    def construct(self, ids, table, gamma, weight, cos, sin):
        x = ops.rms_norm(self.gather(table, ids, 0), gamma, 0.1)[0]
        x = self.rotate(ops.reshape(x, (1, -1, 2, 8)), cos, sin, 0)
        x = self.swiglu(self.dense(ops.reshape(x, (-1, 16)), weight, None), -1)
        return self.product(x, weight[:, :8])


def _layer(ids, table, gamma, weight, cos, sin):
    x = rms_norm(table[ids], gamma, 0.1).reshape(1, -1, 2, 8)
    x = (x * cos + rotated(x, 0) * sin).reshape(-1, 16)
    return swiglu(x @ weight.T, -1) @ weight[:, :8].T


def test_graph_mode_with_dynamic_shapes_and_gradients():
    ms.set_context(mode=ms.GRAPH_MODE)
    (table, table_np), (gamma, gamma_np) = random((5, 16)), random((16,), seed=1)
    weight, weight_np = random((16, 16), seed=2)
    net = _Layer()
    dynamic = Tensor(shape=[1, None, 1, 8], dtype=ms.float32)
    net.set_inputs(Tensor(shape=[None], dtype=ms.int32), table, gamma, weight, dynamic, dynamic)
    slope = ms.grad(net, grad_position=(2, 3))
    for rows in (3, 7):
        ids = np.arange(rows) % 5
        (cos, cos_np), (sin, sin_np) = random((1, rows, 1, 8), seed=3), random((1, rows, 1, 8), seed=4)
        close(net(Tensor(ids, ms.int32), table, gamma, weight, cos, sin),
              _layer(ids, table_np, gamma_np, weight_np, cos_np, sin_np))
    got = slope(Tensor(ids, ms.int32), table, gamma, weight, cos, sin)
    expected = numeric(lambda gamma, weight: _layer(ids, table_np, gamma, weight, cos_np, sin_np), np.ones((7, 16)),
                       gamma_np, weight_np)
    for one, wanted in zip(got, expected):
        close(one, wanted)
