"""Write the Llama golden files: tiny random models and what Hugging Face transformers computes with them.

    python tests/reference/make_llama_goldens.py [case ...]      # needs torch and transformers; the tests need neither

Each case becomes tests/reference/llama/<case>/
    config.json        as transformers 5 writes it (rope_parameters, dtype)
    config_v4.json     the same model in the keys of transformers 4 (rope_theta, rope_scaling, torch_dtype)
    model.safetensors  the weights
    golden.npz         inputs and results (see `causal_golden`); `versions` says what computed them
and tests/reference/llama/rope_tables.json holds the inverse frequencies of published RoPE settings.

Everything is float32 on CPU with eager attention. Weights are drawn so that attention is far from uniform, logits
spread over several units, and the greedy path never comes near a tie; a draw of which that is not true is refused.
"""
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from goldens import PADDED_LENGTHS, pad, shrink
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

ROOT = Path(__file__).resolve().parent / "llama"
VERSIONS = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]})
SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
             vocab_size=96, max_position_embeddings=128, rms_norm_eps=1e-5,
             pad_token_id=0, bos_token_id=1, eos_token_id=2)
PROMPT_LENGTHS = (3, 9, 17)
NEW_TOKENS = 64
MIN_MARGIN = 2e-3            # least distance of the best and second-best logit along a greedy path


def rope(rope_type, theta=500.0, **settings):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": theta, **settings}}


# name -> (config changes, options). long: length of the long sequence; grads: store the gradients of all parameters;
# embeddings: standard deviation of the embeddings; stored: dtype of the weights
CASES = {
    "llama2": (dict(hidden_size=64, intermediate_size=80, num_attention_heads=4, num_key_value_heads=4, vocab_size=112),
               dict(grads=True)),
    "gqa": (dict(hidden_size=64, intermediate_size=80, num_attention_heads=8, num_key_value_heads=2, rms_norm_eps=1e-6),
            dict(embeddings=0.05)),        # so small that the epsilon of the norms shows
    "llama3_rope": (dict(num_attention_heads=2, num_key_value_heads=1, **rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
        dict(long=56, grads=True)),
    "tied": (dict(tie_word_embeddings=True, num_attention_heads=4, num_key_value_heads=2),
             dict(grads=True, embeddings=0.35)),
    "linear": (rope("linear", factor=4.0), dict(long=56)),
    "dynamic": (dict(max_position_embeddings=32, **rope("dynamic", factor=4.0)), dict(long=56)),
    "yarn": (rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=8.0, beta_slow=0.5),
             dict(long=56)),
    "biases": (dict(attention_bias=True, mlp_bias=True, num_attention_heads=4, num_key_value_heads=2),
               dict(grads=True)),
    "head_dim": (dict(head_dim=12, num_attention_heads=4, num_key_value_heads=2), dict(grads=True)),
    "bf16": (dict(num_attention_heads=4, num_key_value_heads=2), dict(stored=torch.bfloat16)),
    "classifier": (dict(num_attention_heads=4, num_key_value_heads=2, num_labels=3), dict(classifier=True)),
}


