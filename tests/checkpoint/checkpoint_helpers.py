"""Small cells with Llama's names, Hugging Face weights made with numpy, and folders of them."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import nn

from mindformers.checkpoint.arrays import numpy_dtype

ms.set_device("CPU")


class NamedCell(nn.Cell):
    """A cell whose parameters are given as {name: array}."""

    def __init__(self, arrays, trainable=True):
        super().__init__(auto_prefix=False)
        for index, (name, array) in enumerate(arrays.items()):
            parameter = ms.Parameter(ms.Tensor(array), name=name, requires_grad=trainable)
            setattr(self, f"p{index}", parameter)

    def values(self):
        """Return {name: copy of the value}."""
        return {parameter.name: parameter.asnumpy().copy() for _, parameter in self.parameters_and_names()}


def llama_config(**changes):
    """A config with the fields that the table of names reads."""
    values = {"num_layers": 2, "hidden_size": 8, "num_heads": 4, "n_kv_heads": 2, "head_dim": None, "ffn_size": 12,
              "vocab_size": 16, "qkv_concat": False, "tie_word_embeddings": False, "qkv_has_bias": False,
              "attn_proj_has_bias": False, "mlp_has_bias": False}
    return SimpleNamespace(**{**values, **changes})


def _random(rng, *shape, dtype="float32"):
    if dtype == "bfloat16":
        # any bit pattern, NaN and infinity included
        return rng.integers(0, 2**16, shape, dtype=np.uint16).view(numpy_dtype(dtype))
    return rng.standard_normal(shape).astype(dtype)


def hf_weights(config, dtype="float32", seed=0):
    """Random weights of a Hugging Face Llama: {name: array}."""
    rng = np.random.default_rng(seed)
    head = config.head_dim or config.hidden_size // config.num_heads
    kv_heads = config.n_kv_heads or config.num_heads
    d, q, kv, f = config.hidden_size, config.num_heads * head, kv_heads * head, config.ffn_size
    out = {"model.embed_tokens.weight": _random(rng, config.vocab_size, d, dtype=dtype)}
    linears = [("self_attn.q_proj", q, d, config.qkv_has_bias), ("self_attn.k_proj", kv, d, config.qkv_has_bias),
               ("self_attn.v_proj", kv, d, config.qkv_has_bias), ("self_attn.o_proj", d, q, config.attn_proj_has_bias),
               ("mlp.gate_proj", f, d, config.mlp_has_bias), ("mlp.up_proj", f, d, config.mlp_has_bias),
               ("mlp.down_proj", d, f, config.mlp_has_bias)]
    for layer in range(config.num_layers):
        for name, rows, columns, bias in linears:
            out[f"model.layers.{layer}.{name}.weight"] = _random(rng, rows, columns, dtype=dtype)
            if bias:
                out[f"model.layers.{layer}.{name}.bias"] = _random(rng, rows, dtype=dtype)
        for name in ("input_layernorm", "post_attention_layernorm"):
            out[f"model.layers.{layer}.{name}.weight"] = _random(rng, d, dtype=dtype)
    out["model.norm.weight"] = _random(rng, d, dtype=dtype)
    if not config.tie_word_embeddings:
        out["lm_head.weight"] = _random(rng, config.vocab_size, d, dtype=dtype)
    return out


def same(first, second):
    """Whether two arrays have the same dtype, shape and bytes."""
    return first.dtype == second.dtype and first.shape == second.shape and \
        np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()
