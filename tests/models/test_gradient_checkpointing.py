"""Gradient checkpointing: the same loss, gradients and steps, in less memory."""
import os
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor

from mindformers.core.optim import AdamW
from mindformers.models import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, LlamaModel
from mindformers.models.glm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration, GlmConfig, GlmForCausalLM
from mindformers.pet import get_pet_model
from mindformers.tools.errors import UnsupportedError
from mindformers.wrapper import MFTrainOneStepCell
from mindformers.wrapper.checkpointed import CheckpointedGradients
from mindformers.wrapper.gradients import LossAndGradients
from mindformers.wrapper.train_step import TrainStep
from tests.graph_mode import eagerly

ms.set_device("CPU")
ROOT = Path(__file__).resolve().parents[2]
SIZES = {"hidden_size": 32, "num_layers": 2, "vocab_size": 50, "seq_length": 16, "param_init_type": "float32",
         "compute_dtype": "float32"}
LLAMA = {**SIZES, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 48}
GLM = {**SIZES, "padded_vocab_size": 50, "num_attention_heads": 4, "multi_query_group_num": 2, "kv_channels": 8,
       "ffn_hidden_size": 48, "prefix_dropout": 0.0}


def tokens(rows=4, width=13):
    return np.random.default_rng(0).integers(3, 50, (rows, width)).astype(np.int32)


def llama(**fields):
    return LlamaForCausalLM(LlamaConfig(**{**LLAMA, **fields})), (tokens(),)


def glm2(**fields):
    return ChatGLM2ForConditionalGeneration(ChatGLM2Config(**{**GLM, **fields})), (tokens(), tokens())


def glm_of_transformers():
    config = GlmConfig(vocab_size=50, hidden_size=32, num_layers=1, num_heads=4, n_kv_heads=2, head_dim=8,
                       intermediate_size=48, seq_length=16, param_init_type="float32", pad_token_id=0)
    return GlmForCausalLM(config), (tokens(),)


def classifier():
    config = LlamaConfig(**{**LLAMA, "num_layers": 1, "num_labels": 3, "pad_token_id": 0})
    return LlamaForSequenceClassification(config), (tokens(), np.array([0, 2, 1, 1], np.int32))


def adapters():
    model, inputs = llama()
    lora = {"pet_type": "lora", "lora_rank": 2, "target_modules": ".*wq|.*wv", "lora_dropout": 0.0}
    return get_pet_model(model, lora), inputs


def last_layer_alone(**fields):
    model, inputs = llama(**fields)
    for parameter in model.get_parameters():
        parameter.requires_grad = parameter.name.startswith("model.layers.1.")
    return model, inputs


CASES = {
    "tied": lambda: llama(tie_word_embeddings=True, qkv_concat=True, qkv_has_bias=True),
    "glm2": glm2}
MORE = {
    "adapters": adapters, "glm prefix": lambda: glm2(pre_seq_len=3, prefix_projection=True),
    "llama": llama, "bfloat16": lambda: llama(param_init_type="bfloat16", num_layers=1),
    "classifier": classifier, "last layer alone, sums": lambda: last_layer_alone(calculate_per_token_loss=True),
    "glm of transformers": glm_of_transformers}


def of_case(name):
    ms.set_seed(3)
    model, inputs = {**CASES, **MORE}[name]()
    return model.set_train(), inputs


def gradients_of(make, weights, inputs, scale):
    numerator, denominator, gradients = make(weights)(Tensor(np.float32(scale)), *map(Tensor, inputs))
    values = {weight.name: gradient.asnumpy().astype(np.float32) for weight, gradient in zip(weights, gradients)}
    return float(numerator.asnumpy()), float(denominator.asnumpy()), values


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_loss_and_gradients_are_the_same(name):
    model, inputs = of_case(name)
    weights = ParameterTuple(model.trainable_params())
    with eagerly():
        plain = gradients_of(lambda own: LossAndGradients(model, own), weights, inputs, 2.0)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    model.gradient_checkpointing_enable()
    cut = gradients_of(lambda own: CheckpointedGradients(model.training_segments(), own), weights, inputs, 2.0)
    assert plain[:2] == pytest.approx(cut[:2], rel=1e-6)
    assert list(plain[2]) == list(cut[2])
    exact = 2e-2 if name == "bfloat16" else 1e-5
    for key, gradient in plain[2].items():
        np.testing.assert_allclose(cut[2][key], gradient, atol=exact * np.abs(gradient).max(), rtol=exact, err_msg=key)
    assert max(np.abs(gradient).max() for gradient in cut[2].values()) > 1e-3
    assert all((parameter.asnumpy() == before[parameter.name]).all() for parameter in model.get_parameters())
    if name == "llama":
        layers_of_other_values_give_other_gradients(model, weights, inputs, plain)


