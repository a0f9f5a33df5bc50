"""Training state: everything comes back, the last good checkpoint survives crashes, the right one is resumed."""
import errno
import json
import os
import subprocess
import sys
import textwrap

import mindspore as ms
import numpy as np
import pytest
from checkpoint_helpers import NamedCell, same
from mindspore import nn, ops

from mindformers.checkpoint import find_resume, load, load_train_state, open_weights, output_file, save_train_state
from mindformers.checkpoint import train_state
from mindformers.tools.errors import CheckpointMismatchError

EXTRA = {"epoch_num": 2, "step_num": 17, "loss_scale": 65536.0, "global_batch_size": 8, "lr": 0.1 + 0.2,
         "rng": {"state": 2**127 + 1, "words": ["a", None, True]}, "data_position": 123456789012}


def make_run(seed=0, dtype=np.float32):
    """A small model and its AdamWeightDecay, all values random."""
    rng = np.random.default_rng(seed)
    cell = NamedCell({"model.a.weight": rng.standard_normal((3, 4)).astype(dtype),
                      "model.b.weight": rng.standard_normal(4).astype(np.float32)})
    optimizer = nn.AdamWeightDecay(cell.trainable_params(), learning_rate=0.1)
    for _, parameter in optimizer.parameters_and_names():
        if parameter.name.startswith("adam_"):
            parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    optimizer.global_step.set_data(ms.Tensor(np.array([seed + 5], np.int32)))
    return cell, optimizer


def values_of(*cells):
    return {p.name: p.asnumpy().copy() for cell in cells for _, p in cell.parameters_and_names()}


def save(folder, step, run=None, epoch=1, keep_max=5, **options):
    run = run or make_run(step)
    return save_train_state(folder, options.pop("rank", 0), "llama", epoch, step, *run, dict(EXTRA, step_num=step),
                            keep_max, **options)


def checkpoints(folder, rank=0):
    return sorted(path.name for path in (folder / "checkpoint" / f"rank_{rank}").iterdir() if path.name != "meta.json")


# -- what is saved comes back -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
def test_everything_comes_back_bit_for_bit(tmp_path, format):
    run, other = make_run(1), make_run(2)
    path = save_train_state(tmp_path, 0, "llama", 2, 17, *run, EXTRA, format=format)
    assert path == tmp_path / "checkpoint" / "rank_0" / f"llama_rank_0-2_17.{format}"
    assert json.loads((path.parent / "meta.json").read_text()) == {
        "last_epoch": 2, "last_step": 17, "last_ckpt_file": path.name}
    expected = values_of(*run)
    assert not all(same(array, expected[name]) for name, array in values_of(*other).items())
    assert load_train_state(path, *other) == EXTRA
    assert {"adam_m.model.a.weight", "adam_v.model.b.weight", "global_step"} <= set(expected)
    assert all(same(array, expected[name]) for name, array in values_of(*other).items())


def test_mindspore_reads_it_and_finds_the_counters(tmp_path):
    run = make_run(1)
    found = ms.load_checkpoint(str(save_train_state(tmp_path, 0, "llama", 2, 17, *run, EXTRA)))
    assert [int(found[name].asnumpy()) for name in ("epoch_num", "step_num", "global_batch_size")] == [2, 17, 8]
    assert float(found["loss_scale"].asnumpy()) == 65536.0
    for name, array in values_of(*run).items():
        assert same(found[name].asnumpy(), array)


def test_file_of_mindspore_can_be_resumed(tmp_path):
    run, other = make_run(1), make_run(2)
    saved = [{"name": p.name, "data": p} for _, p in run[1].parameters_and_names()]
    counters = {"epoch_num": 3, "step_num": 9, "loss_scale": 2.0}
    ms.save_checkpoint(saved, str(tmp_path / "old.ckpt"), append_dict=counters)
    assert load_train_state(tmp_path / "old.ckpt", *other) == counters
    expected = values_of(*run)
    assert all(same(array, expected[name]) for name, array in values_of(*other).items())


