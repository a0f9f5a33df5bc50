"""The ops as calls into our C++ library (``ops.Custom``, kind "aot"): CPU only, float32 rows in and out.

One call does what lies between two products of a layer: norm before, bias, activation and residual behind. Weights
may be float32, float16, bfloat16, or int8 with scales. Shapes as in `kernels.portable`, whose twins these are. The C++
entries are in ``csrc/custom``; what they refuse is raised with their text, see `kernels.library`.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import CustomRegOp, DataType

from mindformers.kernels import library, portable
from mindformers.kernels.native_step import DecoderStep

_ABSENT = Tensor(np.zeros(1, np.float32))
_product = ops.MatMul()
_outer = ops.MatMul(transpose_a=True)


def _entry(name, bprop=None):
    """The C++ function `name`; its shape is inferred by ``<name>InferShape``, so that shapes may be dynamic."""
    op = ops.Custom(f"{library.path()}:{name}", out_shape=None, out_dtype=ms.float32, func_type="aot", bprop=bprop)
    op.add_prim_attr("reg_op_name", name)
    return op


def _entry_of_several(name, inputs, outputs, bprop=None):
    """As `_entry`, for a function of several outputs: MindSpore takes their number from the op's registration, and
    their dtypes from ``<name>InferType``."""
    info = CustomRegOp(name)
    for i in range(inputs):
        info = info.input(i, f"x{i}")
    for i in range(outputs):
        info = info.output(i, f"y{i}")
    info = info.dtype_format(*[DataType.None_None] * (inputs + outputs)).target("CPU").get_op_info()
    op = ops.Custom(f"{library.path()}:{name}", out_shape=None, out_dtype=None, func_type="aot", bprop=bprop,
                    reg_info=info)
    op.add_prim_attr("reg_op_name", name)
    return op


def _linear_bprop(x, meta, norm, weight, bias, scale, residual, out, dout):
    """Gradients of a plain product: norm and residual are absent when it trains; an int8 weight gets none."""
    if weight.dtype == ms.int8:
        dx, dw = _product(dout, portable.dequantize(ops.cast(weight, ms.float32), scale)), ops.zeros_like(weight)
    else:
        dx, dw = _product(dout, ops.cast(weight, ms.float32)), ops.cast(_outer(dout, x), weight.dtype)
    db = ops.cast(ops.ReduceSum()(dout, 0), bias.dtype) if bias.shape[0] == dout.shape[1] else ops.zeros_like(bias)
    return (dx, ops.zeros_like(meta), ops.zeros_like(norm), dw, db, ops.zeros_like(scale), ops.zeros_like(residual))


def _embedding_bprop(ids, weight, out, dout):
    rows = ops.reshape(dout, (-1, weight.shape[1]))
    dw = ops.UnsortedSegmentSum()(rows, ops.reshape(ids, (-1,)), weight.shape[0])
    return ops.zeros_like(ids), ops.cast(dw, weight.dtype)


_linear = _entry("mf_linear", _linear_bprop)
_qkv = _entry("mf_qkv")
_gate_up = _entry("mf_gate_up")
_gate_up_packed = _entry("mf_gate_up_packed")
_rope_table = _entry("mf_rope_table")
_paged_attention = _entry("mf_paged_attention")
_embedding = _entry("mf_embedding", _embedding_bprop)
_copy_rows = _entry("mf_copy_rows")
_cross_entropy_grad = _entry("mf_cross_entropy_grad")


def _cross_entropy_bprop(logits, labels, weight, out, dout):
    grad = _cross_entropy_grad(logits, labels, out, dout[0])
    return ops.cast(grad, logits.dtype), ops.zeros_like(labels), ops.zeros_like(weight)


_cross_entropy = _entry("mf_cross_entropy", _cross_entropy_bprop)

_flash_backward = _entry_of_several("mf_flash_backward", 8, 3)
_rms_norm_grad = _entry_of_several("mf_rms_norm_grad", 4, 2)
_swiglu_grad = _entry_of_several("mf_swiglu_grad", 3, 2)


def _flash_bprop(q, k, v, mask, meta, out, dout):
    dq, dk, dv = _flash_backward(q, k, v, mask, meta, out[0], out[1], dout[0])
    return dq, dk, dv, ops.zeros_like(mask), ops.zeros_like(meta)


def _rms_norm_bprop(x, weight, meta, out, dout):
    dx, dw = _rms_norm_grad(x, weight, meta, dout)
    return ops.cast(dx, x.dtype), ops.cast(dw, weight.dtype), ops.zeros_like(meta)


def _swiglu_bprop(gate, up, out, dout):
    dgate, dup = _swiglu_grad(gate, up, dout)
    return ops.cast(dgate, gate.dtype), ops.cast(dup, up.dtype)


_flash_forward = _entry_of_several("mf_flash_forward", 5, 2, _flash_bprop)
_rms_norm = _entry("mf_rms_norm", _rms_norm_bprop)
_swiglu = _entry("mf_swiglu", _swiglu_bprop)


@ms.constexpr
def _meta(*values):
    """float32 [8] constant that tells an entry which inputs are there."""
    return Tensor(np.array(values + (0.0,) * (8 - len(values)), np.float32))


@ms.constexpr
def _attention_meta(heads, block_size, scale, interleaved):
    """float32 [8 + N*H]: N, K, H, block size, scale, rope style, window; its length tells the width of the answer."""
    n, k, h = heads
    meta = np.zeros(8 + n * h, np.float32)
    meta[:6] = n, k, h, block_size, scale, interleaved
    return Tensor(meta)


def _or_absent(value):
    return _ABSENT if value is None else value


def linear(x, weight, bias=None, scale=None):
    """See `portable.linear`. float32 weights go to MindSpore's MatMul, which is as fast on many rows."""
    if weight.dtype == ms.float32:
        return portable.linear(x, weight, bias)
    meta = _meta(0.0, 0.0, 0.0 if bias is None else 1.0, 0.0 if scale is None else 1.0)
    return _linear(x, meta, _ABSENT, weight, _or_absent(bias), _or_absent(scale), _ABSENT)


