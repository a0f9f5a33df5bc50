"""Readers: what is read is what was written, lazily; every damaged or foreign input has one clear error."""
import json
import struct
import tracemalloc

import mindspore as ms
import numpy as np
import pytest
from checkpoint_helpers import same
from mindspore.common import np_dtype
from safetensors import safe_open
from safetensors.numpy import save_file

from mindformers.checkpoint import DictSource, open_weights, save_weights
from mindformers.checkpoint import ckpt_file
from mindformers.checkpoint.arrays import ITEMSIZE, numpy_dtype
from mindformers.checkpoint.ckpt_file import open_ckpt, write_ckpt
from mindformers.checkpoint.safetensors_file import open_safetensors, write_safetensors
from mindformers.tools.errors import UnsupportedError

ms.set_device("CPU")


def arrays_of_all_dtypes():
    """One array of each dtype, every bit pattern allowed, and odd shapes."""
    rng = np.random.default_rng(0)
    out = {name: rng.integers(0, 256, (3, 2 * size), np.uint8).view(numpy_dtype(name))
           for name, size in ITEMSIZE.items() if name != "bool"}
    out["bool"] = np.array([[True, False]])
    out["scalar"] = np.array(2.5, np.float32)
    out["empty"] = np.zeros((0, 4), np.float16)
    out["ünïcode \"name\""] = np.arange(6, dtype=np.int32).reshape(1, 2, 3)
    return out


@pytest.mark.parametrize("write, read, suffix", [(write_safetensors, open_safetensors, "safetensors"),
                                                 (write_ckpt, open_ckpt, "ckpt")])
def test_every_dtype_comes_back_bit_for_bit(tmp_path, write, read, suffix):
    arrays = arrays_of_all_dtypes()
    path = tmp_path / f"x.{suffix}"
    write(path, DictSource(arrays), metadata={"note": "ä b", "empty": ""})
    source = read(path)
    assert set(source.names()) == set(arrays)
    assert source.metadata == {"note": "ä b", "empty": ""}
    for name, array in arrays.items():
        assert same(source.read(name), array), name
        assert source.shape(name) == array.shape and source.nbytes(name) == array.nbytes


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_any_memory_layout_is_written_right(tmp_path, suffix):
    base = np.arange(48, dtype=np.float32).reshape(6, 8)
    arrays = {"transposed": base.T, "columns": base[:, 1:4], "every second": base[::2], "reversed": base[::-1, ::-1],
              "fortran": np.asfortranarray(base), "broadcast": np.broadcast_to(base[0], (3, 8)),
              "bf16 columns": base.astype(np_dtype.bfloat16)[:, 2:5]}
    save_weights(tmp_path, arrays, names="mindformers", format=suffix)
    source = open_weights(tmp_path)
    for name, array in arrays.items():
        assert same(source.read(name), array), name
    assert not same(source.read("transposed"), base.reshape(8, 6))  # the fault this guards against


def test_safetensors_library_reads_ours_and_we_read_its(tmp_path):
    arrays = {name: array for name, array in arrays_of_all_dtypes().items() if name != "bfloat16"}
    write_safetensors(tmp_path / "ours.safetensors", DictSource(arrays), metadata={"format": "pt"})
    save_file(arrays, tmp_path / "theirs.safetensors")
    theirs = open_weights(tmp_path / "theirs.safetensors")
    with safe_open(tmp_path / "ours.safetensors", "np") as ours:
        assert ours.metadata() == {"format": "pt"} and set(ours.keys()) == set(arrays)
        for name, array in arrays.items():
            assert same(ours.get_tensor(name), array) and same(theirs.read(name), array), name


def test_mindspore_reads_our_ckpt_and_we_read_its(tmp_path):
    arrays = {name: array for name, array in arrays_of_all_dtypes().items() if array.size}
    write_ckpt(tmp_path / "ours.ckpt", DictSource(arrays), metadata={"note": "text"})
    theirs = ms.load_checkpoint(str(tmp_path / "ours.ckpt"))
    assert theirs["note"] == "text"
    for name, array in arrays.items():
        assert same(theirs[name].asnumpy(), array), name
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()],
                       str(tmp_path / "theirs.ckpt"), append_dict={"epoch_num": 3, "word": "ab"}, crc_check=True)
    source = open_weights(tmp_path / "theirs.ckpt")
    assert source.metadata == {"word": "ab"} and source.read("epoch_num").item() == 3
    for name, array in arrays.items():
        assert same(source.read(name), array), name


