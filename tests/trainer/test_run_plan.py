"""Batch sizes, steps and warm-up of a run."""
import pytest

from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.trainer.run_plan import (batch_sizes, check_runnable, check_sink_size, parallel_mode_name,
                                          planned_steps, schedule_args)


@pytest.mark.parametrize("mode, parallel, full_batch, interleave, per_process, everywhere", [
    ("stand_alone", {}, True, 1, 12, 12),
    ("data_parallel", {"data_parallel": 5}, True, 1, 12, 96),
    ("semi_auto_parallel", {"data_parallel": 2}, True, 2, 48, 48),
    ("semi_auto_parallel", {"data_parallel": 2}, False, 2, 24, 192),
    ("auto_parallel", {"data_parallel": 2, "micro_batch_num": 7}, True, 1, 24, 24),
])
def test_batch_sizes(mode, parallel, full_batch, interleave, per_process, everywhere):
    runner = {"batch_size": 4, "gradient_accumulation_steps": 3}
    sizes = batch_sizes(runner, mode, 8 if mode != "stand_alone" else 1, parallel, full_batch, interleave)
    assert (sizes.micro, sizes.accumulation) == (4, 3)
    assert (sizes.per_process, sizes.global_) == (per_process, everywhere)


def test_pipeline_stages_count_micro_batches():
    parallel = {"data_parallel": 2, "pipeline_stage": 2, "micro_batch_num": 4}
    assert batch_sizes({"batch_size": 3}, "semi_auto_parallel", 8, parallel).global_ == 24
    assert batch_sizes({"batch_size": 3}, "semi_auto_parallel", 8, parallel, full_batch=False).global_ == 96
    with pytest.raises(ConfigError, match="micro_batch_num"):
        batch_sizes({"batch_size": 3, "gradient_accumulation_steps": 2}, "semi_auto_parallel", 8, parallel)


@pytest.mark.parametrize("runner", [{"batch_size": 0}, {"batch_size": "4"}, {"gradient_accumulation_steps": 1.5},
                                    {"gradient_accumulation_steps": True}])
def test_batch_sizes_must_be_positive_integers(runner):
    with pytest.raises(ConfigError, match=next(iter(runner))):
        batch_sizes(runner, "stand_alone", 1)


def test_planned_steps():
    assert planned_steps({"epochs": 3}, 7) == (21, 21)
    assert planned_steps({"epochs": 3, "stop_step": 5}, 7) == (21, 5)
    assert planned_steps({"epochs": 3, "stop_step": 500}, 7) == (21, 21)
    with pytest.raises(ConfigError, match="epochs"):
        planned_steps({"epochs": 0}, 7)
    with pytest.raises(ConfigError, match="stop_step"):
        planned_steps({"stop_step": -1}, 7)


def test_warm_up_ratio_wins_over_epochs_over_steps():
    base = {"type": "CosineWithWarmUpLR", "warmup_steps": 1, "total_steps": -1}
    assert schedule_args(base, 100, 20)["warmup_steps"] == 1
    assert schedule_args({**base, "warmup_epochs": 2}, 100, 20)["warmup_steps"] == 40
    both = schedule_args({**base, "warmup_epochs": 2, "warmup_ratio": 0.1}, 100, 20)
    assert both == {"type": "CosineWithWarmUpLR", "warmup_steps": 10, "total_steps": 100}
    assert schedule_args({"warmup_ratio": 0, "total_steps": 50}, 100, 20) == {"warmup_steps": 0, "total_steps": 50}
    assert base == {"type": "CosineWithWarmUpLR", "warmup_steps": 1, "total_steps": -1}
    for wrong in ({"warmup_ratio": 1.5}, {"warmup_ratio": True}, {"warmup_epochs": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            schedule_args(wrong, 100, 20)


def test_modes_have_one_name():
    assert [parallel_mode_name(mode) for mode in (None, 0, "DATA_PARALLEL", 1, "stand_alone")] == [
        "semi_auto_parallel", "data_parallel", "data_parallel", "semi_auto_parallel", "stand_alone"]
    with pytest.raises(ConfigError, match="parallel_mode 9"):
        parallel_mode_name(9)


def test_sharded_models_are_refused_by_name():
    check_runnable("data_parallel", {"data_parallel": 8}, "CPU")
    with pytest.raises(UnsupportedError, match="parallel_mode: 0"):
        check_runnable("semi_auto_parallel", {}, "CPU")
    with pytest.raises(UnsupportedError, match="model_parallel"):
        check_runnable("data_parallel", {"model_parallel": 2}, "CPU")


def test_sink_size_is_minus_one_or_positive():
    for good in (None, -1, 1, 20):
        check_sink_size({"sink_size": good})
    for bad in (0, -2, 1.0, True):
        with pytest.raises(ConfigError, match="sink_size"):
            check_sink_size({"sink_size": bad})
