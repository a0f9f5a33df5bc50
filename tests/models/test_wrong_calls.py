"""Arguments that would silently mean something else, fail deep inside, or end the process."""
import mindspore as ms
import numpy as np
import pytest

from mindformers.core.optim import AdamW
from mindformers.models.auto.modeling_auto import AutoModelForCausalLM
from mindformers.models.glm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration
from mindformers.models.llama.llama import LlamaForCausalLM, LlamaForSequenceClassification
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.models.modeling_utils import PreTrainedModel, _as_array
from mindformers.pet import get_pet_model
from mindformers.pet.pet_config import LoraConfig
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.wrapper.train_step import TrainStep
from tests.graph_mode import eagerly

SIZES = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 32, "param_init_type": "float32", "pad_token_id": None}
IDS = [[1, 2, 3, 4], [5, 6, 7, 8]]


def build(kind=LlamaForCausalLM, **fields):
    ms.set_seed(0)
    return kind(LlamaConfig(**{**SIZES, **fields})).set_train(False)


@pytest.mark.parametrize("value, words", [
    ([[5.0, 6.5]], "whole numbers, but hold 6.5"),
    ([[float("nan"), 1.0]], "whole numbers, but hold nan"),
    ("hello", "are text; encode it"),
])
def test_ids_are_whole_numbers(value, words):
    with pytest.raises(TypeError, match=words):
        _as_array(value, np.int32)


def test_masks_may_be_bool_or_float():
    assert _as_array([[1.0, 0.0]], np.int32).tolist() == [[1, 0]]
    assert _as_array([[True, False]], np.int32).tolist() == [[1, 0]]


class Answer(np.ndarray):
    """Logits that a Tensor would hold."""

    def asnumpy(self):
        return np.asarray(self)


class Model:
    """As much of a model as its loss reads."""

    config = type("Config", (), {"ignore_token_id": -100})

    def can_generate(self):
        return True


@pytest.mark.parametrize("label", [9, -1])
def test_labels_outside_the_vocabulary_are_an_error(label):
    logits = np.zeros((1, 3, 8), np.float32).view(Answer)
    assert float(PreTrainedModel.loss_of(Model(), logits, [[0, 7, -100]])) == pytest.approx(np.log(8))
    with pytest.raises(ConfigError, match=rf"labels hold {label}, outside the vocabulary \[0, 8\)"):
        PreTrainedModel.loss_of(Model(), logits, [[0, label, 2]])


def test_two_names_of_the_same_secret():
    with pytest.raises(ValueError, match="give only token"):
        AutoModelForCausalLM.from_pretrained("llama_tiny", token="a", use_auth_token="b")


# calls in evaluation --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arguments, words", [
    ({"inputs_embeds": np.zeros((1, 3, 5))}, r"inputs_embeds of shape \(1, 3, 5\) .* \[batch, tokens, 16\]"),
    ({"inputs_embeds": np.zeros((3, 16))}, r"inputs_embeds of shape \(3, 16\)"),
    ({"input_ids": [[[1, 2]]]}, r"input_ids of shape \(1, 1, 2\) .* \[batch, tokens\]"),
    ({"input_ids": np.zeros((1, 0), int)}, r"input_ids of shape \(1, 0\) .* at least one"),
    ({"input_ids": IDS, "position_ids": [[1, 2]]}, r"position_ids of shape \(1, 2\) do not fit inputs of \(2, 4\)"),
    ({"input_ids": IDS, "position_ids": [[1], [2]]}, r"position_ids of shape \(2, 1\)")])
def test_shapes_that_do_not_fit(arguments, words):
    with pytest.raises(ConfigError, match=words):
        build()(**arguments)


def test_position_ids_of_one_row_stand_for_all():
    model = build()
    expected = model(IDS).logits.asnumpy()
    for positions in ([0, 1, 2, 3], [[0, 1, 2, 3]], [[0, 1, 2, 3]] * 2):
        np.testing.assert_array_equal(model(IDS, position_ids=positions).logits.asnumpy(), expected)


# calls in training ----------------------------------------------------------------------------------------------------

