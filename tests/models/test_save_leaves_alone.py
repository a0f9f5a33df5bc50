"""Saving and building change no live configuration, and no two configurations share a part."""
import copy

import mindspore as ms
import pytest

from mindformers import AutoConfig, AutoModelForCausalLM
from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.models.llama.llama_config import LlamaConfig

SIZES = {"num_layers": 1, "hidden_size": 16, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 32, "param_init_type": "float32", "compute_dtype": "float32", "mystery": [1, 2],
         "parallel_config": {"data_parallel": 2}, "extend_method": "PI", "scaling_factor": 2.0}


def state(config):
    return copy.deepcopy(vars(config))


@pytest.fixture(scope="module")
def model():
    ms.set_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


@pytest.mark.parametrize("options", [{}, {"names": "mindformers"}, {"format": "ckpt"}, {"safe_serialization": False}],
                         ids=str)
def test_the_live_config_after_saving_a_model(model, options, tmp_path):
    config, before, generation = model.config, state(model.config), model.generation_config.to_dict()
    model.save_pretrained(str(tmp_path), **options)
    assert model.config is config and state(config) == before
    assert "type" not in vars(config) and "architectures" in vars(config)
    assert model.generation_config.to_dict() == generation


def test_the_live_config_after_a_save_that_fails(model, tmp_path, monkeypatch):
    before = state(model.config)
    monkeypatch.setattr("mindformers.models.pretrained_io.save_weights", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(str(tmp_path))
    assert state(model.config) == before


@pytest.mark.parametrize("save_json", [True, False])
def test_the_live_config_after_saving_it(save_json, tmp_path):
    config = LlamaConfig(**SIZES)
    before = state(config)
    path = config.save_pretrained(str(tmp_path), save_json=save_json)
    assert state(config) == before
    config.to_dict()["mystery"].append(3)
    config.to_hf_dict()["mystery"].append(3)
    assert state(config) == before
    again = AutoConfig.from_pretrained(path)
    assert again.mystery == [1, 2] and again.scaling_factor == 2.0


def test_building_a_model_changes_no_config():
    config = LlamaConfig(**SIZES)
    before = state(config)
    first, second = AutoModelForCausalLM.from_config(config), AutoModelForCausalLM.from_config(config, num_layers=2)
    assert state(config) == before and (first.config.num_layers, second.config.num_layers) == (1, 2)


def test_no_two_configs_share_a_part():
    one, two = LlamaConfig(), LlamaConfig()
    one.parallel_config.data_parallel = 7
    one.moe_config.capacity_factor = 9.0
    assert two.parallel_config.data_parallel == 1 and two.moe_config.capacity_factor != 9.0
    given = {"data_parallel": 2}
    first, second = LlamaConfig(parallel_config=given), LlamaConfig(parallel_config=given)
    first.parallel_config.data_parallel = 5
    assert second.parallel_config.data_parallel == 2 and given == {"data_parallel": 2}
    ends = [1, 2]
    held = LlamaConfig(eos_token_id=ends)
    held.eos_token_id.append(3)
    assert ends == [1, 2]


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}], ids=str)
def test_models_loaded_with_one_config_share_nothing(model, options, tmp_path):
    model.save_pretrained(str(tmp_path))
    config = AutoConfig.from_pretrained(str(tmp_path))
    before = state(config)
    one, two = (AutoModelForCausalLM.from_pretrained(str(tmp_path), config=config, **options) for _ in range(2))
    one.resize_token_embeddings(44)
    assert (one.config.vocab_size, two.config.vocab_size) == (44, 40) and state(config) == before
    assert two([[39]]).logits.shape == (1, 1, 40) and one([[43]]).logits.shape == (1, 1, 44)


def test_a_built_model_has_a_config_of_its_own():
    config = LlamaConfig(**SIZES)
    built = LlamaForCausalLM._from_config(config)
    assert built.config == config and built.config is not config
    assert LlamaForCausalLM(config).config is config
