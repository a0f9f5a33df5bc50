"""Qwen2 against golden files of transformers (make_goldens.py): logits, loss, gradients, greedy text, files, sizes.

Errors are the largest absolute difference divided by the standard deviation of the expected values; a control with one
thing wrong must miss the bound by 10 times.
"""
import json
from pathlib import Path

import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor

from mindformers import AutoConfig, AutoModelForCausalLM
from mindformers.tools.errors import UnsupportedError
from mindformers.wrapper.gradients import LossAndGradients
from qwen2 import Qwen2ForCausalLM
from qwen2_config import Qwen2Config
from tests.graph_mode import graph_mode  # noqa: F401

GOLDEN = Path(__file__).resolve().parent / "golden"
CASES = pytest.mark.parametrize("case", ["tied", "untied"])
LOGITS, GRADIENTS, CONTROL = 1e-5, 1e-4, 10
# sizes of published models and the numbers of parameters that their cards state
PUBLISHED = {494_032_768: dict(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
                               intermediate_size=4864, vocab_size=151936, tie_word_embeddings=True),
             7_615_616_512: dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
                                 intermediate_size=18944, vocab_size=152064)}


def golden(case):
    with np.load(GOLDEN / case / "golden.npz") as file:
        return dict(file)


def error(found, expected):
    return np.abs(found - expected).max() / expected.std()


@CASES
def test_logits_and_greedy_text(case):
    g, model = golden(case), AutoModelForCausalLM.from_pretrained(GOLDEN / case)
    assert type(model) is Qwen2ForCausalLM and model.config.qkv_has_bias and not model.config.attn_proj_has_bias
    assert error(model(g["input_ids"]).logits.asnumpy(), g["logits"]) < LOGITS
    (found,) = model.generate(g["input_ids"][:, :7], max_new_tokens=len(g["greedy"]), do_sample=False)
    np.testing.assert_array_equal(found[7:], g["greedy"])
    bias = next(p for p in model.get_parameters() if p.name == "model.layers.1.attention.wk.bias")
    bias.set_data(Tensor(np.zeros(bias.shape, np.float32)))  # the control
    assert error(model(g["input_ids"]).logits.asnumpy(), g["logits"]) > CONTROL * LOGITS


@CASES
def test_loss_and_gradients(case):
    g, model = golden(case), AutoModelForCausalLM.from_pretrained(GOLDEN / case).set_train()
    weights = ParameterTuple(model.trainable_params())
    loss, count, gradients = LossAndGradients(model, weights)(Tensor(np.float32(1)), Tensor(g["input_ids"]))
    assert float(loss.asnumpy() / count.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)
    found = {weight.name: value.asnumpy() for weight, value in zip(weights, gradients)}
    hugging_face = type(model).weight_map().to_hf(found, model.config)
    names = [name.removeprefix("grad/") for name in g if name.startswith("grad/")]
    assert len(names) > 8
    for name in names:
        assert error(hugging_face.read(name), g[f"grad/{name}"]) < GRADIENTS, name


@CASES
def test_a_saved_folder_says_what_transformers_said(case, tmp_path):
    AutoModelForCausalLM.from_pretrained(GOLDEN / case).save_pretrained(tmp_path)
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, GOLDEN / case))
    for key in set(theirs) - {"transformers_version"}:
        assert ours.get(key) == theirs[key] or key not in ours and theirs[key] in (False, None), key
    assert "attention_bias" not in ours and "mlp_bias" not in ours
    assert (tmp_path / "model.safetensors").stat().st_size == pytest.approx(
        (GOLDEN / case / "model.safetensors").stat().st_size, rel=0.05)
    again, first = AutoConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(GOLDEN / case)
    assert type(again) is Qwen2Config
    again, first = again.to_dict(), first.to_dict()
    assert {name for name in first if again[name] != first[name]} <= {"head_dim", "transformers_version"}


def test_sizes_of_published_models():
    for parameters, sizes in PUBLISHED.items():
        assert Qwen2Config.from_dict(sizes).num_parameters() == parameters


def test_what_is_refused():
    with pytest.raises(UnsupportedError, match="sliding window"):
        Qwen2Config.from_dict({"num_hidden_layers": 2, "use_sliding_window": True})
    with pytest.raises(UnsupportedError, match="sliding window"):
        Qwen2Config.from_dict({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]})
    with pytest.raises(UnsupportedError, match="on nothing else"):
        Qwen2Config(mlp_has_bias=True).to_hf_dict()


def test_defaults_of_a_silent_config():
    config = Qwen2Config.from_dict({"num_hidden_layers": 2})
    assert (config.intermediate_size, config.max_position_embedding, config.vocab_size) == (22016, 32768, 151936)
    assert config.rms_norm_eps == 1e-6