def test_weights_alone_are_written_too(tmp_path):
    run = make_run(1)
    run[0].p1.requires_grad = False
    save(tmp_path, 1, run, save_trainable=True)
    network = open_weights(tmp_path / "checkpoint_network")
    trainable = open_weights(tmp_path / "checkpoint_trainable" / "rank_0" / "llama_rank_0-trainable_params.ckpt")
    assert network.where.endswith("rank_0/llama_rank_0-network.ckpt")
    assert network.names() == ["model.a.weight", "model.b.weight"] and trainable.names() == ["model.a.weight"]
    save(tmp_path / "none", 1, save_network=False)
    assert os.listdir(tmp_path / "none") == ["checkpoint"]


def test_model_alone_can_be_loaded_from_it(tmp_path):
    run, other = make_run(1), make_run(2)
    save(tmp_path, 1, run)
    report = load(other[0], tmp_path / "checkpoint")
    assert "adam_m.model.a.weight" in report.ignored and "step_num" in report.ignored and not report.unexpected
    assert same(other[0].values()["model.a.weight"], run[0].values()["model.a.weight"])


def test_accumulated_gradients_are_no_state(tmp_path):
    cell, _ = make_run(1)
    optimizer = NamedCell({"accu_grads.model.a.weight": np.zeros(2, np.float32), "own": np.zeros(2, np.float32)})
    path = save(tmp_path, 1, (cell, optimizer))
    assert "accu_grads.model.a.weight" not in open_weights(path) and "own" in open_weights(path)
    load_train_state(path, cell, optimizer)


def test_numpy_scalars_in_extra(tmp_path):
    extra = {"step_num": np.int64(4), "keys": np.arange(3, dtype=np.uint32)}
    path = save_train_state(tmp_path, 0, "p", 1, 1, *make_run(), extra)
    assert load_train_state(path, *make_run()) == {"step_num": 4, "keys": [0, 1, 2]}


@pytest.mark.parametrize("extra, words", [({"a": object()}, r"extra\['a'\] is object"),
                                          ({"a": {1: 2}}, "key 1 must be"),
                                          ({"a": [b"x"]}, r"extra\['a'\]\[0\] is bytes")])
def test_extra_that_json_cannot_hold(tmp_path, extra, words):
    with pytest.raises(TypeError, match=words):
        save_train_state(tmp_path, 0, "p", 1, 1, *make_run(), extra)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments, words", [
    ({"prefix": "a/b"}, "plain file name"), ({"prefix": ""}, "plain file name"), ({"format": "h5"}, "'ckpt' or"),
    ({"keep_max": -1}, "keep_checkpoint_max"), ({"step": -1}, "step must be"), ({"epoch": 1.5}, "epoch must be")])
def test_wrong_arguments(tmp_path, arguments, words):
    values = {"prefix": "p", "epoch": 1, "step": 1, "keep_max": 5, "format": "ckpt", **arguments}
    with pytest.raises(ValueError, match=words):
        save_train_state(tmp_path, 0, cell=make_run()[0], optimizer=None, **values)


@pytest.fixture
def graph_mode():
    previous = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=previous)


