"""Inputs and labels of a model call that would silently mean something else."""
import numpy as np
import pytest

from mindformers.models.auto.modeling_auto import AutoModelForCausalLM
from mindformers.models.modeling_utils import PreTrainedModel, _as_array
from mindformers.tools.errors import ConfigError


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
