"""MindRecord, NumPy and Megatron files."""
import numpy as np
import pytest

from mindformers.dataset.causal_language_model_dataset import CausalLanguageModelDataset
from mindformers.dataset.dataloader.build_dataloader import build_dataset_loader
from mindformers.dataset.dataloader.indexed_dataset import DType, IndexedDataBuilder, IndexedDataset
from mindformers.dataset.dataloader.token_files import NumpyTokens
from mindformers.tools.errors import ConfigError, UnsupportedError


@pytest.fixture(scope="module", name="mindrecord")
def _mindrecord(tmp_path_factory):
    """A folder with two MindRecord files: 10 + 6 rows of input_ids [5] and labels [5]; input_ids[0] is their number."""
    from mindspore.mindrecord import FileWriter
    folder = tmp_path_factory.mktemp("mindrecord")
    schema = {"input_ids": {"type": "int32", "shape": [-1]}, "labels": {"type": "int32", "shape": [-1]}}
    for name, numbers in (("a.mindrecord", range(10)), ("b.mindrecord0", range(10, 16))):
        writer = FileWriter(str(folder / name), shard_num=1)
        writer.add_schema(schema, "rows")
        rows = np.stack([np.arange(5, dtype=np.int32) + number for number in numbers])
        writer.write_raw_data([{"input_ids": row, "labels": row + 1} for row in rows])
        writer.commit()
    return folder


def read(dataset, epochs=1):
    """All batches of some epochs, as row numbers."""
    iterator = dataset.create_dict_iterator(num_epochs=epochs, output_numpy=True)
    return [[batch["input_ids"][:, 0].tolist() for batch in iterator] for _ in range(epochs)]


def test_mindrecord_is_read_back(mindrecord):
    loader = {"type": "MindDataset", "dataset_dir": str(mindrecord), "shuffle": False}
    dataset = CausalLanguageModelDataset({"data_loader": loader, "input_columns": ["input_ids"], "batch_size": 4,
                                          "num_parallel_workers": 8, "python_multiprocessing": False,
                                          "numa_enable": False})
    assert dataset.get_dataset_size() == 4 and dataset.get_col_names() == ["input_ids"]
    assert read(dataset) == [[[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]]
    assert dataset.output_shapes() == [[4, 5]] and dataset.output_types() == [np.int32]
    dataset.check(seq_length=4, vocab_size=20)


def test_mindrecord_is_shared_out_over_ranks(mindrecord):
    def ranks(rank, rank_size):
        loader = {"type": "MindDataset", "dataset_dir": str(mindrecord), "shuffle": True}
        return CausalLanguageModelDataset(data_loader=loader, batch_size=8 // rank_size, seed=5, rank=rank,
                                          rank_size=rank_size)

    (joint,), (low,), (high,) = (read(ranks(*share)) for share in ((0, 1), (0, 2), (1, 2)))
    assert [first + second for first, second in zip(low, high)] == joint
    assert sorted(sum(joint, [])) == list(range(16)) and joint != [list(range(8)), list(range(8, 16))]


def test_mindrecord_files_and_limits(mindrecord):
    loader = {"type": "MindDataset", "dataset_files": [str(mindrecord / "b.mindrecord0")], "shuffle": False,
              "num_samples": 4}
    assert read(CausalLanguageModelDataset(data_loader=loader, batch_size=2)) == [[[10, 11], [12, 13]]]


def test_mindrecord_wrong_inputs(mindrecord, tmp_path):
    def build(**config):
        return CausalLanguageModelDataset(data_loader={"type": "MindDataset", **config}, batch_size=2)

    with pytest.raises(ValueError, match="data_loader must contain dataset_dir or dataset_files"):
        build()
    with pytest.raises(FileNotFoundError, match=r"has no \*.mindrecord files"):
        build(dataset_dir=str(tmp_path))
    (tmp_path / "x.mindrecord").write_bytes(b"no record")
    with pytest.raises(FileNotFoundError, match="x.mindrecord.db"):
        build(dataset_dir=str(tmp_path))
    (tmp_path / "x.mindrecord.db").write_bytes(b"no index")
    with pytest.raises(ConfigError, match="cannot read the MindRecord files"):
        build(dataset_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="cannot read the MindRecord files"):
        CausalLanguageModelDataset(data_loader={"type": "MindDataset", "dataset_dir": str(mindrecord)}, batch_size=2,
                                   input_columns=["tokens"])
    with pytest.raises(ConfigError, match="no argument 'dataset_dirr'. Did you mean 'dataset_dir'"):
        build(dataset_dirr="x")


def test_numpy_and_raw_tokens(tmp_path):
    stream = np.arange(25, dtype=np.uint16)
    np.save(tmp_path / "t.npy", stream)
    stream.tofile(tmp_path / "t.bin")
    packed = NumpyTokens(tmp_path / "t.npy", seq_length=8)
    for rows in (packed, NumpyTokens(tmp_path / "t.bin", max_length=9, dtype="uint16")):
        assert len(rows) == 3 and rows[2]["input_ids"].tolist() == list(range(16, 25))
    with pytest.raises(ConfigError, match="give dtype"):
        NumpyTokens(tmp_path / "t.bin")
    with pytest.raises(ConfigError, match="50 bytes"):
        NumpyTokens(tmp_path / "t.bin", dtype="int32")
    with pytest.raises(FileNotFoundError):
        NumpyTokens(tmp_path / "none.npy")
    np.save(tmp_path / "f.npy", np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="1-D"):
        NumpyTokens(tmp_path / "f.npy")
    (tmp_path / "bad.npy").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="not a readable"):
        NumpyTokens(tmp_path / "bad.npy")