def test_training_takes_lists_and_arrays():
    model = build().set_train()
    ids = ms.Tensor(IDS, ms.int32)
    expected = float(model(ids, ids).asnumpy())
    for kind in (list, lambda value: np.array(value, np.int32), lambda value: np.array(value, np.int64)):
        assert float(model(kind(IDS)).asnumpy()) == expected
        assert float(model(kind(IDS), labels=kind(IDS)).asnumpy()) == expected
        mask, positions = kind([[1, 1, 1]] * 2), kind([[0, 1, 2]] * 2)
        assert float(model(kind(IDS), kind(IDS), positions, mask).asnumpy()) == expected
    one = float(model(ids[:1]).asnumpy())
    assert float(model(IDS[0]).asnumpy()) == one != expected


@pytest.mark.parametrize("problem, labels", [("single_label_classification", [2, 0]), ("regression", [0.5, -1.25]),
                                             ("multi_label_classification", [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])])
def test_training_of_a_classifier_takes_lists(problem, labels):
    model = build(LlamaForSequenceClassification, num_labels=1 if problem == "regression" else 3, problem_type=problem)
    with eagerly():
        expected = float(model(IDS, labels=labels).loss.asnumpy())
    assert float(model.set_train()(IDS, labels).asnumpy()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value, error, words", [
    ([[1, 2], [3]], ConfigError, "must be rectangular"), ("hello", TypeError, "are text; encode it"),
    ([[1, 40]], ConfigError, "token id 40 is outside the vocabulary of 40"),
    ([[1.5, 2.0]], TypeError, "whole numbers"), ([[]], ConfigError, r"shape \(1, 0\)")])
def test_wrong_ids_in_training(value, error, words):
    with pytest.raises(error, match=words):
        build().set_train()(value)


def test_int8_weights_are_not_trained_unless_adapters_are():
    model = build().quantize("int8").set_train()
    with pytest.raises(UnsupportedError, match="a model quantised to 'int8' is not trained; load it without"):
        model(IDS)
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        with pytest.raises(UnsupportedError, match="a model quantised to 'int8' is not trained; load it without"):
            TrainStep(model, AdamW(model.trainable_params()))
    assert model.set_train(False)(IDS).logits.shape == (2, 4, 40)
    adapted = get_pet_model(model, LoraConfig(target_modules=".*wq")).set_train()
    assert np.isfinite(float(adapted(IDS).asnumpy()))


def test_a_prefix_trains_beside_int8_weights():
    config = ChatGLM2Config(num_layers=1, hidden_size=32, num_attention_heads=4, multi_query_group_num=2, kv_channels=8,
                            ffn_hidden_size=48, vocab_size=40, seq_length=32, param_init_type="float32", pre_seq_len=3)
    model = ChatGLM2ForConditionalGeneration(config).quantize("int8").set_train()
    assert np.isfinite(float(model(IDS, labels=IDS).asnumpy()))


# methods --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method, value, words", [
    ("prune_heads", [1], r"must map layers to lists of heads, such as \{0: \[1, 3\]\}, but is \[1\]"),
    ("prune_heads", {0: 0}, r"but is \{0: 0\}"),
    ("add_model_tags", 3, "tags must be a str or a list of them, but is 3"),
    ("add_model_tags", ["a", 3], "tags must be"),
    ("gradient_checkpointing_enable", True, "gradient_checkpointing_kwargs must be a dict or None, but is True"),
    ("save_pretrained", None, "save_directory must be the path of a folder, but is None"),
    ("save_pretrained", "", "save_directory must be the path of a folder, but is ''")])
def test_arguments_of_methods(method, value, words):
    with pytest.raises(ConfigError, match=words):
        getattr(build(), method)(value)


def test_heads_may_come_as_an_array():
    model = build(num_heads=4)
    model.prune_heads({0: np.array([1, 3])})
    assert model.config.num_heads == 2


def test_arguments_of_mindformers_steps():
    with pytest.raises(UnsupportedError, match="batch_valid_length belongs to MindFormers' incremental inference"):
        build()(IDS, batch_valid_length=[4, 4])
    with pytest.raises(TypeError, match="Did you mean 'inputs_embeds'"):
        build()(input_embeds=np.zeros((1, 2, 16), np.float32))


def test_a_config_that_is_a_dict(tmp_path):
    build().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="make one of a dict with PretrainedConfig.from_dict"):
        AutoModelForCausalLM.from_pretrained(tmp_path, config=dict(SIZES))