class Regression(nn.Cell):
    """mean((x @ a + b) ** 2)"""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.a = ms.Parameter(ms.Tensor(rng.standard_normal((4, 3)).astype(np.float32)), name="a")
        self.b = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)), name="b")

    def construct(self, x):
        """x [B, 4] -> scalar"""
        return ops.square(ops.matmul(x, self.a) + self.b).mean()


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
def test_resumed_graph_training_equals_the_uninterrupted_one(tmp_path, graph_mode, format):
    """Four steps in one go == two steps, saved, loaded into a run that had already trained otherwise, two steps."""
    batches = [ms.Tensor(np.random.default_rng(n).standard_normal((5, 4)).astype(np.float32)) for n in range(4)]

    def run():
        cell = Regression()
        optimizer = nn.AdamWeightDecay(cell.trainable_params(), learning_rate=0.1)
        return cell, optimizer, nn.TrainOneStepCell(cell, optimizer).set_train()

    cell, optimizer, step = run()
    other, other_optimizer, other_step = run()
    other_step(batches[3])
    for number, batch in enumerate(batches):
        if number == 2:
            path = save(tmp_path, 2, (cell, optimizer), format=format)
        step(batch)
    load_train_state(path, other, other_optimizer)
    assert not same(other.a.asnumpy(), cell.a.asnumpy())
    for batch in batches[2:]:
        other_step(batch)
    expected = values_of(cell, optimizer)
    assert all(same(array, expected[name]) for name, array in values_of(other, other_optimizer).items())


# -- strict ----------------------------------------------------------------------------------------------------------

def test_differences_are_refused_and_nothing_is_assigned(tmp_path):
    cell, optimizer = make_run(1)
    path = save(tmp_path, 1, (cell, optimizer))
    half, half_optimizer = make_run(2, np.float16)
    before = values_of(half, half_optimizer)
    with pytest.raises(CheckpointMismatchError, match=r"model.a.weight is float32 \(3, 4\) in the file and float16"):
        load_train_state(path, half, half_optimizer)
    assert all(same(before[name], array) for name, array in values_of(half, half_optimizer).items())
    momentum = nn.Momentum(cell.trainable_params(), 0.1, 0.9)
    with pytest.raises(CheckpointMismatchError, match="(?s)missing: .*moments.model.*unexpected: adam_m.model"):
        load_train_state(path, cell, momentum)


def test_weights_alone_cannot_resume(tmp_path):
    run = make_run(1)
    save(tmp_path, 1, run)
    with pytest.raises(CheckpointMismatchError, match="Weights alone cannot resume a run"):
        load_train_state(tmp_path / "checkpoint_network" / "rank_0" / "llama_rank_0-network.ckpt", *run)


# -- retention -------------------------------------------------------------------------------------------------------

def test_oldest_go(tmp_path):
    for step in (1, 2, 10, 11):
        save(tmp_path, step, keep_max=3)
    assert checkpoints(tmp_path) == [f"llama_rank_0-1_{step}.ckpt" for step in (10, 11, 2)]
    save(tmp_path, 12, keep_max=1)
    assert checkpoints(tmp_path) == ["llama_rank_0-1_12.ckpt"]


def test_age_counts_not_the_step(tmp_path):
    """A new run in a used folder starts at small steps, and its own checkpoints must stay."""
    for step in (100, 200, 1, 2):
        save(tmp_path, step, keep_max=2)
    assert checkpoints(tmp_path) == ["llama_rank_0-1_1.ckpt", "llama_rank_0-1_2.ckpt"]
    assert find_resume(tmp_path).step == 2


def test_others_files_stay(tmp_path):
    folder = tmp_path / "checkpoint" / "rank_0"
    folder.mkdir(parents=True)
    for name in ("other_rank_0-1_1.ckpt", "llama_rank_0-network.ckpt", "notes.txt"):
        (folder / name).write_bytes(b"x")
    for step in (1, 2):
        save(tmp_path, step, keep_max=1)
    assert checkpoints(tmp_path) == ["llama_rank_0-1_2.ckpt", "llama_rank_0-network.ckpt", "notes.txt",
                                     "other_rank_0-1_1.ckpt"]


@pytest.mark.parametrize("keep_max", [None, 0])
def test_all_are_kept(tmp_path, keep_max):
    for step in range(1, 8):
        save(tmp_path, step, keep_max=keep_max)
    assert len(checkpoints(tmp_path)) == 7


