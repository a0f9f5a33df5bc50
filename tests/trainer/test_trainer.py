"""Trainer: what it takes and refuses, and its verbs on a tiny model."""
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from mindspore import nn, ops
from mindspore.train.callback import Callback, LossMonitor, TimeMonitor

from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError
from mindformers.tools.register import MindFormerConfig
from mindformers.trainer import (GeneralTaskTrainer, Trainer, TrainingArguments, build, build_trainer,
                                 get_last_checkpoint)
from trainer_helpers import arrays, checkpoint, tiny_config, write_tokens


class TwoLayers(nn.Cell):
    """A user's network: a regression whose construct returns the mean loss."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(3, 1)

    def construct(self, x, y):
        return ops.reduce_mean(ops.square(self.dense(x) - y))


class Rows:
    """A user's dataset: 12 rows of a linear function."""

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=3).astype(np.float32)
        return {"x": x, "y": np.array([x.sum()], np.float32)}

    def __len__(self):
        return 12


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained tiny model: (folder, Trainer)."""
    folder = tmp_path_factory.mktemp("trained")
    trainer = Trainer(tiny_config(folder, context__mode=0, runner_config__epochs=6))
    trainer.train()
    return folder, trainer


def losses(folder):
    return np.loadtxt(folder / "out" / "loss.csv", delimiter=",", skiprows=1)[:, 1]


# ---- what is given ----

@pytest.mark.parametrize("arguments, error, message", [
    ({}, ValueError, "Neither `task`, `model`, `model_name`, nor `args` are configured"),
    ({"task": "text_generatio"}, ValueError, "Did you mean 'text_generation'"),
    ({"task": "image_classification"}, UnsupportedError, "use 'text_generation'"),
    ({"task": "text_generation", "model": "llama_tiney"}, ValueError, "Did you mean 'llama_tiny'"),
    ({"task": "text_generation", "model_name": "gpt9"}, ValueError, "is not support in task"),
    ({"args": TrainingArguments()}, ValueError, "`model` must be a network"),
    ({"args": "absent.yaml"}, ValueError, "config path must be exist"),
    ({"args": 3}, TypeError, "args must be"),
    ({"task": "text_generation", "pet_method": "lora"}, UnsupportedError, "pet_method 'lora'"),
    ({"task": "text_generation", "image_processor": object()}, UnsupportedError, "image_processor"),
    ({"task": "text_generation", "model": 3}, ValueError, "model must be a network"),
])
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Trainer(**arguments)


def test_yaml_path_and_its_faults(tmp_path):
    (tmp_path / "config.txt").write_text("seed: 1\n")
    with pytest.raises(ValueError, match="must be end with .yaml or .yml"):
        Trainer(str(tmp_path / "config.txt"))
    config = tiny_config(tmp_path).to_dict()
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(config))
    assert Trainer(str(tmp_path / "good.yaml")).config.runner_config.epochs == 2
    config.update(use_paralel=True, runner_config={"epochs": "two"})
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="(?s)use_parallel.*epochs|epochs.*use_parallel"):
        Trainer(str(tmp_path / "bad.yaml"))


def test_datasets_and_callbacks_are_checked(tmp_path):
    with pytest.raises(ValueError, match="train_dataset path must be exist"):
        Trainer(tiny_config(tmp_path), train_dataset=str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="a callback must be"):
        Trainer(tiny_config(tmp_path), callbacks=["LossMonitor"])
    trainer = Trainer(tiny_config(tmp_path), callbacks=LossMonitor())
    trainer.add_callback(TimeMonitor)
    assert trainer.callback_list == "LossMonitor\nTimeMonitor"
    assert isinstance(trainer.pop_callback(TimeMonitor), TimeMonitor)
    trainer.remove_callback(LossMonitor)
    assert trainer.callback_list == "" and trainer.pop_callback(TimeMonitor) is None


def test_load_checkpoint_is_checked(tmp_path):
    trainer = Trainer(tiny_config(tmp_path))
    with pytest.raises(TypeError, match="should be a str"):
        trainer.get_load_checkpoint(3)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        trainer.get_load_checkpoint(str(tmp_path / "absent.ckpt"))
    with pytest.raises(ValueError, match="must be a .ckpt or .safetensors"):
        trainer.get_load_checkpoint(write_tokens(tmp_path / "x.npy", 9))
    assert trainer.get_load_checkpoint(str(tmp_path)) == str(tmp_path.resolve())
    assert trainer.get_last_checkpoint() is None
    with pytest.raises(NotADirectoryError):
        get_last_checkpoint(str(tmp_path / "absent"))


def test_task_configuration_of_the_shipped_model():
    config = Trainer.get_task_config("text_generation", "llama_tiny")
    assert isinstance(config, MindFormerConfig) and config.run_mode == "train"
    with pytest.raises(ValueError, match="is not support in task"):
        Trainer.get_task_config("text_generation", "llama_huge")


def test_parallel_and_recompute_sections(tmp_path):
    trainer = Trainer(tiny_config(tmp_path))
    trainer.set_parallel_config(data_parallel=2, micro_batch_num=3)
    trainer.set_recompute_config(recompute=True)
    assert trainer.config.parallel_config.data_parallel == 2 and trainer.config.parallel_config.vocab_emb_dp is True
    assert trainer.config.recompute_config.recompute is True
    assert trainer.config.recompute_config.mp_comm_recompute is True


@pytest.mark.parametrize("value, on", [(True, True), ([0, 4], True), (False, False), ([0, 0], False), (None, False)])
def test_recompute_is_gradient_checkpointing(value, on):
    asked = []
    network = SimpleNamespace(gradient_checkpointing_enable=lambda: asked.append(True))
    build.recompute({"recompute_config": {"recompute": value}}, network)
    build.recompute({}, network)
    assert bool(asked) is on
    with pytest.raises(UnsupportedError, match="object cannot run its layers again"):
        build.recompute({"recompute_config": {"recompute": True}}, object())


def test_trainers_by_name():
    assert isinstance(build_trainer({"type": "GeneralTaskTrainer"}), GeneralTaskTrainer)
    assert build_trainer() is None
    with pytest.raises(UnsupportedError, match="ImageClassificationTrainer is not carried"):
        build_trainer({"type": "ImageClassificationTrainer"})
    with pytest.raises(ValueError, match="Did you mean 'GeneralTaskTrainer'"):
        build_trainer({"type": "GeneralTaskTrainr"})


# ---- verbs ----

def test_training_learns_and_leaves_its_results(trained):
    folder, trainer = trained
    course = losses(folder)
    assert len(course) == 30 and course[-5:].mean() < course[:5].mean() - 0.3
    out = folder / "out"
    names = {path.name for path in out.iterdir()}
    assert {"checkpoint", "checkpoint_network", "config.yaml", "log", "loss.csv"} <= names
    assert trainer.get_last_checkpoint() == str(checkpoint(folder, 6, 5))
    written = yaml.safe_load((out / "config.yaml").read_text())
    assert written["runner_config"]["epochs"] == 6 and written["seed"] == 0


def test_evaluation_counts_every_token_of_the_whole_set(trained):
    """Against logits of the model and numpy; the last batch is short and a part of its last row is padding."""
    folder, trainer = trained
    held_out = write_tokens(folder / "eval.npy", 7 * 12 + 5, seed=9)
    trainer.config.merge_from_dict({
        "eval_dataset": {"data_loader": {"type": "NumpyTokens", "dataset_dir": held_out, "seq_length": 12,
                                         "shuffle": False, "pad_token_id": 39},
                         "input_columns": ["input_ids", "labels"], "drop_remainder": False},
        "eval_dataset_task": {"type": "CausalLanguageModelDataset"}})
    result = trainer.evaluate()
    total, count = 0.0, 0
    for batch in trainer.get_eval_dataloader().create_dict_iterator(num_epochs=1, output_numpy=True):
        tokens, labels = batch["input_ids"], batch["labels"]
        logits = trainer.model(tokens[:, :-1]).logits.asnumpy().astype(np.float64)
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        real = (labels[:, 1:] != -100) & (tokens[:, :-1] != 39)
        total -= np.take_along_axis(logs, np.where(real, labels[:, 1:], 0)[..., None], -1)[..., 0][real].sum()
        count += real.sum()
    assert count == 7 * 12 + 4
    np.testing.assert_allclose(result["loss"], total / count, rtol=2e-6)
    np.testing.assert_allclose(result["PPL"], np.exp(total / count), rtol=2e-5)


def test_finetune_starts_from_the_given_weights(trained, tmp_path):
    path = str(checkpoint(trained[0], 6, 5))
    with pytest.raises(ConfigError, match="finetune needs weights"):
        Trainer(tiny_config(tmp_path)).finetune()
    frozen = tiny_config(tmp_path, context__mode=1, runner_config__stop_step=1, lr_schedule__learning_rate=0.0)
    Trainer(frozen).finetune(finetune_checkpoint=path)
    before, after = arrays(path), arrays(checkpoint(tmp_path, 1, 1))
    names = [name for name in before if name.startswith("model.")]
    assert names and all(np.array_equal(before[name], after[name]) for name in names)


def test_weights_that_do_not_fit_are_one_clear_error(trained, tmp_path):
    config = tiny_config(tmp_path, model__model_config__num_layers=2)
    with pytest.raises(CheckpointMismatchError, match="model.layers.1"):
        Trainer(config).finetune(finetune_checkpoint=str(checkpoint(trained[0], 6, 5)))


def test_seed_zero_is_a_seed_and_seeds_matter(tmp_path):
    def initial(name, seed):
        (tmp_path / name).mkdir()
        trainer = Trainer(tiny_config(tmp_path / name, write_tokens(tmp_path / "t.npy", 241), seed=seed))
        trainer.trainer.set_seed()
        return trainer.trainer.create_network().model.tok_embeddings.embedding_weight.asnumpy()
    first, again, other = initial("a", 0), initial("b", 0), initial("c", 1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_loss_that_is_no_number_ends_the_run(tmp_path):
    config = tiny_config(tmp_path, context__mode=1, check_for_nan_in_loss_and_grad=True)
    config.callbacks[1]["save_checkpoint_steps"] = 1

    class Poison(Callback):
        """Makes a weight NaN after step 2."""

        def on_train_step_end(self, run_context):
            params = run_context.original_args()
            if params.cur_step_num == 2:
                weight = params.network.model.norm_out.weight
                weight.set_data(weight * float("nan"))

    with pytest.raises(ValueError, match="terminate training"):
        Trainer(config, callbacks=Poison()).train()
    assert not checkpoint(tmp_path, 1, 3).exists()  # the bad step is not saved


def test_own_network_and_data(tmp_path, caplog):
    config = MindFormerConfig(
        seed=1, output_dir=str(tmp_path / "out"), context={"device_target": "CPU"}, optimizer={"type": "AdamW"},
        lr_schedule={"type": "CosineWithWarmUpLR", "learning_rate": 0.1, "total_steps": -1},
        runner_config={"epochs": 20, "batch_size": 4},
        callbacks=[{"type": "CheckpointMonitor", "save_checkpoint_steps": 100}])
    with caplog.at_level(logging.INFO):
        trainer = Trainer(config, model=TwoLayers(), train_dataset=Rows(), eval_dataset=Rows())
        assert trainer.train() == 60
    assert losses(tmp_path)[-1] < 0.05 < losses(tmp_path)[0]
    assert trainer.evaluate()["loss"] < 0.05


def test_training_arguments_with_own_network(tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, batch_size=6, num_train_epochs=2,
                                  learning_rate=0.05, scale_sense=1.0, save_strategy="no", seed=0)
    assert Trainer(arguments, model=TwoLayers(), train_dataset=Rows()).train() == 4


MODES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mindspore as ms
from trainer_helpers import tiny_config
from mindformers.trainer import Trainer
Trainer(tiny_config(Path(sys.argv[2]), runner_config__stop_step=1, context__mode=1)).train()
print("mode", ms.get_context("mode"))
"""


def test_the_mode_of_the_configuration_holds_in_the_first_run_of_a_process(tmp_path):
    """Importing models chooses graphs where nothing has been chosen, and comes after the configuration."""
    done = subprocess.run([sys.executable, "-c", MODES, str(Path(__file__).parent), str(tmp_path)], text=True,
                          capture_output=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "mode 1"
