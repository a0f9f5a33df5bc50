"""The attention kernels behind MindSpore's fused primitives against numpy: layouts, masks, packed and paged keys."""
import mindspore as ms
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn, ops
from plugin_twins import (as_numpy, close, differs, dtypes, few, grads, halves, plugin, prims,  # noqa: F401
                          pynative, random)

from mindformers.kernels import library

SCALE = 0.3
TRIANGLE = np.triu(np.ones((2048, 2048), np.uint8), 1)  # what the compressed sparse modes are given


def attention(q, k, v, hidden=None):
    """q [B, N, T, H], k and v [B, K, S, H], hidden broadcast to [B, N, T, S]; float64."""
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * SCALE
    if hidden is not None:
        scores = np.where(hidden, -np.inf, scores)
    top = scores.max(-1, keepdims=True)
    probs = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = probs.sum(-1, keepdims=True)
    return probs / np.where(total == 0, 1, total) @ v


def to_layout(x, layout):
    """[B, N, T, H] as that layout."""
    b, n, t, h = x.shape
    if layout == "BNSD":
        return x
    x = x.transpose(0, 2, 1, 3)
    if layout == "BSH":
        return x.reshape(b, t, n * h)
    if layout == "SBH":
        return x.transpose(1, 0, 2, 3).reshape(t, b, n * h)
    return x.reshape(b * t, n, h) if layout == "TND" else x.reshape(b * t, n * h) if layout == "TH" else x


def flash(q, k, v, layout="BNSD", heads=4, mask=None, lengths=(None, None), **attributes):
    op = prims.FlashAttentionScore(heads, 1.0, SCALE, input_layout=layout, **attributes)
    mask = None if mask is None else Tensor(mask)
    return op(q, k, v, None, None, None, mask, None, *lengths)[3]


@dtypes
@pytest.mark.parametrize("layout", ["BNSD", "BSND", "BSH", "SBH"])
@few
@given(b=st.integers(1, 3), t=st.integers(1, 40), extra=st.integers(0, 9), kv=st.sampled_from([1, 2, 4]))
def test_flash_attention_layouts(dtype, layout, b, t, extra, kv):
    (q, q_np), (k, k_np), (v, v_np) = (random((b, n, s, 16), dtype, i)
                                       for i, (n, s) in enumerate([(4, t), (kv, t + extra), (kv, t + extra)]))
    causal = np.arange(t + extra) > np.arange(t)[:, None] + extra
    q, k, v = (Tensor(to_layout(as_numpy(x), layout).astype(np.float32)).astype(q.dtype) for x in (q, k, v))
    close(flash(q, k, v, layout), to_layout(attention(q_np, k_np, v_np), layout), dtype)
    out = flash(q, k, v, layout, mask=TRIANGLE, sparse_mode=3)
    close(out, to_layout(attention(q_np, k_np, v_np, causal), layout), dtype)
    if t > 8:
        differs(out, to_layout(attention(q_np, k_np, v_np), layout), dtype)


def band(t, s, left, right):
    distance = np.arange(s) - np.arange(t)[:, None]
    return (distance < -left) | (distance > right)


@pytest.mark.parametrize("mask_type", [np.uint8, np.bool_])
def test_flash_attention_masks_and_sparse_modes(mask_type):
    (q, q_np), (k, k_np), (v, v_np) = random((2, 4, 5, 16)), *(random((2, 2, 9, 16), seed=i) for i in (1, 2))
    rng = np.random.default_rng(3)
    for shape in ((5, 9), (2, 1, 5, 9), (2, 4, 5, 9)):
        hidden = rng.random(shape) < 0.5
        hidden[..., 0, :] = True  # a query that sees nothing gives zeros
        hidden = hidden.astype(mask_type)
        for mode in (0, 1):
            close(flash(q, k, v, mask=hidden, sparse_mode=mode), attention(q_np, k_np, v_np, hidden))
    none = np.zeros((5, 9), mask_type)
    close(flash(q, k, v, mask=none, pre_tokens=2, next_tokens=1), attention(q_np, k_np, v_np, band(5, 9, 2, 1)))
    triangle = TRIANGLE.astype(mask_type)
    close(flash(q, k, v, mask=triangle, sparse_mode=2), attention(q_np, k_np, v_np, band(5, 9, 99, 0)))
    close(flash(q, k, v, mask=triangle, sparse_mode=3), attention(q_np, k_np, v_np, band(5, 9, 99, 4)))
    close(flash(q, k, v, mask=triangle, sparse_mode=4, pre_tokens=3, next_tokens=0),
          attention(q_np, k_np, v_np, band(5, 9, 3 - 4, 4)))


