"""Folders that we save, loaded by transformers: nothing missing, nothing unexpected, the same logits.

    python tests/reference/saved_folders.py save FOLDER      # where mindformers is installed
    python tests/reference/saved_folders.py check FOLDER     # where torch and transformers are; prints a line a case
"""
import sys
from pathlib import Path

import numpy as np

IDS = [[1, 5, 9, 30, 2, 7, 7, 11]]
SIZES = {"hidden_size": 32, "num_layers": 2, "vocab_size": 40, "seq_length": 64, "pad_token_id": 0, "bos_token_id": 1,
         "eos_token_id": 2}
LLAMA = {**SIZES, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 48}
# case -> (family, config fields, arguments of save_pretrained)
CASES = {
    "llama": ("llama", {}, {}), "sharded": ("llama", {}, {"max_shard_size": "20KB"}),
    "tied_bfloat16": ("llama", {"tie_word_embeddings": True, "param_init_type": "bfloat16"}, {}),
    "packed": ("llama", {"qkv_concat": True, "qkv_has_bias": True, "attn_proj_has_bias": True}, {}),
    "variant": ("llama", {"param_init_type": "float16"}, {"variant": "fp16", "max_shard_size": "20KB"}),
    "llama3_rope": ("llama", {"extend_method": "LLAMA3", "theta": 500000.0, "scaling_factor": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}, {}),
    "classifier": ("classifier", {"num_labels": 3}, {}),
    "glm": ("glm", {}, {"max_shard_size": "20KB"}),
}


def save(root):
    """Write each case and the logits that we compute."""
    import mindspore as ms

    from mindformers.models import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
    from mindformers.models.glm2 import GlmConfig, GlmForCausalLM
    ms.set_device("CPU")
    ms.set_seed(5)
    for name, (family, fields, options) in CASES.items():
        fields = {"param_init_type": "float32", **LLAMA, **fields}
        if family == "glm":
            model = GlmForCausalLM(GlmConfig(**fields, head_dim=8))
        else:
            kind = LlamaForCausalLM if family == "llama" else LlamaForSequenceClassification
            model = kind(LlamaConfig(**fields))
        draw = np.random.default_rng(0)
        for parameter in model.get_parameters():
            values = draw.normal(1.0 if len(parameter.shape) == 1 else 0.0, 0.15, parameter.shape).astype(np.float32)
            parameter.set_data(ms.Tensor(values).astype(parameter.dtype))
        model.save_pretrained(root / name, **options)
        model = type(model).from_pretrained(root / name, dtype="float32", variant=options.get("variant"))
        logits = model(np.array(IDS, np.int32)).logits.asnumpy()
        np.savez(root / f"{name}.npz", logits=logits)


def check(root):
    """Load each case with transformers and compare; raises AssertionError."""
    import torch
    import transformers
    for name, (family, _, options) in CASES.items():
        kind = transformers.AutoModelForSequenceClassification if family == "classifier" \
            else transformers.AutoModelForCausalLM
        model, info = kind.from_pretrained(root / name, dtype=torch.float32, output_loading_info=True,
                                           variant=options.get("variant"))
        problems = {key: sorted(map(str, value)) for key, value in info.items() if value}
        assert not problems, (name, problems)
        with torch.no_grad():
            logits = model.eval()(torch.tensor(IDS)).logits.numpy()
        ours = np.load(root / f"{name}.npz")["logits"]
        difference = np.abs(logits - ours).max()
        assert difference < 2e-5 * max(1.0, np.abs(ours).max()), (name, difference)
        print(f"{name}: transformers {transformers.__version__} loads it, logits differ by {difference:.2g} of "
              f"{np.abs(ours).max():.2g}")


if __name__ == "__main__":
    {"save": save, "check": check}[sys.argv[1]](Path(sys.argv[2]))
