"""The portable form: plain MindSpore ops that exist on every backend.

Shape legend: B batch, T queries, S keys, N heads, K kv heads, G = N / K, H head dim, D hidden, M = B * T rows.
Weights may be float32, float16 or bfloat16; products run in float32.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

MASKED = float(np.finfo(np.float32).min)  # of an additive mask

_linear = ops.MatMul(transpose_b=True)
_scores = ops.BatchMatMul(transpose_b=True)
_context = ops.BatchMatMul()
_transposed = ops.BatchMatMul(transpose_a=True)
_softmax = ops.Softmax(-1)
_product = ops.MatMul()
_scatter = ops.ScatterUpdate()
_gather = ops.Gather()
_silu = ops.auto_generate.SiLU()
_range = ops.Range(2 ** 31 - 1)


def linear(x, weight, bias=None, scale=None):
    """``x [M, I] @ weight [O, I]^T + bias [O]`` in float32; returns [M, O] float32.

    An int8 weight has a float32 scale per output channel [O], or per group of inputs [O, groups].
    """
    x, weight = ops.cast(x, ms.float32), ops.cast(weight, ms.float32)
    if scale is not None:
        weight = dequantize(weight, scale)
    out = _linear(x, weight)
    if bias is not None:
        out = ops.bias_add(out, ops.cast(bias, ms.float32))
    return out


def dequantize(weight, scale):
    """weight [O, I] float32 times its scale [O] or [O, groups]."""
    groups = 1 if scale.ndim == 1 else scale.shape[1]
    o, i = weight.shape
    return ops.reshape(ops.reshape(weight, (o, groups, i // groups)) * ops.reshape(scale, (o, groups, 1)), (o, i))


def embedding(ids, weight):
    """Rows of `weight` [V, D] for int32 `ids` of any shape; float32."""
    return _gather(ops.cast(weight, ms.float32), ids, 0)


def rms_norm(x, weight, eps):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis, in float32."""
    x = ops.cast(x, ms.float32)
    scale = ops.rsqrt(ops.mean(ops.square(x), -1, True) + eps)
    return x * scale * ops.cast(weight, ms.float32)


def rope_plan(positions, inv_freq, factor, interleaved=False):
    """What `rope` needs of the positions of a call, made once for all layers.

    Args:
        positions: int32 [M]. inv_freq: float32 [H / 2]; a pair of frequency 0 does not turn (factor 1).
        factor (float): of cos and sin.
        interleaved (bool): which elements make a pair: (2i, 2i + 1), else (i, i + H / 2). Default: False.
    """
    angles = ops.cast(ops.reshape(positions, (-1, 1, 1)), ms.float32) * ops.reshape(inv_freq, (1, 1, -1))
    cos, sin = ops.cos(angles), ops.sin(angles)
    if factor != 1.0:
        cos, sin = cos * factor, sin * factor
    return _both_of_pair(cos, interleaved), _both_of_pair(sin, interleaved), _rotate(2 * cos.shape[2], interleaved)


def _both_of_pair(values, interleaved):
    """values [M, 1, H / 2] of the pairs -> [M, 1, H] of the elements."""
    if interleaved:
        return ops.reshape(ops.stack((values, values), -1), (-1, 1, 2 * values.shape[2]))
    return ops.concat((values, values), -1)


def step_rotation(positions, inv_freq, factor, single, interleaved=False):
    """The same for the steps of `paged_attention`.

    Steps of one token (`single`) get one matrix [M, H, H] that rotates by a product: one op a layer in place of five,
    which is what such a step costs on CPU.
    """
    cos, sin, rotate = rope_plan(positions, inv_freq, factor, interleaved)
    return _eye(cos.shape[2]) * cos + rotate * sin if single else (cos, sin, rotate)


def rope(x, plan):
    """Rotate x [M, N, H] by what `rope_plan` or `step_rotation` gave, which knows how elements make pairs.

    ``(-b, a)`` of each pair (a, b) is a small product: many times faster on CPU than slicing and joining, forward and
    backward.
    """
    if not isinstance(plan, tuple):
        return _context(x, plan)
    cos, sin, rotate = plan
    rotated = ops.reshape(_product(ops.reshape(x, (-1, x.shape[2])), rotate), (-1, x.shape[1], x.shape[2]))
    # a product of two shapes holds memory of four results on CPU while its graph lives; one of equal shapes none
    cos, sin = ops.tile(cos, (1, x.shape[1], 1)), ops.tile(sin, (1, x.shape[1], 1))
    return x * cos + rotated * sin