@pytest.mark.parametrize("layout", ["TND", "TH"])
@pytest.mark.parametrize("lengths", [((2, 5, 9), (4, 7, 12)), ((2, 3, 4), (4, 3, 5))])
def test_flash_attention_of_packed_sequences(layout, lengths):
    (q, q_np), (k, k_np), (v, v_np) = random((1, 4, 9, 8)), random((1, 2, 12, 8), seed=1), random((1, 2, 12, 8), seed=2)
    expected = np.zeros_like(q_np)
    for (t0, t1), (s0, s1) in zip([(0, 2), (2, 5), (5, 9)], [(0, 4), (4, 7), (7, 12)]):
        expected[:, :, t0:t1] = attention(q_np[:, :, t0:t1], k_np[:, :, s0:s1], v_np[:, :, s0:s1],
                                          band(t1 - t0, s1 - s0, 99, s1 - s0 - t1 + t0))
    q, k, v = (Tensor(to_layout(x, layout).astype(np.float32)) for x in (q_np, k_np, v_np))
    out = flash(q, k, v, layout, mask=TRIANGLE, sparse_mode=3, lengths=lengths)
    close(out, to_layout(expected, layout))


def plain(q, k, v, bias):
    """The same in ops that MindSpore differentiates by itself."""
    groups = q.shape[1] // k.shape[1]
    k, v = (ops.repeat_interleave(x, groups, 1) for x in (k, v))
    return ops.BatchMatMul()(ops.softmax(ops.BatchMatMul(transpose_b=True)(q, k) * SCALE + bias, -1), v)


