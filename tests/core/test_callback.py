"""Callbacks, driven as a training loop drives them."""
import re
from types import SimpleNamespace

import mindspore as ms
import pytest
from mindspore.train.callback import RunContext
from mindspore.train.callback._callback import InternalCallbackParam

from mindformers.core.callback import (CheckpointMonitor, EvalCallBack, LossCurve, MFLossMonitor, ProfileMonitor,
                                       ProgressMonitor, TrainCallBack, build_callback)
from mindformers.core.callback.loss_curve import read_curve
from mindformers.core.lr import LinearWithWarmUpLR
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger


def output(loss=2.0, lr=0.005, norm=1.5, overflow=False, scale=1.0):
    return SimpleNamespace(loss=loss, overflow=overflow, loss_scale=scale, lr=lr, global_norm=norm)


def run(callbacks, outputs, first_step=0, steps_per_epoch=2, epochs=5, **params):
    """Call the hooks of each step; return the step after which a stop was asked for, or None."""
    values = InternalCallbackParam({"cur_step_num": first_step, "batch_num": steps_per_epoch, "epoch_num": epochs,
                                    "cur_epoch_num": first_step // steps_per_epoch + 1, "device_number": 1,
                                    "dataset_sink_mode": False, "train_dataset_element": (), "net_outputs": None,
                                    **params})
    context = RunContext(values)
    call = lambda hook: [getattr(callback, hook)(context) for callback in callbacks]
    call("on_train_begin")
    for step, out in enumerate(outputs, first_step + 1):
        values.cur_step_num, values.cur_epoch_num = step, (step - 1) // steps_per_epoch + 1
        if step == first_step + 1 or (step - 1) % steps_per_epoch == 0:
            call("on_train_epoch_begin")
        call("on_train_step_begin")
        values.net_outputs = out
        call("on_train_step_end")
        if step % steps_per_epoch == 0:
            call("on_train_epoch_end")
        if context.get_stop_requested():
            return step
    call("on_train_end")
    return None


@pytest.fixture
def lines(monkeypatch):
    """Log messages, in order."""
    said = []
    for level in ("info", "warning"):
        monkeypatch.setattr(logger, level, lambda text, *args: said.append(text % args if args else text))
    return said


def test_line_without_sink(lines):
    run([MFLossMonitor(global_batch_size=8)], [output(4.0), output(2.0)])
    assert re.fullmatch(r"\{ Epoch:\[  1/  5\], step:\[    2/    2\], loss:\[2\.000/3\.000\], per_step_time: \d+ms, "
                        r"lr: 0\.005, overflow cond: False, loss_scale: 1, global_norm: 1\.500000", lines[2])
    assert re.fullmatch(r"  20\.0% \|█{10} {40}\| \d+\.\d{5} samples/s/p  \d:\d\d:\d\d \}", lines[3])


def test_line_with_sink(lines):
    run([MFLossMonitor()], [output(4.0)], dataset_sink_mode=True)
    assert ", loss: 4.000, per_step_time: " in lines[0]


def test_plain_losses_and_mindspores_tuple(lines):
    run([MFLossMonitor()], [ms.Tensor(3.0)])
    assert "overflow cond: False, loss_scale: unavailable, global_norm: unavailable" in lines[1]
    assert "lr:" not in lines[1] and "learning rate is not shown" in lines[0]
    run([MFLossMonitor()], [(ms.Tensor(3.0), ms.Tensor(True), ms.Tensor(1024.0))])
    assert "overflow cond: True, loss_scale: 1024" in lines[-2]


def test_a_schedule_shows_its_rate_on_cpu(lines):
    ms.set_context(mode=ms.GRAPH_MODE)
    run([MFLossMonitor(learning_rate=LinearWithWarmUpLR(0.1, 10, 0))], [ms.Tensor(3.0)] * 2)
    assert "lr: 0.1," in lines[0] and "lr: 0.09," in lines[2]


def test_print_interval_and_division(lines):
    run([MFLossMonitor(per_print_times=3, micro_batch_num=2, gradient_accumulation_steps=2)], [output(8.0)] * 7,
        steps_per_epoch=7)
    steps = [re.search(r"step:\[ *(\d+)", line).group(1) for line in lines if "Epoch" in line]
    assert steps == ["3", "6", "7"]
    assert "loss:[2.000/2.000]" in lines[0]


@pytest.mark.parametrize("absolute", [True, False])
def test_resumed_run_counts_on(lines, absolute):
    """MindSpore's loop counts from 0 after a resume, the suite's does not: both show the same step."""
    monitor = MFLossMonitor(initial_epoch=1, initial_step=1, dataset_size=4, origin_epochs=2)
    run([monitor], [output()], first_step=5 if absolute else 0, steps_per_epoch=4)
    assert "Epoch:[  2/  2], step:[    2/    4]" in lines[0]


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"loss": float("inf")}, {"norm": float("nan")}])
def test_nan_ends_the_run_when_asked(lines, bad):
    with pytest.raises(ValueError, match="is (nan|inf), terminate training."):
        run([MFLossMonitor(check_for_nan_in_loss_and_grad=True)], [output(**bad)])
    run([MFLossMonitor()], [output(**bad)] * 3)
    assert sum("Epoch" not in line and "samples" not in line for line in lines) == 1


def test_overflow_under_loss_scale_is_no_nan(lines):
    run([MFLossMonitor(check_for_nan_in_loss_and_grad=True)], [output(norm=float("inf"), overflow=True, scale=1024.0)])
    assert "overflow cond: True" in lines[0]


