"""Llama against golden files of Hugging Face transformers: logits, states, loss, gradients, greedy text, class scores.

Errors are the largest absolute difference divided by the standard deviation of the expected values (`goldens.error`).
Logits must agree to 1e-5 of it, gradients to 1e-4, losses to 1e-5 of their value; a control with one thing wrong must
miss that by 10 times.
"""
from functools import lru_cache

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from mindformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, LlamaForSequenceClassification
from mindformers.modules.masks import CausalMask
from mindformers.modules.rope import inverse_frequencies
from model_helpers import changed, edit, greedy, ints, logits, loss_and_gradients, mostly_slow
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401
from tests.reference import goldens
from tests.reference.goldens import CAUSAL, error, folder, golden, mindformers_name

LOGITS = 1e-5
GRADIENTS = 1e-4
CONTROL = 10
NEW_TOKENS = 64
FAST = ("llama2", "llama3_rope", "biases")


def build(case, **fields):
    """A model of its own with float32 parameters and changed config fields, free to be damaged."""
    config = AutoConfig.from_pretrained(folder(case))
    for name, value in {"param_init_type": "float32", "compute_dtype": "float32", **fields}.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_pretrained(folder(case), config=config)


@lru_cache(maxsize=None)
def model_of(case):
    """The shared, intact model of a case."""
    return build(case)


# -- logits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(CAUSAL, FAST))
def test_logits(case):
    g, model = golden(case), model_of(case)
    out = model(ints(g["input_ids"])).logits
    assert out.dtype == ms.float32
    assert error(out.asnumpy(), g["logits"]) < LOGITS
    assert error(logits(model, g["long_input_ids"]), g["long_logits"]) < LOGITS
    assert error(logits(model, g["input_ids"], position_ids=ints(g["position_ids"])), g["position_logits"]) < LOGITS
    # control: stretched positions are not what counted positions give
    assert error(g["logits"], g["position_logits"]) > CONTROL * LOGITS


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", mostly_slow(CAUSAL, FAST))
def test_padded_logits(case, side):
    g = golden(case)
    mask = g[f"{side}_mask"]
    found = logits(model_of(case), g[f"{side}_input_ids"], attention_mask=ints(mask))
    for row, length in enumerate(mask.sum(1)):
        assert error(found[row][mask[row] == 1], g["logits"][row, :length]) < LOGITS
    if side == "left":  # control: without the mask the padding is read as text
        blind = logits(model_of(case), g[f"{side}_input_ids"])
        assert error(blind[1][mask[1] == 1], g["logits"][1, :mask[1].sum()]) > CONTROL * LOGITS


@pytest.mark.parametrize("case", mostly_slow(["gqa", "llama3_rope"], FAST))
def test_hidden_states_and_attentions(case):
    g = golden(case)
    out = model_of(case)(ints(g["input_ids"][:1]), output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == len(g["hidden_states"])
    for found, expected in zip(out.hidden_states, g["hidden_states"]):
        assert error(found.asnumpy(), expected) < LOGITS
    found = out.attentions[0].asnumpy()
    assert len(out.attentions) == len(g["hidden_states"]) - 1
    assert error(found, g["attentions_0"]) < LOGITS
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-5)
    assert error(found[:, ::-1], g["attentions_0"]) > CONTROL * LOGITS, "control: the heads must differ"


