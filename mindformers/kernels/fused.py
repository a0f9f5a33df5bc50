"""The ops in MindSpore's fused primitives: Ascend's own kernels there, those of our op plugin (csrc/plugin) on CPU.

Shapes as in `kernels.portable`, whose twins these are. Rows between the ops are float32. Products run in the dtype of
a 16-bit weight. On Ascend, attention runs in bfloat16, since its kernel takes no float32; on CPU it keeps float32.
The paged cache holds 16-bit values, which is all that PagedAttention takes, in the shape of `cache_shape`.
"""
import mindspore as ms
from mindspore import ops

from mindformers.kernels import portable
from mindformers.kernels.select import backend

HALF_ATTENTION = backend() == "Ascend"

_dense = ops.auto_generate.Dense()
_swiglu = ops.auto_generate.Swiglu()
_rotate = ops.auto_generate.RotaryPositionEmbedding()
_reshape_and_cache = ops.auto_generate.ReshapeAndCache()
_gather = ops.Gather()


def linear(x, weight, bias=None, scale=None):
    """See `portable.linear`. A 16-bit weight is multiplied as it is, with x rounded to its dtype."""
    if scale is not None or weight.dtype == ms.float32:
        return portable.linear(x, weight, bias, scale)
    return ops.cast(_dense(ops.cast(x, weight.dtype), weight, bias), ms.float32)


def embedding(ids, weight):
    """See `portable.embedding`. Only the rows that are read are cast."""
    return ops.cast(_gather(weight, ids, 0), ms.float32)


def rms_norm(x, weight, eps):
    """See `portable.rms_norm`."""
    return ops.rms_norm(ops.cast(x, ms.float32), ops.cast(weight, ms.float32), eps)[0]


def rope_plan(positions, inv_freq, factor, interleaved=False):
    """See `portable.rope_plan`; returns cos and sin [1, M, 1, H], and the primitive's name of the pairs: 0 halves, 1
    interleaved."""
    cos, sin, _ = portable.rope_plan(positions, inv_freq, factor, interleaved)
    return ops.expand_dims(cos, 0), ops.expand_dims(sin, 0), 1 if interleaved else 0


def rope(x, plan):
    """See `portable.rope`."""
    cos, sin, mode = plan
    return ops.reshape(_rotate(ops.expand_dims(x, 0), cos, sin, mode), x.shape)


def swiglu(gate, up):
    """See `portable.swiglu`."""
    return _swiglu(ops.concat((gate, up), -1), -1)


def attention(q, k, v, mask, scale):
    """See `portable.attention`. No [T, S] scores are stored."""
    dtype = q.dtype
    if HALF_ATTENTION:
        q, k, v = ops.cast(q, ms.bfloat16), ops.cast(k, ms.bfloat16), ops.cast(v, ms.bfloat16)
    hidden = ops.cast(mask < 0, ms.uint8)
    if mask.shape[0] == 1:
        hidden = ops.reshape(hidden, mask.shape[2:])
    out = ops.flash_attention_score(q, k, v, q.shape[1], attn_mask=hidden, scalar_value=scale, input_layout="BNSD")
    return ops.cast(out, dtype)


# -- a layer of a step on the cache ------------------------------------------------------------------------------------


def norm_linear(x, norm, eps, weight, bias, scale):
    """See `portable.norm_linear`."""
    return linear(rms_norm(x, norm, eps), weight, bias, scale)


def linear_add(x, weight, bias, scale, residual):
    """See `portable.linear_add`."""
    return residual + linear(x, weight, bias, scale)


def norm_qkv(x, norm, eps, weights, biases, scales):
    """See `portable.norm_qkv`."""
    x = rms_norm(x, norm, eps)
    if len(weights) == 1:
        return (linear(x, weights[0], biases[0], scales[0]),)
    return (linear(x, weights[0], biases[0], scales[0]), linear(x, weights[1], biases[1], scales[1]),
            linear(x, weights[2], biases[2], scales[2]))


def norm_gate_up(x, norm, eps, weights, biases, scales):
    """See `portable.norm_gate_up`."""
    x = rms_norm(x, norm, eps)
    if len(weights) == 1:
        return _swiglu(linear(x, weights[0], biases[0], scales[0]), -1)
    return swiglu(linear(x, weights[0], biases[0], scales[0]), linear(x, weights[1], biases[1], scales[1]))


def step_rotation(positions, inv_freq, factor, single, interleaved=False):
    """See `portable.step_rotation`."""
    return rope_plan(positions, inv_freq, factor, interleaved)


def cache_plan(positions, block_tables, slot_mapping, heads, block_size, spare_slot, single):
    """See `portable.cache_plan`; returns a row of block tables, a slot and a context length for each token.

    Tokens of one sequence become sequences of their own that share blocks: each sees the keys up to its position.
    """
    b, t = positions.shape
    tables = block_tables
    if not single:
        tables = ops.reshape(ops.broadcast_to(ops.expand_dims(tables, 1), (b, t, -1)), (b * t, -1))
    return tables, slot_mapping, ops.reshape(positions, (-1,)) + 1


def cache_shape(blocks, block_size, kv_heads, head_dim):
    """Shape of a key or value cache; padding is not written, so there is no spare slot."""
    return blocks, block_size, kv_heads, head_dim


def paged_attention(qkv, rotation, plan, key_cache, value_cache, heads, block_size, scale):
    """See `portable.paged_attention`; key_cache and value_cache: 16-bit Parameters of `cache_shape`."""
    tables, slots, context = plan
    n, kv_heads, h = heads
    q, k, v = portable.split_qkv(qkv, heads)
    dtype = key_cache.dtype
    q, k = ops.cast(rope(q, rotation), dtype), ops.cast(rope(k, rotation), dtype)
    written = _reshape_and_cache(ops.reshape(k, (-1, kv_heads * h)),
                                 ops.reshape(ops.cast(v, dtype), (-1, kv_heads * h)), key_cache, value_cache, slots)
    q = ops.depend(ops.reshape(q, (-1, n * h)), written)
    paged = ops.auto_generate.PagedAttention(n, scale, kv_heads)
    return ops.cast(paged(q, key_cache, value_cache, tables, context), ms.float32)


def copy_rows(cache, sources, targets):
    """See `portable.copy_rows`; rows of the cache seen as [slots * K, H], whole slots at a time."""
    kv_heads, h = cache.shape[2:]
    slots = ops.reshape(sources, (-1, kv_heads))[:, 0] // kv_heads
    values = _gather(ops.reshape(cache, (-1, kv_heads * h)), slots, 0)
    targets = ops.reshape(targets, (-1, kv_heads))[:, 0] // kv_heads
    return ops.depend(cache, _reshape_and_cache(values, None, cache, None, targets))
