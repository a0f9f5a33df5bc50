"""Write the GLM golden files: tiny random models, and what `glm_reference` and transformers' Glm compute with them.

    python tests/reference/make_glm_goldens.py [case ...]      # needs torch and transformers; the tests need neither
    python tests/reference/make_glm_goldens.py --check FOLDER  # transformers loads a folder that this suite saved

Each case becomes tests/reference/glm/<case>/
    config.json        as the published repositories have it, or as transformers writes it (cases glm_*)
    model.safetensors  the weights under their names
    golden.npz         inputs and results (see `results`); `versions` says what computed them

Before anything is written, the reference is compared with transformers' GlmForCausalLM on the same weights, logits of
short, long and padded rows, wherever transformers can express the model (no biases on all products, no prefix): the
results must agree to 2e-5 of their spread. Weights are float32 (or widened from bfloat16); the golden results are
computed from them in float64, so that they add no rounding of their own to what is compared with them. Draws that would
make a weak proof are refused, as for Llama.
"""
import json
import sys
from pathlib import Path

import glm_reference as reference
import numpy as np
import torch
import transformers
from goldens import PADDED_LENGTHS, pad, shrink
from safetensors.torch import save_file
from transformers import GlmConfig, GlmForCausalLM

ROOT = Path(__file__).resolve().parent / "glm"
VERSIONS = json.dumps({"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]})
SMALL = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": 2, "padded_vocab_size": 96,
         "vocab_size": 96, "hidden_size": 32, "ffn_hidden_size": 48, "kv_channels": 16, "num_attention_heads": 4,
         "multi_query_attention": True, "multi_query_group_num": 2, "seq_length": 128, "layernorm_epsilon": 1e-5,
         "rmsnorm": True, "post_layer_norm": True, "apply_residual_connection_post_layernorm": False,
         "add_bias_linear": False, "add_qkv_bias": True, "apply_query_key_layer_scaling": True,
         "attention_softmax_in_fp32": True, "fp32_residual_connection": False, "bias_dropout_fusion": True,
         "hidden_dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": None, "original_rope": True,
         "pre_seq_len": None, "prefix_projection": False, "quantization_bit": 0, "tie_word_embeddings": False,
         "eos_token_id": 2, "pad_token_id": 0, "use_cache": True, "torch_dtype": "float32",
         "transformers_version": "4.30.2",
         "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig",
                      "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"}}