@pytest.mark.parametrize("case", mostly_slow(["llama2", "llama3_rope", "biases"], fast=["llama3_rope"]))
def test_config_of_transformers_4_gives_the_same_model(case, tmp_path, without_graphs):  # noqa: F811
    (tmp_path / "config.json").write_text((goldens.LLAMA / case / "config_v4.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((goldens.LLAMA / case / "model.safetensors").read_bytes())
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    assert isinstance(model, LlamaForCausalLM)
    assert error(logits(model, golden(case)["long_input_ids"]), golden(case)["long_logits"]) < LOGITS


# -- controls: one thing wrong ---------------------------------------------------------------------------------------


def interleave(head):
    """Reorder the rows of each head so that rotating halves acts like rotating neighbours."""
    def change(w):
        return w.reshape(-1, 2, head // 2, w.shape[-1]).transpose(0, 2, 1, 3).reshape(w.shape)
    return change


def swap_heads(head):
    return lambda w: w.reshape(-1, head, w.shape[-1])[::-1].reshape(w.shape)


def interleaved_rope(model):
    for name in ("wq.weight", "wk.weight"):
        edit(model, name, interleave(model.config.head_size))


def permuted_kv_heads(model):
    for name in ("wk.weight", "wv.weight"):
        edit(model, name, swap_heads(model.config.head_size))


def without(ending):
    return lambda model: edit(model, ending, np.zeros_like)


def flipped(ending):
    return lambda model: edit(model, ending, lambda w: w[::-1])


def swapped_gate_and_up(model):
    arrays = {p.name: p.asnumpy() for p in model.get_parameters()}
    for name, array in arrays.items():
        for a, b in (("w1", "w3"), ("w3", "w1")):
            if name.endswith(f"{a}.weight"):
                edit(model, name.replace(f"{a}.weight", f"{b}.weight"), lambda _, array=array: array)


DAMAGES = {
    "rope interleaved": ("llama2", interleaved_rope),
    "kv heads permuted": ("gqa", permuted_kv_heads),
    "kv heads permuted, mha": ("llama2", permuted_kv_heads),
    "gate and up swapped": ("llama2", swapped_gate_and_up),
    "norm weights flipped": ("llama2", flipped("attention_norm.weight")),
    "q bias dropped": ("biases", without("wq.bias")),
    "k bias dropped": ("biases", without("wk.bias")),
    "v bias dropped": ("biases", without("wv.bias")),
    "o bias dropped": ("biases", without("wo.bias")),
    "gate bias dropped": ("biases", without("w1.bias")),
    "down bias dropped": ("biases", without("w2.bias")),
    "up bias dropped": ("biases", without("w3.bias")),
    "embedding rows shifted": ("tied", lambda m: edit(m, "embedding_weight", lambda w: np.roll(w, 1, 0))),
}


@pytest.mark.parametrize("damage", mostly_slow(DAMAGES, [d for d in DAMAGES if DAMAGES[d][0] in ("llama2", "biases")]))
def test_control_with_damaged_weights(damage):
    case, change = DAMAGES[damage]
    g = golden(case)
    with changed(model_of(case), change) as model:
        assert error(logits(model, g["long_input_ids"]), g["long_logits"]) > CONTROL * LOGITS
    assert error(logits(model_of(case), g["long_input_ids"]), g["long_logits"]) < LOGITS


UNSCALED = {"extend_method": "None", "scaling_factor": 1.0}
WRONG_FIELDS = {
    "epsilon 1e-6 -> 1e-5": ("gqa", {"rms_norm_eps": 1e-5}),
    "theta": ("llama2", {"theta": 10050.0}),
    "llama3 dropped": ("llama3_rope", UNSCALED),
    "linear dropped": ("linear", UNSCALED),
    "dynamic dropped": ("dynamic", UNSCALED),
    "yarn dropped": ("yarn", UNSCALED),
}


@pytest.mark.parametrize("wrong", mostly_slow(WRONG_FIELDS, fast=["epsilon 1e-6 -> 1e-5", "llama3 dropped"]))
def test_control_with_a_wrong_config(wrong, without_graphs):  # noqa: F811
    case, fields = WRONG_FIELDS[wrong]
    g = golden(case)
    assert error(logits(build(case, **fields), g["long_input_ids"]), g["long_logits"]) > CONTROL * LOGITS


class NoMask(nn.Cell):
    """The shape of the causal mask, hiding nothing."""

    def __init__(self, *args):
        super().__init__()
        self.mask = CausalMask(*args)

    def construct(self, keep):
        return ops.zeros_like(self.mask(keep))


def test_control_without_the_causal_mask(monkeypatch, without_graphs):  # noqa: F811
    monkeypatch.setattr("mindformers.models.graphs.CausalMask", NoMask)
    g = golden("llama2")
    assert error(logits(build("llama2"), g["input_ids"]), g["logits"]) > CONTROL * LOGITS


@pytest.mark.parametrize("name", [name for name, table in goldens.rope_tables().items()
                                  if table["setting"]["rope_type"] != "dynamic"])
def test_rope_frequencies_of_published_settings(name):
    table = goldens.rope_tables()[name]
    setting = dict(table["setting"])
    dim, theta, _ = setting.pop("dim"), setting.pop("theta"), setting.pop("max")
    inv_freq, factor = inverse_frequencies(dim, theta, setting)
    np.testing.assert_allclose(inv_freq, table["inv_freq"], rtol=2e-6)
    assert factor == pytest.approx(table["attention_factor"], rel=1e-6)


# -- loss and gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(["llama2", "llama3_rope", "tied", "biases", "head_dim", "gqa", "yarn"],
                                             fast=["llama3_rope", "biases"]))
def test_loss_and_gradients(case):
    """All gradients of the first five cases, norms and query gradients of the others."""
    g = golden(case)
    loss, found = loss_and_gradients(model_of(case), g["input_ids"], g["labels"])
    assert loss == pytest.approx(float(g["loss"]), rel=1e-5)
    assert sorted(found) == sorted(map(mindformers_name, g["grad_names"]))
    for name, norm in zip(g["grad_names"], g["grad_norms"]):
        assert np.linalg.norm(found[mindformers_name(name)]) == pytest.approx(norm, rel=GRADIENTS), name
        if f"grad/{name}" in g:
            assert error(found[mindformers_name(name)], g[f"grad/{name}"]) < GRADIENTS, name


def test_control_of_loss_and_gradients():
    """Unmasked labels, and one wrong bias, must show in the loss and in the gradients."""
    g = golden("biases")
    loss, found = loss_and_gradients(model_of("biases"), g["input_ids"], g["input_ids"])
    assert loss == pytest.approx(float(g["full_loss"]), rel=1e-5)
    assert abs(loss / float(g["loss"]) - 1) > CONTROL * GRADIENTS
    name = "model.layers.0.self_attn.q_proj.weight"
    assert error(found[mindformers_name(name)], g[f"grad/{name}"]) > CONTROL * GRADIENTS
    with changed(model_of("biases"), without("layers.1.feed_forward.w2.bias")):
        _, found = loss_and_gradients(model_of("biases"), g["input_ids"], g["labels"])
    assert error(found[mindformers_name(name)], g[f"grad/{name}"]) > CONTROL * GRADIENTS


def test_training_without_labels_predicts_the_next_token_of_the_inputs():
    g = golden("llama3_rope")
    model = build("llama3_rope")
    model.set_train()
    assert float(model(ints(g["input_ids"])).asnumpy()) == pytest.approx(float(g["full_loss"]), rel=1e-5)
    padded = np.pad(g["input_ids"], ((0, 0), (0, 6)))
    labels = np.where(np.arange(26) < 20, padded, -100)
    assert float(model(ints(padded), ints(labels)).asnumpy()) == pytest.approx(float(g["full_loss"]), rel=1e-5)


@pytest.mark.parametrize("case", mostly_slow(["llama2", "tied"], FAST))
def test_labels_give_the_loss_outside_training_too(case):
    g = golden(case)
    out = model_of(case)(ints(g["input_ids"]), labels=ints(g["labels"]))
    assert float(out.loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)
    assert error(out.logits.asnumpy(), g["logits"]) < LOGITS


# -- greedy generation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(CAUSAL, fast=["llama2", "dynamic"]))
def test_greedy_generation(case):
    g, model = golden(case), model_of(case)
    prompts = [g[f"prompt_{i}"] for i in range(3)]
    if case == "dynamic":  # a row's frequencies depend on the longest row of the batch
        together = [greedy(model, [prompt], NEW_TOKENS)[0] for prompt in prompts]
    else:
        together = greedy(model, prompts, NEW_TOKENS)
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, g[f"greedy_{i}"])
    if case == "llama2":
        np.testing.assert_array_equal(greedy(model, prompts[:1], NEW_TOKENS)[0], g["greedy_0"])


