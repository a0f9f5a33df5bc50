"""ChatGLM2, ChatGLM3 and GLM-4 against golden files of an independent reference and of transformers' Glm.

Errors as for Llama: the largest absolute difference divided by the standard deviation of the expected values. Logits
must agree to 1e-5 of it, gradients to 1e-4, losses to 1e-5 of their value; a control must miss that by 10 times.
"""
from functools import lru_cache

import mindspore as ms
import numpy as np
import pytest

from mindformers import AutoConfig, AutoModelForCausalLM, ChatGLM2ForConditionalGeneration, GlmForCausalLM
from model_helpers import changed, edit, greedy, ints, logits, loss_and_gradients, mostly_slow
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401
from tests.reference.glm_goldens import CASES, folder, golden, mindformers_name
from tests.reference.goldens import error

LOGITS, GRADIENTS, CONTROL, NEW_TOKENS = 1e-5, 1e-4, 10, 32
EXACT = [case for case in CASES if case != "bf16"]


def build(case, **fields):
    """A model of its own with float32 parameters and changed config fields, free to be damaged."""
    config = AutoConfig.from_pretrained(folder(case), param_init_type="float32", compute_dtype="float32",
                                        prefix_dropout=0.0, **fields)
    return AutoModelForCausalLM.from_pretrained(folder(case), config=config)


@lru_cache(maxsize=None)
def model_of(case):
    """The shared, intact model of a case."""
    return build(case)


# -- logits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(EXACT, ["chatglm2", "prefix", "glm_hf"]))
def test_logits(case):
    g, model = golden(case), model_of(case)
    assert type(model) is (GlmForCausalLM if case.startswith("glm_") else ChatGLM2ForConditionalGeneration)
    out = model(ints(g["input_ids"])).logits
    assert out.dtype == ms.float32
    assert error(out.asnumpy(), g["logits"]) < LOGITS
    assert error(logits(model, g["long_input_ids"]), g["long_logits"]) < LOGITS


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", mostly_slow(["chatglm2", "prefix", "glm_hf"], ["chatglm2"]))
def test_padded_logits(case, side):
    g = golden(case)
    mask = g[f"{side}_mask"]
    found = logits(model_of(case), g[f"{side}_input_ids"], attention_mask=ints(mask))
    for row, length in enumerate(mask.sum(1)):
        assert error(found[row][mask[row] == 1], g["logits"][row, :length]) < LOGITS
    if side == "left":  # control: without the mask the padding is read as text
        blind = logits(model_of(case), g[f"{side}_input_ids"])
        assert error(blind[1][mask[1] == 1], g["logits"][1, :mask[1].sum()]) > CONTROL * LOGITS


@pytest.mark.slow
def test_bfloat16_weights():
    """Stored as bfloat16, kept as such; the reference widens the same values and computes in float32."""
    g, model = golden("bf16"), AutoModelForCausalLM.from_pretrained(folder("bf16"))
    assert {p.dtype for p in model.get_parameters()} == {ms.bfloat16}
    found = logits(model, g["input_ids"])
    assert LOGITS < error(found, g["logits"]) < 1e-1  # activations round to 8 bits in products
    assert error(logits(build("bf16"), g["input_ids"]), g["logits"]) < LOGITS


# -- controls: one thing wrong ---------------------------------------------------------------------------------------


def wrong_groups(model):
    """Head n reads group n % K instead of n // (N / K): the heads in the order that makes it so."""
    n, k, h = model.transformer.heads
    order = np.concatenate([np.arange(group, n, k) for group in range(k)])
    rows = (order[:, None] * h + np.arange(h)).reshape(-1)
    for kind in ("weight", "bias"):
        edit(model, f"query_key_value.{kind}", lambda w: np.concatenate((w[rows], w[n * h:])))
    edit(model, "self_attention.dense.weight", lambda w: w[:, rows])


def swapped_gate_and_up(model):
    edit(model, "dense_h_to_4h.weight", lambda w: np.concatenate(np.split(w, 2)[::-1]))


