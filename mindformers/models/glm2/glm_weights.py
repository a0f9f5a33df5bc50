"""Names of the weights of transformers' Glm on the left, ours on the right; ours are those of `glm2_weights`."""
from mindformers.checkpoint.names import WeightMap, concat, drop, rename, tied
from mindformers.models.glm2 import glm2_weights as ours

_HF = "model.layers.{i}."


def _qkv(kind):
    """q, k and v apart on the left; here packed or apart."""
    theirs = [f"{_HF}self_attn.{name}_proj.{kind}" for name in "qkv"]
    return [concat(theirs, f"{ours.ATTENTION}query_key_value.{kind}", ours.qkv_rows, ours.packed_qkv),
            *(rename(hf, f"{ours.ATTENTION}w{name}.{kind}", ours.split_qkv) for hf, name in zip(theirs, "qkv"))]


WEIGHT_MAP = WeightMap([
    rename("model.embed_tokens.weight", ours.EMBEDDING),
    *(row for kind in ours.KINDS for row in _qkv(kind)),
    *ours.gate_up(f"{_HF}mlp.gate_up_proj", "weight"),
    rename(f"{_HF}self_attn.o_proj.weight", f"{ours.ATTENTION}dense.weight"),
    rename(f"{_HF}mlp.down_proj.weight", f"{ours.MLP}dense_4h_to_h.weight"),
    rename(f"{_HF}input_layernorm.weight", f"{ours.LAYER}input_layernorm.weight"),
    rename(f"{_HF}post_attention_layernorm.weight", f"{ours.LAYER}post_attention_layernorm.weight"),
    rename("model.norm.weight", "transformer.encoder.final_layernorm.weight"),
    rename("lm_head.weight", ours.HEAD),
    tied(("lm_head.weight", "model.embed_tokens.weight"), (ours.HEAD, ours.EMBEDDING), ours.is_tied),
    drop("model.rotary_emb.inv_freq"),
    drop(f"{_HF}self_attn.rotary_emb.inv_freq"),
    *ours.CACHES,
], prefix="transformer.", hf_prefix="model.", heads=(ours.HEAD,))