@pytest.mark.parametrize("args, error", [({"per_print_times": 0}, ValueError), ({"per_print_times": 1.0}, TypeError),
                                         ({"initial_step": True}, TypeError), ({"origin_epochs": "2"}, TypeError),
                                         ({"calculate_per_token_loss": 1}, TypeError)])
def test_monitor_arguments(args, error):
    with pytest.raises(error):
        MFLossMonitor(**args)


class Saver:
    def __init__(self):
        self.calls = []

    def __call__(self, step, **options):
        self.calls.append((step, options))
        return f"{step}.ckpt"


def test_saves_every_n_steps_and_the_end():
    save = Saver()
    run([CheckpointMonitor("tiny", save_checkpoint_steps=2, keep_checkpoint_max=3, save=save)], [output()] * 5)
    assert [step for step, _ in save.calls] == [2, 4, 5]
    assert save.calls[0][1] == {"prefix": "tiny", "keep_max": 3, "format": "ckpt", "save_network": True,
                                "save_trainable": False}


def test_the_last_step_is_saved_once_and_resume_keeps_the_rhythm():
    save = Saver()
    run([CheckpointMonitor(save_checkpoint_steps=2, save=save)], [output()] * 3, first_step=3)
    assert [step for step, _ in save.calls] == [4, 6]


def test_saves_by_time(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("mindformers.core.callback.checkpoint_monitor.time", SimpleNamespace(time=lambda: next(now)))
    save = Saver()
    run([CheckpointMonitor(save_checkpoint_steps=0, save_checkpoint_seconds=25, save=save)], [output()] * 6)
    assert [step for step, _ in save.calls] == [3, 6]


@pytest.mark.parametrize("name, value", [("async_save", True), ("enc_key", b"0"), ("append_info", [{}]),
                                         ("directory", "/x"), ("keep_checkpoint_per_n_minutes", 1)])
def test_settings_that_are_not_carried(name, value):
    with pytest.raises(UnsupportedError, match=name):
        CheckpointMonitor(**{name: value})


def test_checkpoint_arguments():
    with pytest.raises(ValueError):
        CheckpointMonitor(keep_checkpoint_max=-1)
    with pytest.raises(ValueError, match="safetensors"):
        CheckpointMonitor(checkpoint_format="bin")
    with pytest.raises(ConfigError, match="save"):
        run([CheckpointMonitor()], [output()])


def test_evaluation_by_steps_and_epochs(lines):
    seen = []
    callback = EvalCallBack(lambda: seen.append(1) or {"loss": 1.0}, step_interval=3, epoch_interval=2)
    run([callback], [output()] * 6)
    assert [step for step, _ in callback.results] == [3, 4, 6]
    assert "{'loss': 1.0}" in lines[0]
    with pytest.raises(TypeError):
        EvalCallBack(None)


def test_stop_step():
    assert run([TrainCallBack(3)], [output()] * 6) == 3
    assert run([TrainCallBack()], [output()] * 6) is None


def test_loss_curve_table_picture_and_resume(tmp_path):
    run([LossCurve(str(tmp_path))], [output(3.0), output(2.0), output(1.0)])
    rows = read_curve(tmp_path / "loss.csv")
    assert [(row["step"], row["loss"], row["lr"]) for row in rows] == [("1", "3.0", "0.005"), ("2", "2.0", "0.005"),
                                                                       ("3", "1.0", "0.005")]
    assert (tmp_path / "loss_curve.png").read_bytes()[:4] == b"\x89PNG"
    run([LossCurve(str(tmp_path))], [output(0.5), output(0.25)], first_step=2)
    assert [row["loss"] for row in read_curve(tmp_path / "loss.csv")] == ["3.0", "2.0", "0.5", "0.25"]
    run([LossCurve(str(tmp_path))], [output(9.0)])
    assert [row["loss"] for row in read_curve(tmp_path / "loss.csv")] == ["9.0"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.csv", "loss_curve.png"]


def test_progress_line(capsys):
    monitor = ProgressMonitor(enabled=True)
    batch = (ms.numpy.zeros((4, 129)),)
    run([monitor], [output(2.0), output(1.0)], train_dataset_element=batch)
    text = capsys.readouterr().err
    assert "2/10" in text and "loss=1.9" in text and "lr=0.005" in text and "tok/s=" in text
    assert monitor.tokens_per_second > 0
    assert not any(monitor._filter in handler.filters for handler in logger.handlers)


def test_progress_is_silent_without_a_terminal(capsys):
    run([ProgressMonitor()], [output()])
    assert capsys.readouterr().err == ""


def test_profile_arguments_and_refusals():
    with pytest.raises(ValueError, match="start_profile"):
        ProfileMonitor(profile_communication=True, start_profile=False)
    with pytest.raises(ValueError, match="stop_step"):
        ProfileMonitor(5, 2)
    for name in ("SummaryMonitor", "ObsMonitor", "ColdHotExpertMointor"):
        with pytest.raises(UnsupportedError, match=name):
            build_callback({"type": name})


def test_built_from_a_list():
    built = build_callback([{"type": "MFLossMonitor", "per_print_times": 2}, {"type": "TrainCallBack"}],
                           default_args=[None, {"stop_step": 5}])
    assert [type(item) for item in built] == [MFLossMonitor, TrainCallBack]
    assert built[0].per_print_times == 2 and built[1].stop_step == 5
