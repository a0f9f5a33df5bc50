"""Saving: whole or not at all, in shards that an index describes, values as they were in memory."""
import errno
import json
import re
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from checkpoint_helpers import NamedCell, hf_weights, llama_config, same

from mindformers.checkpoint import CellSource, DictSource, open_weights, output_file, save_weights
from mindformers.checkpoint.save import parse_size, plan_shards
from mindformers.models.llama.llama_weights import WEIGHT_MAP
from mindformers.tools.errors import CheckpointMismatchError
from mindformers.tools.logger import logger


class FullDisk:
    """A file that has room for `room` bytes only."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        """Write, or fail as a full disk does after a part was written."""
        length = memoryview(data).nbytes
        if length > self._room:
            self._file.write(bytes(self._room))
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= length
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


@pytest.fixture
def full_disk(monkeypatch):
    """Call it with a number of bytes: each file that is written from then on has no more room."""
    def fill(room):
        monkeypatch.setattr(output_file, "open", lambda *args: FullDisk(open(*args), room), raising=False)

    return fill


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def arrays_of(count, start=0, rows=10):
    return {f"t{number}": np.full((rows,), start + number, np.float32) for number in range(count)}


@pytest.mark.parametrize("names, format, expected", [
    ("hf", "safetensors", "model.safetensors"), ("mindformers", "safetensors", "mindspore_model.safetensors"),
    ("mindformers", "ckpt", "mindspore_model.ckpt")])
def test_file_names(tmp_path, names, format, expected):
    assert [path.name for path in save_weights(tmp_path, arrays_of(2), names=names, format=format)] == [expected]
    stem, suffix = expected.split(".")
    written = save_weights(tmp_path, arrays_of(3), names=names, format=format, max_shard_size=80)
    assert [path.name for path in written] == [f"{stem}-00001-of-00002.{suffix}", f"{stem}-00002-of-00002.{suffix}",
                                               f"{expected}.index.json"]
    index = json.loads(written[-1].read_text())
    assert index == {"metadata": {"total_size": 120}, "weight_map": {
        "t0": written[0].name, "t1": written[0].name, "t2": written[1].name}}
    assert files(tmp_path) == sorted(path.name for path in written)  # the single file of before is gone


def test_metadata_that_transformers_demands(tmp_path):
    save_weights(tmp_path, arrays_of(1), metadata={"note": "x"})
    assert open_weights(tmp_path).metadata == {"format": "pt", "note": "x"}


def test_shards_change_their_number(tmp_path):
    """Nothing of an earlier save is left over, other files stay."""
    (tmp_path / "config.json").write_text("{}")
    for size, count in ((40, 5), (80, 3), (400, 1), (80, 3)):
        save_weights(tmp_path, arrays_of(5, start=size), max_shard_size=size)
        source = open_weights(tmp_path)
        assert [source.read(name)[0] for name in source.names()] == [size + number for number in range(5)]
        assert len(list(tmp_path.glob("*.safetensors"))) == count
    assert "config.json" in files(tmp_path)


def test_plan_of_shards():
    source = DictSource({"a": np.zeros(4, np.int8), "b": np.zeros(4, np.int8), "big": np.zeros(9, np.int8),
                         "c": np.zeros(4, np.int8)})
    assert plan_shards(source, 8) == [["a", "b"], ["big"], ["c"]]
    assert plan_shards(source, 1) == [["a"], ["b"], ["big"], ["c"]]
    assert plan_shards(source, 100) == [["a", "b", "big", "c"]]


@pytest.mark.parametrize("text, size", [("5GB", 5 * 10**9), ("5GiB", 5 * 2**30), ("1.5 mb", 1500000), (7, 7), ("7", 7)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "5XB", "-1GB", 0, None, True, "0.1B"])
def test_wrong_sizes(text):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_parameters_of_a_cell_in_either_dialect(tmp_path):
    config = llama_config(qkv_concat=True, qkv_has_bias=True)
    weights = hf_weights(config)
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    cell = NamedCell({name: ours.read(name) for name in ours.names()})
    save_weights(tmp_path / "hf", CellSource(cell), weight_map=WEIGHT_MAP, config=config)
    save_weights(tmp_path / "ms", {name: parameter for name, parameter in cell.parameters_dict().items()},
                 names="mindformers", format="ckpt", weight_map=WEIGHT_MAP, config=config)
    back, theirs = open_weights(tmp_path / "hf"), ms.load_checkpoint(str(tmp_path / "ms" / "mindspore_model.ckpt"))
    assert set(back.names()) == set(weights) and all(same(back.read(name), weights[name]) for name in weights)
    assert all(same(theirs[name].asnumpy(), ours.read(name)) for name in ours.names())
    with pytest.raises(CheckpointMismatchError, match="unknown names: junk"):
        save_weights(tmp_path / "hf", {**cell.values(), "junk": np.zeros(1)}, weight_map=WEIGHT_MAP, config=config)


def test_dtype_on_save(tmp_path):
    values = np.array([1.0, 3.140625, 1e-3], np.float32)
    save_weights(tmp_path, {"a": values, "n": np.arange(3)}, dtype="bfloat16")
    source = open_weights(tmp_path)
    assert source.dtype("a") == "bfloat16" and source.dtype("n") == "int64"
    assert np.allclose(source.read("a").astype(np.float32), values, rtol=2**-8)
    with pytest.raises(CheckpointMismatchError, match="too large for float16"):
        save_weights(tmp_path, {"a": np.array([1e6], np.float32)}, dtype="float16")
    assert open_weights(tmp_path).dtype("a") == "bfloat16"  # the file of before


@pytest.mark.parametrize("arguments, words", [
    ({"names": "HF"}, "Did you mean 'hf'"), ({"format": "pickle"}, "format must be one of"),
    ({"format": "ckpt"}, "goes with names='mindformers'"), ({"stem": "../x"}, "plain name"),
    ({"stem": ""}, "plain name"), ({"max_shard_size": "big"}, "size 'big'")])
def test_wrong_arguments(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        save_weights(tmp_path, arrays_of(1), **arguments)
    assert not files(tmp_path)


def test_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="no weights to save"):
        save_weights(tmp_path, {})
    with pytest.raises(TypeError, match="a must be a numpy array"):
        save_weights(tmp_path, {"a": [1.0]})
    with pytest.raises(ValueError, match="cannot be kept in a checkpoint"):
        save_weights(tmp_path, {"a": np.array(["x"])})


@pytest.mark.parametrize("format", ["safetensors", "ckpt"])
@pytest.mark.parametrize("shard_size", ["1GB", 80])
def test_full_disk_leaves_what_was_there(tmp_path, full_disk, format, shard_size):
    save_weights(tmp_path, arrays_of(5), names="mindformers", format=format, max_shard_size=shard_size)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    full_disk(60)
    with pytest.raises(OSError, match="No space left.*an earlier one of this name is untouched") as caught:
        save_weights(tmp_path, arrays_of(5, start=100), names="mindformers", format=format, max_shard_size=shard_size)
    assert caught.value.errno == errno.ENOSPC and f".{format}" in caught.value.filename
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("fail_at", range(5))
def test_failing_source_leaves_what_was_there(tmp_path, fail_at):
    class Failing(DictSource):
        """Fails while reading the n-th array."""

        def read(self, name, rows=None):
            if name == f"t{fail_at}":
                raise RuntimeError("device lost")
            return super().read(name, rows)

    save_weights(tmp_path, arrays_of(5), max_shard_size=80)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="device lost"):
        save_weights(tmp_path, Failing(arrays_of(5, start=100)), max_shard_size=80)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_source_that_breaks_its_word(tmp_path):
    class Lying(DictSource):
        """Reads another shape than it announced."""

        def read(self, name, rows=None):
            return super().read(name, rows)[:-1]

    with pytest.raises(ValueError, match="was announced as float32 .10,. but read as float32 .9,."):
        save_weights(tmp_path, Lying(arrays_of(1)))
    assert not files(tmp_path)


FORMATS = [{"names": "hf"}, {"names": "mindformers"}, {"names": "mindformers", "format": "ckpt"}]


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("shards", ["1GB", 80])
@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_a_folder_gives_what_was_saved_last(tmp_path, first, second, shards, variant):
    others = ("epoch.ckpt", "adapter_model.safetensors", "pytorch_model.bin", "model.ckpt", "model.bf16.safetensors",
              "model.safetensors.index.bf16.json", "model-1.safetensors", "mindspore_model_lora.ckpt")
    for name in others:
        (tmp_path / name).write_text("not ours to remove")
    save_weights(tmp_path, arrays_of(5), max_shard_size=shards, variant=variant, **first)
    written = save_weights(tmp_path, arrays_of(5, start=9), max_shard_size=80, variant=variant, **second)
    assert open_weights(tmp_path, variant).read("t0")[0] == 9
    assert files(tmp_path) == sorted([*others, *(path.name for path in written)])


def test_a_failing_save_keeps_the_other_format(tmp_path, full_disk):
    save_weights(tmp_path, arrays_of(5), max_shard_size=80)
    before = files(tmp_path)
    full_disk(60)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path, arrays_of(5, start=9), names="mindformers", format="ckpt")
    assert files(tmp_path) == before and open_weights(tmp_path).read("t0")[0] == 0


def test_old_files_go_when_the_new_ones_are_there_and_indexes_first(tmp_path, monkeypatch):
    save_weights(tmp_path, arrays_of(5), max_shard_size=80)
    gone, unlink = [], Path.unlink

    def watch(path, **options):
        if path.exists() and not path.name.startswith("."):
            assert (tmp_path / "mindspore_model.ckpt").is_file()
            gone.append(path.name)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", watch)
    save_weights(tmp_path, arrays_of(5, start=9), names="mindformers", format="ckpt")
    assert gone[0] == "model.safetensors.index.json" and len(gone) == 4


@pytest.fixture
def told(caplog, monkeypatch):
    """What was logged: the suite's logger keeps its records to itself."""
    monkeypatch.setattr(logger, "propagate", True)
    return caplog


def test_a_part_beside_the_weights_removes_nothing(tmp_path, told):
    save_weights(tmp_path, arrays_of(1))
    save_weights(tmp_path, arrays_of(1), stem="adapter_model")
    assert files(tmp_path) == ["adapter_model.safetensors", "model.safetensors"] and not told.records


@pytest.mark.parametrize("other, words", [
    ("model.safetensors", "its folder opens as model.safetensors, which goes first: move that away"),
    ("epoch.ckpt", "does not open as it.*2 candidates .epoch.ckpt, own.ckpt.")])
def test_what_hides_a_save_of_another_name_is_said(tmp_path, told, other, words):
    config = llama_config()
    arguments = {"names": "mindformers", "format": "ckpt", "stem": "own", "weight_map": WEIGHT_MAP, "config": config}
    save_weights(tmp_path, hf_weights(config), **arguments)
    assert not told.records
    (tmp_path / other).write_bytes(b"mine")
    save_weights(tmp_path, hf_weights(config), **arguments)
    assert re.search(words, told.text) and (tmp_path / other).read_bytes() == b"mine"
