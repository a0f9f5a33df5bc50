"""Vocabularies that grow and shrink, embeddings that are replaced, heads that are tied and pruned."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindformers.models.glm2.glm2 import ChatGLM2ForConditionalGeneration
from mindformers.models.glm2.glm2_config import ChatGLM2Config
from mindformers.models.llama.llama import LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.modules.layers import Linear, VocabEmbedding
from mindformers.tools.errors import ConfigError, UnsupportedError

SIZES = {"num_layers": 2, "hidden_size": 16, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 32, "param_init_type": "float32", "compute_dtype": "float32", "do_sample": False,
         "pad_token_id": None}
TOKENS = np.random.default_rng(0).integers(3, 40, (2, 7)).astype(np.int32)


@pytest.fixture(autouse=True)
def mode(request):
    """PYNATIVE spares compiling; the tests with "graph" in their name are those of forgotten graphs."""
    ms.set_context(mode=ms.GRAPH_MODE if "graph" in request.node.name else ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def build(kind=LlamaForCausalLM, **fields):
    ms.set_seed(1)
    model = kind(LlamaConfig(**{**SIZES, **fields}))
    rng = np.random.default_rng(5)
    for parameter in model.get_parameters():
        value = rng.normal(0, 0.3, parameter.shape).astype(np.float32)
        parameter.set_data(ms.Tensor(value).astype(parameter.dtype))
    return model.set_train(False)


def logits(model, tokens=TOKENS):
    return model(tokens).logits.asnumpy()


def answers(model):
    return [row.tolist() for row in model.generate(TOKENS, max_new_tokens=5)]


def names(model):
    return [parameter.name for parameter in model.get_parameters()]


# ---- vocabulary ----

@pytest.mark.parametrize("tied, dtype", [(False, "float32"), (True, "float32"), (True, "bfloat16")],
                         ids=["separate", "tied graph", "bfloat16"])
def test_growing_keeps_what_was_there(tied, dtype):
    model = build(tie_word_embeddings=tied, param_init_type=dtype)
    before, answered, listed = logits(model), answers(model), names(model)
    count = model.num_parameters()
    embedding = model.resize_token_embeddings(50)
    assert embedding is model.get_input_embeddings() and embedding.embedding_weight.shape == (50, 16)
    assert model.config.vocab_size == 50 and names(model) == listed
    assert model.num_parameters() == count + 10 * 16 * (1 if tied else 2)
    after = logits(model)
    assert after.shape == (2, 7, 50)
    np.testing.assert_allclose(after[..., :40], before, rtol=1e-6, atol=1e-6)
    table = embedding.embedding_weight.asnumpy().astype(np.float32)
    np.testing.assert_allclose(table[40:], np.broadcast_to(table[:40].mean(0), (10, 16)), atol=1e-2)
    assert np.abs(table[40:]).max() > 0.001
    assert np.isfinite(logits(model, np.full((1, 3), 49))).all()  # a new token is taken
    assert answers(model) == answered  # an average token is never the likeliest


@pytest.mark.parametrize("tied", [False, True])
def test_shrinking_keeps_the_first_rows(tied):
    model = build(tie_word_embeddings=tied)
    tokens = TOKENS % 30
    before = logits(model, tokens)
    model.resize_token_embeddings(30)
    np.testing.assert_allclose(logits(model, tokens), before[..., :30], rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="outside the vocabulary of 30"):
        logits(model, np.full((1, 3), 30))
    assert all(max(row) < 30 for row in (out.tolist() for out in model.generate(tokens, max_new_tokens=5)))


def test_a_resized_model_is_saved_and_trains(tmp_path):
    model = build()
    model.resize_token_embeddings(41, pad_to_multiple_of=8)
    assert model.config.vocab_size == 48
    model.save_pretrained(str(tmp_path))
    again = LlamaForCausalLM.from_pretrained(str(tmp_path))
    assert again.config.vocab_size == 48
    np.testing.assert_array_equal(again(TOKENS).logits.asnumpy(), logits(model))
    model.set_train()
    first = float(model(ms.Tensor(TOKENS)).asnumpy())  # compiles with the parameters of now
    model.resize_token_embeddings(64)
    step = nn.TrainOneStepCell(model, nn.SGD(model.trainable_params(), 0.5))
    losses = [float(step(ms.Tensor(TOKENS)).asnumpy()) for _ in range(3)]
    assert losses[0] > first and losses[2] < losses[0]  # 16 more tokens share the probability


def test_training_graphs_of_before_are_forgotten():
    model = build().set_train()
    batch = ms.Tensor(TOKENS)
    before = float(model(batch).asnumpy())
    model.resize_token_embeddings(45)
    model.lm_head.weight.set_data(ms.Tensor(np.zeros((45, 16), np.float32)))
    assert float(model(batch).asnumpy()) == pytest.approx(np.log(45), rel=1e-5) != before


def test_new_rows_may_be_drawn():
    first, second = build(init_method_std=0.5), build(init_method_std=0.5)
    tables = [model.resize_token_embeddings(140, mean_resizing=False).embedding_weight.asnumpy() for model in
              (first, second)]
    assert np.array_equal(*tables) and 0.4 < tables[0][40:].std() < 0.6


def test_sizes_that_cannot_be():
    model = build(eos_token_id=[2, 39])
    for wrong in (0, -3, 2.5, True, "50"):
        with pytest.raises(ConfigError, match="new_num_tokens must be a positive integer"):
            model.resize_token_embeddings(wrong)
    with pytest.raises(ConfigError, match="pad_to_multiple_of must be a positive integer"):
        model.resize_token_embeddings(50, pad_to_multiple_of=0)
    with pytest.raises(ConfigError, match="a vocabulary of 30 tokens has no eos_token_id 39"):
        model.resize_token_embeddings(30)
    assert model.config.vocab_size == 40
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.resize_token_embeddings(pad_to_multiple_of=16).embedding_weight.shape == (48, 16)


def test_models_with_another_head():
    bare, classifier = build(LlamaModel), build(LlamaForSequenceClassification, num_labels=3, pad_token_id=0)
    before = bare(TOKENS).last_hidden_state.asnumpy(), logits(classifier)
    for model, output in ((bare, lambda: bare(TOKENS).last_hidden_state.asnumpy()),
                          (classifier, lambda: logits(classifier))):
        model.resize_token_embeddings(64)
        assert model.get_input_embeddings().embedding_weight.shape == (64, 16)
        np.testing.assert_array_equal(output(), before[model is classifier])
        with pytest.raises(UnsupportedError, match="has no next-token head"):
            model.set_output_embeddings(Linear(16, 64, False))


def test_quantised_weights_are_refused():
    from mindformers.modules.quantize import quantize
    model = quantize(build(hidden_size=64, intermediate_size=64), "int8")
    with pytest.raises(UnsupportedError, match="before it is quantised"):
        model.resize_token_embeddings(50)
    with pytest.raises(UnsupportedError, match="before it is quantised"):
        model.prune_heads({0: [0]})


# ---- embeddings ----

@pytest.mark.parametrize("tied", [False, True])
def test_an_embedding_is_replaced(tied):
    model = build(tie_word_embeddings=tied)
    before, listed = logits(model), names(model)
    new = VocabEmbedding(40, 16)
    new.embedding_weight.set_data(model.get_input_embeddings().embedding_weight * 2)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new and names(model) == listed
    doubled = logits(model)
    assert np.abs(doubled - before).max() > 0.05
    answered = answers(model)
    values = new.embedding_weight.asnumpy()
    other = build(tie_word_embeddings=tied)
    other.get_input_embeddings().embedding_weight.set_data(ms.Tensor(values))
    np.testing.assert_array_equal(logits(other), doubled)
    assert answers(other) == answered


def test_a_head_is_replaced_under_a_graph():
    model = build()
    listed, before = names(model), logits(model)
    new = Linear(16, 40, False)
    new.weight.set_data(model.lm_head.weight * 3)
    model.set_output_embeddings(new)
    assert model.get_output_embeddings() is new and names(model) == listed
    np.testing.assert_allclose(logits(model), 3 * before, rtol=1e-5, atol=1e-5)
    assert answers(model) == answers(build())  # three times the logits: the same order


def test_what_does_not_fit_is_refused():
    model = build()
    with pytest.raises(TypeError, match="Dense cannot take the place of a VocabEmbedding"):
        model.set_input_embeddings(nn.Dense(16, 40))
    with pytest.raises(ConfigError, match="use resize_token_embeddings"):
        model.set_input_embeddings(VocabEmbedding(50, 16))
    with pytest.raises(TypeError, match="cannot take the place of a Linear"):
        model.set_output_embeddings(VocabEmbedding(40, 16))
    with pytest.raises(ConfigError, match="the head is tied"):
        build(tie_word_embeddings=True).set_output_embeddings(Linear(16, 40, False))


def test_tying_a_head_under_a_graph(tmp_path):
    model, count = build(), build().num_parameters()
    model.tie_weights()
    assert not model.tied and model.num_parameters() == count
    model.config.tie_word_embeddings = True
    logits(model)
    model.tie_weights()
    assert model.num_parameters() == count - 40 * 16
    assert model.get_output_embeddings() is model.get_input_embeddings()
    expected = build(tie_word_embeddings=True)
    for parameter, value in zip(expected.get_parameters(), model.get_parameters()):
        parameter.set_data(value)
    np.testing.assert_array_equal(logits(model), logits(expected))
    assert answers(model) == answers(expected)
    model.save_pretrained(str(tmp_path))
    np.testing.assert_array_equal(LlamaForCausalLM.from_pretrained(str(tmp_path))(TOKENS).logits.asnumpy(),
                                  logits(model))
    model.tie_weights()
    assert model.tied


# ---- heads ----

def with_silent_heads(model, heads):
    """`model` with zeros in the columns of the output projection that read the heads."""
    n, _, h = model.model.layers[0].attention.heads
    for layer, gone in heads.items():
        output = model.model.layers[layer].attention.wo
        values = output.weight.asnumpy().reshape(16, n, h).copy()
        values[:, gone] = 0
        output.weight.set_data(ms.Tensor(values.reshape(16, n * h)))
    return model


BIASES = {"qkv_has_bias": True, "attn_proj_has_bias": True}
UNIFORM = {"graph: one of each group": ({}, {0: [0, 3], 1: [1, 2]}, (2, 2, 4)), "a whole kv head": ({}, {0: [0, 1],
           1: [2, 3]}, (2, 1, 4)), "multi head": ({"n_kv_heads": 4}, {0: [2], 1: [0]}, (3, 3, 4)),
           "packed": ({"qkv_concat": True}, {0: [2, 3], 1: [0, 1]}, (2, 1, 4)),
           "biases": (BIASES, {0: [0, 1], 1: [0, 1]}, (2, 1, 4))}


@pytest.mark.parametrize("case", UNIFORM)
def test_pruned_heads_equal_silent_heads_and_are_gone(case, tmp_path):
    fields, heads, left = UNIFORM[case]
    whole, silent, model = build(**fields), with_silent_heads(build(**fields), heads), build(**fields)
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)  # what is expected needs no graph
    expected, answered, kept = logits(silent), answers(silent), logits(whole)
    loss = float(silent.set_train()(ms.Tensor(TOKENS)).asnumpy())
    ms.set_context(mode=mode)
    answers(model)  # compiled, with a cache, before the change
    model.prune_heads(heads)
    assert (model.config.num_heads, model.config.n_kv_heads, model.config.head_dim) == left
    assert model.num_parameters() < whole.num_parameters() and names(model) == names(whole)
    assert np.abs(kept - expected).max() > 0.01
    found = logits(model)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert answers(model) == answered
    model.save_pretrained(str(tmp_path))
    again = LlamaForCausalLM.from_pretrained(str(tmp_path), qkv_concat=bool(fields.get("qkv_concat")))
    np.testing.assert_array_equal(again(TOKENS).logits.asnumpy(), found)
    assert float(model.set_train()(ms.Tensor(TOKENS)).asnumpy()) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("heads", [{0: [1]}, {0: [0, 1], 1: [2]}, {1: [0]}], ids=str)
def test_heads_that_leave_layers_of_several_shapes_are_silenced(heads):
    model, silent = build(), with_silent_heads(build(), heads)
    before = logits(model)
    model.prune_heads(heads)
    assert model.config.num_heads == 4 and model.num_parameters() == silent.num_parameters()
    np.testing.assert_array_equal(logits(model), logits(silent))
    assert np.abs(logits(model) - before).max() > 0.01
    assert answers(model) == answers(silent)


def test_pruning_twice_counts_anew():
    model = build(num_heads=8, n_kv_heads=8, head_dim=2)
    silent = build(num_heads=8, n_kv_heads=8, head_dim=2)
    model.prune_heads({0: [0, 1], 1: [6, 7]})
    model.prune_heads({0: [0], 1: [0]})  # what are now heads 2 of layer 0 and 0 of layer 1
    np.testing.assert_allclose(logits(model), logits(with_silent_heads(silent, {0: [0, 1, 2], 1: [0, 6, 7]})),
                               rtol=1e-5, atol=1e-6)
    assert model.config.num_heads == 5


@pytest.mark.parametrize("heads, words", [({2: [0]}, "layer 2 does not exist; the model has layers 0 to 1"),
                                          ({0: [4]}, "head 4 of layer 0 does not exist; it has heads 0 to 3"),
                                          ({0: [-1]}, "head -1"), ({"0": [1]}, "layer '0' does not exist"),
                                          ({0: [0, 1, 2, 3]}, "layer 0 would have no head left")])
def test_heads_that_do_not_exist(heads, words):
    model = build()
    before = logits(model)
    with pytest.raises(ConfigError, match=words):
        model.prune_heads(heads)
    np.testing.assert_array_equal(logits(model), before)
    model.prune_heads({0: []})
    np.testing.assert_array_equal(logits(model), before)


def with_prefix(**fields):
    """A ChatGLM2 with a prefix of 4 tokens, and all values random."""
    sizes = {key: value for key, value in SIZES.items() if key not in ("num_heads", "n_kv_heads", "intermediate_size")}
    config = ChatGLM2Config(**sizes, num_attention_heads=4, multi_query_group_num=2, ffn_hidden_size=24, kv_channels=4,
                            pre_seq_len=4, **fields)
    rng, model = np.random.default_rng(5), ChatGLM2ForConditionalGeneration(config)
    for parameter in model.get_parameters():
        parameter.set_data(ms.Tensor(rng.normal(0, 0.3, parameter.shape).astype(np.float32)))
    return model.set_train(False)


def silenced(model, heads):
    for layer, gone in heads.items():
        dense = model.transformer.encoder.layers[layer].self_attention.dense
        values = dense.weight.asnumpy().reshape(16, 4, 4).copy()
        values[:, gone] = 0
        dense.weight.set_data(ms.Tensor(values.reshape(16, 16)))
    return model


@pytest.mark.parametrize("heads, kv", [({0: [0, 1], 1: [2, 3]}, 1), ({0: [0, 2], 1: [1, 3]}, 2), ({0: [0, 1]}, 2)],
                         ids=["kv heads", "query heads", "uneven"])
def test_a_prefix_loses_the_keys_and_values_that_none_reads(heads, kv, tmp_path):
    model, silent = with_prefix(), silenced(with_prefix(), heads)
    whole = model.num_parameters()
    answers(model)
    model.prune_heads(heads)
    assert model.config.kv_heads == kv and (model.num_parameters() < whole) == (len(heads) == 2)
    assert model.num_parameters() == model.config.num_parameters()
    np.testing.assert_allclose(logits(model), logits(silent), rtol=1e-5, atol=1e-6)
    assert answers(model) == answers(silent)
    assert [p.name for p in model.trainable_params()] == ["transformer.prefix_encoder.embedding.embedding_weight"]
    model.save_pretrained(str(tmp_path))
    again = ChatGLM2ForConditionalGeneration.from_pretrained(str(tmp_path))
    np.testing.assert_array_equal(logits(again), logits(model))


def test_a_projected_prefix_keeps_its_kv_heads():
    model, whole = with_prefix(prefix_projection=True), with_prefix(prefix_projection=True)
    with pytest.raises(UnsupportedError, match="leaves 1 of 2 kv heads.* prefix_projection=True"):
        model.prune_heads({0: [0, 1], 1: [2, 3]})
    assert model.config == whole.config
    np.testing.assert_array_equal(logits(model), logits(whole))
    heads = {0: [0, 2], 1: [1, 3]}
    model.prune_heads(heads)
    np.testing.assert_allclose(logits(model), logits(silenced(whole, heads)), rtol=1e-5, atol=1e-6)


# ---- sizes ----

def test_sizes():
    model = build()
    total = sum(int(np.prod(parameter.shape)) for parameter in model.get_parameters())
    assert model.num_parameters() == total == model.config.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == total - 40 * 16
    model.model.norm_out.weight.requires_grad = False
    assert model.num_parameters(only_trainable=True) == total - 16
    assert model.get_memory_footprint() == 4 * total
    answers(model)
    assert model.get_memory_footprint() > 4 * total == model.get_memory_footprint(return_buffers=False)
    assert build(param_init_type="bfloat16").get_memory_footprint() == 2 * total
