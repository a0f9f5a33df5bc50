"""Names of Llama's weights: Hugging Face's on the left, ours on the right (see `checkpoint.names`).

Packed parameters (`qkv_concat: True`) have the rows of q, then k, then v; of gate, then up. The Megatron order that
later MindFormers versions interleave by kv head cannot be told apart from it and must be converted first.
"""
from mindformers.checkpoint.names import WeightMap, concat, drop, rename, tied

_HF_LAYER = "model.layers.{i}."
_LAYER = "model.layers.{i}."


def _qkv_rows(config):
    """Rows of q, k and v."""
    kv_heads = config.n_kv_heads or config.num_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_heads
    return config.num_heads * head_dim, kv_heads * head_dim, kv_heads * head_dim


def _packed(config):
    return bool(getattr(config, "qkv_concat", False))


def _separate(config):
    return not _packed(config)


def _tied(config):
    return bool(getattr(config, "tie_word_embeddings", False))


def _linear(hf, ours, when=None):
    """The weight and the (optional) bias of one linear layer."""
    return [rename(f"{_HF_LAYER}{hf}.{kind}", f"{_LAYER}{ours}.{kind}", when) for kind in ("weight", "bias")]


def _packed_linear(hf, ours, sizes=None):
    return [concat([f"{_HF_LAYER}{name}.{kind}" for name in hf], f"{_LAYER}{ours}.{kind}", sizes, _packed)
            for kind in ("weight", "bias")]


WEIGHT_MAP = WeightMap([
    rename("model.embed_tokens.weight", "model.tok_embeddings.embedding_weight"),
    *_linear("self_attn.q_proj", "attention.wq", _separate),
    *_linear("self_attn.k_proj", "attention.wk", _separate),
    *_linear("self_attn.v_proj", "attention.wv", _separate),
    *_packed_linear(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attention.w_qkv", _qkv_rows),
    *_linear("self_attn.o_proj", "attention.wo"),
    *_linear("mlp.gate_proj", "feed_forward.w1", _separate),
    *_linear("mlp.up_proj", "feed_forward.w3", _separate),
    *_packed_linear(["mlp.gate_proj", "mlp.up_proj"], "feed_forward.w_gate_hidden"),
    *_linear("mlp.down_proj", "feed_forward.w2"),
    rename(f"{_HF_LAYER}input_layernorm.weight", f"{_LAYER}attention_norm.weight"),
    rename(f"{_HF_LAYER}post_attention_layernorm.weight", f"{_LAYER}ffn_norm.weight"),
    rename("model.norm.weight", "model.norm_out.weight"),
    rename("lm_head.weight", "lm_head.weight"),
    rename("score.weight", "score.weight"),
    tied(("lm_head.weight", "model.embed_tokens.weight"),
         ("lm_head.weight", "model.tok_embeddings.embedding_weight"), _tied),
    drop(f"{_HF_LAYER}self_attn.rotary_emb.inv_freq"),
    drop("model.rotary_emb.inv_freq"),
    *(drop(ours=f"{_LAYER}attention.infer_attention.paged_attention_mgr.{cache}")
      for cache in ("key_cache", "value_cache")),
])
