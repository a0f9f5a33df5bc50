"""Golden files: those of tests/reference/llama read, Llama's parameter names written out anew, the makers' tools."""
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

PADDED_LENGTHS = (20, 13, 7)         # real tokens of the three rows of a padded batch
LLAMA = Path(__file__).resolve().parent / "llama"
CAUSAL = sorted(folder.name for folder in LLAMA.iterdir() if folder.is_dir() and folder.name != "classifier")


def folder(case):
    """Path of a case as a string: config.json and model.safetensors."""
    return str(LLAMA / case)


@lru_cache(maxsize=None)
def golden(case):
    """Arrays of a case; see make_llama_goldens.py for their names and shapes."""
    with np.load(LLAMA / case / "golden.npz") as file:
        return dict(file)


def config_json(case, generation=5):
    """config.json as a dict, in the keys of transformers 4 or 5."""
    name = "config.json" if generation == 5 else "config_v4.json"
    return json.loads((LLAMA / case / name).read_text())


def rope_tables():
    """{name: {setting, attention_factor, inv_freq}}."""
    return json.loads((LLAMA / "rope_tables.json").read_text())["tables"]


def mindformers_name(hf_name):
    """MindFormers' name of a Hugging Face Llama parameter: the specification, independent of the suite's own table."""
    if hf_name in ("lm_head.weight", "score.weight"):
        return hf_name
    if hf_name.startswith("model.layers."):
        _, _, index, rest = hf_name.split(".", 3)
        for theirs, ours in (("self_attn.q_proj", "attention.wq"), ("self_attn.k_proj", "attention.wk"),
                             ("self_attn.v_proj", "attention.wv"), ("self_attn.o_proj", "attention.wo"),
                             ("mlp.gate_proj", "feed_forward.w1"), ("mlp.down_proj", "feed_forward.w2"),
                             ("mlp.up_proj", "feed_forward.w3"), ("input_layernorm", "attention_norm"),
                             ("post_attention_layernorm", "ffn_norm")):
            if rest.startswith(theirs + "."):
                return f"model.layers.{index}.{ours}{rest[len(theirs):]}"
    known = {"model.embed_tokens.weight": "model.tok_embeddings.embedding_weight",
             "model.norm.weight": "model.norm_out.weight"}
    return known[hf_name]


def error(found, expected):
    """Largest absolute difference as a fraction of the spread (standard deviation) of `expected`."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    return float(np.abs(found - expected).max() / expected.std())


def pad(ids, side):
    """The first PADDED_LENGTHS[r] ids of each row r, padded with 0 to the full width: (ids, mask)."""
    out, mask = np.zeros_like(ids), np.zeros_like(ids)
    width = ids.shape[1]
    for row, length in enumerate(PADDED_LENGTHS):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        out[row, place], mask[row, place] = ids[row, :length], 1
    return out, mask


def shrink(value):
    """Ids as int32, numbers as float32."""
    value = np.asarray(value)
    return value.astype({"i": np.int32, "f": np.float32}.get(value.dtype.kind, value.dtype))
