"""Write model folders as transformers saves them, each with the logits it computes.

    python tests/reference/make_transformers_folders.py      # needs torch and transformers; the tests need neither

tests/reference/folders/<case>/ is what save_pretrained wrote (see CASES), and expected.npz beside it: input_ids, and
the logits of the saved weights in float32.
"""
import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent / "folders"
IDS = [[1, 5, 9, 30, 2, 7, 7, 11]]
SIZES = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=40, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def llama(**changes):
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))


def glm():
    return GlmForCausalLM(GlmConfig(**SIZES, head_dim=4, partial_rotary_factor=0.5, attention_bias=True))


# case -> (model, dtype, arguments of save_pretrained)
CASES = {
    "sharded": (llama, torch.float32, {"max_shard_size": "6KB"}),
    "tied_bfloat16": (lambda: llama(tie_word_embeddings=True), torch.bfloat16, {}),
    "variant": (llama, torch.float16, {"variant": "fp16"}),
    "variant_sharded": (llama, torch.float16, {"variant": "fp16", "max_shard_size": "4KB"}),
    "glm_sharded": (glm, torch.float32, {"max_shard_size": "6KB"}),
}


def with_bin_files(source, folder):
    """The folder `source` with its weights as the shards that torch.save writes, as older repositories have them."""
    shutil.copytree(source, folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    from safetensors.torch import load_file
    for file in sorted(set(index["weight_map"].values())):
        torch.save(load_file(folder / file), folder / _bin(file))
        (folder / file).unlink()
    index["weight_map"] = {name: _bin(file) for name, file in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "model.safetensors.index.json").unlink()


def _bin(file):
    return file.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    versions = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]})
    for name, (build, dtype, options) in CASES.items():
        torch.manual_seed(len(name))
        model = build().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
        model.to(dtype).save_pretrained(ROOT / name, **options)
        with torch.no_grad():
            logits = model.float()(torch.tensor(IDS)).logits.numpy()
        np.savez(ROOT / name / "expected.npz", input_ids=np.array(IDS, np.int32), logits=logits, versions=versions)
    with_bin_files(ROOT / "sharded", ROOT / "bin_sharded")


if __name__ == "__main__":
    main()
