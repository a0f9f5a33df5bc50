"""MyLlama: its differences count, steps on the cache have them too, it trains, and its folder comes back."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor

from mindformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from mindformers.core.optim import AdamW
from mindformers.tools.errors import ConfigError
from mindformers.wrapper.train_step import TrainStep
from my_llama import MyLlamaForCausalLM
from my_llama_config import MyLlamaConfig
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 48, "vocab_size": 50,
         "seq_length": 64, "param_init_type": "float32"}
IDS = np.random.default_rng(0).integers(3, 50, (2, 9)).astype(np.int32)


def with_values(model):
    """The model with the same random weights whatever its class."""
    rng = np.random.default_rng(3)
    for parameter in model.get_parameters():
        value = 0.3 * rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(value + ("norm" in parameter.name), parameter.dtype))
    return model.set_train(False)


def build(**fields):
    return with_values(MyLlamaForCausalLM(MyLlamaConfig(**{**SIZES, "embedding_multiplier": 3.0, "logit_cap": 2.0,
                                                           **fields})))


def steps(model, ids=IDS):
    """Logits behind a prompt of six tokens and behind each of the next three, by steps on the cache."""
    with model.make_cache(len(ids), 12) as cache:
        rows = [model.forward_step(ids[:, :6], [6] * len(ids), cache)]
        rows += [model.forward_step(ids[:, i:i + 1], [1] * len(ids), cache) for i in range(6, 9)]
    return np.stack(rows, 1)


def test_steps_on_the_cache_are_the_model():
    model = build()
    whole = model(IDS).logits.asnumpy()
    np.testing.assert_allclose(steps(model), whole[:, 5:], atol=1e-5)
    assert np.abs(whole).max() < 2.0, "the cap holds"


@pytest.mark.parametrize("fields", [{"embedding_multiplier": 1.0}, {"logit_cap": None}], ids=str)
def test_each_setting_counts(fields, without_graphs):  # noqa: F811
    model, other = build(), build(**fields)
    assert np.abs(model(IDS).logits.asnumpy() - other(IDS).logits.asnumpy()).max() > 1e-2
    assert np.abs(steps(model) - steps(other)).max() > 1e-2


def test_the_block_of_its_own_counts(without_graphs):  # noqa: F811
    mine, llama = build(embedding_multiplier=1.0, logit_cap=None), with_values(LlamaForCausalLM(LlamaConfig(**SIZES)))
    assert np.abs(mine(IDS).logits.asnumpy() - llama(IDS).logits.asnumpy()).max() > 1e-2
    assert np.abs(steps(mine) - steps(llama)).max() > 1e-2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_trains(checkpointing):
    model = build().set_train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    step = TrainStep(model, AdamW(model.trainable_params(), learning_rate=0.01), max_grad_norm=1.0)
    losses = [step(IDS).loss for _ in range(5)]
    assert losses[-1] < losses[0] - 0.1


def test_a_folder_comes_back_through_the_auto_classes(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is MyLlamaForCausalLM
    assert again.config.embedding_multiplier == 3.0 and again.config.logit_cap == 2.0
    np.testing.assert_array_equal(steps(again), steps(model))


def test_a_cap_that_cannot_be_meant():
    with pytest.raises(ConfigError, match="logit_cap must be above 0 or null, but is -1"):
        MyLlamaConfig(**SIZES, logit_cap=-1)
    with pytest.raises(ConfigError, match="logit_cap"):
        MyLlamaConfig(**SIZES, logit_cp=3.0)


@pytest.mark.slow
def test_the_command_of_its_yaml(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "run_mindformer.py"), "--config",
                           str(ROOT / "research/_template/pretrain_my_llama.yaml"), "--register_path",
                           str(ROOT / "research/_template"), "--output_dir", str(tmp_path / "output"), "--options",
                           "runner_config.stop_step=3", f"train_dataset.data_loader.dataset_dir={tmp_path / 'data'}"],
                          capture_output=True, text=True, timeout=600, check=False, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "output" / "checkpoint" / "rank_0").glob("my_llama*.ckpt"))
