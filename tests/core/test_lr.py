"""Schedules: MindFormers' check values, ends, and wrong arguments."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindformers.core import lr as schedules
from mindformers.core.lr import build_lr

COMMON = {"learning_rate": 0.005, "warmup_steps": 10, "total_steps": 20}


def rate(schedule, step):
    return float(schedule(Tensor([step], ms.int32)).asnumpy().reshape(()))


@pytest.mark.parametrize("name, args, values", [
    ("constant_with_warmup", COMMON, (0.0005, 0.005, 0.005)),
    ("linear", COMMON, (0.0005, 0.005, 0.0005)),
    ("cosine", COMMON, (0.0005, 0.005, 0.00012236)),
    ("cosine_with_restarts", COMMON, (0.0005, 0.005, 0.00012236)),
    ("polynomial", {**COMMON, "lr_end": 1e-7}, (0.0005, 0.005, 0.00050009)),
    ("cosine_annealing", {"base_lr": 0.005, "t_max": 10, "eta_min": 1e-7}, (0.00487764, 1e-7, 0.00487764)),
    ("cosine_annealing_warm_restarts", {"base_lr": 0.005, "t_0": 10, "t_mult": 2, "eta_min": 1e-7},
     (0.00487764, 0.005, 0.00289113)),
    ("WarmUpStableDecayLR", {**COMMON, "decay_start_steps": 15, "lr_end": 0.0}, (0.0005, 0.005, 0.001)),
    ("ConstantWithCoolDownLR", {"learning_rate": 0.005, "warmup_steps": 5, "keep_steps": 4, "decay_steps": 10,
                                "lr_end1": 0.001}, (0.001, 0.00490211, 0.001)),
])
def test_check_values(name, args, values):
    schedule = build_lr({"type": name, **args})
    for step, value in zip((1, 10, 19), values):
        assert abs(rate(schedule, step) - value) < 1e-8


def test_the_other_shape_misses_the_check_values():
    cosine, linear = build_lr({"type": "cosine", **COMMON}), build_lr({"type": "linear", **COMMON})
    assert abs(rate(cosine, 19) - rate(linear, 19)) > 1e-4


@pytest.mark.parametrize("name", ["CosineWithWarmUpLR", "CosineWithRestartsAndWarmUpLR", "PolynomialWithWarmUpLR"])
def test_ends_at_lr_end_and_stays(name):
    schedule = build_lr({"type": name, **COMMON, "lr_end": 1e-4})
    for step in (21, 40, 10 ** 6):
        assert abs(rate(schedule, step) - 1e-4) < 1e-9


@pytest.mark.parametrize("name", ["CosineWithWarmUpLR", "LinearWithWarmUpLR", "WarmUpStableDecayLR",
                                  "PolynomialWithWarmUpLR", "ConstantWarmUpLR"])
def test_without_warmup_step_zero_has_the_full_rate(name):
    extra = {"decay_start_ratio": 0.5} if name == "WarmUpStableDecayLR" else {}
    schedule = build_lr({"type": name, "learning_rate": 0.01, "total_steps": 100, "warmup_ratio": 0, **extra})
    assert abs(rate(schedule, 0) - 0.01) < 1e-8


def test_ratio_wins_over_steps_and_init_is_where_it_starts():
    schedule = schedules.LinearWithWarmUpLR(1.0, total_steps=100, warmup_steps=3, warmup_ratio=0.1, warmup_lr_init=0.5)
    assert schedule.warmup_steps == 10
    assert rate(schedule, 0) == 0.5
    assert abs(rate(schedule, 5) - 0.75) < 1e-6


def test_cool_down_holds_and_then_falls_to_the_last_rate():
    schedule = schedules.ConstantWithCoolDownLR(1.0, warmup_steps=0, keep_steps=2, decay_steps=4, final_steps=3,
                                                lr_end1=0.2, lr_end2=0.1)
    assert [round(rate(schedule, step), 6) for step in (0, 2, 4, 6, 8, 9, 50)] == [1.0, 1.0, 0.6, 0.2, 0.2, 0.1, 0.1]


def test_decay_steps_alone_is_enough_and_wise_layer_scales():
    schedule = schedules.CosineWithWarmUpLR(0.01, decay_steps=50)
    assert abs(rate(schedule, 25) - 0.005) < 1e-7
    assert abs(rate(schedules.LearningRateWiseLayer(schedule, 0.5), 25) - 0.0025) < 1e-7


def test_warm_restarts_begin_exactly_at_the_full_rate():
    schedule = schedules.CosineAnnealingWarmRestarts(1.0, 3, t_mult=3)
    for start in (0, 3, 12, 39, 120):
        assert rate(schedule, start) == 1.0
        assert start == 0 or rate(schedule, start - 1) < 0.3


@pytest.mark.parametrize("args, error", [
    ({"warmup_steps": None}, TypeError), ({"warmup_steps": -1}, ValueError), ({"warmup_ratio": 1.5}, ValueError),
    ({"warmup_ratio": "0.1"}, TypeError), ({"learning_rate": None}, TypeError), ({"total_steps": None}, ValueError),
    ({"lr_end": -1.0}, ValueError),
])
def test_wrong_arguments(args, error):
    with pytest.raises(error):
        schedules.CosineWithWarmUpLR(**{**COMMON, **args})


def test_wrong_arguments_of_single_schedules():
    with pytest.raises(ValueError, match="total_steps"):
        schedules.ConstantWarmUpLR(0.1, warmup_ratio=0.1)
    with pytest.raises(ValueError, match="lr_end"):
        schedules.PolynomialWithWarmUpLR(1e-8, 10, 0)
    for bad in ({"t_0": 0}, {"t_0": 1, "t_mult": 0}):
        with pytest.raises(ValueError):
            schedules.CosineAnnealingWarmRestarts(0.1, **bad)
    with pytest.raises(ValueError, match="t_max"):
        schedules.CosineAnnealingLR(0.1, 0)
    with pytest.raises(ValueError, match="warm-up"):
        schedules.WarmUpStableDecayLR(0.1, warmup_steps=5, total_steps=10, decay_start_steps=3)


def test_a_scalar_step_gives_a_scalar():
    assert schedules.ConstantWarmUpLR(0.1, 2)(Tensor(1, ms.int32)).shape == ()
    np.testing.assert_allclose(rate(schedules.ConstantWarmUpLR(0.1, 2), 1), 0.05, rtol=1e-6)
