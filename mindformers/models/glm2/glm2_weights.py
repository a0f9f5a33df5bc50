"""Names of ChatGLM2's weights: the published repositories' on the left, ours on the right (see `checkpoint.names`).

Ours are MindFormers', which differ from the published ones in the embedding only; with ``qkv_concat: False`` and
``mlp_concat: False`` packed arrays are cut into `wq`, `wk`, `wv` and `dense_left`, `dense_right`.
"""
from mindformers.checkpoint.names import WeightMap, drop, rename, split, tied

LAYER = "transformer.encoder.layers.{i}."
ATTENTION, MLP = f"{LAYER}self_attention.", f"{LAYER}mlp."
KINDS = ("weight", "bias")


def qkv_rows(config):
    """Rows of q, k and v."""
    kv = config.kv_heads * config.head_size
    return config.num_attention_heads * config.head_size, kv, kv


def packed_qkv(config):
    """Whether q, k and v are one parameter."""
    return bool(getattr(config, "qkv_concat", True))


def split_qkv(config):
    """Whether they are three."""
    return not packed_qkv(config)


def packed_mlp(config):
    """Whether gate and up are one parameter."""
    return bool(getattr(config, "mlp_concat", True))


def split_mlp(config):
    """Whether they are two."""
    return not packed_mlp(config)


def is_tied(config):
    """Whether the head is the embedding."""
    return bool(getattr(config, "tie_word_embeddings", False))


def _same(*names):
    """Arrays that both sides name alike."""
    return [rename(f"{name}.{kind}", f"{name}.{kind}") for name in names for kind in KINDS]


def gate_up(hf, kind):
    """The rows [gate; up], packed on the left; here packed or two."""
    return [rename(f"{hf}.{kind}", f"{MLP}dense_h_to_4h.{kind}", packed_mlp),
            split(f"{hf}.{kind}", [f"{MLP}dense_left.{kind}", f"{MLP}dense_right.{kind}"], when=split_mlp)]


CACHES = [drop(ours=f"{ATTENTION}infer_attention.paged_attention_mgr.{cache}")
          for cache in ("key_cache", "value_cache")]
HEAD = "transformer.output_layer.weight"
EMBEDDING = "transformer.embedding.embedding_weight"


def _qkv(kind):
    packed, parts = f"{ATTENTION}query_key_value.{kind}", [f"{ATTENTION}{name}.{kind}" for name in ("wq", "wk", "wv")]
    return [rename(packed, packed, packed_qkv), split(packed, parts, qkv_rows, split_qkv)]


WEIGHT_MAP = WeightMap([
    rename("transformer.embedding.word_embeddings.weight", EMBEDDING),
    *(row for kind in KINDS for row in (*_qkv(kind), *gate_up(f"{MLP}dense_h_to_4h", kind))),
    *_same(f"{ATTENTION}dense", f"{MLP}dense_4h_to_h"),
    *(rename(f"{name}.weight", f"{name}.weight") for name in (
        f"{LAYER}input_layernorm", f"{LAYER}post_attention_layernorm", "transformer.encoder.final_layernorm")),
    rename(HEAD, HEAD),
    rename("transformer.prefix_encoder.embedding.weight", "transformer.prefix_encoder.embedding.embedding_weight"),
    *_same("transformer.prefix_encoder.trans.0", "transformer.prefix_encoder.trans.2"),
    tied((HEAD, "transformer.embedding.word_embeddings.weight"), (HEAD, EMBEDDING), is_tied),
    drop("transformer.rotary_pos_emb.inv_freq"),
    *CACHES,
], prefix="transformer.", heads=(HEAD,))
