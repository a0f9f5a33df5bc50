"""PyTorch's .bin files: tensors come out bit for bit; whatever else a file wants is refused, in little memory.

tests/reference/make_torch_bins.py made the files with PyTorch; the attacks are made here.
"""
import collections
import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindformers.checkpoint import open_weights
from mindformers.checkpoint.torch_bin import LEGACY_VERSION, MAGIC_NUMBER, open_torch
from mindformers.tools.errors import UnsupportedError

ms.set_device("CPU")
FILES = Path(__file__).resolve().parents[1] / "reference" / "torch_bin"
LITTLE = 48 * 2**20


def expected():
    """{name: (dtype, bit patterns)} of the files that PyTorch wrote."""
    with np.load(FILES / "expected.npz") as file:
        dtypes = json.loads(str(file["dtypes"]))
        return {name: (dtype, file[f"value.{name}"]) for name, dtype in dtypes.items()}


@pytest.mark.parametrize("place", ["zip.bin", "legacy.bin", "sharded"])
def test_what_pytorch_saved_bit_for_bit(place):
    source = open_weights(FILES / place)
    wanted = expected()
    assert set(source.names()) == set(wanted) and len(wanted) == 23
    for name, (dtype, bits) in wanted.items():
        array = source.read(name)
        assert source.dtype(name) == dtype and array.dtype.itemsize == bits.itemsize, name
        assert source.shape(name) == array.shape == bits.shape and array.flags.c_contiguous, name
        assert array.tobytes() == bits.tobytes(), name


@pytest.mark.parametrize("place", ["zip.bin", "legacy.bin"])
def test_rows_of_any_layout(place):
    source = open_weights(FILES / place)
    for name, (_, bits) in expected().items():
        if bits.ndim and len(bits) > 1:
            assert source.read(name, (1, 2)).tobytes() == bits[1:2].tobytes(), name


def test_strides_matter():
    """The fault that the copying of views guards against: the storage's own order is another."""
    source = open_weights(FILES / "zip.bin")
    assert source.read("transposed").tobytes() != source.read("dtype.float32").tobytes()


def test_newest_way_to_rebuild_a_tensor():
    assert open_weights(FILES / "uint16.bin").read("weight").tolist() == [0, 1, 2]


def test_values_are_read_when_asked_for(monkeypatch):
    """Opening reads no storage, and a tensor of a file reads only its own bytes."""
    source = open_torch(FILES / "zip.bin")
    reads = []
    monkeypatch.setattr("mindformers.checkpoint.torch_bin.FileSource.read",
                        lambda self, name, rows=None: reads.append((name, self._segments[name])) or np.zeros(0))
    source.read("shared.part")
    assert reads == [("shared.part", [(reads[0][1][0][0], 48)])]


def test_a_folder_prefers_safetensors(tmp_path):
    shutil.copy(FILES / "zip.bin", tmp_path / "pytorch_model.bin")
    assert len(open_weights(tmp_path)) == 23
    from mindformers.checkpoint import save_weights
    save_weights(tmp_path, {"a": np.ones(2, np.float32)})
    assert open_weights(tmp_path).names() == ["a"]
    assert len(open_weights(tmp_path, use_safetensors=False)) == 23
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="safetensors only, but .* has pytorch_model.bin"):
        open_weights(tmp_path, use_safetensors=True)


def test_variant_and_names_of_bin_files(tmp_path):
    shutil.copy(FILES / "zip.bin", tmp_path / "pytorch_model.fp16.bin")
    assert len(open_weights(tmp_path, variant="fp16")) == 23
    shutil.copytree(FILES / "sharded", tmp_path / "several")
    (tmp_path / "several" / "training_args.bin").write_bytes(b"no weights")
    (tmp_path / "several" / "pytorch_model.bin.index.json").rename(tmp_path / "index.json")
    with pytest.raises(ValueError, match="not the index.*pytorch_model.bin.index.json"):
        open_weights(tmp_path / "several")