def layers_of_other_values_give_other_gradients(model, weights, inputs, plain):
    """The control: layers share a graph, and would share their values were they not lent."""
    segments = model.training_segments()
    assert segments[1].cell is segments[2].cell
    never_lent = CheckpointedGradients(segments, weights)
    never_lent._lent = lambda index: segments[index]
    other = gradients_of(lambda own: never_lent, weights, inputs, 2.0)
    name = "model.layers.1.attention.wo.weight"
    assert np.abs(other[2][name] - plain[2][name]).max() > 0.1 * np.abs(plain[2][name]).max()


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_steps_are_the_same(accumulation):
    outcomes = []
    for checkpointing in (False, True):
        ms.set_seed(3)
        model = llama(num_layers=1)[0].set_train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing is checkpointing
        step = TrainStep(model, AdamW(model.trainable_params(), learning_rate=1e-2), grad_accumulation=accumulation,
                         max_grad_norm=1.0, scale_sense=4.0)
        outputs = [step(tokens(rows=4) + number % 2) for number in range(3)]
        outcomes.append(([output.loss for output in outputs], [output.global_norm for output in outputs],
                         {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}))
    (losses, norms, values), (others, other_norms, other_values) = outcomes
    assert losses == pytest.approx(others, rel=1e-5) and norms == pytest.approx(other_norms, rel=1e-4)
    assert losses[2] < losses[0]
    for name, value in values.items():
        np.testing.assert_allclose(other_values[name], value, atol=2e-4, err_msg=name)


def test_dropout_in_a_layer_is_refused():
    model, _ = llama()
    get_pet_model(model, {"pet_type": "lora", "lora_rank": 2, "target_modules": ".*wq", "lora_dropout": 0.1})
    with pytest.raises(UnsupportedError, match="drops 0.1 of its elements.*lora_dropout: 0.0"):
        model.training_segments()
    model, _ = glm2(pre_seq_len=3, prefix_dropout=0.1)
    model.gradient_checkpointing_enable()
    with pytest.raises(UnsupportedError, match="prefix_dropout: 0.0"):
        model.training_segments()


def test_turning_it_off_and_wrong_calls():
    model, _ = of_case("llama")
    assert model.supports_gradient_checkpointing and not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with pytest.raises(UnsupportedError, match="one graph.*TrainStep"):
        MFTrainOneStepCell(model, AdamW(model.trainable_params()))
    model.gradient_checkpointing_disable()
    MFTrainOneStepCell(model, AdamW(model.trainable_params()))
    with pytest.raises(UnsupportedError, match="'every'"):
        model.gradient_checkpointing_enable({"every": 2})
    with pytest.raises(UnsupportedError, match="no loss"):
        LlamaModel(LlamaConfig(**LLAMA)).gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="no part of the network reads .*lm_head"):
        CheckpointedGradients(model.training_segments()[:-1], ParameterTuple(model.trainable_params()))


PROBE = """
import sys
import mindspore as ms, numpy as np
from mindspore import ParameterTuple, Tensor
from mindformers.models import LlamaConfig, LlamaForCausalLM
from mindformers.wrapper.checkpointed import CheckpointedGradients
from mindformers.wrapper.gradients import LossAndGradients
ms.set_device("CPU")
ms.set_seed(1)
model = LlamaForCausalLM(LlamaConfig(hidden_size=256, num_layers=8, num_heads=4, intermediate_size=768, vocab_size=1000,
                                     seq_length=512, param_init_type="float32")).set_train()
weights = ParameterTuple(model.trainable_params())
cut = sys.argv[1] == "cut"
run = CheckpointedGradients(model.training_segments(), weights) if cut else LossAndGradients(model, weights)
def peak():  # ru_maxrss starts at the peak of the parent process
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])


before = peak()
tokens = np.random.default_rng(0).integers(3, 1000, (4, 513)).astype(np.int32)
loss = float(run(Tensor(np.float32(1)), Tensor(tokens))[0].asnumpy())
print("result", loss, (peak() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "portable"])
def test_memory_is_less(form):
    """MB that 8 layers on 2048 tokens take beyond the model, in processes of their own."""
    answers = []
    for kind in ("plain", "cut"):
        done = subprocess.run([sys.executable, "-c", PROBE, kind], capture_output=True, text=True, timeout=600,
                              check=True, env={**os.environ, "MF_KERNELS": form, "PYTHONPATH": str(ROOT)})
        line = next(line for line in done.stdout.splitlines() if line.startswith("result"))
        answers.append([float(word) for word in line.split()[1:]])
    print(form or "default", answers)
    assert answers[0][0] == pytest.approx(answers[1][0], rel=1e-5)
    assert answers[1][1] < 0.5 * answers[0][1]