def test_large_tensors_in_slices(tmp_path, monkeypatch):
    """Both writers cut tensors beyond 512 MB into several values of one name."""
    monkeypatch.setattr(ckpt_file, "SLICE_BYTES", 10)
    arrays = {"a": np.arange(33, dtype=np.int16).reshape(11, 3), "b": np.arange(7, dtype=np.float64)}
    write_ckpt(tmp_path / "x.ckpt", DictSource(arrays))
    source = open_ckpt(tmp_path / "x.ckpt")
    theirs = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    for name, array in arrays.items():
        assert same(source.read(name), array) and same(theirs[name].asnumpy(), array)
        assert same(source.read(name, (2, 5)), array[2:5])


def test_rows_of_a_file(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(6, 4)
    write_safetensors(tmp_path / "x.safetensors", DictSource({"pad": array, "a": array}))
    source = open_weights(tmp_path / "x.safetensors")
    assert same(source.read("a", (1, 4)), array[1:4]) and source.read("a", (2, 2)).shape == (0, 4)


def test_unknown_name_says_the_nearest(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", DictSource({"lm_head.weight": np.zeros(2, np.float32)}))
    with pytest.raises(KeyError, match="Did you mean 'lm_head.weight'"):
        open_weights(tmp_path / "x.safetensors").read("lm_head.wieght")


# -- damaged safetensors ----------------------------------------------------------------------------------------------

def safetensors_bytes(header, data=b"\0" * 24, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin, end, shape=(3,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = {"a": entry(0, 12), "b": entry(12, 24)}
DAMAGED = {
    "empty file": (b"", "too short"),
    "half a length": (b"\1\2\3", "too short"),
    "header longer than the file": (safetensors_bytes(GOOD, length=5000), "announces a header of 5000 bytes"),
    "huge header": (safetensors_bytes(GOOD, length=2**60), "the limit is"),
    "header cut short": (safetensors_bytes(GOOD, length=20), "no valid JSON"),
    "not JSON": (safetensors_bytes(b"x" * 30), "no valid JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff":1}'), "no valid JSON"),
    "deep JSON": (safetensors_bytes(b"[" * 100000), "no valid JSON"),
    "a list": (safetensors_bytes([1]), "not a JSON object"),
    "name twice": (safetensors_bytes(b'{"a":1,"a":2}'), "occurs twice"),
    "truncated data": (safetensors_bytes(GOOD, b"\0" * 20), "truncated: tensor 'b'"),
    "surplus data": (safetensors_bytes(GOOD, b"\0" * 25), "after the last tensor"),
    "overlap": (safetensors_bytes({"a": entry(0, 12), "b": entry(8, 20)}, b"\0" * 20), "overlap"),
    "hole": (safetensors_bytes({"a": entry(0, 12), "b": entry(16, 28)}, b"\0" * 28), "belong to none"),
    "negative offset": (safetensors_bytes({"a": entry(-12, 0)}), "data_offsets"),
    "offsets reversed": (safetensors_bytes({"a": entry(12, 0)}), "data_offsets"),
    "offsets out of range": (safetensors_bytes({"a": entry(0, 4000, (1000,))}), "truncated"),
    "shape against offsets": (safetensors_bytes({"a": entry(0, 24, (5,))}), "needs 20 bytes"),
    "shape product overflows": (safetensors_bytes({"a": entry(0, 24, (2**40, 2**40))}), "needs"),
    "negative shape": (safetensors_bytes({"a": entry(0, 24, (-6,))}), "has shape"),
    "true as a size": (safetensors_bytes({"a": entry(0, 4, (True,))}), "has shape"),
    "shape no list": (safetensors_bytes({"a": {**entry(0, 24), "shape": 6}}), "has shape"),
    "no offsets": (safetensors_bytes({"a": {"dtype": "F32", "shape": [6]}}), "needs dtype"),
    "metadata no texts": (safetensors_bytes({"__metadata__": {"a": 1}, **GOOD}), "__metadata__"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_safetensors(tmp_path, case):
    content, words = DAMAGED[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        open_weights(tmp_path)
    assert str(path) in str(caught.value)


def test_undamaged_safetensors_is_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(GOOD))
    assert open_weights(tmp_path).names() == ["a", "b"]


def test_float8_is_refused_by_name(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"a": entry(0, 24, (24,), "F8_E4M3")}))
    with pytest.raises(UnsupportedError, match="F8_E4M3"):
        open_weights(tmp_path)


def test_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(GOOD))
    source = open_weights(path)
    path.write_bytes(safetensors_bytes(GOOD)[:-4])
    with pytest.raises(ValueError, match="changed its size"):
        source.read("a")


# -- damaged ckpt -----------------------------------------------------------------------------------------------------

@pytest.fixture
def ckpt_bytes(tmp_path):
    write_ckpt(tmp_path / "good.ckpt", DictSource({"first": np.arange(6, dtype=np.float32).reshape(2, 3),
                                                   "second": np.arange(4, dtype=np.int8)}))
    return (tmp_path / "good.ckpt").read_bytes()


def test_truncated_ckpt_at_every_length(tmp_path, ckpt_bytes):
    """A cut anywhere but between two tensors is an error; a cut between them is seen by the strict loader."""
    between = ckpt_bytes.index(b"second") - 4
    path = tmp_path / "cut.ckpt"
    for length in range(len(ckpt_bytes)):
        path.write_bytes(ckpt_bytes[:length])
        if length == between:
            assert open_ckpt(path).names() == ["first"]
        else:
            with pytest.raises(ValueError, match="cut.ckpt"):
                open_ckpt(path)


def message(number, content):
    """A length-delimited protobuf field; a content may announce another length than it has."""
    length, content = content if isinstance(content, tuple) else (len(content), content)
    head = b""
    while length >= 0x80:
        head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
    return bytes([number << 3 | 2]) + head + bytes([length]) + content


def ckpt_value(dims, kind=b"Float32", data=b"\0" * 4, name=b"w"):
    tensor = message(1, dims) + message(2, kind) + message(3, data)
    return message(1, message(1, name) + message(2, tensor))


HUGE = b"\xff" * 8 + b"\x3f"  # 2 ** 62 - 1
CLAIMS = {
    "content longer than the file": (ckpt_value(b"\1", data=(2 ** 40, b"\0" * 4)), "announced"),
    "file of one huge field": (message(1, (2 ** 62, b"")), "announced"),
    "name longer than the file": (message(1, message(1, (2 ** 33, b"x"))), "announced"),
    "long name": (ckpt_value(b"\1", name=b"n" * 5000), "a text of 5000 bytes, the limit is 4096"),
    "huge axis": (ckpt_value(HUGE), "needs .* bytes but has 4"),
    "huge axes": (ckpt_value(HUGE * 8), "needs .* bytes but has 4"),
    "axis beyond 62 bits": (ckpt_value(b"\xff" * 9 + b"\1"), "a tensor of shape"),
    "endless axes": (ckpt_value(b"\1" * 2_000_000), "more than 32 axes"),
    "endless number": (ckpt_value(b"\xff" * 64), "more than 10 bytes"),
    "no content": (message(1, message(1, b"w") + message(2, message(2, b"Float32"))), "without type or content"),
    "unknown type": (ckpt_value(b"\1", kind=b"Pickle"), "Pickle"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_of_a_ckpt_take_no_memory(tmp_path, case):
    content, words = CLAIMS[case]
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises((ValueError, UnsupportedError), match=words) as caught:
        open_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20 and "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_maker_of_those_claims(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(ckpt_value(b"\1", data=np.float32(2.5).tobytes()))
    assert open_weights(tmp_path / "x.ckpt").read("w").tolist() == [2.5]


def test_a_huge_header_is_not_read(tmp_path):
    """Announced, and with the bytes really there (a hole in the file)."""
    path = tmp_path / "model.safetensors"
    for length in (2**25 + 1, 2**40, 2**63):
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", length))
            file.truncate(2**30)
        tracemalloc.start()
        with pytest.raises(ValueError, match=f"announces a header of {length} bytes, the limit is"):
            open_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_flipped_bytes_never_crash(tmp_path, ckpt_bytes):
    """Any one changed byte gives a ValueError, an UnsupportedError, or a file that reads without crashing."""
    path, refused = tmp_path / "flipped.ckpt", 0
    for position in range(len(ckpt_bytes)):
        for change in (0x01, 0x80, 0xFF):
            content = bytearray(ckpt_bytes)
            content[position] ^= change
            path.write_bytes(content)
            try:
                source = open_ckpt(path)
                for name in source.names():
                    source.read(name)
            except (ValueError, UnsupportedError):
                refused += 1
    assert refused > len(ckpt_bytes)


def test_shape_against_content_in_ckpt(tmp_path, ckpt_bytes):
    path = tmp_path / "bad.ckpt"
    path.write_bytes(ckpt_bytes.replace(b"\x08\x02\x08\x03", b"\x08\x02\x08\x04"))
    with pytest.raises(ValueError, match=r"'first' of shape \[2, 4\] and dtype float32 needs 32 bytes but has 24"):
        open_ckpt(path)


def test_name_twice_in_ckpt(tmp_path, ckpt_bytes):
    path = tmp_path / "bad.ckpt"
    path.write_bytes(ckpt_bytes + ckpt_bytes)
    with pytest.raises(ValueError, match="two tensors are named 'first'"):
        open_ckpt(path)


def test_text_is_no_ckpt(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"hello, this is no checkpoint at all")
    with pytest.raises(ValueError, match="not a MindSpore checkpoint"):
        open_weights(tmp_path)


# -- foreign files and folders ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, words", [
    ("consolidated.00.pth", "PyTorch pickle.*safe_serialization=True"),
    ("model.pt", "PyTorch pickle"), ("tf_model.h5", "TensorFlow"), ("flax_model.msgpack", "Flax"),
    ("model.gguf", "llama.cpp"), ("weights.xyz", "'.xyz'"), ("weights", "'nothing'")])
def test_foreign_files_are_refused_with_the_way_out(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"12345678")
    with pytest.raises(UnsupportedError, match=words):
        open_weights(tmp_path / name)


@pytest.mark.parametrize("content, words", [(b"PK\x03\x04rest", "zip archive"), (b"\x80\x02rest", "pickle"),
                                            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull")])
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_foreign_content_under_our_names(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedError, match=words):
        open_weights(tmp_path / name)


def test_header_length_that_looks_like_a_pickle(tmp_path):
    """A header of 0x0280 bytes begins with the two bytes of a pickle."""
    header = json.dumps(GOOD).encode()
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(header + b" " * (0x0280 - len(header))))
    assert (tmp_path / "model.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert open_weights(tmp_path).names() == ["a", "b"]


def test_folder_with_pickles_only(tmp_path):
    (tmp_path / "consolidated.00.pth").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match="consolidated.00.pth.*save_pretrained"):
        open_weights(tmp_path)


def test_pickles_beside_safetensors_do_not_matter(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(GOOD))
    assert len(open_weights(tmp_path)) == 2


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_weights(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no weights: expected model.safetensors"):
        open_weights(tmp_path)


def test_layouts_of_folders(tmp_path):
    arrays = {"w": np.arange(3, dtype=np.float32)}
    places = {"one.ckpt": write_ckpt, "odd_name.safetensors": write_safetensors, "rank_0/p_rank_0-1_2.ckpt": write_ckpt}
    for number, (name, write) in enumerate(places.items()):
        file = tmp_path / str(number) / name
        file.parent.mkdir(parents=True)
        write(file, DictSource(arrays))
        assert same(open_weights(tmp_path / str(number)).read("w"), arrays["w"])
    write_ckpt(tmp_path / "0" / "two.ckpt", DictSource(arrays))
    with pytest.raises(ValueError, match="2 candidates .one.ckpt, two.ckpt."):
        open_weights(tmp_path / "0")


def test_training_folder_gives_what_meta_names(tmp_path):
    folder = tmp_path / "checkpoint" / "rank_0"
    folder.mkdir(parents=True)
    for step in (1, 2):
        write_ckpt(folder / f"p_rank_0-1_{step}.ckpt", DictSource({"w": np.array(step)}))
    with pytest.raises(ValueError, match="2 candidates"):
        open_weights(tmp_path / "checkpoint")
    (folder / "meta.json").write_text('{"last_ckpt_file": "p_rank_0-1_1.ckpt"}')
    assert open_weights(tmp_path / "checkpoint").read("w") == 1
    with pytest.raises(FileNotFoundError, match="Did you mean its folder 'checkpoint'"):
        open_weights(tmp_path)


def test_variant(tmp_path):
    save_weights(tmp_path, {"a": np.zeros(2, np.float32)})
    save_weights(tmp_path, {"a": np.ones(2, np.float32)}, variant="fp16")
    assert open_weights(tmp_path).read("a")[0] == 0 and open_weights(tmp_path, variant="fp16").read("a")[0] == 1
    with pytest.raises(FileNotFoundError, match="variant 'fp32'"):
        open_weights(tmp_path, variant="fp32")