# name -> changes of config.json; _embeddings: their standard deviation; _stored: dtype of the weights; _grads: store the
# gradients of the parameters whose names hold this
CASES = {
    "chatglm2": {"_name_or_path": "THUDM/chatglm2-6b", "_grads": ""},
    "chatglm2_32k": {"_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 4},
    "chatglm3_32k": {"_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 50, "multi_query_group_num": 1},
    "glm4": {"_name_or_path": "THUDM/glm-4-9b", "rope_ratio": 500, "layernorm_epsilon": 1.5625e-7,
             "num_attention_heads": 6, "eos_token_id": [2, 1, 0], "_embeddings": 0.002},
    "biases": {"add_bias_linear": True, "_grads": "bias"},
    "prefix": {"pre_seq_len": 5, "_grads": "prefix_encoder"},
    "prefix_projection": {"pre_seq_len": 3, "prefix_projection": True, "_grads": "prefix_encoder"},
    "bf16": {"_stored": torch.bfloat16, "torch_dtype": "bfloat16"},
    "glm_hf": {},
    "glm_hf_tied": {"tie_word_embeddings": True, "add_qkv_bias": False, "rope_ratio": 3, "_embeddings": 0.35,
                    "_grads": ""},
}
PROMPT_LENGTHS, NEW_TOKENS, MIN_MARGIN = (3, 9, 17), 32, 2e-3


def draw(config, seed, embeddings):
    """Weights from numpy's PCG64: projections wide enough for peaked attention, norms off 1, biases off 0."""
    rng = np.random.default_rng(seed)
    d, f, v = config["hidden_size"], config["ffn_hidden_size"], config["padded_vocab_size"]
    n, k, h = config["num_attention_heads"], config["multi_query_group_num"], config["kv_channels"]
    shapes = {"transformer.embedding.word_embeddings.weight": (v, d), "transformer.output_layer.weight": (v, d),
              "transformer.encoder.final_layernorm.weight": (d,)}
    for i in range(config["num_layers"]):
        name = f"transformer.encoder.layers.{i}."
        shapes |= {f"{name}input_layernorm.weight": (d,), f"{name}post_attention_layernorm.weight": (d,)}
        for linear, rows, columns in (("self_attention.query_key_value", (n + 2 * k) * h, d),
                                      ("self_attention.dense", d, n * h), ("mlp.dense_h_to_4h", 2 * f, d),
                                      ("mlp.dense_4h_to_h", d, f)):
            shapes[f"{name}{linear}.weight"] = (rows, columns)
            if config["add_bias_linear"] or linear.endswith("query_key_value") and config["add_qkv_bias"]:
                shapes[f"{name}{linear}.bias"] = (rows,)
    if config["pre_seq_len"]:
        width, name = 2 * config["num_layers"] * k * h, "transformer.prefix_encoder."
        shapes[f"{name}embedding.weight"] = (config["pre_seq_len"], width)
        if config["prefix_projection"]:
            shapes |= {f"{name}trans.0.weight": (d, width), f"{name}trans.0.bias": (d,),
                       f"{name}trans.2.weight": (width, d), f"{name}trans.2.bias": (width,)}
    weights = {}
    for name, shape in sorted(shapes.items()):
        if "layernorm" in name:
            values = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(".bias"):
            values = 0.5 * rng.standard_normal(shape)
        elif "word_embeddings" in name:
            values = embeddings * rng.standard_normal(shape)
        elif "prefix_encoder" in name:
            values = rng.standard_normal(shape) * (1.0 if "embedding" in name else 1 / np.sqrt(shape[-1]))
        else:
            gain = 1.6 if "query_key_value" in name else 1.8 if "output_layer" in name else 1.2
            values = gain / np.sqrt(shape[-1]) * rng.standard_normal(shape)
        if "output_layer" in name or "word_embeddings" in name and config["tie_word_embeddings"]:
            values[:3] *= 0.1            # the special tokens never win, so that a greedy path does not end early
        weights[name] = torch.from_numpy(values.astype(np.float32))
    if config["tie_word_embeddings"]:
        weights["transformer.output_layer.weight"] = weights["transformer.embedding.word_embeddings.weight"]
    return weights


def transformers_model(weights, config):
    """transformers' GlmForCausalLM with the same weights."""
    ratio, rope = config.get("rope_ratio", 1), {"rope_type": "default", "rope_theta": 10000.0}
    if ratio != 1 and "chatglm2" in config.get("_name_or_path", ""):
        rope = {"rope_type": "linear", "factor": float(ratio), "rope_theta": 10000.0}
    elif ratio != 1:
        rope["rope_theta"] = 10000.0 * ratio
    model = GlmForCausalLM(GlmConfig(
        vocab_size=config["padded_vocab_size"], hidden_size=config["hidden_size"],
        intermediate_size=config["ffn_hidden_size"], num_hidden_layers=config["num_layers"],
        num_attention_heads=config["num_attention_heads"], num_key_value_heads=config["multi_query_group_num"],
        head_dim=config["kv_channels"], max_position_embeddings=config["seq_length"],
        rms_norm_eps=config["layernorm_epsilon"], pad_token_id=0, eos_token_id=2, dtype="float32",
        tie_word_embeddings=config["tie_word_embeddings"], attention_bias=config["add_qkv_bias"],
        rope_parameters={**rope, "partial_rotary_factor": 0.5}, attn_implementation="eager"))
    missing = model.load_state_dict(reference.to_transformers(weights, config), strict=False)
    assert not missing.unexpected_keys and not [name for name in missing.missing_keys if "inv_freq" not in name], missing
    return model.eval()


def results(weights, config, rng, grads=None):
    """All results of one model. Arrays, with B=3 rows of T=20 ids (no special id among them):

    input_ids, logits [B,T,V]; long_input_ids, long_logits; {left,right}_{input_ids,mask}: row r holds the first
    PADDED_LENGTHS[r] ids, whose logits were found unchanged; labels (-100 in places), loss: label i + 1 is the target of
    token i; shifted_labels, shifted_loss: label i is; grad/<name> of `loss`, by Hugging Face's names; prompt_i,
    greedy_i; margin.
    """
    tensor, vocabulary = torch.from_numpy, config["padded_vocab_size"]
    weights = {name: value.double() for name, value in weights.items()}
    ids, long_ids = rng.integers(3, vocabulary, (3, 20)), rng.integers(3, vocabulary, (1, 40))
    g = {"input_ids": ids, "long_input_ids": long_ids}
    with torch.no_grad():
        g["logits"] = reference.forward(weights, config, tensor(ids)).numpy()
        g["long_logits"] = reference.forward(weights, config, tensor(long_ids)).numpy()
        for side in ("left", "right"):
            padded, mask = pad(ids, side)
            found = reference.forward(weights, config, tensor(padded), tensor(mask)).numpy()
            g |= {f"{side}_input_ids": padded, f"{side}_mask": mask}
            for row, length in enumerate(PADDED_LENGTHS):
                np.testing.assert_allclose(found[row, mask[row] == 1], g["logits"][row, :length], rtol=0, atol=5e-5)
    g["labels"] = np.where(rng.random(ids.shape) < 0.25, -100, ids)
    g["shifted_labels"] = np.concatenate((g["labels"][:, 1:], np.full((3, 1), -100)), 1)
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    if config["tie_word_embeddings"]:
        leaves["transformer.output_layer.weight"] = leaves["transformer.embedding.word_embeddings.weight"]
    logits = reference.forward(leaves, config, tensor(ids))
    g["shifted_loss"] = reference.loss(logits, tensor(g["shifted_labels"])).detach().numpy()
    loss = reference.loss(logits[:, :-1], tensor(g["labels"])[:, 1:])
    loss.backward()
    g["loss"] = loss.detach().numpy()
    g |= {f"grad/{name}": leaf.grad.numpy() for name, leaf in leaves.items() if grads is not None and grads in name}
    margins = []
    for i, length in enumerate(PROMPT_LENGTHS):
        prompt = rng.integers(3, vocabulary, length)
        path, margin = reference.greedy(weights, config, tensor(prompt), NEW_TOKENS)
        g |= {f"prompt_{i}": prompt, f"greedy_{i}": path.numpy()}
        margins.append(margin)
    g["margin"] = np.float32(min(margins))
    return g


def compare_with_transformers(weights, config, g):
    """Largest difference to GlmForCausalLM as a part of the spread; None where it cannot express the model."""
    if config["add_bias_linear"] or config["pre_seq_len"]:
        return None
    model, worst = transformers_model(weights, config), 0.0
    with torch.no_grad():
        ids = torch.from_numpy(g["input_ids"])
        gap = (reference.forward(weights, config, ids) - model(ids).logits).abs().max()
        print(f"  both in float32: largest difference {gap:.1e}")
        for ids, mask, expected in ((g["input_ids"], None, g["logits"]), (g["long_input_ids"], None, g["long_logits"]),
                                    (g["left_input_ids"], g["left_mask"], None)):
            mask = None if mask is None else torch.from_numpy(mask)
            found = model(torch.from_numpy(ids), attention_mask=mask,
                          position_ids=None if mask is None else (mask.cumsum(-1) - 1).clamp(min=0)).logits.numpy()
            if expected is None:
                for row, length in enumerate(PADDED_LENGTHS):
                    gap = found[row, -length:] - g["logits"][row, :length]
                    worst = max(worst, float(np.abs(gap).max() / g["logits"].std()))
            else:
                worst = max(worst, float(np.abs(found - expected).max() / expected.std()))
    assert worst < 2e-5, f"reference and transformers differ by {worst:.1e} of the spread"
    with torch.no_grad():  # control: a thousandth more in one weight must show
        other = dict(weights, **{"transformer.encoder.final_layernorm.weight":
                                 1.001 * weights["transformer.encoder.final_layernorm.weight"]})
        off = reference.forward(other, config, torch.from_numpy(g["input_ids"])).numpy() - g["logits"]
        assert np.abs(off).max() > 1e-4 * g["logits"].std()
    loss = model(torch.from_numpy(g["input_ids"]), labels=torch.from_numpy(g["labels"])).loss
    np.testing.assert_allclose(loss.item(), g["loss"], rtol=1e-5)
    for i in range(len(PROMPT_LENGTHS)):
        prompt = torch.from_numpy(g[f"prompt_{i}"])[None]
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW_TOKENS, do_sample=False)
        np.testing.assert_array_equal(out[0, prompt.shape[1]:].numpy(), g[f"greedy_{i}"])
    return worst


def problem_of(g):
    """Why this draw would make a weak proof, or None."""
    if float(g["logits"].std()) < 1.0:
        return f"logits hardly spread (std {g['logits'].std():.2f})"
    paths = [g[f"greedy_{i}"].tolist() for i in range(len(PROMPT_LENGTHS))]
    if any(set(path) & {0, 1, 2} for path in paths):
        return "a greedy path met a special token"
    if any(len(set(path)) < 8 for path in paths):
        return "a greedy path repeats itself too soon"
    return None if float(g["margin"]) >= MIN_MARGIN else f"greedy margin {float(g['margin']):.1e}"


def make_case(name):
    changes = CASES[name]
    config = {**SMALL, **{key: value for key, value in changes.items()
                          if key not in ("_embeddings", "_stored", "_grads")}}
    folder, stored = ROOT / name, changes.get("_stored", torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(200):
        weights = {key: value.to(stored).float() for key, value in
                   draw(config, seed, changes.get("_embeddings", 1.0)).items()}
        if config["tie_word_embeddings"]:
            weights["transformer.output_layer.weight"] = weights["transformer.embedding.word_embeddings.weight"]
        g = results(weights, config, np.random.default_rng([seed, 7]), changes.get("_grads"))
        problem = problem_of(g)
        if problem is None:
            break
        print(f"  {name}: seed {seed} refused: {problem}")
    else:
        raise SystemExit(f"{name}: no seed makes a strong case")
    worst = compare_with_transformers(weights, config, g)
    if name.startswith("glm_"):
        transformers_model(weights, config).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
    else:
        size = config["kv_channels"] // 2
        inverse = 1.0 / 10000 ** (torch.arange(0, size, 2).float() / size)
        arrays = {key: value.to(stored).contiguous() for key, value in weights.items()}
        save_file({**arrays, "transformer.rotary_pos_emb.inv_freq": inverse}, folder / "model.safetensors",
                  metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "model.safetensors").chmod(0o644)
    g |= {"versions": np.array(VERSIONS), "seed": np.int32(seed)}
    np.savez_compressed(folder / "golden.npz", **{key: shrink(value) for key, value in g.items()})
    print(f"{name}: seed {seed}, logits std {g['logits'].std():.2f}, margin {float(g['margin']):.4f}, difference to "
          f"transformers {'-' if worst is None else f'{worst:.1e}'}")


def check_folder(folder):
    """Load a folder that this suite saved with transformers; its golden case is in golden.txt of that folder."""
    case = (Path(folder) / "golden.txt").read_text().strip()
    model, info = GlmForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32,
                                                 attn_implementation="eager")
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    with np.load(ROOT / case / "golden.npz") as g, torch.no_grad():
        found = model.eval()(torch.from_numpy(g["long_input_ids"]).long()).logits.numpy()
        gap = float(np.abs(found - g["long_logits"]).max() / g["long_logits"].std())
    print(f"{folder}: transformers {transformers.__version__} loads it; difference to {case} {gap:.1e} of the spread")
    assert gap < 2e-5


def main(names):
    torch.set_num_threads(1)
    if names[:1] == ["--check"]:
        return [check_folder(folder) for folder in names[1:]]
    unknown = set(names) - set(CASES)
    if unknown:
        raise SystemExit(f"unknown cases {sorted(unknown)}; known: {', '.join(CASES)}")
    for name in names or CASES:
        make_case(name)
    return print(f"total {sum(f.stat().st_size for f in ROOT.rglob('*') if f.is_file()) / 1e6:.2f} MB")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    main(sys.argv[1:])
