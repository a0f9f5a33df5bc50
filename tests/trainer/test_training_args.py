"""TrainingArguments: fields, checks, and the configuration they become."""
import dataclasses
import inspect
import json

import numpy as np
import pytest

from mindformers.tools.errors import ConfigError
from mindformers.tools.register import MindFormerConfig
from mindformers.tools.register.schema import check_config
from mindformers.trainer import Trainer, args_to_config
from mindformers.trainer.args_to_config import KEYS
from mindformers.trainer.training_args import TrainingArguments
from mindformers.trainer.utils import (HubStrategy, IntervalStrategy, LoggingIntervalStrategy, LrSchedulerType,
                                       OptimizerType, SaveIntervalStrategy, WrapperType)


def test_fields_have_mindformers_defaults():
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    assert len(defaults) == 139
    expected = {"output_dir": "./output", "seed": 42, "num_train_epochs": 3.0, "optim": "fp32_adamw", "sink_size": 2,
                "learning_rate": 5e-5, "lr_end": 1e-6, "lr_scheduler_type": "cosine", "use_clip_grad": True,
                "scale_sense": "DynamicLossScaleUpdateCell", "loss_scale_value": 65536, "save_prefix": "CKP",
                "save_steps": 500, "save_total_limit": 5, "evaluation_strategy": "no", "capacity_factor": 1.05,
                "layer_decay": 0.65, "dataloader_num_workers": 8, "profile_memory": True, "hub_strategy": "every_save"}
    assert {name: defaults[name] for name in expected} == expected


