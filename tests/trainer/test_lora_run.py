"""Runs with model_config.pet_config: what trains, what is written, resuming, and predicting with the adapters."""
import csv
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from trainer_helpers import arrays, checkpoint, differing, tiny_config

from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.pet import LoraConfig, get_pet_model
from mindformers.pet.tuners.pet_adapter import ADAPTER_MARK
from mindformers.trainer import Trainer

PET = {"pet_type": "lora", "lora_rank": 2, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": ".*wq|.*wv|.*w2"}
TOKENS = np.array([[3, 4, 5, 6, 7]], np.int32)


def losses_of(folder):
    """The losses in loss.csv of a run's folder, by step."""
    with open(folder / "loss.csv", encoding="utf-8", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder with data and the weights of a base model; the run of one epoch on it with adapters, and one cut short."""
    folder = tmp_path_factory.mktemp("lora")
    tokens = str(folder / "tokens.npy")
    np.save(tokens, np.tile([3, 9, 4, 7, 5, 11], 41)[:20 * 12 + 1].astype(np.uint16))  # which can be learned
    settings = {key: value for key, value in tiny_config(folder, tokens).model.model_config.to_dict().items()
                if key != "type"}
    ms.set_seed(4)
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder / "base")
    train(folder / "whole", tokens)
    return folder, tokens


def train(folder, tokens, **overrides):
    folder.mkdir(exist_ok=True)
    options = {"run_mode": "finetune", "load_checkpoint": str(folder.parent / "base"),
               "model__model_config__pet_config": PET, "lr_schedule__learning_rate": 0.05, **overrides}
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
    losses = losses_of(folder / "whole" / "out")
    assert losses[-1] < losses[0] - 0.1


def test_a_resumed_run_equals_the_uninterrupted_one(base):
    folder, tokens = base
    train(folder / "cut", tokens, runner_config__stop_step=6)
    train(folder / "cut", tokens, resume_training=True, load_checkpoint=str(folder / "cut" / "out" / "checkpoint"))
    assert differing(arrays(checkpoint(folder / "whole", 2, 5)), arrays(checkpoint(folder / "cut", 2, 5))) == []


def model_of(config_folder, tokens, **overrides):
    """The network that predict builds, weights loaded."""
    config = tiny_config(config_folder, tokens, run_mode="predict", context__mode=1, **overrides)
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


def launch(*arguments):
    """Run run_mindformer.py on the shipped model with adapters."""
    root = Path(__file__).resolve().parents[2]
    config = "configs/tiny/lora_llama_tiny.yaml"
    command = [sys.executable, "run_mindformer.py", "--config", config, *map(str, arguments)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_shipped_model_learns_a_style_through_the_launcher(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    text = "".join(f"def answer_{i}(question):\n    return 'the {i}th answer', question\n\n\n" for i in range(350))
    (data / "style.py").write_text(text)
    common = ("--run_mode", "finetune", "--train_dataset_dir", data, "--output_dir", tmp_path / "out")
    batches = ("--options", "runner_config.batch_size=2")
    launch(*common, *batches, "runner_config.stop_step=4")
    launch(*common, "--resume_training", "True", "--load_checkpoint", tmp_path / "out" / "checkpoint", *batches)
    losses = losses_of(tmp_path / "out")
    assert len(losses) >= 5 and losses[-1] < losses[0] - 0.5
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").is_file()
