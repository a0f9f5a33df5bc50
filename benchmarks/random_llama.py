"""Llama folders with random weights for the benchmarks, in Hugging Face's layout.

    python benchmarks/random_llama.py FOLDER --size 134m --dtype bfloat16
"""
import argparse
import json
from pathlib import Path

SIZES = {
    "134m": dict(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                 num_key_value_heads=12, vocab_size=32000, max_position_embeddings=2048),
    "1.1b": dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                 num_key_value_heads=8, vocab_size=32000, max_position_embeddings=4096),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=4, vocab_size=512, max_position_embeddings=2048),
}
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def config_of(size, dtype, **changes):
    """config.json of a size as a dict; `changes` replace fields."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "hidden_act": "silu", "initializer_range": 0.02,
        "mlp_bias": False, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": dtype, "dtype": dtype,
        "use_cache": True, "rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        **SIZES[size], **changes}


def shapes_of(config):
    """{Hugging Face name: shape} of the weights."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = d // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (v, d), "lm_head.weight": (v, d), "model.norm.weight": (d,)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes |= {f"{layer}self_attn.{p}_proj.weight": (d, d) for p in "qo"}
        shapes |= {f"{layer}self_attn.{p}_proj.weight": (kv, d) for p in "kv"}
        shapes |= {f"{layer}mlp.gate_proj.weight": (f, d), f"{layer}mlp.up_proj.weight": (f, d),
                   f"{layer}mlp.down_proj.weight": (d, f)}
        shapes |= {f"{layer}{norm}.weight": (d,) for norm in ("input_layernorm", "post_attention_layernorm")}
    return shapes


def weights_per_token(config):
    """Weights that a decode step reads: all matrices but the embedding table, of which it reads one row."""
    return sum(s[0] * s[1] for name, s in shapes_of(config).items() if len(s) == 2 and "embed_tokens" not in name)


def make_model(folder, size, dtype, **changes):
    """Write config.json and model.safetensors of a random Llama, unless they are there."""
    import numpy as np
    folder = Path(folder)
    config = config_of(size, dtype, **changes)
    config_file, weights = folder / "config.json", folder / "model.safetensors"
    if weights.exists() and config_file.exists() and json.loads(config_file.read_text()) == config:
        return
    rng = np.random.default_rng(0)
    kind = {"float32": "F32", "bfloat16": "BF16"}[dtype]
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes_of(config).items():
        begin, end = end, end + int(np.prod(shape)) * ITEM_BYTES[dtype]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    config_file.unlink(missing_ok=True)         # written last: a folder with a config is complete
    with open(weights, "wb") as file:           # one tensor in memory at a time
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes_of(config).values():
            array = np.ones(shape, np.float32) if len(shape) == 1 else rng.standard_normal(shape, np.float32) * 0.02
            if dtype == "bfloat16":             # rounded to the nearest: the upper half of a float32
                array = ((array.astype(np.float32).view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
            file.write(array.tobytes())
    config_file.write_text(json.dumps(config, indent=2) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--size", choices=SIZES, default="134m", help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="(default: %(default)s)")
    parser.add_argument("--positions", type=int, help="max_position_embeddings (default: the size's own)")
    args = parser.parse_args(argv)
    changes = {} if args.positions is None else {"max_position_embeddings": args.positions}
    make_model(args.folder, args.size, args.dtype, **changes)


if __name__ == "__main__":
    main()