def embedding(ids, weight):
    """See `portable.embedding`."""
    return ops.reshape(_embedding(ids, weight), (*ids.shape, weight.shape[1]))


def rms_norm(x, weight, eps):
    """See `portable.rms_norm`."""
    return _rms_norm(x, weight, _meta(eps))


def swiglu(gate, up):
    """See `portable.swiglu`."""
    return _swiglu(gate, up)


def attention(q, k, v, mask, scale):
    """See `portable.attention`. No [T, S] scores are stored, and blocks that the mask hides are not computed.

    The mask must be 0, or -10000 and less; a query that sees no key gives zeros and has no gradient.
    """
    return _flash_forward(q, k, v, mask, _meta(scale))[0]


def norm_linear(x, norm, eps, weight, bias, scale):
    """See `portable.norm_linear`."""
    meta = _meta(eps, 1.0, 0.0 if bias is None else 1.0, 0.0 if scale is None else 1.0)
    return _linear(x, meta, norm, weight, _or_absent(bias), _or_absent(scale), _ABSENT)


def linear_add(x, weight, bias, scale, residual):
    """See `portable.linear_add`."""
    meta = _meta(0.0, 0.0, 0.0 if bias is None else 1.0, 0.0 if scale is None else 1.0, 1.0)
    return _linear(x, meta, _ABSENT, weight, _or_absent(bias), _or_absent(scale), residual)


def norm_qkv(x, norm, eps, weights, biases, scales):
    """See `portable.norm_qkv`; returns one array [M, (N + 2K) * H]."""
    if len(weights) == 1:
        return norm_linear(x, norm, eps, weights[0], biases[0], scales[0])
    meta = _meta(eps, 1.0, 0.0 if biases[0] is None else 1.0, 0.0 if scales[0] is None else 1.0)
    return _qkv(x, meta, norm, weights[0], weights[1], weights[2],
                _or_absent(biases[0]), _or_absent(biases[1]), _or_absent(biases[2]),
                _or_absent(scales[0]), _or_absent(scales[1]), _or_absent(scales[2]))


def pack_qkv(rows):
    """See `portable.pack_qkv`."""
    return rows


def norm_gate_up(x, norm, eps, weights, biases, scales):
    """See `portable.norm_gate_up`."""
    meta = _meta(eps, 1.0, 0.0 if biases[0] is None else 1.0, 0.0 if scales[0] is None else 1.0)
    if len(weights) == 1:
        return _gate_up_packed(x, meta, norm, weights[0], _or_absent(biases[0]), _or_absent(scales[0]))
    return _gate_up(x, meta, norm, weights[0], weights[1], _or_absent(biases[0]), _or_absent(biases[1]),
                    _or_absent(scales[0]), _or_absent(scales[1]))


def step_rotation(positions, inv_freq, factor, single, interleaved=False):
    """See `portable.step_rotation`; returns cosines and sines [M, 2 * H/2], and which elements make a pair."""
    return _rope_table(positions, inv_freq, _meta(factor)), interleaved


def cache_plan(positions, block_tables, slot_mapping, heads, block_size, spare_slot, single):
    """See `portable.cache_plan`; the kernel reads the block tables itself."""
    return block_tables, slot_mapping, positions


def paged_attention(qkv, rotation, plan, key_cache, value_cache, heads, block_size, scale):
    """See `portable.paged_attention`."""
    tables, slots, positions = plan
    angles, interleaved = rotation
    return _paged_attention(qkv, angles, key_cache, value_cache, tables, slots, positions,
                            _attention_meta(heads, block_size, scale, interleaved))


cache_shape = portable.cache_shape
decoder_step = DecoderStep


def copy_rows(cache, sources, targets):
    """See `portable.copy_rows`."""
    return ops.depend(cache, _copy_rows(cache, sources, targets))


def token_loss(logits, labels, weight):
    """See `portable.token_loss`; no copy of the logits in any direction, and rows of weight 0 are not read."""
    return _cross_entropy(logits, labels, weight)[0]
