"""Write golden/: two tiny random Qwen2 models as transformers saves them, and what it computes with them.

    python research/qwen2/make_goldens.py      # needs torch and transformers; the test needs neither

Float32 on CPU, eager attention. Weights are wide, so that attention is far from uniform and no greedy step near a tie.
"""
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

FOLDER = Path(__file__).resolve().parent / "golden"
SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=96, max_position_embeddings=128, rms_norm_eps=1e-6, pad_token_id=0, bos_token_id=1,
             eos_token_id=2, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, use_sliding_window=False)
NEW_TOKENS, MARGIN = 32, 1e-3


def make(tied, seed):
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                wide = 0.5 if name.endswith("bias") or "embed" in name else 1.5 / parameter.shape[-1] ** 0.5
                parameter.normal_(0.0, wide)
    return model


def answers(model):
    """Logits, loss and gradients of one row, and a greedy path; refused when a step of it is near a tie."""
    ids = torch.randint(3, SIZES["vocab_size"], (1, 17))
    out = model(ids, labels=ids)
    out.loss.backward()
    text = ids[:, :7]
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            logits = model(text).logits[0, -1]
            best = logits.topk(2).values
            if best[0] - best[1] < MARGIN or logits.argmax() < 3:
                raise SystemExit("a greedy step is near a tie, or special: take another seed")
            text = torch.cat((text, logits.argmax()[None, None]), 1)
    grads = {f"grad/{name}": parameter.grad.numpy() for name, parameter in model.named_parameters()
             if "layers.1.self_attn" in name or name.endswith("norm.weight")}
    return {"input_ids": ids.numpy().astype(np.int32), "logits": out.logits.detach().numpy(),
            "loss": np.float32(out.loss.item()), "greedy": text[0, 7:].numpy().astype(np.int32), **grads}


def main():
    versions = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]})
    for case, tied, seed in (("tied", True, 0), ("untied", False, 0)):
        while True:
            try:
                model = make(tied, seed)
                found = answers(model)
                break
            except SystemExit:
                seed += 1
        model.save_pretrained(FOLDER / case)
        np.savez_compressed(FOLDER / case / "golden.npz", versions=versions, **found)
        print(case, "seed", seed)


if __name__ == "__main__":
    main()