@pytest.mark.parametrize("case", mostly_slow(["llama3_rope", "dynamic"], FAST))
def test_greedy_generation_without_a_cache(case):
    g = golden(case)
    found = greedy(model_of(case), [g["prompt_1"]], NEW_TOKENS, use_cache=False)[0]
    np.testing.assert_array_equal(found, g["greedy_nocache_1"])


def test_control_of_greedy_generation():
    """Each of these faults must change the text."""
    g = golden("llama2")
    for change in (permuted_kv_heads, interleaved_rope):
        with changed(model_of("llama2"), change) as model:
            assert (greedy(model, [g["prompt_0"]], NEW_TOKENS)[0] != g["greedy_0"]).any()


# -- sequence classification -----------------------------------------------------------------------------------------


def test_class_scores_and_loss():
    g = golden("classifier")
    model = LlamaForSequenceClassification.from_pretrained(folder("classifier"))
    assert error(logits(model, g["input_ids"]), g["logits"]) < LOGITS
    for side in ("left", "right"):
        ids, mask = g[f"{side}_input_ids"], g[f"{side}_mask"]
        found = logits(model, ids, attention_mask=ints(mask))
        assert error(found, g[f"{side}_logits"]) < LOGITS
    cut = logits(model, g["right_input_ids"], attention_mask=ints(np.ones_like(g["right_mask"])))
    assert error(cut, g["left_logits"]) < LOGITS, "padding is found by its id when no mask tells"
    shorter = logits(model, g["input_ids"][:, :-1])  # control: another last token
    assert error(shorter, g["logits"]) > CONTROL * LOGITS

    out = model(ints(g["input_ids"]), labels=ints(g["labels"]))
    assert float(out.loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)
    model.set_train()
    loss = model(ints(g["input_ids"]), ints(g["labels"]))
    assert float(loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)
