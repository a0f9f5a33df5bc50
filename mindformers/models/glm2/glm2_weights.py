"""Names of ChatGLM2's weights: the published repositories' (and transformers' Glm's) on the left, ours on the right.

Ours are MindFormers', which differ from the published ones in the embedding only; with ``qkv_concat: False`` and
``mlp_concat: False`` packed arrays are cut into `wq`, `wk`, `wv` and `dense_left`, `dense_right`.
"""
from mindformers.checkpoint.names import WeightMap, concat, drop, rename, split, tied

_LAYER = "transformer.encoder.layers.{i}."
_ATTENTION, _MLP = f"{_LAYER}self_attention.", f"{_LAYER}mlp."
_GLM = "model.layers.{i}."
_KINDS = ("weight", "bias")


def _qkv_rows(config):
    """Rows of q, k and v."""
    kv = config.kv_heads * config.head_size
    return config.num_attention_heads * config.head_size, kv, kv


def _packed_qkv(config):
    return bool(getattr(config, "qkv_concat", True))


def _split_qkv(config):
    return not _packed_qkv(config)


def _packed_mlp(config):
    return bool(getattr(config, "mlp_concat", True))


def _split_mlp(config):
    return not _packed_mlp(config)


def _tied(config):
    return bool(getattr(config, "tie_word_embeddings", False))


def _same(*names):
    """Arrays that both sides name alike."""
    return [rename(f"{name}.{kind}", f"{name}.{kind}") for name in names for kind in _KINDS]


def _gate_up(hf, kind):
    """The rows [gate; up], packed on the left; here packed or two."""
    return [rename(f"{hf}.{kind}", f"{_MLP}dense_h_to_4h.{kind}", _packed_mlp),
            split(f"{hf}.{kind}", [f"{_MLP}dense_left.{kind}", f"{_MLP}dense_right.{kind}"], when=_split_mlp)]


_CACHES = [drop(ours=f"{_ATTENTION}infer_attention.paged_attention_mgr.{cache}") for cache in
           ("key_cache", "value_cache")]
_HEAD = "transformer.output_layer.weight"
_EMBEDDING = "transformer.embedding.embedding_weight"


def _qkv(kind):
    packed, parts = f"{_ATTENTION}query_key_value.{kind}", [f"{_ATTENTION}{name}.{kind}" for name in ("wq", "wk", "wv")]
    return [rename(packed, packed, _packed_qkv), split(packed, parts, _qkv_rows, _split_qkv)]


WEIGHT_MAP = WeightMap([
    rename("transformer.embedding.word_embeddings.weight", _EMBEDDING),
    *(row for kind in _KINDS for row in (*_qkv(kind), *_gate_up(f"{_MLP}dense_h_to_4h", kind))),
    *_same(f"{_ATTENTION}dense", f"{_MLP}dense_4h_to_h"),
    *(rename(f"{name}.weight", f"{name}.weight") for name in (
        f"{_LAYER}input_layernorm", f"{_LAYER}post_attention_layernorm", "transformer.encoder.final_layernorm")),
    rename(_HEAD, _HEAD),
    rename("transformer.prefix_encoder.embedding.weight", "transformer.prefix_encoder.embedding.embedding_weight"),
    *_same("transformer.prefix_encoder.trans.0", "transformer.prefix_encoder.trans.2"),
    tied((_HEAD, "transformer.embedding.word_embeddings.weight"), (_HEAD, _EMBEDDING), _tied),
    drop("transformer.rotary_pos_emb.inv_freq"),
    *_CACHES,
], prefix="transformer.", heads=(_HEAD,))


def _glm_qkv(kind):
    theirs = [f"{_GLM}self_attn.{name}_proj.{kind}" for name in "qkv"]
    return [concat(theirs, f"{_ATTENTION}query_key_value.{kind}", _qkv_rows, _packed_qkv),
            *(rename(hf, f"{_ATTENTION}w{name}.{kind}", _split_qkv) for hf, name in zip(theirs, "qkv"))]


GLM_WEIGHT_MAP = WeightMap([
    rename("model.embed_tokens.weight", _EMBEDDING),
    *(row for kind in _KINDS for row in _glm_qkv(kind)),
    *_gate_up(f"{_GLM}mlp.gate_up_proj", "weight"),
    rename(f"{_GLM}self_attn.o_proj.weight", f"{_ATTENTION}dense.weight"),
    rename(f"{_GLM}mlp.down_proj.weight", f"{_MLP}dense_4h_to_h.weight"),
    rename(f"{_GLM}input_layernorm.weight", f"{_LAYER}input_layernorm.weight"),
    rename(f"{_GLM}post_attention_layernorm.weight", f"{_LAYER}post_attention_layernorm.weight"),
    rename("model.norm.weight", "transformer.encoder.final_layernorm.weight"),
    rename("lm_head.weight", _HEAD),
    tied(("lm_head.weight", "model.embed_tokens.weight"), (_HEAD, _EMBEDDING), _tied),
    drop("model.rotary_emb.inv_freq"),
    drop(f"{_GLM}self_attn.rotary_emb.inv_freq"),
    *_CACHES,
], prefix="transformer.", hf_prefix="model.", heads=(_HEAD,))
