"""The portable form: plain MindSpore ops that exist on every backend.

Shape legend: B batch, T queries, S keys, N heads, K kv heads, G = N / K, H head dim, D hidden, M = B * T rows.
Weights may be float32, float16 or bfloat16; products run in float32.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

_linear = ops.MatMul(transpose_b=True)
_scores = ops.BatchMatMul(transpose_b=True)
_context = ops.BatchMatMul()
_transposed = ops.BatchMatMul(transpose_a=True)
_softmax = ops.Softmax(-1)
_product = ops.MatMul()
_scatter = ops.ScatterUpdate()
_gather = ops.Gather()
_silu = ops.auto_generate.SiLU()


def linear(x, weight, bias=None):
    """``x [M, I] @ weight [O, I]^T + bias [O]`` in float32; returns [M, O] float32."""
    out = _linear(ops.cast(x, ms.float32), ops.cast(weight, ms.float32))
    if bias is not None:
        out = ops.bias_add(out, ops.cast(bias, ms.float32))
    return out


def embedding(ids, weight):
    """Rows of `weight` [V, D] for int32 `ids` of any shape; float32."""
    return _gather(ops.cast(weight, ms.float32), ids, 0)


def rms_norm(x, weight, eps):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis, in float32."""
    x = ops.cast(x, ms.float32)
    scale = ops.rsqrt(ops.mean(ops.square(x), -1, True) + eps)
    return x * scale * ops.cast(weight, ms.float32)


def rope_plan(cos, sin, single):
    """What `rope` needs of the positions of a step, made once for all layers.

    Args:
        cos, sin: [M, 1, H] float32.
        single (bool): steps of one token. They get one matrix [M, H, H] that rotates by a product: one op a layer in
            place of five, which is what such a step costs on CPU.
    """
    rotate = _rotate_half(cos.shape[2])
    return _eye(cos.shape[2]) * cos + rotate * sin if single else (cos, sin, rotate)


def rope(x, plan):
    """Rotate x [M, N, H] by the plan of `rope_plan`.

    `rotate_half` is a small product: many times faster on CPU than slicing and joining, forward and backward.
    """
    if not isinstance(plan, tuple):
        return _context(x, plan)
    cos, sin, rotate = plan
    rotated = ops.reshape(_product(ops.reshape(x, (-1, x.shape[2])), rotate), (-1, x.shape[1], x.shape[2]))
    return x * cos + rotated * sin


@ms.constexpr
def _rotate_half(h):
    """x @ this = (-x2, x1) for the halves x1, x2 of x."""
    half, none = np.eye(h // 2, dtype=np.float32), np.zeros((h // 2, h // 2), np.float32)
    return Tensor(np.block([[none, half], [-half, none]]), ms.float32)


@ms.constexpr
def _eye(h):
    return Tensor(np.eye(h, dtype=np.float32), ms.float32)


def swiglu(gate, up):
    """``silu(gate) * up``."""
    return _silu(gate) * up


def attention_probs(q, k, mask, scale):
    """Attention probabilities.

    Args:
        q: [B, K, G*T, H], the queries that share a kv head together. k: [B, K, S, H].
        mask: additive, broadcast to [B, K, G*T, S]; 0 where a query may look.
        scale (float): factor of the scores.

    Returns:
        [B, K, G*T, S] float32.
    """
    return _softmax(_scores(q * scale, k) + mask)


class _Attention(nn.Cell):
    """Attention with its own gradient, which needs one pass less over the [T, S] scores than autodiff's.

    The row sums of dP * P are taken as those of dO * O, as FlashAttention does (arXiv:2205.14135, appendix B).
    """

    def construct(self, q, k, v, mask, scale):
        probs = attention_probs(q, k, mask, scale)
        return _context(probs, v), probs

    def bprop(self, q, k, v, mask, scale, out, dout):
        context, probs = out
        grad = dout[0]
        grad_scores = probs * (_scores(grad, v) - ops.ReduceSum(keep_dims=True)(grad * context, -1))
        return (_context(grad_scores, k) * scale, _transposed(grad_scores, q) * scale, _transposed(probs, grad),
                ops.zeros_like(mask), 0)


_attention = _Attention()


def attention(q, k, v, mask, scale):
    """Scaled dot product attention with grouped kv heads; shapes as in `attention_probs`; returns [B, K, G*T, H]."""
    return _attention(q, k, v, mask, scale)[0]


def cache_plan(block_tables, slot_mapping, kv_heads, block_size, spare_slot):
    """Rows of the cache (stored as [slots * K, H]) that one step writes and reads.

    Args:
        block_tables: int32 [B, blocks]. slot_mapping: int32 [M]; -1 for padding, which lands in `spare_slot`.

    Returns:
        write rows int32 [M * K], read rows int32 [B, K, blocks * block_size].
    """
    heads = ops.arange(0, kv_heads, 1, dtype=ms.int32)
    slots = ops.select(slot_mapping < 0, ops.full_like(slot_mapping, spare_slot), slot_mapping)
    write = ops.reshape(ops.reshape(slots, (-1, 1)) * kv_heads + heads, (-1,))
    offsets = ops.arange(0, block_size, 1, dtype=ms.int32)
    b, blocks = block_tables.shape
    read = ops.reshape(ops.reshape(block_tables, (b, blocks, 1)) * block_size + offsets, (b, 1, -1))
    return write, read * kv_heads + ops.reshape(heads, (1, -1, 1))


def cache_write(cache, rows, values):
    """Write values [M * K, H] into `rows` of the Parameter `cache` [slots * K, H], in place; returns the cache."""
    return ops.depend(cache, _scatter(cache, rows, values))


def cache_read(cache, rows):
    """Return the rows [B, K, S] of `cache` as [B, K, S, H]."""
    return _gather(cache, rows, 0)