@pytest.mark.parametrize("name, words", [
    ("module", "torch.nn.modules.linear.Linear"), ("arguments", "argparse.Namespace"),
    ("complex", "torch.ComplexFloatStorage"), ("sparse", "torch._utils._rebuild_sparse_tensor"),
    ("nested", "'model' is a dict.*training checkpoint"), ("list", "holds a list"),
    ("expanded", "'weight' repeats its values.*contiguous")])
def test_more_than_tensors_is_refused_by_name(name, words):
    with pytest.raises(UnsupportedError, match=words):
        open_weights(FILES / f"{name}.bin")


# -- attacks ----------------------------------------------------------------------------------------------------------

def archive(content, entries=(), method=zipfile.ZIP_STORED):
    """A zip file as PyTorch writes it, around the pickle `content`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in entries:
            file.writestr(name, data)
    return out.getvalue()


def legacy(content, keys=(), rest=b""):
    """A file of the old format around the pickle `content`."""
    system = {"protocol_version": LEGACY_VERSION, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(value, 2) for value in (MAGIC_NUMBER, LEGACY_VERSION, system)]
    return b"".join([*head, content, pickle.dumps(list(keys), 2), rest])


class Payload:
    """Runs a command where it is unpickled in earnest."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def refused(tmp_path, content, error, words):
    """Opening a file of `content` is one clear error, and takes little memory."""
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(error, match=words) as caught:
        open_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LITTLE
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wrap", [archive, legacy])
def test_a_payload_is_named_and_never_called(tmp_path, wrap, protocol):
    mark = tmp_path / "ran"
    content = pickle.dumps({"weight": Payload(os.system, f"touch {mark}")}, protocol)
    if protocol:
        refused(tmp_path, wrap(content), UnsupportedError, "posix.system")
    else:  # a text format that PyTorch never wrote
        refused(tmp_path, wrap(content), (ValueError, UnsupportedError), "posix.system|never writes")
    assert not mark.exists()
    pickle.loads(content)  # the control: with Python's own unpickler it does run
    assert mark.exists()


@pytest.mark.parametrize("payload, name", [
    (Payload(eval, "1"), "builtins.eval|__builtin__.eval"), (Payload(getattr, "", "join"), "getattr"),
    (collections.Counter(), "collections.Counter"), (Payload(open, "x"), "io.open")])
def test_other_names_are_refused_too(tmp_path, payload, name):
    refused(tmp_path, archive(pickle.dumps(payload, 2)), UnsupportedError, name)


def test_an_allowed_name_cannot_be_misused(tmp_path):
    """Calls of classes that only describe, and states put onto what is no tensor, are damage."""
    mention = b"ctorch\nFloatStorage\n"
    for content in (b"\x80\x02" + mention + b")R.", b"\x80\x02" + mention + b"}b.", b"\x80\x02(lb.",
                    b"\x80\x02ccollections\nOrderedDict\nK\x05\x85R.", b"\x80\x02}(ccollections\nOrderedDict\nK\x05u."):
        refused(tmp_path, archive(content), ValueError, "pickle is broken")


@pytest.mark.parametrize("content", [
    b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 34) + b"x.",
    b"\x80\x02X" + struct.pack("<L", 0xFFFFFFF0) + b"x.", b"\x80\x02\x8b" + struct.pack("<l", 0x7FFFFFF0) + b"x.",
    b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].", b"\x80\x02]r" + struct.pack("<L", 0xFFFFFFFF) + b"."])
@pytest.mark.parametrize("wrap", [archive, legacy])
def test_claims_of_a_pickle_take_no_memory(tmp_path, wrap, content):
    """Long strings, frames and large memory numbers for which the file has not the bytes."""
    refused(tmp_path, wrap(content), (ValueError, UnsupportedError), "pickle is broken|holds a list")


@pytest.mark.parametrize("content", [b"}" * 10**6, b"]\x94" * 10**6, b"(" * 10**6])
def test_endless_containers_end(tmp_path, monkeypatch, content):
    monkeypatch.setattr("mindformers.checkpoint.torch_pickle.MAX_STEPS", 50_000)  # a twentieth, for speed
    monkeypatch.setattr(f"{__name__}.LITTLE", 20 * 2**20)
    refused(tmp_path, archive(b"\x80\x04" + content + b"."), ValueError, "more than 50000 instructions")


