"""Which checkpoint a run goes on with: the last one that every rank has."""
import json
import os

import pytest

from mindformers.checkpoint import find_resume


def fake_ranks(folder, *points_of_ranks, meta=True):
    """Files (not readable) of the given (epoch, step) points, meta.json naming the last of each rank."""
    for rank, points in enumerate(points_of_ranks):
        (folder / f"rank_{rank}").mkdir(parents=True)
        for age, (epoch, step) in enumerate(points):
            path = folder / f"rank_{rank}" / f"p_rank_{rank}-{epoch}_{step}.ckpt"
            path.write_bytes(b"x")
            os.utime(path, ns=(age * 10**9, age * 10**9))
        if meta:
            record = {"last_epoch": epoch, "last_step": step, "last_ckpt_file": path.name}
            (folder / f"rank_{rank}" / "meta.json").write_text(json.dumps(record))


def test_slowest_rank_decides(tmp_path):
    fake_ranks(tmp_path, [(1, 5), (1, 10), (2, 5)], [(1, 5), (1, 10)])
    point = find_resume(tmp_path, True, 2)
    assert (point.epoch, point.step) == (1, 10)
    assert [path.name for path in point.paths] == ["p_rank_0-1_10.ckpt", "p_rank_1-1_10.ckpt"]
    assert find_resume(tmp_path, True, 1).epoch == 2


def test_a_rank_lost_its_last_file(tmp_path):
    fake_ranks(tmp_path, [(1, 5), (1, 10)], [(1, 5), (1, 10)])
    (tmp_path / "rank_1" / "p_rank_1-1_10.ckpt").unlink()
    assert find_resume(tmp_path, True, 2).step == 5
    (tmp_path / "rank_1" / "p_rank_1-1_5.ckpt").write_bytes(b"")  # an empty file is none
    with pytest.raises(FileNotFoundError, match="rank_1 holds no checkpoint"):
        find_resume(tmp_path, True, 2)


def test_no_point_in_common(tmp_path):
    fake_ranks(tmp_path, [(1, 5)], [(1, 4)])
    with pytest.raises(ValueError, match="2 ranks have no checkpoint in common up to epoch 1 step 4"):
        find_resume(tmp_path, True, 2)


def test_without_meta_the_newest_file_must_agree(tmp_path):
    fake_ranks(tmp_path / "same", [(2, 1), (1, 7)], [(1, 7)], meta=False)
    assert find_resume(tmp_path / "same", True, 2).step == 7
    fake_ranks(tmp_path / "other", [(1, 5), (1, 7)], [(1, 5)], meta=False)
    with pytest.raises(ValueError, match="newest checkpoint of all ranks must be the same"):
        find_resume(tmp_path / "other", True, 2)
    assert find_resume(tmp_path / "other", "p_rank_0-1_5.ckpt", 2).paths[1].name == "p_rank_1-1_5.ckpt"


def test_named_file(tmp_path):
    fake_ranks(tmp_path, [(1, 5), (1, 10)])
    assert find_resume(tmp_path, "p_rank_0-1_5.ckpt").step == 5
    with pytest.raises(FileNotFoundError, match="checkpoints of rank 0: p_rank_0-1_10.ckpt, p_rank_0-1_5.ckpt"):
        find_resume(tmp_path, "p_rank_0-1_6.ckpt")
    for name in ("../x.ckpt", "/etc/passwd"):
        with pytest.raises(ValueError, match="not a path"):
            find_resume(tmp_path, name)


def test_one_file_for_all_ranks(tmp_path):
    fake_ranks(tmp_path, [(1, 5)])
    path = tmp_path / "rank_0" / "p_rank_0-1_5.ckpt"
    point = find_resume(path, True, 3)
    assert point.paths == [path] * 3 and point.step == 5
    with pytest.raises(ValueError, match="give the folder"):
        find_resume(path, "p_rank_0-1_6.ckpt")


@pytest.mark.parametrize("meta, words", [("{", "is damaged"), ("[]", "is damaged"), ("{}", "is damaged"), (
    '{"last_epoch": 1, "last_step": 5, "last_ckpt_file": "../../x.ckpt"}', "only files in its own folder")])
def test_damaged_meta(tmp_path, meta, words):
    fake_ranks(tmp_path, [(1, 5)])
    (tmp_path / "rank_0" / "meta.json").write_text(meta)
    with pytest.raises(ValueError, match=words):
        find_resume(tmp_path)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(ValueError, match="needs load_checkpoint"):
        find_resume("")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_resume(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no rank_0, but the run has 1"):
        find_resume(tmp_path)
    fake_ranks(tmp_path, [(1, 5)])
    with pytest.raises(FileNotFoundError, match="no rank_1, rank_2, but the run has 3 processes"):
        find_resume(tmp_path, True, 3)
    with pytest.raises(ValueError, match="resume_training must be True or the name"):
        find_resume(tmp_path, 5)
