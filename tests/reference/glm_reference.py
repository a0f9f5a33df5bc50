"""The published ChatGLM2, ChatGLM3 and GLM-4 in plain PyTorch: slow, without a cache, one formula a function.

Written from the papers and from what modeling_chatglm.py of THUDM/chatglm2-6b, THUDM/chatglm3-6b and THUDM/glm-4-9b
computes; the names of its classes stand beside each formula. Weights are a dict with the names of these repositories.
Shapes: B batch, T tokens, D hidden, N heads, K groups, H kv_channels, R = H / 2, P prefix.
"""
import math

import torch
from torch.nn import functional as F


def rotation(positions, config):
    """cos and sin of the angles of each position: float32 [B, T, R / 2].

    RoFormer (arXiv:2104.09864), equation 34: angle of pair i at position m is m * base^(-2i / R). `RotaryEmbedding`:
    R is half of kv_channels. chatglm3-6b-32k and glm-4-9b multiply the base 10000 by rope_ratio; chatglm2-6b-32k
    divides the positions by it (interpolation, arXiv:2306.15595).
    """
    size, ratio = config["kv_channels"] // 2, config.get("rope_ratio", 1)
    interpolate = ratio != 1 and "chatglm2" in config.get("_name_or_path", "")
    base = 10000.0 if interpolate else 10000.0 * ratio
    inverse = 1.0 / base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    angles = positions[..., None].float() / (ratio if interpolate else 1.0) * inverse
    return angles.cos(), angles.sin()