def test_a_compressed_archive_is_no_bomb(tmp_path):
    bomb = archive(b"\x80\x02}.", [("archive/data/0", bytes(64 * 2**20))], zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**18
    refused(tmp_path, bomb, ValueError, "compressed")


@pytest.mark.parametrize("name", ["../evil", "archive/../../evil", "/etc/evil", "archive\\..\\evil"])
def test_names_that_lead_out_of_the_archive(tmp_path, name):
    # zipfile itself tidies some of these names, so they are put in afterwards
    plain = "x" * len(name)
    content = archive(b"\x80\x02}.", [(plain, b"data")]).replace(plain.encode(), name.encode())
    refused(tmp_path, content, ValueError, "leads out of its folder")


def tensor_pickle(key, count, shape, strides, offset=0, kind=b"FloatStorage"):
    """{"w": a float32 tensor} as PyTorch writes it."""
    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    storage = b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX" + struct.pack("<L", len(key)) + key + b"X\x03\0\0\0cpu" \
        + number(count) + b"tQ"
    return b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + b"".join(numbers) \
        + b"\x89ccollections\nOrderedDict\n)RtRs."


def test_the_maker_of_the_cases_below(tmp_path):
    for wrapped in (archive(tensor_pickle(b"0", 6, (2, 3), (3, 1)), [("archive/data/0", np.arange(6, dtype="f4"))]),
                    legacy(tensor_pickle(b"0", 6, (2, 3), (3, 1)), ["0"],
                           struct.pack("<q", 6) + np.arange(6, dtype="f4").tobytes())):
        (tmp_path / "x.bin").write_bytes(wrapped)
        assert open_weights(tmp_path / "x.bin").read("w").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("arguments, words", [
    ((b"0", 6, (2, 4), (4, 1)), "ends beyond the 24 bytes"), ((b"0", 6, (2, 3), (3, 1), 1), "ends beyond"),
    ((b"0", 1 << 40, (1 << 40,), (1,)), "ends beyond the 24 bytes"), ((b"0", 6, (1 << 61, 8), (1, 1)), "ends beyond"),
    ((b"0", 6, (1 << 40,), (0,)), "repeats its values"), ((b"0", 6, (2,), (-1,)), "pickle is broken"),
    ((b"0", 6, (-2,), (1,)), "pickle is broken"), ((b"0", -1, (2,), (1,)), "pickle is broken"),
    ((b"0", 6, (2, 3), (1,)), "pickle is broken"), ((b"../data.pkl", 6, (2,), (1,)), "are not in it"),
    ((b"1", 6, (2, 3), (3, 1)), "are not in it"), ((b"0", 6, (2,), (1,), -1), "pickle is broken")])
def test_tensors_outside_their_storage(tmp_path, arguments, words):
    content = archive(tensor_pickle(*arguments), [("archive/data/0", bytes(24))])
    refused(tmp_path, content, (ValueError, UnsupportedError), words)


def test_claims_of_the_old_format(tmp_path):
    content = tensor_pickle(b"0", 1 << 40, (1 << 40,), (1,))
    refused(tmp_path, legacy(content, ["0"], struct.pack("<q", 1 << 40)), ValueError, "truncated: storage '0'")
    refused(tmp_path, legacy(content, ["0"], struct.pack("<q", -1)), ValueError, "truncated")
    refused(tmp_path, legacy(content, ["0"], struct.pack("<q", 2) + bytes(8)), ValueError, "ends beyond the 8 bytes")
    refused(tmp_path, legacy(content, ["1"]), ValueError, "no tensor needs")
    refused(tmp_path, legacy(content), ValueError, "are not in it")


def test_overlapping_entries(tmp_path):
    """Two names of one place, as bombs that need no compression have; and one name twice."""
    plain = archive(b"\x80\x02}.", [("archive/data/0", bytes(64)), ("archive/data/1", bytes(64))])
    at = plain.rindex(b"PK\x01\x02")
    first = plain.index(b"PK\x03\x04", 4)
    overlapping = plain[:at + 42] + struct.pack("<L", first) + plain[at + 46:]
    refused(tmp_path, overlapping, ValueError, "overlaps another")
    refused(tmp_path, plain.replace(b"archive/data/1", b"archive/data/0"), ValueError, "there twice")


def test_sizes_of_the_directory(tmp_path):
    plain = archive(b"\x80\x02}.", [("archive/data/0", bytes(64))])
    end = plain.rindex(b"PK\x05\x06")
    for length, begin, words in ((0xFFFFFFF0, 0, "the limit is"), (400, 0xFFFFFF00, "ends at byte")):
        changed = plain[:end + 12] + struct.pack("<2L", length, begin) + plain[end + 20:]
        refused(tmp_path, changed, ValueError, words)
    # an entry of more bytes than the file
    at = plain.rindex(b"PK\x01\x02")
    changed = plain[:at + 20] + struct.pack("<2L", 0xFFFFFFF0, 0xFFFFFFF0) + plain[at + 28:]
    refused(tmp_path, changed, ValueError, "truncated or damaged")


def test_zip64_sizes_are_read(tmp_path):
    """Archives beyond 4 GB keep their sizes in extra records; so does this small one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        with file.open("archive/data.pkl", "w", force_zip64=True) as entry:
            entry.write(tensor_pickle(b"0", 6, (6,), (1,)))
        file.writestr("archive/data/0", np.arange(6, dtype="f4"))
    content = out.getvalue()
    at, end = content.rindex(b"PK\x01\x02"), content.rindex(b"PK\x05\x06")
    length, begin = struct.unpack_from("<2L", content, end + 12)
    wide = struct.pack("<2H3Q", 1, 24, 24, 24, struct.unpack_from("<L", content, at + 42)[0])
    entry = bytearray(content[at:end])
    struct.pack_into("<2L", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(wide))
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    length += len(wide)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, length, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + length, 1)
    tail = content[end:end + 12] + struct.pack("<2L", 0xFFFFFFFF, 0xFFFFFFFF) + content[end + 20:]
    (tmp_path / "x.bin").write_bytes(content[:at] + entry + wide + record + locator + tail)
    assert open_weights(tmp_path / "x.bin").read("w").tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("place", ["zip.bin", "legacy.bin"])
def test_truncated_at_any_length(tmp_path, place):
    """A part of a file is one error; never a crash, never other values."""
    whole = (FILES / place).read_bytes()
    for length in {*range(0, 64), *range(64, len(whole) - 1, 97), len(whole) - 1}:
        (tmp_path / "x.bin").write_bytes(whole[:length])
        with pytest.raises((ValueError, UnsupportedError)):
            open_weights(tmp_path / "x.bin")


@pytest.mark.parametrize("place", ["zip.bin", "legacy.bin"])
def test_flipped_bytes_never_crash(tmp_path, place):
    """Damage gives an error or other values, within the memory of the file."""
    whole, draw, outcomes = (FILES / place).read_bytes(), np.random.default_rng(0), collections.Counter()
    for _ in range(300):
        content = bytearray(whole)
        for at in draw.integers(0, len(content), 4):
            content[at] = draw.integers(256)
        (tmp_path / "x.bin").write_bytes(content)
        try:
            source = open_weights(tmp_path / "x.bin")
            for name in source.names():
                source.read(name)
            outcomes["read"] += 1
        except (ValueError, UnsupportedError) as error:
            assert "x.bin" in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] > 10 and outcomes["refused"] > 10


def test_other_content_under_the_name(tmp_path):
    for content, words in ((b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
                           (b"GGUF1234", "llama.cpp"),
                           (b"", "begins with b''"), (pickle.dumps({"a": 1}, 2), "not one that PyTorch wrote"),
                           (archive(b"\x80\x02}.").replace(b"data.pkl", b"meta.pkl"), "0 data.pkl")):
        refused(tmp_path, content, (ValueError, UnsupportedError), words)
