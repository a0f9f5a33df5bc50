"""Real jobs of two processes on this machine."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "trainer"))

from mindformers.checkpoint import find_resume  # noqa: E402
from mindformers.trainer import Trainer  # noqa: E402
from trainer_helpers import arrays, checkpoint, tiny_config, write_tokens  # noqa: E402

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def write_run(folder, tokens, **overrides):
    """Write the YAML of a run in `folder`; returns its path."""
    folder.mkdir(exist_ok=True)
    config = tiny_config(folder, tokens, **overrides)
    (folder / "run.yaml").write_text(yaml.safe_dump(config.to_dict()))
    return folder / "run.yaml"


def start(command, folder):
    """Start msrun_launcher.sh with two workers in `folder`."""
    return subprocess.Popen(["bash", str(ROOT / "scripts" / "msrun_launcher.sh"), command, "2"], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "PYTHON": sys.executable})


def parallel_command(path):
    return f"run_mindformer.py --config {path} --run_mode train --use_parallel True"


@pytest.fixture
def tokens(tmp_path):
    return write_tokens(tmp_path / "tokens.npy", 20 * 12 + 1)


def test_two_processes_equal_one_on_the_joint_batch(tmp_path, tokens):
    """Also: shared files are written once, each rank has its folder, and evaluation sums over ranks."""
    held_out = write_tokens(tmp_path / "eval.npy", 8 * 12 + 1, seed=8)
    evaluation = {"do_eval": True, "eval_step_interval": 5, "eval_dataset_task": {"type": "CausalLanguageModelDataset"},
                  "eval_dataset": {"data_loader": {"type": "NumpyTokens", "dataset_dir": held_out, "seq_length": 12,
                                                   "shuffle": False, "pad_token_id": 39},
                                   "input_columns": ["input_ids", "labels"]}}
    two = write_run(tmp_path / "two", tokens, runner_config__batch_size=2, context__mode=0, **evaluation)
    job = start(parallel_command(two), tmp_path / "two")
    output = "".join(job.communicate(timeout=600))
    assert job.returncode == 0, output
    (tmp_path / "one").mkdir()
    assert Trainer(tiny_config(tmp_path / "one", tokens, runner_config__batch_size=4, context__mode=0,
                               **evaluation)).train() == 10
    one = arrays(checkpoint(tmp_path / "one", 2, 5))
    for rank in (0, 1):
        both = arrays(checkpoint(tmp_path / "two", 2, 5, rank))
        assert both.keys() == one.keys()
        for name in one:
            np.testing.assert_allclose(both[name], one[name], rtol=0, atol=1e-6, err_msg=name)
    written = {path.name for path in (tmp_path / "two" / "out").iterdir()}
    assert {"loss.csv", "config.yaml", "checkpoint"} <= written
    tables = [np.loadtxt(tmp_path / name / "out" / "loss.csv", delimiter=",", skiprows=1) for name in ("one", "two")]
    np.testing.assert_allclose(tables[1][:, 1], tables[0][:, 1], atol=2e-6)
    logs = [(tmp_path / name / "out" / "log" / "rank_0" / "info.log").read_text() for name in ("one", "two")]
    results = [[line.split("'loss': ")[1][:8] for line in log.splitlines() if "Eval result" in line] for log in logs]
    assert len(results[0]) == 2 and np.allclose(*[np.array(found, float) for found in results], atol=2e-6)


def test_dying_rank_ends_the_job_and_is_shown(tmp_path, tokens):
    job = start(f"{Path(__file__).parent / 'rank_dies.py'} {tmp_path}", tmp_path)
    _, errors = job.communicate(timeout=600)
    assert job.returncode == 1
    assert "rank 1 failed with exit code 1" in errors
    assert "[rank 1] RuntimeError: the disk of rank 1 is on fire" in errors


def test_interrupted_job_saves_the_same_step_on_all_ranks(tmp_path, tokens):
    path = write_run(tmp_path / "long", tokens, runner_config__batch_size=2, runner_config__epochs=100000)
    job = start(parallel_command(path), tmp_path / "long")
    table = tmp_path / "long" / "out" / "loss.csv"
    deadline = time.monotonic() + 300
    while not (table.is_file() and table.read_text().count("\n") > 3):
        assert job.poll() is None and time.monotonic() < deadline, "".join(job.communicate())
        time.sleep(0.5)
    job.send_signal(signal.SIGINT)
    output, errors = job.communicate(timeout=300)
    assert job.returncode == 130, output + errors
    point = find_resume(tmp_path / "long" / "out" / "checkpoint", True, 2)
    assert [file.name.split("-")[1] for file in point.paths] == [f"{point.epoch}_{point.step}.ckpt"] * 2
    assert "--resume_training True" in errors