@pytest.mark.parametrize("enum, values", [
    (IntervalStrategy, ["no", "steps", "epoch"]), (LoggingIntervalStrategy, ["steps", "epoch"]),
    (SaveIntervalStrategy, ["no", "steps", "seconds"]),
    (HubStrategy, ["end", "every_save", "checkpoint", "all_checkpoints"]),
    (LrSchedulerType, ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup"]),
    (OptimizerType, ["AdamWeightDecay", "adamw", "adam", "sgd", "adagrad", "adafactor", "fused_adamw", "fp32_adamw"]),
    (WrapperType, ["mf_wrapper", "wrapper", "loss_scale_wrapper"])])
def test_enumerations(enum, values):
    assert [member.value for member in enum] == values
    with pytest.raises(ValueError, match="please select one of"):
        enum("nothing")


@pytest.mark.parametrize("wrong, message", [
    ({"optim": "adamv"}, "Did you mean 'adam' or 'adamw'"), ({"save_strategy": "epoch"}, "SaveIntervalStrategy"),
    ({"logging_steps": 2.5}, "must be an integer if bigger than 1"), ({"save_steps": -1}, "save_steps")])
def test_wrong_values(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainingArguments(**wrong)


def test_table_names_fields():
    names = {field.name for field in dataclasses.fields(TrainingArguments)} | {"train_batch_size"}
    assert set(KEYS) <= names


def test_configuration():
    args = TrainingArguments(output_dir="out", batch_size=4, num_train_epochs=2, optim="adamw", adam_beta2=0.95,
                             use_cpu=True, lr_scheduler_type="cosine", learning_rate=1e-3, warmup_ratio=0.1,
                             weight_decay=0.1, train_dataset="rows.mindrecord", scale_sense=1.0,
                             train_dataset_in_columns=["input_ids"], save_steps=7, save_total_limit=2,
                             logging_steps=5, parallel_mode=0)
    config = args.convert_args_to_mindformers_config()
    assert config.runner_config.epochs == 2 and config.runner_config.batch_size == 4
    assert config.context.device_target == "CPU"
    assert config.optimizer == {"type": "adamw", "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    assert config.lr_schedule == {"type": "cosine", "learning_rate": 1e-3, "total_steps": -1, "warmup_lr_init": 0.0,
                                  "warmup_steps": 0, "lr_end": 1e-6, "warmup_ratio": 0.1}
    assert config.runner_wrapper.to_dict() == {"type": "MFTrainOneStepCell", "scale_sense": 1.0, "use_clip_grad": True,
                                               "max_grad_norm": 1.0}
    assert config.train_dataset.data_loader.to_dict() == {"type": "MindDataset", "dataset_dir": "rows.mindrecord",
                                                          "shuffle": True}
    assert config.train_dataset_task.type == "CausalLanguageModelDataset"
    assert config.callbacks[0].to_dict() == {"type": "MFLossMonitor", "per_print_times": 5}
    assert config.callbacks[1].save_checkpoint_steps == 7 and config.callbacks[1].keep_checkpoint_max == 2
    checked = check_config(config, "TrainingArguments", complete=False)  # and the schema takes all of it
    assert checked.config.seed == 42


def test_device_is_one_that_the_machine_has(monkeypatch):
    def device(machine):
        monkeypatch.setattr(args_to_config, "machine_devices", lambda: machine)
        return TrainingArguments().convert_args_to_mindformers_config().context.device_target
    assert device({"CPU"}) == "CPU" and device({"CPU", "Ascend"}) == "Ascend"


def test_arguments_win_over_the_task_configuration():
    base = MindFormerConfig(seed=1, runner_config={"epochs": 9, "stop_step": 3}, train_dataset={"data_loader": {
        "type": "TextFilesDataLoader", "dataset_dir": "a", "max_length": 65}},
        callbacks=[{"type": "MFLossMonitor"}, {"type": "TimeMonitor"}])
    config = TrainingArguments(train_dataset="b").convert_args_to_mindformers_config(base)
    assert (config.seed, config.runner_config.epochs, config.runner_config.stop_step) == (42, 3, 3)
    loader = config.train_dataset.data_loader
    assert (loader.type, loader.dataset_dir, loader.max_length) == ("TextFilesDataLoader", "b", 65)
    assert [section["type"] for section in config.callbacks] == ["MFLossMonitor", "CheckpointMonitor", "TimeMonitor"]


def test_evaluation_and_saving_strategies():
    def convert(**kwargs):
        return TrainingArguments(**kwargs).convert_args_to_mindformers_config()
    assert convert(evaluation_strategy="epoch", eval_epochs=2).eval_epoch_interval == 2
    assert convert(evaluation_strategy="steps", eval_steps=30).eval_step_interval == 30
    share = convert(evaluation_strategy="steps", eval_steps=0.25)
    assert share.do_eval and share.callbacks[-1].to_dict() == {"type": "EvalCallBack", "step_interval": 0.25}
    assert [section["type"] for section in convert(save_strategy="no").callbacks] == ["MFLossMonitor"]
    assert convert(save_strategy="seconds", save_seconds=90).callbacks[1].save_checkpoint_seconds == 90


def test_what_is_not_carried_is_refused():
    config = TrainingArguments(push_to_hub=True, hub_token="secret").convert_args_to_mindformers_config()
    assert "secret" not in str(config)
    with pytest.raises(ConfigError, match="num_train_epochs"):
        TrainingArguments(num_train_epochs=1.5).convert_args_to_mindformers_config()


def test_setters_keep_their_defaults_and_return_self():
    args = TrainingArguments().set_training(batch_size=3).set_optimizer("adam", weight_decay=0.2)
    args = args.set_lr_scheduler("linear", warmup_steps=5).set_save(steps=9).set_logging(steps=2).set_dataloader(6, 7)
    args = args.set_evaluate("epoch").set_testing(5)
    assert (args.train_batch_size, args.eval_batch_size, args.optim, args.weight_decay) == (6, 5, "adam", 0.2)
    assert (args.lr_scheduler_type, args.warmup_steps, args.save_steps, args.logging_steps) == ("linear", 5, 9, 2)
    assert args.do_train and args.do_eval and args.do_predict
    assert inspect.signature(TrainingArguments.set_training).parameters["seed"].default == 42
    with pytest.raises(ValueError, match="positive value"):
        args.set_save(steps=0)


def test_warm_up_steps_and_json():
    assert TrainingArguments(warmup_ratio=0.25).get_warmup_steps(40) == 10
    assert TrainingArguments(warmup_ratio=0.25, warmup_steps=3).get_warmup_steps(40) == 3
    values = json.loads(TrainingArguments(hub_token="secret").to_json_string())
    assert values["hub_token"] == "<HUB_TOKEN>" and values["optim"] == "fp32_adamw"


def test_text_where_a_number_is_meant():
    with pytest.raises(ValueError, match="num_train_epochs must be a number, but is '3'; warmup_steps must be a whole "
                                         "number, but is 2.5"):
        TrainingArguments(num_train_epochs="3", warmup_steps=2.5)
    for value in (True, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number, but is {value}"):
            TrainingArguments(batch_size=value)
    assert TrainingArguments(warmup_steps=np.int64(3), learning_rate=1, max_grad_norm=None).warmup_steps == 3


def test_a_wrong_value_is_said_to_be_of_the_arguments(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, learning_rate=-1.0)
    with pytest.raises(ConfigError, match="^TrainingArguments: lr_schedule.learning_rate: must be at least 0, but got "):
        Trainer(args=args, task="text_generation", model="llama_tiny")
