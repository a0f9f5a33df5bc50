"""Ctrl-C and SIGTERM: the step is finished and saved, the exit code says which signal; a full disk loses nothing."""
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mindspore.train.callback import Callback

from mindformers.checkpoint import find_resume
from mindformers.trainer import Trainer
from mindformers.trainer.interrupt import StopRequest, TrainingInterrupted
from trainer_helpers import arrays, checkpoint, differing, tiny_config, write_tokens


class AtStep(Callback):
    """Calls `action` at the end of one step."""

    def __init__(self, number, action):
        super().__init__()
        self.number, self.action = number, action

    def on_train_step_end(self, run_context):
        if run_context.original_args().cur_step_num == self.number:
            self.action()


def test_signals_become_a_request_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.asked() and stop.asked(wish=True)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked() and stop.signum == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def interrupt(signum):
    """Return a callback action that sends `signum` to this process.

    It waits first: MindSpore takes the SIGINT handler over when a graph runs, and a tenth of a second later SIGTERM and
    SIGINT are told apart again.
    """
    def act():
        time.sleep(0.3)
        os.kill(os.getpid(), signum)
    return act


def test_interrupted_run_is_saved_and_goes_on_as_if_nothing_had_been(tmp_path):
    tokens = write_tokens(tmp_path / "tokens.npy", 20 * 12 + 1)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    assert Trainer(tiny_config(tmp_path / "whole", tokens)).train() == 10
    config = tiny_config(tmp_path / "cut", tokens)
    with pytest.raises(TrainingInterrupted) as stopped:
        Trainer(config, callbacks=AtStep(6, interrupt(signal.SIGINT))).train()
    assert stopped.value.code == 130 and checkpoint(tmp_path / "cut", 2, 1).is_file()
    assert Trainer(config).train(resume_training=True) == 10
    assert differing(arrays(checkpoint(tmp_path / "whole", 2, 5)), arrays(checkpoint(tmp_path / "cut", 2, 5))) == []


def test_interrupted_run_without_checkpoint_monitor_is_saved(tmp_path):
    config = tiny_config(tmp_path, callbacks=[{"type": "MFLossMonitor"}])
    with pytest.raises(TrainingInterrupted) as stopped:
        Trainer(config, callbacks=AtStep(2, interrupt(signal.SIGTERM))).train()
    assert stopped.value.code == 143
    assert find_resume(tmp_path / "out" / "checkpoint").step == 2


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    """The file size limit stands for a disk that is full at the second save."""
    config = tiny_config(tmp_path, context__mode=1)
    config.callbacks[1]["save_checkpoint_steps"] = 2
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    filled = AtStep(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1])))
    try:
        with pytest.raises(OSError):
            Trainer(config, callbacks=filled).train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    point = find_resume(tmp_path / "out" / "checkpoint")
    assert (point.epoch, point.step) == (1, 2)
    left = sorted(path.name for path in checkpoint(tmp_path, 1, 2).parent.iterdir())
    assert left == ["meta.json", "t_rank_0-1_2.ckpt"]
    assert Trainer(config).train(resume_training=True) == 10


@pytest.mark.slow
def test_command_line_exit_code_and_message(tmp_path):
    """A real Ctrl-C to the process that runs run_mindformer.py."""
    import yaml
    config = tiny_config(tmp_path, runner_config__epochs=100000)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    root = Path(__file__).parents[2]
    job = subprocess.Popen([sys.executable, str(root / "run_mindformer.py"), "--config", str(tmp_path / "run.yaml")],
                           stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
    lines = []
    for line in job.stderr:
        lines.append(line)
        if "step:[    3/" in line:
            job.send_signal(signal.SIGINT)
    assert job.wait(timeout=120) == 130
    text = "".join(lines)
    assert "--resume_training True" in text and "Traceback" not in text
    assert find_resume(tmp_path / "out" / "checkpoint").step >= 3