@pytest.mark.parametrize("layout", ["BNSD", "BSH", "SBH"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flash_attention_gradients(layout, dtype):
    shapes = [(2, 4, 6, 16), (2, 2, 8, 16), (2, 2, 8, 16), (2, 4, 6, 16)]
    values = [random(shape, dtype, i)[1] for i, shape in enumerate(shapes)]
    wide = [Tensor(x.astype(np.float32)) for x in values]
    hidden = band(6, 8, 99, 2)
    bias = Tensor(np.where(hidden, -1e30, 0).astype(np.float32))
    expected = grads(lambda q, k, v: (plain(q, k, v, bias) * wide[3]).sum(), *wide[:3])
    q, k, v, dy = (Tensor(to_layout(x, layout).astype(np.float32)) for x in values)
    q, k, v = (x.astype(getattr(ms, dtype)) for x in (q, k, v))
    got = grads(lambda q, k, v: (flash(q, k, v, layout, mask=hidden).astype(ms.float32) * dy).sum(), q, k, v)
    for one, wanted in zip(got, expected):
        close(one, to_layout(as_numpy(wanted), layout), dtype)
    differs(got[0], to_layout(as_numpy(expected[0]), layout) * 1.2, dtype)


def test_flash_attention_of_views():
    x, x_np = random((2, 6, 4, 16))

    def parts(x):
        return [part.transpose(0, 2, 1, 3) for part in (x[:, :, :2], x[:, 1:, 2:3], x[:, 1:, 3:])]

    close(flash(*parts(x), heads=2), attention(*parts(x_np)))


@pytest.mark.parametrize("keep_prob, mode, said",
                         [(0.9, 0, "dropout"), (1.0, 6, "sparse_mode 6"), (1.0, 1, "attn_mask")])
def test_flash_attention_refuses(keep_prob, mode, said):
    x = random((1, 2, 3, 16))[0]
    with pytest.raises(RuntimeError):
        prims.FlashAttentionScore(2, keep_prob, SCALE, input_layout="BNSD", sparse_mode=mode)(x, x, x)[3].asnumpy()
    assert said in library.last_error()


# -- inference -------------------------------------------------------------------------------------------------------


@halves
@pytest.mark.parametrize("layout", ["BNSD", "BSH"])
def test_prompt_flash_attention(dtype, layout):
    (q, q_np), (k, k_np), (v, v_np) = (random((2, n, 6, 16), dtype, i) for i, n in enumerate((4, 2, 2)))
    q, k, v = (Tensor(to_layout(as_numpy(x), layout).astype(np.float32)).astype(q.dtype) for x in (q, k, v))
    op = prims.PromptFlashAttention(4, SCALE, input_layout=layout, num_key_value_heads=2, sparse_mode=2)
    out = op(q, k, v, Tensor(TRIANGLE.astype(np.bool_)), [4, 6], [4, 6])
    expected = attention(q_np, k_np, v_np, band(6, 6, 99, 0))
    expected[0, :, 4:] = 0
    close(out, to_layout(expected, layout), dtype)


@dtypes
def test_incre_flash_attention(dtype):
    (q, q_np), (k, k_np), (v, v_np) = (random((2, n, t, 16), dtype, i)
                                       for i, (n, t) in enumerate([(4, 1), (2, 9), (2, 9)]))
    hidden = np.arange(9) >= np.array([5, 9])[:, None, None, None]
    expected = attention(q_np, k_np, v_np, hidden)
    op = prims.IncreFlashAttention(4, "BNSD", SCALE, 2)
    close(op(q, [k], [v], None, Tensor([5, 9], ms.int64)), expected, dtype)
    close(op(q, [k], [v], Tensor(hidden[:, 0])), expected, dtype)
    if dtype != "float32":
        close(op(q, [k[:1], k[1:]], [v[:1], v[1:]], None, [5, 9]), expected, dtype)


class Paged:
    """A cache with two sequences of 5 and 19 tokens in blocks of 16, beside the same keys and values in a row."""

    def __init__(self, dtype):
        self.lengths, self.tables = (5, 19), np.array([[3, 0], [1, 4]], np.int32)
        self.key, self.value = (Parameter(random((6, 16, 2, 8), dtype, i)[0]) for i in (7, 8))
        self.new = [random((sum(self.lengths), 16), dtype, i) for i in (9, 10)]
        self.slots = np.concatenate([self.tables[b, np.arange(n) // 16] * 16 + np.arange(n) % 16
                                     for b, n in enumerate(self.lengths)]).astype(np.int32)

    def sequence(self, b):
        """Keys and values [1, K, S, H] of a sequence."""
        rows = slice(0, 5) if b == 0 else slice(5, 24)
        return [values[rows].reshape(-1, 2, 8).transpose(1, 0, 2)[None] for _, values in self.new]

    def newest(self, q):
        """Attention of one query [2, N*H] a sequence."""
        return np.concatenate([attention(q[b].reshape(1, 4, 1, 8), *self.sequence(b)).reshape(1, 32) for b in (0, 1)])


@halves
def test_reshape_and_cache_and_paged_attention(dtype):
    paged = Paged(dtype)
    before = as_numpy(paged.key)
    slots = paged.slots.copy()
    slots[2] = -1  # padding is not written
    prims.ReshapeAndCache()(paged.new[0][0], paged.new[1][0], paged.key, paged.value, Tensor(slots))
    rows = as_numpy(paged.key).reshape(-1, 16)
    assert np.array_equal(rows[paged.slots[3:]], paged.new[0][1][3:])
    untouched = np.setdiff1d(np.arange(96), slots)
    assert np.array_equal(rows[untouched], before.reshape(-1, 16)[untouched])
    prims.ReshapeAndCache()(paged.new[0][0], paged.new[1][0], paged.key, paged.value, Tensor(paged.slots))

    q, q_np = random((2, 32), dtype)
    op = prims.PagedAttention(4, SCALE, 2)
    out = op(q, paged.key, paged.value, Tensor(paged.tables), Tensor(paged.lengths, ms.int32))
    close(out, paged.newest(q_np), dtype)

    q, q_np = random((5, 32), dtype, 1)  # the last 2 tokens of one sequence, the last 3 of the other
    hidden = np.concatenate([band(2, 19, 99, 3), band(3, 19, 99, 16)])
    for mask in (hidden.astype(np.float16) * -10000, TRIANGLE[:128, :128].astype(np.float16)):
        out = op(q, paged.key, paged.value, Tensor(paged.tables), Tensor(paged.lengths, ms.int32), None, None,
                 Tensor(mask).astype(q.dtype), Tensor([2, 3], ms.int32))
        parts = []
        for b, (rows, n, s) in enumerate([(slice(0, 2), 2, 5), (slice(2, 5), 3, 19)]):
            queries = q_np[rows].reshape(1, -1, 4, 8).transpose(0, 2, 1, 3)
            parts.append(attention(queries, *paged.sequence(b), band(n, s, 99, s - n)))
        close(out, np.concatenate([part.transpose(0, 2, 1, 3).reshape(-1, 32) for part in parts]), dtype)


def test_paged_ops_refuse_what_lies_outside():
    paged = Paged("float16")
    with pytest.raises(RuntimeError):
        prims.ReshapeAndCache()(paged.new[0][0], paged.new[1][0], paged.key, paged.value,
                                Tensor(np.where(paged.slots == 0, 96, paged.slots) + 50)).asnumpy()
    assert "slot" in library.last_error()
    q, op = random((2, 32), "float16")[0], prims.PagedAttention(4, SCALE, 2)
    for tables, lengths, said in ((paged.tables, (5, 33), "32"), (paged.tables + 90, (5, 19), "9")):
        with pytest.raises(RuntimeError):
            op(q, paged.key, paged.value, Tensor(tables), Tensor(lengths, ms.int32)).asnumpy()
        assert "PagedAttention" in library.last_error() and said in library.last_error()


class _Step(nn.Cell):
    """Write, then attend, in one graph."""

    def __init__(self, paged):
        super().__init__(auto_prefix=False)
        self.key, self.value = paged.key, paged.value
        self.write, self.attend = prims.ReshapeAndCache(), prims.PagedAttention(4, SCALE, 2)

    def construct(self, q, k, v, slots, tables, lengths):
        q = ops.depend(q, self.write(k, v, self.key, self.value, slots))
        return self.attend(q, self.key, self.value, tables, lengths)


def test_graph_mode_writes_in_place_then_reads():
    ms.set_context(mode=ms.GRAPH_MODE)
    paged = Paged("bfloat16")
    q, q_np = random((2, 32), "bfloat16")
    net = _Step(paged)
    rows = Tensor(shape=[None, 16], dtype=ms.bfloat16)
    tables, lengths = Tensor(paged.tables), Tensor(paged.lengths, ms.int32)
    net.set_inputs(q, rows, rows, Tensor(shape=[None], dtype=ms.int32), tables, lengths)
    out = net(q, paged.new[0][0], paged.new[1][0], Tensor(paged.slots), tables, lengths)
    close(out, paged.newest(q_np), "bfloat16")