def rotate(x, table):
    """x [B, T, N, H]: the first half of each head turns in pairs (2i, 2i + 1), the other half passes.

    `apply_rotary_pos_emb`; the pairs are RoFormer's own (equation 34), not the halves that Llama's code pairs.
    """
    cos, sin = (part[:, :, None] for part in table)
    size = 2 * cos.shape[-1]
    turning, passing = x[..., :size], x[..., size:]
    even, odd = turning[..., 0::2], turning[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    return torch.cat((turned, passing), -1)


def rms_norm(x, weight, epsilon):
    """x / sqrt(mean(x^2) + epsilon) * weight: arXiv:1910.07467, `RMSNorm`."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * weight


def linear(x, weights, name):
    """x W^T + b, with the bias where the checkpoint has one."""
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def attention(x, weights, name, config, table, allowed, past=None):
    """Grouped-query attention (arXiv:2305.13245), `SelfAttention` and `CoreAttention`.

    The rows of query_key_value are all queries, then the keys and the values of the K groups; head n reads group
    n // (N / K). Scores are scaled by 1/sqrt(H): the code divides by sqrt(H) * layer and multiplies by layer again.
    """
    b, t, _ = x.shape
    n, k, h = config["num_attention_heads"], config["multi_query_group_num"], config["kv_channels"]
    q, key, value = linear(x, weights, f"{name}.query_key_value").split((n * h, k * h, k * h), -1)
    q, key = rotate(q.view(b, t, n, h), table), rotate(key.view(b, t, k, h), table)
    value = value.view(b, t, k, h)
    if past is not None:
        key, value = torch.cat((past[0], key), 1), torch.cat((past[1], value), 1)
    key, value = key.repeat_interleave(n // k, 2), value.repeat_interleave(n // k, 2)
    scores = torch.einsum("btnh,bsnh->bnts", q, key) / math.sqrt(h)
    probabilities = scores.masked_fill(~allowed[:, None], float("-inf")).softmax(-1)
    return linear(torch.einsum("bnts,bsnh->btnh", probabilities, value).reshape(b, t, n * h), weights, f"{name}.dense")


def mlp(x, weights, name):
    """SwiGLU (arXiv:2002.05202), `MLP`: the first half of dense_h_to_4h goes through silu, the second is multiplied."""
    gate, up = linear(x, weights, f"{name}.dense_h_to_4h").chunk(2, -1)
    return linear(F.silu(gate) * up, weights, f"{name}.dense_4h_to_h")


def prefix(weights, config, batch):
    """Keys and values [B, P, K, H] of each layer: P-tuning v2 (arXiv:2110.07602), `PrefixEncoder` and `get_prompt`."""
    name = "transformer.prefix_encoder"
    rows = weights[f"{name}.embedding.weight"]
    if config["prefix_projection"]:
        rows = linear(torch.tanh(linear(rows, weights, f"{name}.trans.0")), weights, f"{name}.trans.2")
    rows = rows.view(config["pre_seq_len"], 2 * config["num_layers"], config["multi_query_group_num"],
                     config["kv_channels"]).expand(batch, -1, -1, -1, -1)
    return [(rows[:, :, 2 * i], rows[:, :, 2 * i + 1]) for i in range(config["num_layers"])]


def forward(weights, config, ids, mask=None):
    """Logits float32 [B, T, V] of ids [B, T]; mask [B, T] is 1 for tokens, 0 for padding on either side.

    `ChatGLMModel`, `GLMTransformer`, `GLMBlock`: norm, attention, residual; norm, MLP, residual; a norm behind the
    last layer; output_layer. Positions count the real tokens of a row from 0, as the published tokenizers give them;
    `get_masks` lets a token see the prefix and the tokens up to itself that are no padding.
    """
    b, t = ids.shape
    mask = torch.ones_like(ids) if mask is None else mask
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    allowed = torch.ones(t, t, dtype=torch.bool).tril() & (mask[:, None] > 0)
    allowed = allowed | torch.eye(t, dtype=torch.bool)  # a padded query must see something; nobody reads it
    past = None
    if config.get("pre_seq_len"):
        past = prefix(weights, config, b)
        allowed = torch.cat((torch.ones(b, t, config["pre_seq_len"], dtype=torch.bool), allowed), -1)
    table, epsilon = rotation(positions, config), config["layernorm_epsilon"]
    x = weights["transformer.embedding.word_embeddings.weight"][ids]
    for i in range(config["num_layers"]):
        name = f"transformer.encoder.layers.{i}"
        normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"], epsilon)
        x = x + attention(normed, weights, f"{name}.self_attention", config, table, allowed, past and past[i])
        x = x + mlp(rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"], epsilon), weights, f"{name}.mlp")
    x = rms_norm(x, weights["transformer.encoder.final_layernorm.weight"], epsilon)
    return F.linear(x, weights["transformer.output_layer.weight"])


def loss(logits, labels):
    """Mean cross-entropy of the labels [B, T] that are not -100: logits of token i against label i."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def greedy(weights, config, prompt, count):
    """`count` greedy tokens behind prompt [L], and the least margin of the two best logits on the way."""
    ids, margin = prompt[None], math.inf
    with torch.no_grad():
        for _ in range(count):
            best = forward(weights, config, ids)[0, -1].topk(2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            ids = torch.cat((ids, best.indices[:1][None]), 1)
    return ids[0, len(prompt):], margin


def to_transformers(weights, config):
    """The same weights under the names of transformers' GlmForCausalLM."""
    n, k, h = config["num_attention_heads"], config["multi_query_group_num"], config["kv_channels"]
    out = {"model.embed_tokens.weight": weights["transformer.embedding.word_embeddings.weight"],
           "model.norm.weight": weights["transformer.encoder.final_layernorm.weight"],
           "lm_head.weight": weights["transformer.output_layer.weight"]}
    for i in range(config["num_layers"]):
        theirs, ours = f"model.layers.{i}.", f"transformer.encoder.layers.{i}."
        for kind in ("weight", "bias"):
            packed = weights.get(f"{ours}self_attention.query_key_value.{kind}")
            if packed is not None:
                for part, name in zip(packed.split((n * h, k * h, k * h)), "qkv"):
                    out[f"{theirs}self_attn.{name}_proj.{kind}"] = part
        for a, b in (("self_attn.o_proj", "self_attention.dense"), ("mlp.gate_up_proj", "mlp.dense_h_to_4h"),
                     ("mlp.down_proj", "mlp.dense_4h_to_h"), ("input_layernorm", "input_layernorm"),
                     ("post_attention_layernorm", "post_attention_layernorm")):
            out[f"{theirs}{a}.weight"] = weights[f"{ours}{b}.weight"]
    return out