@pytest.fixture(name="indexed")
def _indexed(tmp_path):
    builder = IndexedDataBuilder(str(tmp_path / "d.bin"), dtype=np.uint16)
    builder.add_document(np.arange(7), [3, 4])
    builder.add_item(np.arange(7, 12))
    builder.end_document()
    builder.finalize(str(tmp_path / "d.idx"))
    return tmp_path / "d"


def test_indexed_round_trip(indexed, tmp_path):
    dataset = IndexedDataset(str(indexed))
    assert [dataset[index].tolist() for index in range(3)] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11]]
    assert dataset.document_indices.tolist() == [0, 2, 3] and dataset.sequence_pointers.tolist() == [0, 6, 14]
    builder = IndexedDataBuilder(str(tmp_path / "e.bin"), dtype=np.uint16)
    builder.add_index(str(indexed))
    builder.add_index(str(indexed))
    builder.finalize(str(tmp_path / "e.idx"))
    joined = IndexedDataset(str(tmp_path / "e"), mmap=False)
    assert joined.document_indices.tolist() == [0, 2, 3, 5, 6] and joined[4].tolist() == [3, 4, 5, 6]
    assert DType.optimal_dtype(32000) == np.uint16 and DType.optimal_dtype(128256) == np.int32


def test_indexed_header_is_megatrons(indexed):
    content = (indexed.parent / "d.idx").read_bytes()
    assert content[:9] == b"MMIDIDX\0\0" and content[9:17] == (1).to_bytes(8, "little") and content[17] == 8
    assert np.frombuffer(content, np.int64, 2, 18).tolist() == [3, 3]
    assert np.frombuffer(content, np.int32, 3, 34).tolist() == [3, 4, 5]


def test_indexed_loader_gives_packed_rows_or_sequences(indexed):
    packed = build_dataset_loader({"type": "IndexedDataLoader", "path_prefix": str(indexed), "seq_length": 5})
    assert len(packed) == 3 and packed[1]["input_ids"].tolist() == [5, 6, 7, 8, 9, 10]
    sequences = build_dataset_loader({"type": "IndexedDataLoader", "path_prefix": str(indexed), "num_shards": 1})
    assert sequences[-1]["input_ids"].tolist() == [7, 8, 9, 10, 11]
    with pytest.raises(ConfigError, match="row 1 has shape"):
        sequences.take(np.arange(2))
    dataset = CausalLanguageModelDataset(data_loader=sequences, batch_size=3, shuffle=False, dynamic_batch=True,
                                         divisor=4, remainder=1, pad_token_id=99)
    assert dataset.loader.batch(0)["input_ids"].tolist() == [[0, 1, 2, 99, 99], [3, 4, 5, 6, 99], [7, 8, 9, 10, 11]]


def test_indexed_wrong_inputs(indexed, tmp_path):
    with pytest.raises(FileNotFoundError, match="none.idx is missing"):
        IndexedDataset(str(tmp_path / "none"))
    with pytest.raises(UnsupportedError):
        IndexedDataset(str(indexed), mutimodal=True)
    (tmp_path / "d.bin").write_bytes(b"12")
    with pytest.raises(ConfigError, match="its index counts 24"):
        IndexedDataset(str(indexed))
    content = (tmp_path / "d.idx").read_bytes()
    (tmp_path / "d.idx").write_bytes(content[:-8])
    with pytest.raises(ConfigError, match="cut short"):
        IndexedDataset(str(indexed))
    (tmp_path / "d.idx").write_bytes(b"x" * 50)
    with pytest.raises(ConfigError, match="no index"):
        IndexedDataset(str(indexed))
    with pytest.raises(ConfigError, match="do not fit uint16"):
        IndexedDataBuilder(str(tmp_path / "f.bin"), dtype=np.uint16).add_item([70000])
