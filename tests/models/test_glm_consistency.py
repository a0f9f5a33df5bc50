"""GLM against itself: cache and no cache, packed and split parameters, modes, kernels, the prefix, surgery."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindformers import AutoConfig, AutoModel, AutoModelForCausalLM, ChatGLM2WithPtuning2
from mindformers.tools.errors import ConfigError
from model_helpers import ints, logits, steps_with_cache
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401
from tests.reference.glm_goldens import folder, golden
from tests.reference.goldens import error

TOLERANCE = 1e-5


def build(case, **fields):
    config = AutoConfig.from_pretrained(folder(case), prefix_dropout=0.0, **fields)
    return AutoModelForCausalLM.from_pretrained(folder(case), config=config)


@pytest.fixture(scope="module")
def models():
    return {case: build(case) for case in ("chatglm2", "prefix_projection")}


@pytest.mark.parametrize("case", ["chatglm2", "prefix_projection"])
def test_cache_equals_no_cache(models, case):
    ids, model = golden(case)["input_ids"], models[case]
    expected = logits(model, ids)
    assert error(steps_with_cache(model, ids, list(range(1, ids.shape[1]))), expected) < TOLERANCE
    cuts = [7, 8, 9, 15]
    ends = [cut - 1 for cut in cuts] + [ids.shape[1] - 1]
    assert error(steps_with_cache(model, ids, cuts), expected[:, ends]) < TOLERANCE
    # control: a cache that lost its first token
    assert error(steps_with_cache(model, ids[:, 1:], [5])[:, -1], expected[:, -1]) > 10 * TOLERANCE


def test_rows_that_rest_and_rows_that_are_copied_keep_their_prefix(models):
    model, ids = models["prefix_projection"], golden("prefix_projection")["input_ids"]
    expected = logits(model, ids)
    with model.make_cache(3, 20) as cache:
        first = model.forward_step(ids[:, :12], np.array([12, 5, 9], np.int32), cache)
        assert error(first, expected[[0, 1, 2], [11, 4, 8]]) < TOLERANCE
        cache.reorder(np.array([2, 2, 1]))
        out = model.forward_step(ids[[2, 2, 1], [9, 9, 5]][:, None], np.array([1, 0, 1], np.int32), cache)
        assert error(out[[0, 2]], expected[[2, 1], [9, 5]]) < TOLERANCE


@pytest.mark.slow
def test_beams_share_a_prompt_and_its_prefix(models):
    """Beam search runs a prompt once and copies its rows; the best beam is no worse than the greedy path."""
    model, g = models["prefix_projection"], golden("prefix_projection")
    plain = model.generate(g["prompt_1"], max_new_tokens=6, do_sample=False)[0]
    best = model.generate(g["prompt_1"], max_new_tokens=6, do_sample=False, num_beams=3)[0]

    def score(row):
        picked = logits(model, row[None])[0, len(g["prompt_1"]) - 1:-1]
        chosen = row[len(g["prompt_1"]):]
        return float((picked[np.arange(6), chosen] - np.log(np.exp(picked).sum(-1))).sum())

    assert score(best) >= score(plain) - 1e-4


@pytest.mark.parametrize("case", ["chatglm2", pytest.param("biases", marks=pytest.mark.slow),
                                  pytest.param("glm_hf", marks=pytest.mark.slow)])
def test_split_parameters_equal_packed_ones(case):
    split = build(case, qkv_concat=False, mlp_concat=False)
    names = [p.name for p in split.get_parameters()]
    assert any(name.endswith("self_attention.wq.weight") for name in names)
    assert any(name.endswith("mlp.dense_right.weight") for name in names)
    assert not any("query_key_value" in name or "dense_h_to_4h" in name for name in names)
    g = golden(case)
    assert error(logits(split, g["input_ids"]), g["logits"]) < TOLERANCE
    assert error(steps_with_cache(split, g["input_ids"], [13]), g["logits"][:, [12, 19]]) < TOLERANCE


@pytest.mark.parametrize("case", ["chatglm2", "prefix"])
@pytest.mark.slow
def test_pynative_equals_graph(case):
    g = golden(case)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model = build(case)
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE
    assert error(steps_with_cache(model, g["input_ids"], [8, 9]), g["logits"][:, [7, 8, 19]]) < TOLERANCE
    model.set_train()
    loss, _ = ms.value_and_grad(model, None, model.trainable_params())(ints(g["input_ids"]), ints(g["shifted_labels"]))
    assert float(loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)


@pytest.mark.slow
def test_portable_kernels_equal_native_ones(monkeypatch):
    g = golden("prefix")
    monkeypatch.setenv("MF_KERNELS", "portable")
    model = build("prefix")
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE
    assert error(steps_with_cache(model, g["input_ids"], [12, 13]), g["logits"][:, [11, 12, 19]]) < TOLERANCE


@pytest.mark.slow
def test_hidden_states_and_attentions_count_the_prefix(models):
    g = golden("prefix_projection")
    out = models["prefix_projection"](ints(g["input_ids"][:1]), output_hidden_states=True, output_attentions=True)
    assert len(out.hidden_states) == 3 and out.attentions[0].shape == (1, 4, 20, 23)
    np.testing.assert_allclose(out.attentions[1].asnumpy().sum(-1), 1.0, atol=1e-5)


def test_backbone_alone_answers_the_last_hidden_state(models):
    backbone = AutoModel.from_pretrained(folder("chatglm2"))
    assert not any("output_layer" in p.name for p in backbone.get_parameters())
    states = backbone(ints(golden("chatglm2")["input_ids"])).last_hidden_state.asnumpy()
    head = models["chatglm2"].get_output_embeddings().weight.asnumpy()
    assert error(states @ head.T, golden("chatglm2")["logits"]) < TOLERANCE


@pytest.mark.slow
def test_int8_weights_change_little():
    g = golden("chatglm2")
    model = AutoModelForCausalLM.from_pretrained(folder("chatglm2"), quantization="int8")
    found = logits(model, g["input_ids"])
    assert TOLERANCE < error(found, g["logits"]) < 0.5
    assert (found.argmax(-1) == g["logits"].argmax(-1)).mean() > 0.8


# -- the prefix ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_base_checkpoint_gets_a_new_prefix_and_its_training_moves_only_that(tmp_path):
    from mindformers.core.optim import AdamW
    from mindformers.wrapper.train_step import TrainStep
    g = golden("chatglm2")
    model, info = AutoModelForCausalLM.from_pretrained(folder("chatglm2"), pre_seq_len=4, output_loading_info=True)
    assert info["missing_keys"] == ["transformer.prefix_encoder.embedding.embedding_weight"]
    before = {p.name: p.asnumpy().copy() for p in model.get_parameters()}
    model.set_train()
    step = TrainStep(model, AdamW(model.trainable_params(), learning_rate=0.05))
    losses = [step(g["input_ids"].astype(np.int32), g["shifted_labels"].astype(np.int32)).loss for _ in range(8)]
    assert losses[-1] < losses[0]
    moved = [p.name for p in model.get_parameters() if (p.asnumpy() != before[p.name]).any()]
    assert moved == info["missing_keys"]

    ms.set_context(mode=ms.PYNATIVE_MODE)  # files and values: compiling would take longest
    model.set_train(False)
    expected = logits(model, g["input_ids"])
    model.save_pretrained(tmp_path / "whole")
    assert error(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), g["input_ids"]), expected) < TOLERANCE
    model.save_prefix(tmp_path / "prefix")
    model.save_pretrained(tmp_path / "whole")
    with pytest.raises(ConfigError, match="give the prefix a folder of its own"):
        model.save_prefix(tmp_path / "whole")
    other = AutoModelForCausalLM.from_pretrained(folder("chatglm2"), pre_seq_len=4)
    assert error(logits(other, g["input_ids"]), expected) > 10 * TOLERANCE
    other.load_prefix(tmp_path / "prefix")
    assert error(logits(other, g["input_ids"]), expected) < TOLERANCE
    with pytest.raises(ValueError, match="pre_seq_len"):
        AutoModelForCausalLM.from_pretrained(folder("chatglm2")).load_prefix(tmp_path / "prefix")


@pytest.mark.slow
def test_dropout_of_the_prefix_is_for_training_only():
    g = golden("prefix")
    model = AutoModelForCausalLM.from_pretrained(folder("prefix"))
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE
    model.set_train()
    batch = ints(g["input_ids"]), ints(g["shifted_labels"])
    losses = {float(model(*batch).asnumpy()) for _ in range(3)}
    assert len(losses) > 1 and min(abs(loss - float(g["loss"])) for loss in losses) > 1e-5


def test_prefix_described_by_pet_config():
    config = AutoConfig.from_pretrained(folder("chatglm2"),
                                        pet_config={"pet_type": "ptuning2", "pre_seq_len": 6, "prefix_projection": True,
                                                    "dropout_prob": 0.0})
    model = ChatGLM2WithPtuning2(config)
    assert model.model.past_length == config.pre_seq_len == 6
    assert {p.name.split(".")[1] for p in model.trainable_params()} == {"prefix_encoder"}
    with pytest.raises(ConfigError, match="pre_seq_len"):
        ChatGLM2WithPtuning2(AutoConfig.from_pretrained(folder("chatglm2")))


# -- surgery ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_vocabulary_grows_and_shrinks_and_keeps_its_rows(without_graphs):  # noqa: F811
    g, model = golden("chatglm2"), build("chatglm2")
    model.resize_token_embeddings(101)
    assert model.config.vocab_size == model.config.padded_vocab_size == 101
    found = logits(model, g["input_ids"])
    assert found.shape[-1] == 101 and error(found[..., :96], g["logits"]) < TOLERANCE
    model.resize_token_embeddings(96)
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE


@pytest.mark.slow
def test_pruned_heads_equal_heads_without_output(without_graphs):  # noqa: F811
    g, model = golden("chatglm2"), build("chatglm2")
    heads = {0: [1, 2], 1: [0, 3]}
    silent = build("chatglm2")
    for layer, gone in heads.items():
        dense = silent.transformer.encoder.layers[layer].self_attention.dense
        weight = dense.weight.asnumpy().copy()
        for head in gone:
            weight[:, head * 16:(head + 1) * 16] = 0
        dense.weight.set_data(Tensor(weight))
    expected = logits(silent, g["input_ids"])
    before = model.num_parameters()
    model.prune_heads(heads)
    assert model.config.num_attention_heads == 2 and model.num_parameters() < before
    assert error(logits(model, g["input_ids"]), expected) < TOLERANCE
    assert error(expected, g["logits"]) > 10 * TOLERANCE
    assert model.generate(g["prompt_0"], max_new_tokens=2, do_sample=False)[0].shape == (5,)


@pytest.mark.slow
def test_tying_the_head(without_graphs):  # noqa: F811
    g, model = golden("chatglm2"), build("chatglm2")
    table = model.get_input_embeddings().embedding_weight.asnumpy()
    model.get_output_embeddings().weight.set_data(Tensor(table))
    expected = logits(model, g["input_ids"])
    model.config.tie_word_embeddings = True
    model.tie_weights()
    assert model.get_output_embeddings() is model.get_input_embeddings()
    assert not any("output_layer" in p.name for p in model.get_parameters())
    assert error(logits(model, g["input_ids"]), expected) < TOLERANCE
    assert error(steps_with_cache(model, g["input_ids"], [12])[:, 1], expected[:, 19]) < TOLERANCE