DAMAGES = {
    "no qkv bias": ("chatglm2", lambda m: edit(m, "query_key_value.bias", np.zeros_like)),
    "wrong group repeat": ("chatglm2", wrong_groups),
    "gate and up swapped": ("chatglm2", swapped_gate_and_up),
    "prefix zero": ("prefix", lambda m: edit(m, "prefix_encoder.embedding.embedding_weight", np.zeros_like)),
    "keys and values of the prefix swapped": ("prefix", lambda m: edit(
        m, "prefix_encoder.embedding.embedding_weight",
        lambda w: w.reshape(5, 2, 2, -1)[:, :, ::-1].reshape(w.shape))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_control_with_damaged_weights(damage):
    case, change = DAMAGES[damage]
    g = golden(case)
    with changed(model_of(case), change) as model:
        assert error(logits(model, g["long_input_ids"]), g["long_logits"]) > CONTROL * LOGITS
    assert error(logits(model_of(case), g["long_input_ids"]), g["long_logits"]) < LOGITS


WRONG_FIELDS = {
    "full rotary": ("chatglm2", {"partial_rotary_factor": 1.0}),
    "rope_ratio dropped": ("glm4", {"rope_ratio": 1}),
    "epsilon": ("glm4", {"layernorm_epsilon": 1e-6}),
    "base in place of positions": ("chatglm2_32k", {"interpolate_positions": False}),
    "positions in place of base": ("chatglm3_32k", {"interpolate_positions": True}),
}


@pytest.mark.parametrize("wrong", mostly_slow(WRONG_FIELDS, ["full rotary"]))
def test_control_with_a_wrong_config(wrong, without_graphs):  # noqa: F811
    case, fields = WRONG_FIELDS[wrong]
    g = golden(case)
    assert error(logits(build(case, **fields), g["long_input_ids"]), g["long_logits"]) > CONTROL * LOGITS


def test_control_with_halves_in_place_of_pairs(without_graphs):  # noqa: F811
    g, model = golden("chatglm2"), build("chatglm2")
    model.transformer.rope.interleaved = False
    assert error(logits(model, g["long_input_ids"]), g["long_logits"]) > CONTROL * LOGITS


# -- loss and gradients ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(["chatglm2", "biases", "prefix", "prefix_projection"],
                                             ["chatglm2", "prefix_projection"]))
def test_loss_and_gradients_with_shifted_labels(case):
    g, model = golden(case), model_of(case)
    loss, found = loss_and_gradients(model, g["input_ids"], g["shifted_labels"])
    assert loss == pytest.approx(float(g["loss"]), rel=1e-5) == pytest.approx(float(g["shifted_loss"]), rel=1e-5)
    expected = {mindformers_name(key[5:]): value for key, value in g.items() if key.startswith("grad/")}
    assert expected and set(expected) <= set(found)
    assert case.startswith("prefix") or case == "biases" or set(expected) == set(found)
    for name, value in expected.items():
        assert error(found[name], value) < GRADIENTS, name
    if case.startswith("prefix"):  # only the prefix is trained
        assert set(found) == set(expected)
    if case == "chatglm2":  # control: labels that are not shifted
        wrong, found = loss_and_gradients(model, g["input_ids"], g["labels"])
        assert abs(wrong / float(g["loss"]) - 1) > CONTROL * GRADIENTS
        name = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
        assert error(found[name], expected[name]) > CONTROL * GRADIENTS


def test_loss_and_gradients_with_labels_of_transformers():
    """A tied transformers model, whose training labels are shifted inside; the tie adds up both gradients."""
    g, model = golden("glm_hf_tied"), model_of("glm_hf_tied")
    assert model.tied and model.config.labels_shifted is False
    loss, found = loss_and_gradients(model, g["input_ids"], g["labels"])
    assert loss == pytest.approx(float(g["loss"]), rel=1e-5)
    name = "transformer.embedding.word_embeddings.weight"
    assert error(found[mindformers_name(name)], g[f"grad/{name}"]) < GRADIENTS
    name = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"
    assert error(found[name], g[f"grad/{name}"]) < GRADIENTS


def test_labels_of_an_evaluation_call_are_those_of_transformers():
    g = golden("chatglm2")
    out = model_of("chatglm2")(ints(g["input_ids"]), labels=ints(g["labels"]))
    assert float(out.loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)


@pytest.mark.slow
def test_training_without_labels_predicts_the_next_token_of_the_inputs():
    g, model = golden("chatglm2"), model_of("chatglm2")
    model.set_train()
    try:
        alone = float(model(ints(g["input_ids"])).asnumpy())
        both = float(model(ints(g["input_ids"][:, :-1]), ints(g["input_ids"][:, 1:])).asnumpy())
    finally:
        model.set_train(False)
    assert alone == pytest.approx(both, rel=1e-6)


# -- greedy generation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", mostly_slow(CASES, ["chatglm2", "prefix"]))
def test_greedy_generation(case):
    g, model = golden(case), model_of(case)
    prompts = [g[f"prompt_{i}"] for i in range(3)]
    for i, found in enumerate(greedy(model, prompts, NEW_TOKENS)):
        np.testing.assert_array_equal(found, g[f"greedy_{i}"])
    if case == "chatglm2":
        np.testing.assert_array_equal(greedy(model, prompts[:1], NEW_TOKENS)[0], g["greedy_0"])
        with changed(model_of(case), wrong_groups):
            assert (greedy(model, prompts[:1], NEW_TOKENS)[0] != g["greedy_0"]).any()


@pytest.mark.parametrize("case", mostly_slow(["prefix", "glm4"], ["prefix"]))
def test_greedy_generation_without_a_cache(case):
    g = golden(case)
    found = greedy(model_of(case), [g["prompt_1"]], NEW_TOKENS, use_cache=False)[0]
    np.testing.assert_array_equal(found, g["greedy_1"])
