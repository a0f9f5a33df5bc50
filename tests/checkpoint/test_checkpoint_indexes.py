"""Weights in several files: the index, and what can be wrong with it."""
import json

import numpy as np
import pytest

from mindformers.checkpoint import open_weights, save_weights
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "model"
    arrays = {f"t{number}": np.full((4,), number, np.float32) for number in range(4)}
    save_weights(folder, arrays, max_shard_size=32)
    return folder


def change_index(folder, **changes):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"].update(changes)
    index.write_text(json.dumps(content))


def test_shards_read_as_one(sharded):
    source = open_weights(sharded)
    assert sorted(file.name for file in sharded.iterdir()) == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert [source.read(name)[0] for name in source.names()] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "",
                                  "..\\x.safetensors", "a\0b", 5, None])
def test_index_that_points_outside(sharded, name):
    (sharded.parent / "outside.safetensors").write_bytes((sharded / "model-00001-of-00002.safetensors").read_bytes())
    change_index(sharded, t0=name)
    with pytest.raises(ValueError, match="own folder|not a name"):
        open_weights(sharded)


def test_link_that_leaves_the_folder(sharded):
    shard = sharded / "model-00001-of-00002.safetensors"
    shard.rename(sharded.parent / "elsewhere.safetensors")
    shard.symlink_to("../elsewhere.safetensors")
    with pytest.raises(ValueError, match="outside its folder"):
        open_weights(sharded)


def test_links_of_a_hub_cache_are_fine(sharded):
    """A Hugging Face cache keeps snapshots/<revision>/<file> as links to blobs/<hash>."""
    snapshot, blobs = sharded.parent / "snapshots" / "abc", sharded.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(sharded.iterdir())):
        file.rename(blobs / f"hash{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/hash{number}")
    assert len(open_weights(snapshot)) == 4


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002.safetensors is missing"):
        open_weights(sharded)


def test_index_names_a_tensor_its_shard_lacks(sharded):
    change_index(sharded, t9="model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointMismatchError, match="t9 .model-00001"):
        open_weights(sharded)


def test_what_a_shard_holds_beyond_the_index_is_seen(sharded):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    del content["weight_map"]["t3"]
    index.write_text(json.dumps(content))
    assert "t3" in open_weights(sharded)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_damaged_index(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="index.json is damaged"):
        open_weights(sharded)


def test_index_that_names_pickles(sharded):
    (sharded / "model-1.pth").write_bytes(b"\x80\x02")
    change_index(sharded, t0="model-1.pth")
    with pytest.raises(UnsupportedError, match="PyTorch pickle"):
        open_weights(sharded)


def test_shards_without_index(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="not the index"):
        open_weights(sharded)


def test_index_of_bin_files_is_held_to_the_same(tmp_path):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    with pytest.raises(ValueError, match="own folder"):
        open_weights(tmp_path)
    (tmp_path / "pytorch_model-00001-of-00001.bin").symlink_to("/etc/hostname")
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}))
    with pytest.raises(ValueError, match="outside its folder"):
        open_weights(tmp_path)


def test_a_huge_index_is_not_read(sharded):
    with open(sharded / "model.safetensors.index.json", "wb") as file:
        file.truncate(2**33)
    with pytest.raises(ValueError, match="too large for the index"):
        open_weights(sharded)


ARRAYS = {f"t{number}": np.full((4,), number, np.float32) for number in range(4)}


@pytest.mark.parametrize("size", ["1GB", 32])
@pytest.mark.parametrize("names, format", [("hf", "safetensors"), ("mindformers", "safetensors"),
                                           ("mindformers", "ckpt")])
def test_a_folder_of_a_variant_alone_says_so(tmp_path, size, names, format):
    save_weights(tmp_path, ARRAYS, names=names, format=format, max_shard_size=size, variant="fp16")
    with pytest.raises(ConfigError, match="has weights of variant 'fp16' only: variant='fp16' loads them"):
        open_weights(tmp_path)
    assert len(open_weights(tmp_path, "fp16")) == 4
    with pytest.raises(FileNotFoundError, match="no weights of variant 'bf16'.* It has variant 'fp16'"):
        open_weights(tmp_path, "bf16")


def test_several_variants_are_all_named(tmp_path):
    save_weights(tmp_path, ARRAYS, variant="fp16")
    save_weights(tmp_path, ARRAYS, variant="8bit", names="mindformers", format="ckpt", max_shard_size=32)
    with pytest.raises(ConfigError, match="variants '8bit', 'fp16' only: variant='8bit' or variant='fp16' loads"):
        open_weights(tmp_path)
    (tmp_path / "epoch.ckpt").write_bytes(b"")  # then the variants are not all there is
    with pytest.raises(ValueError, match="candidates .*: give the path"):
        open_weights(tmp_path)


@pytest.mark.parametrize("names, format, variant, index", [
    ("hf", "safetensors", None, "model.safetensors.index.json"),
    ("hf", "safetensors", "fp16", "model.safetensors.index.fp16.json"),
    ("mindformers", "safetensors", None, "mindspore_model.safetensors.index.json"),
    ("mindformers", "ckpt", None, "mindspore_model.ckpt.index.json"),
    ("mindformers", "ckpt", "fp16", "mindspore_model.ckpt.index.fp16.json")])
def test_shards_without_index_name_the_right_one(tmp_path, names, format, variant, index):
    written = save_weights(tmp_path, ARRAYS, names=names, format=format, max_shard_size=32, variant=variant)
    assert written[-1].name == index
    written[-1].unlink()
    with pytest.raises(ValueError, match=f"not the index .*: fetch {index} too"):
        open_weights(tmp_path)
