"""Loading without copying: parameters on the pages of a large file, and what must hold then."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindformers.checkpoint.formats import open_weights
from mindformers.checkpoint.load import load
from mindformers.checkpoint.save import save_weights
from mindformers.tools import mapped_file

ROWS, COLUMNS = 1500, 701  # odd: rows end in the middle of a cache line


class TwoWeights(nn.Cell):
    """Two parameters of a few megabytes."""

    def __init__(self, dtype=ms.float32):
        super().__init__()
        self.first = Parameter(Tensor(np.zeros((ROWS, COLUMNS)), dtype), name="first")
        self.second = Parameter(Tensor(np.zeros((ROWS, COLUMNS)), dtype), name="second")


@pytest.fixture(autouse=True)
def map_small_files(monkeypatch):
    monkeypatch.setattr(mapped_file, "SMALLEST", 1 << 20)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((ROWS, COLUMNS), np.float32) for name in ("first", "second")}


@pytest.mark.parametrize("shards", ["1GB", "5MB"])
def test_parameters_lie_on_the_file(tmp_path, arrays, shards):
    save_weights(tmp_path, arrays, names="mindformers", max_shard_size=shards)
    source, cell = open_weights(tmp_path), TwoWeights()
    load(cell, source)
    for name, array in arrays.items():
        assert np.array_equal(getattr(cell, name).asnumpy(), array)
        assert not source.take(name).flags.owndata and np.array_equal(source.take(name, (3, 9)), array[3:9])
    mapped_file.finish()
    cell.first.set_data(cell.first * 2)
    assert np.array_equal(cell.first.asnumpy(), 2 * arrays["first"])
    assert np.array_equal(open_weights(tmp_path).read("first"), arrays["first"]), "the file is as it was"


def test_saving_onto_the_file_that_is_mapped(tmp_path, arrays):
    save_weights(tmp_path, arrays, names="mindformers")
    cell = TwoWeights()
    load(cell, tmp_path)
    cell.second.set_data(cell.second + 1)
    save_weights(tmp_path, {"first": cell.first, "second": cell.second}, names="mindformers")
    assert np.array_equal(cell.first.asnumpy(), arrays["first"])
    again = TwoWeights()
    load(again, tmp_path)
    assert np.array_equal(again.first.asnumpy(), arrays["first"])
    assert np.array_equal(again.second.asnumpy(), arrays["second"] + 1)


def test_two_models_of_one_file_do_not_share_writes(tmp_path, arrays):
    save_weights(tmp_path, arrays, names="mindformers")
    one, other = TwoWeights(), TwoWeights()
    load(one, tmp_path)
    load(other, tmp_path)
    one.first.asnumpy()[0, 0] = 77.0
    assert other.first.asnumpy()[0, 0] == arrays["first"][0, 0]


def test_another_dtype_is_converted(tmp_path, arrays):
    save_weights(tmp_path, arrays, names="mindformers")
    cell = TwoWeights(ms.float16)
    load(cell, tmp_path)
    assert np.array_equal(cell.first.asnumpy(), arrays["first"].astype(np.float16))


def test_arrays_begin_at_cache_lines(tmp_path, arrays):
    save_weights(tmp_path, {**arrays, "odd": np.zeros(3, np.float32)}, names="mindformers")
    length = int.from_bytes(next(tmp_path.glob("*.safetensors")).read_bytes()[:8], "little")
    assert (8 + length) % 64 == 0