# -- crashes ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
def test_writer_that_fails_half_way(tmp_path, monkeypatch, format):
    run = make_run(1)
    save(tmp_path, 1, run, format=format, keep_max=1)

    def failing(path, source, names, metadata, target):
        path.write_bytes(b"half a checkpoint")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(train_state.WRITERS, format, failing)
    with pytest.raises(OSError, match="Input/output error"):
        save(tmp_path, 2, format=format, keep_max=1)
    monkeypatch.undo()
    point, other = find_resume(tmp_path), make_run(2)
    assert point.step == 1 and checkpoints(tmp_path) == [f"llama_rank_0-1_1.{format}"]
    load_train_state(point.paths[0], *other)
    assert all(same(array, values_of(*run)[name]) for name, array in values_of(*other).items())


def test_full_disk(tmp_path, monkeypatch):
    save(tmp_path, 1, keep_max=1)

    class Full:
        """Takes 100 bytes."""

        def __init__(self, path, mode):
            self._file, self._room = open(path, mode), 100

        def write(self, data):
            """Write until the room is gone."""
            self._room -= memoryview(data).nbytes
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._file.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self._file.close()

    monkeypatch.setattr(output_file, "open", Full, raising=False)
    with pytest.raises(OSError, match="No space left on device.*llama_rank_0-1_2.ckpt") as caught:
        save(tmp_path, 2, keep_max=1)
    assert caught.value.errno == errno.ENOSPC
    assert checkpoints(tmp_path) == ["llama_rank_0-1_1.ckpt"] and find_resume(tmp_path).step == 1


KILLED = textwrap.dedent("""
    import os, signal, sys
    import numpy as np
    from mindformers.checkpoint import save_train_state

    class Parameter:
        dtype, shape, requires_grad = "Float32", (1000,), True

        def __init__(self, name, value, deadly):
            self.name, self.value, self.deadly = name, value, deadly

        def asnumpy(self):
            if self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return np.full(self.shape, self.value, np.float32)

    class Cell:
        def __init__(self, value, deadly=None):
            self.parameters = [Parameter(name, value, name == deadly) for name in ("a", "b", "c")]

        def parameters_and_names(self):
            return [(parameter.name, parameter) for parameter in self.parameters]

    folder, format = sys.argv[1:]
    save_train_state(folder, 0, "p", 1, 1, Cell(1.0), None, {"step_num": 1}, keep_max=1, format=format)
    save_train_state(folder, 0, "p", 1, 2, Cell(2.0, deadly="c"), None, {"step_num": 2}, keep_max=1, format=format)
    """)


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
def test_killed_while_saving(tmp_path, format):
    """SIGKILL in the middle of the second save: the first one is found, whole, and the leftover goes with the next."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), format], capture_output=True, text=True, env=env)
    assert run.returncode == -9, run.stderr
    leftovers = [name for name in checkpoints(tmp_path) if name.startswith(".")]
    assert len(leftovers) == 1 and (tmp_path / "checkpoint" / "rank_0" / leftovers[0]).stat().st_size > 4000
    point, cell = find_resume(tmp_path), NamedCell({name: np.zeros(1000, np.float32) for name in "abc"})
    assert (point.epoch, point.step) == (1, 1)
    assert load_train_state(point.paths[0], cell, None) == {"step_num": 1}
    assert all((array == 1).all() for array in cell.values().values())
    save_train_state(tmp_path, 0, "p", 1, 3, cell, None, keep_max=1, format=format)
    assert checkpoints(tmp_path) == [f"p_rank_0-1_3.{format}"]


def test_crash_between_file_and_meta(tmp_path, monkeypatch):
    """The new file is there but meta.json was not replaced: what meta.json names is resumed."""
    save(tmp_path, 1)
    meta = (tmp_path / "checkpoint" / "rank_0" / "meta.json").read_text()
    save(tmp_path, 2)
    (tmp_path / "checkpoint" / "rank_0" / "meta.json").write_text(meta)
    assert find_resume(tmp_path / "checkpoint").step == 1