@ms.constexpr
def _rotate(h, interleaved):
    """x @ this has (-b, a) where x has a pair (a, b)."""
    turn, pairs = np.array([[0, 1], [-1, 0]], np.float32), np.eye(h // 2, dtype=np.float32)
    return Tensor(np.kron(pairs, turn) if interleaved else np.kron(turn, pairs), ms.float32)


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


def counted(length):
    """0, 1, ..., length - 1 as int32 [length]; the same as ``ops.arange``, which takes the compiler 0.4 s."""
    return ops.cast(_range(0, length, 1), ms.int32)


@ms.constexpr
def _numbers(length):
    """`counted` for a length that is known when a graph is compiled."""
    return Tensor(np.arange(length, dtype=np.int32))


def cache_plan(positions, block_tables, slot_mapping, heads, block_size, spare_slot, single):
    """What `paged_attention` needs of a step, made once for all layers.

    Args:
        positions: int32 [B, T] of the step's tokens. block_tables: int32 [B, blocks].
        slot_mapping: int32 [B * T], where each token is stored; -1 for padding, which lands in `spare_slot`.
        heads (tuple): query heads N, kv heads K, head width H.
        single (bool): steps of one token.

    Returns:
        rows that are written int32 [M * K], rows that are read int32 [B, K, S], additive mask, which of them no query
        of a sequence sees [B, 1, S, 1], B and T (None: one).
    """
    n, k, _ = heads
    write, read = cache_rows(block_tables, slot_mapping, k, block_size, spare_slot)
    slots = ops.reshape(counted(block_tables.shape[1] * block_size), (1, 1, 1, -1))
    b, t = positions.shape
    mask = ops.cast(slots > ops.reshape(positions, (b, 1, t, 1)), ms.float32) * MASKED
    behind = ops.reshape(slots, (1, 1, -1, 1)) > ops.reshape(ops.ReduceMax()(positions, 1), (b, 1, 1, 1))
    if single:
        return write, read, mask, behind, b, None
    return write, read, repeat_rows(mask, n // k), behind, b, t


def cache_rows(block_tables, slot_mapping, kv_heads, block_size, spare_slot):
    """Rows of the cache [slots * K, H] that one step writes [M * K] and reads [B, K, S]; see `cache_plan`."""
    heads = _numbers(kv_heads)
    slots = ops.select(slot_mapping < 0, ops.full_like(slot_mapping, spare_slot), slot_mapping)
    write = ops.reshape(ops.reshape(slots, (-1, 1)) * kv_heads + heads, (-1,))
    offsets = _numbers(block_size)
    b, blocks = block_tables.shape
    read = ops.reshape(ops.reshape(block_tables, (b, blocks, 1)) * block_size + offsets, (b, 1, -1))
    return write, read * kv_heads + ops.reshape(heads, (1, -1, 1))


def cache_shape(blocks, block_size, kv_heads, head_dim):
    """Shape of a key or value cache; behind its blocks lies the spare slot that takes what padding writes."""
    return (blocks * block_size + 1) * kv_heads, head_dim


def cache_write(cache, rows, values):
    """Write values [M * K, H] into `rows` of the Parameter `cache` [slots * K, H], in place; returns the cache."""
    return ops.depend(cache, _scatter(cache, rows, values))


def cache_read(cache, rows):
    """Return the rows [B, K, S] of `cache` as [B, K, S, H]."""
    return _gather(cache, rows, 0)


def _cleared(values, behind):
    """0 where `behind`: what a failed generation left there may be NaN, which no mask hides."""
    return ops.masked_fill(values, behind, 0.0)


def copy_rows(cache, sources, targets):
    """Copy rows `sources` of the Parameter `cache` onto rows `targets` (int32 [R]), in place; returns the cache."""
    return cache_write(cache, targets, cache_read(cache, sources))


def repeat_rows(mask, groups):
    """[B, 1, T, S] -> [B, 1, G*T, S]: attention holds the G queries of a kv head together, group-major."""
    return mask if groups == 1 else ops.concat((mask,) * groups, 2)


def group_queries(q, heads, b, t):
    """q [M, N, H] -> [B, K, G*T, H]: the queries that share a kv head lie together; t None is one token per row."""
    n, k, h = heads
    if t is None:
        return ops.reshape(q, (-1, k, n // k, h))
    q = ops.transpose(ops.reshape(q, (b, t, n, h)), (0, 2, 1, 3))
    return q if n == k else ops.reshape(q, (b, k, -1, h))


def ungroup(out, heads, b, t):
    """[B, K, G*T, H] -> rows [M, N*H]."""
    n, k, h = heads
    if t is None:
        return ops.reshape(out, (-1, n * h))
    if n != k:
        out = ops.reshape(out, (b, n, t, h))
    return ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (-1, n * h))


# -- a layer of a step on the cache: what the fused form does in one op each ------------------------------------------


def norm_linear(x, norm, eps, weight, bias, scale):
    """`linear` of `rms_norm`; x [M, D] -> [M, O]."""
    return linear(rms_norm(x, norm, eps), weight, bias, scale)


def linear_add(x, weight, bias, scale, residual):
    """``residual + linear(x)``."""
    return residual + linear(x, weight, bias, scale)


def norm_qkv(x, norm, eps, weights, biases, scales):
    """Queries, keys and values of the normed x [M, D], as `paged_attention` takes them.

    Args:
        weights, biases, scales (tuple): of the three products, or of the one whose rows are [q; k; v].
    """
    x = rms_norm(x, norm, eps)
    if len(weights) == 1:
        return (linear(x, weights[0], biases[0], scales[0]),)
    return (linear(x, weights[0], biases[0], scales[0]), linear(x, weights[1], biases[1], scales[1]),
            linear(x, weights[2], biases[2], scales[2]))


def pack_qkv(rows):
    """Rows [M, (N + 2K) * H] of queries, keys and values that no product made, as `paged_attention` takes them."""
    return (rows,)


def split_qkv(qkv, heads):
    """The tuple of `norm_qkv` as q [M, N, H], k and v [M, K, H]."""
    n, k, h = heads
    if len(qkv) == 1:
        packed = qkv[0]
        qkv = (packed[:, :n * h], packed[:, n * h:(n + k) * h], packed[:, (n + k) * h:])
    return ops.reshape(qkv[0], (-1, n, h)), ops.reshape(qkv[1], (-1, k, h)), ops.reshape(qkv[2], (-1, k, h))


def paged_attention(qkv, rotation, plan, key_cache, value_cache, heads, block_size, scale):
    """Rotate, store keys and values, attend over what each sequence has stored.

    Args:
        qkv: from `norm_qkv`. rotation: from `step_rotation`. plan: from `cache_plan`.
        key_cache, value_cache: Parameters [slots * K, H], written in place.
        heads (tuple): N, K, H. scale (float): factor of the scores.

    Returns:
        [M, N*H] float32.
    """
    write, read, mask, behind, b, t = plan
    q, k, v = split_qkv(qkv, heads)
    q, k = rope(q, rotation), rope(k, rotation)
    key_cache = cache_write(key_cache, write, ops.reshape(k, (-1, heads[2])))
    value_cache = cache_write(value_cache, write, ops.reshape(v, (-1, heads[2])))
    keys, values = _cleared(cache_read(key_cache, read), behind), _cleared(cache_read(value_cache, read), behind)
    return ungroup(attention(group_queries(q, heads, b, t), keys, values, mask, scale), heads, b, t)


def decoder_step(*parts):
    """A step without a graph where memory can be read, see `portable_step.PortableStep`; None elsewhere."""
    if ms.get_context("device_target") != "CPU":
        return None
    from mindformers.kernels.portable_step import PortableStep  # brings scipy, which the native form does not need
    return PortableStep(*parts)


def norm_gate_up(x, norm, eps, weights, biases, scales):
    """``silu(gate) * up`` of the normed x [M, D] -> [M, F].

    Args:
        weights, biases, scales (tuple): of gate and up, or of the one product whose rows are [gate; up].
    """
    x = rms_norm(x, norm, eps)
    if len(weights) == 1:
        packed = linear(x, weights[0], biases[0], scales[0])
        inner = weights[0].shape[0] // 2
        return swiglu(packed[:, :inner], packed[:, inner:])
    return swiglu(linear(x, weights[0], biases[0], scales[0]), linear(x, weights[1], biases[1], scales[1]))


_log_softmax = ops.LogSoftmax(-1)
_gather_elements = ops.GatherD()


def token_loss(logits, labels, weight):
    """Cross entropy of each row.

    Args:
        logits: [N, V], any float dtype. labels: int32 [N]; not looked at where `weight` (float32 [N]) is 0.

    Returns:
        float32 [N], not multiplied by `weight`; what stands in rows of weight 0 is finite and without meaning.
    """
    labels = labels * ops.cast(weight != 0, ms.int32)
    log_probs = _log_softmax(ops.cast(logits, ms.float32))
    return -ops.reshape(_gather_elements(log_probs, 1, ops.reshape(labels, (-1, 1))), (-1,))