def make_weights(model, seed, embeddings):
    """Fill the model from numpy's PCG64: projections wide enough for peaked attention, norms off 1, biases off 0."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            if name.endswith("norm.weight"):
                values = rng.uniform(0.5, 1.5, shape)
            elif name.endswith(".bias"):
                values = 0.5 * rng.standard_normal(shape)
            elif "embed_tokens" in name:
                values = embeddings * rng.standard_normal(shape)
            else:
                gain = 1.6 if "q_proj" in name or "k_proj" in name else 1.8 if "lm_head" in name else 1.2
                values = gain / np.sqrt(shape[-1]) * rng.standard_normal(shape)
            if "lm_head" in name or model.config.tie_word_embeddings and "embed_tokens" in name:
                values[:3] *= 0.1            # the special tokens never win, so that a greedy path does not end early
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def to_v4(config):
    """The same configuration in the keys of transformers 4."""
    old = dict(config)
    settings = dict(old.pop("rope_parameters"))
    old["rope_theta"] = settings.pop("rope_theta")
    old["rope_scaling"] = None if settings["rope_type"] == "default" else settings
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = "4.45.0"
    return old


def fresh(folder, kind=LlamaForCausalLM):
    """A newly loaded float32 model: dynamic RoPE keeps state between calls, so no two results share a model."""
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def greedy(folder, prompt, use_cache):
    """NEW_TOKENS greedy tokens and the least margin between the two best logits on the way."""
    model = fresh(folder)
    out = model.generate(torch.from_numpy(prompt)[None], attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                         max_new_tokens=NEW_TOKENS, do_sample=False, use_cache=use_cache, output_logits=True,
                         return_dict_in_generate=True)
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt):].numpy(), float((best[:, 0] - best[:, 1]).min())


def causal_golden(folder, rng, long=40, grads=False):
    """All results of one causal model. Arrays, with B=3 rows of T=20 ids (no special id among them):

    input_ids, logits [B,T,V]; long_input_ids, long_logits; {left,right}_{input_ids,mask}: row r holds the first
    PADDED_LENGTHS[r] ids, whose logits the reference was found to leave unchanged (so `logits` serves for them too);
    position_ids, position_logits (stretched positions); hidden_states [L+1,1,T,H] (embeddings, each layer; the last
    one normed) and attentions_0 [1,N,T,T] of row 0; labels (-100 in places), loss, full_loss (labels = input_ids),
    grad_names, grad_norms and grad/<name> (all parameters, or with grads=False those that read positions: q_proj);
    prompt_i, greedy_i, greedy_nocache_i; inv_freq, attention_scaling; margin.
    """
    config = json.loads((folder / "config.json").read_text())
    ids = rng.integers(3, config["vocab_size"], (3, 20))
    long_ids = rng.integers(3, config["vocab_size"], (1, long))
    tensor = torch.from_numpy
    g = {"input_ids": ids, "long_input_ids": long_ids}
    with torch.no_grad():
        g["logits"] = fresh(folder)(tensor(ids)).logits.numpy()
        g["long_logits"] = fresh(folder)(tensor(long_ids)).logits.numpy()
        for side in ("left", "right"):
            padded, mask = pad(ids, side)
            logits = fresh(folder)(tensor(padded), attention_mask=tensor(mask)).logits.numpy()
            g |= {f"{side}_input_ids": padded, f"{side}_mask": mask}
            for row, length in enumerate(PADDED_LENGTHS):
                np.testing.assert_allclose(logits[row, mask[row] == 1], g["logits"][row, :length], rtol=0, atol=5e-5)
        g["position_ids"] = np.stack([np.arange(20) + 3, np.arange(20) * 3 // 2, np.arange(20)]).astype(np.int64)
        g["position_logits"] = fresh(folder)(tensor(ids), attention_mask=torch.ones(3, 20, dtype=torch.long),
                                             position_ids=tensor(g["position_ids"])).logits.numpy()
        out = fresh(folder)(tensor(ids[:1]), output_hidden_states=True, output_attentions=True)
        g["hidden_states"] = torch.stack(out.hidden_states).numpy()
        g["attentions_0"] = out.attentions[0].numpy()

    labels = np.where(rng.random(ids.shape) < 0.25, -100, ids)
    g["labels"] = labels
    model = fresh(folder)
    g["full_loss"] = model(tensor(ids), labels=tensor(ids)).loss.detach().numpy()
    loss = model(tensor(ids), labels=tensor(labels)).loss
    loss.backward()
    g["loss"] = loss.detach().numpy()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    g["grad_names"] = np.array(sorted(gradients))
    g["grad_norms"] = np.array([np.linalg.norm(gradients[name]) for name in sorted(gradients)])
    g |= {f"grad/{name}": value for name, value in gradients.items() if grads or "q_proj.weight" in name}

    margins = []
    for i, length in enumerate(PROMPT_LENGTHS):
        prompt = rng.integers(3, config["vocab_size"], length)
        for key, cached in ((f"greedy_{i}", True), (f"greedy_nocache_{i}", False)):
            g[key], margin = greedy(folder, prompt, cached)
            margins.append(margin)
        g[f"prompt_{i}"] = prompt
    g["margin"] = np.float32(min(margins))
    rotary = fresh(folder).model.rotary_emb
    g |= {"inv_freq": rotary.inv_freq.numpy(), "attention_scaling": np.float32(rotary.attention_scaling)}
    return g


def classifier_golden(folder, rng):
    """Class scores [B, labels] of plain, left and right padded rows, and the cross-entropy loss of the plain ones."""
    ids = rng.integers(3, SMALL["vocab_size"], (3, 20))
    labels = np.array([2, 0, 1])
    model = fresh(folder, LlamaForSequenceClassification)
    g = {"input_ids": ids, "labels": labels}
    with torch.no_grad():
        out = model(torch.from_numpy(ids), labels=torch.from_numpy(labels))
        g |= {"logits": out.logits.numpy(), "loss": out.loss.numpy()}          # [3,3] and a mean
        for side in ("left", "right"):
            padded, mask = pad(ids, side)
            logits = model(torch.from_numpy(padded), attention_mask=torch.from_numpy(mask)).logits.numpy()
            g |= {f"{side}_input_ids": padded, f"{side}_mask": mask, f"{side}_logits": logits}
    return g


def problem_of(g):
    """Why this draw would make a weak proof, or None."""
    if float(g["logits"].std()) < 1.0:
        return f"logits hardly spread (std {g['logits'].std():.2f})"
    if "attentions_0" not in g:
        return None
    a = g["attentions_0"][0, :, -1]
    entropy = float(-(a * np.log(a + 1e-12)).sum(-1).mean() / np.log(a.shape[-1]))
    if entropy > 0.9:
        return f"attention nearly uniform (relative entropy {entropy:.2f})"
    paths = [g[f"greedy{kind}_{i}"] for i in range(len(PROMPT_LENGTHS)) for kind in ("", "_nocache")]
    if any(len(path) != NEW_TOKENS or set(path.tolist()) & {0, 1, 2} for path in paths):
        return "a greedy path met a special token"
    if any(len(set(path.tolist())) < 8 for path in paths):
        return "a greedy path repeats itself too soon"
    return None if float(g["margin"]) >= MIN_MARGIN else f"greedy margin {float(g['margin']):.1e}"


def make_case(name):
    changes, options = CASES[name]
    classifier, stored = options.get("classifier"), options.get("stored", torch.float32)
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    kind = LlamaForSequenceClassification if classifier else LlamaForCausalLM
    for seed in range(200):
        config = LlamaConfig(**{**SMALL, **changes, "dtype": "float32"})
        model = kind(config)
        make_weights(model, seed, options.get("embeddings", 1.0))
        model.to(stored).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        (folder / "model.safetensors").chmod(0o644)
        rng = np.random.default_rng([seed, 7])
        g = classifier_golden(folder, rng) if classifier else causal_golden(
            folder, rng, options.get("long", 40), options.get("grads", False))
        problem = problem_of(g)
        if problem is None:
            break
        print(f"  {name}: seed {seed} refused: {problem}")
    else:
        raise SystemExit(f"{name}: no seed makes a strong case")
    g |= {"versions": np.array(VERSIONS), "seed": np.int32(seed)}
    np.savez_compressed(folder / "golden.npz", **{key: shrink(value) for key, value in g.items()})
    write_v4_config(folder)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: seed {seed}, logits std {g['logits'].std():.2f}, margin {float(g.get('margin', 0)):.4f}, "
          f"{size / 1e3:.0f} kB")


def write_v4_config(folder):
    """config_v4.json, after transformers has read it back into the very same configuration."""
    new = json.loads((folder / "config.json").read_text())
    old = to_v4(new)
    a, b = LlamaConfig(**copy.deepcopy(new)), LlamaConfig(**copy.deepcopy(old))      # it edits what it is given
    differing = {k for k in a.to_dict() if a.to_dict()[k] != b.to_dict().get(k)} - {"transformers_version"}
    if differing:
        raise SystemExit(f"{folder.name}: the two generations disagree on {sorted(differing)}")
    (folder / "config_v4.json").write_text(json.dumps(old, indent=2, sort_keys=True) + "\n")


def rope_tables():
    """Inverse frequencies [head_dim/2] and attention factor of published settings and of every option."""
    llama3 = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    settings = {
        "llama-2": dict(dim=128, max=4096, theta=1e4, rope_type="default"),
        "llama-3": dict(dim=128, max=8192, theta=5e5, rope_type="default"),
        "llama-3.1": dict(dim=128, max=131072, theta=5e5, rope_type="llama3", factor=8.0, **llama3),
        "llama-3.2-1b": dict(dim=64, max=131072, theta=5e5, rope_type="llama3", factor=32.0, **llama3),
        "linear-2": dict(dim=128, max=8192, theta=1e4, rope_type="linear", factor=2.0),
        "dynamic-2-short": dict(dim=128, max=4096, theta=1e4, rope_type="dynamic", factor=2.0, seq_len=1000),
        "dynamic-2-long": dict(dim=128, max=4096, theta=1e4, rope_type="dynamic", factor=2.0, seq_len=10000),
        "yarn-16": dict(dim=128, max=65536, theta=1e4, rope_type="yarn", factor=16.0,
                        original_max_position_embeddings=4096),
        "yarn-mscale": dict(dim=64, max=163840, theta=1e4, rope_type="yarn", factor=40.0, mscale=0.8,
                            mscale_all_dim=1.2, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1),
        "yarn-factor": dict(dim=64, max=32768, theta=1e6, rope_type="yarn", factor=4.0, attention_factor=1.3,
                            original_max_position_embeddings=8192, beta_fast=16, beta_slow=2),
        "yarn-smooth": dict(dim=64, max=32768, theta=1e6, rope_type="yarn", factor=4.0, truncate=False,
                            original_max_position_embeddings=8192),
    }
    table = {}
    for name, setting in settings.items():
        s = dict(setting)
        dim, length, theta, seq_len = s.pop("dim"), s.pop("max"), s.pop("theta"), s.pop("seq_len", None)
        config = LlamaConfig(**{**SMALL, "head_dim": dim, "max_position_embeddings": length,
                                "rope_parameters": {"rope_theta": theta, **s}})
        if s["rope_type"] == "default":
            inv_freq, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        else:
            inv_freq, factor = ROPE_INIT_FUNCTIONS[s["rope_type"]](config, torch.device("cpu"), seq_len=seq_len)
        table[name] = {"setting": setting, "attention_factor": float(factor), "inv_freq": inv_freq.tolist()}
    (ROOT / "rope_tables.json").write_text(json.dumps({"versions": VERSIONS, "tables": table}, indent=1) + "\n")


def main(names):
    unknown = set(names) - set(CASES)
    if unknown:
        raise SystemExit(f"unknown cases {sorted(unknown)}; known: {', '.join(CASES)}")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in names or CASES:
        make_case(name)
    if not names:
        rope_tables()
    total = sum(f.stat().st_size for f in ROOT.rglob("*") if f.is_file())
    print(f"total {total / 1e6:.2f} MB")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    main(sys.argv[1:])
