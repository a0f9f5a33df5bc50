"""A resumed run equals the uninterrupted one, byte for byte."""
import json

import pytest

from mindformers.checkpoint import open_weights
from mindformers.trainer import Trainer
from trainer_helpers import arrays, checkpoint, differing, tiny_config, write_tokens

LOSS_SCALE = {"type": "DynamicLossScaleUpdateCell", "loss_scale_value": 1024, "scale_factor": 2, "scale_window": 3}
VARIANT = {"context__mode": 0, "runner_config__batch_size": 2, "runner_config__gradient_accumulation_steps": 2,
           "runner_wrapper__scale_sense": LOSS_SCALE}


def train(folder, tokens, **overrides):
    folder.mkdir(exist_ok=True)
    return Trainer(tiny_config(folder, tokens, **overrides)).train()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of 10 steps, the same cut after step 7 (in the second epoch) and resumed."""
    folder = tmp_path_factory.mktemp("resume")
    tokens = write_tokens(folder / "tokens.npy", 20 * 12 + 1)
    assert train(folder / "whole", tokens, **VARIANT) == 10
    assert train(folder / "cut", tokens, **VARIANT, runner_config__stop_step=7) == 7
    return folder, tokens


def resume(runs, name, **overrides):
    """Resume the cut run (named: its checkpoint after step 7) in a folder of its own."""
    folder, tokens = runs
    (folder / name).mkdir()
    options = {**VARIANT, "resume_training": "t_rank_0-2_2.ckpt",
               "load_checkpoint": str(folder / "cut" / "out" / "checkpoint"), **overrides}
    assert train(folder / name, tokens, **options) == 10
    return folder / name


def state_of(path):
    return json.loads(next(iter(open_weights(path).metadata.values())))["extra"]


def test_resumed_run_equals_the_uninterrupted_one(runs):
    folder, tokens = runs
    options = {**VARIANT, "resume_training": True}  # no load_checkpoint: from the run's own output folder
    assert train(folder / "cut", tokens, **options) == 10
    whole, resumed = checkpoint(folder / "whole", 2, 5), checkpoint(folder / "cut", 2, 5)
    first, second = arrays(whole), arrays(resumed)
    assert differing(first, second) == []
    assert {name.split(".")[0] for name in first} >= {"model", "adam_m", "adam_v", "global_step"}
    assert state_of(whole) == state_of(resumed)
    assert state_of(whole)["loss_scale"] != 1024  # it has moved, so it was restored
    rows = [(folder / name / "out" / "loss.csv").read_text().splitlines() for name in ("cut", "whole")]
    assert [row.split(",")[:5] for row in rows[0]] == [row.split(",")[:5] for row in rows[1]]


@pytest.mark.slow
def test_named_checkpoint_is_resumed(runs):
    folder = resume(runs, "named")
    assert differing(arrays(checkpoint(runs[0] / "whole", 2, 5)), arrays(checkpoint(folder, 2, 5))) == []


def test_other_data_position_shows(runs):
    """Negative control: the comparison sees a run that goes on with other rows."""
    folder = resume(runs, "unskipped", ignore_data_skip=True)
    changed = differing(arrays(checkpoint(runs[0] / "whole", 2, 5)), arrays(checkpoint(folder, 2, 5)))
    assert any(name.startswith("model.") for name in changed)
