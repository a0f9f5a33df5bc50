"""Runs with model_config.pet_config: what trains, what is written, resuming, and predicting with the adapters."""
import numpy as np
import pytest
from trainer_helpers import arrays, checkpoint, differing, tiny_config, write_tokens

from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.pet import LoraConfig, get_pet_model
from mindformers.pet.tuners.pet_adapter import ADAPTER_MARK
from mindformers.trainer import Trainer

PET = {"pet_type": "lora", "lora_rank": 2, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ".*wq|.*wv|.*w2"}
TOKENS = np.array([[3, 4, 5, 6, 7]], np.int32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder with data and the weights of a base model; the run of one epoch on it with adapters, and one cut short."""
    folder = tmp_path_factory.mktemp("lora")
    tokens = write_tokens(folder / "tokens.npy", 20 * 12 + 1)
    settings = {key: value for key, value in tiny_config(folder, tokens).model.model_config.to_dict().items()
                if key != "type"}
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder / "base")
    train(folder / "whole", tokens)
    return folder, tokens


def train(folder, tokens, **overrides):
    folder.mkdir(exist_ok=True)
    options = {"run_mode": "finetune", "load_checkpoint": str(folder.parent / "base"),
               "model__model_config__pet_config": PET, **overrides}
    trainer = Trainer(tiny_config(folder, tokens, **options))
    trainer.finetune()
    return trainer


def test_only_adapters_change_and_the_loss_falls(base):
    folder, _ = base
    trained, start = arrays(checkpoint(folder / "whole", 2, 5)), arrays(folder / "base")
    names = {name for name in trained if ADAPTER_MARK in name}
    assert {name for name in names if not name.startswith("adam")} == {
        f"model.layers.0.{product}.mindpet_delta_lora_{part}" for part in "ab"
        for product in ("attention.wq", "attention.wv", "feed_forward.w2")}
    assert all(ADAPTER_MARK in name for name in trained if name.startswith("adam_")), "no moments of frozen weights"
    weight = trained["model.layers.0.attention.wq.weight"]
    np.testing.assert_array_equal(weight, start["model.layers.0.self_attn.q_proj.weight"])
    assert trained["model.layers.0.attention.wq.mindpet_delta_lora_b"].any()
    losses = [float(row.split(",")[2]) for row in (folder / "whole/out/loss.csv").read_text().splitlines()[1:]]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_resumed_run_equals_the_uninterrupted_one(base):
    folder, tokens = base
    train(folder / "cut", tokens, runner_config__stop_step=6)
    train(folder / "cut", tokens, resume_training=True, load_checkpoint=str(folder / "cut" / "out" / "checkpoint"))
    assert differing(arrays(checkpoint(folder / "whole", 2, 5)), arrays(checkpoint(folder / "cut", 2, 5))) == []


def model_of(config_folder, tokens, **overrides):
    """The network that predict builds, weights loaded."""
    config = tiny_config(config_folder, tokens, run_mode="predict", **overrides)
    trainer = Trainer(config)
    trainer.trainer.set_config(trainer.config)
    return trainer.trainer.network_with_weights("predict")


def test_prediction_has_the_adapters_in_effect(base):
    folder, tokens = base
    pet = {"model__model_config__pet_config": PET}
    whole = model_of(folder / "whole", tokens, load_checkpoint=str(checkpoint(folder / "whole", 2, 5)), **pet)
    expected = whole(TOKENS).logits.asnumpy()
    with_path = {"model__model_config__pet_config": {**PET, "adapter_path": str(folder / "whole/out/adapter")}}
    apart = model_of(folder / "whole", tokens, load_checkpoint=str(folder / "base"), **with_path)
    np.testing.assert_array_equal(apart(TOKENS).logits.asnumpy(), expected)
    plain = LlamaForCausalLM.from_pretrained(str(folder / "base"))
    assert np.abs(plain(TOKENS).logits.asnumpy() - expected).max() > 1e-3, "the adapters count"
    plain.load_adapter(folder / "whole/out/adapter")
    np.testing.assert_allclose(plain(TOKENS).logits.asnumpy(), expected, atol=1e-6)


def test_a_model_with_adapters_is_trained_as_it_is_given(base, tmp_path):
    folder, tokens = base
    model = get_pet_model(LlamaForCausalLM.from_pretrained(str(folder / "base")), LoraConfig(**PET))
    config = tiny_config(tmp_path, tokens, runner_config__epochs=1)
    before = model.model.layers[0].attention.wq.weight.asnumpy().copy()
    Trainer(config, model=model).train()
    np.testing.assert_array_equal(model.model.layers[0].attention.wq.weight.asnumpy(), before)
    assert model.model.layers[0].attention.wq.mindpet_delta_lora_b.asnumpy().any()
