"""CausalLanguageModelDataset, GeneralDataset and their builders, as users call them."""
import numpy as np
import pytest

from mindformers import dataset as room
from mindformers.dataset.batch_transforms import dyn_batch_wrapper, reset_at_eod
from mindformers.dataset.build_dataset import build_dataset
from mindformers.dataset.causal_language_model_dataset import CausalLanguageModelDataset
from mindformers.dataset.dataloader.build_dataloader import build_dataset_loader
from mindformers.dataset.general_dataset import GeneralDataset
from mindformers.dataset.rows import TokenRows
from mindformers.dataset.utils import check_dataset_config
from mindformers.tools.errors import ConfigError, UnsupportedError


@pytest.fixture(name="stream_file")
def _stream_file(tmp_path):
    np.save(tmp_path / "t.npy", np.arange(401, dtype=np.uint16))
    return str(tmp_path / "t.npy")


def test_build_from_a_task_section(stream_file):
    section = {"data_loader": {"type": "NumpyTokens", "dataset_dir": stream_file, "seq_length": 10, "shuffle": True},
               "input_columns": ["input_ids", "labels"], "output_columns": ["tokens", "labels"], "batch_size": 99,
               "seed": 4, "num_parallel_workers": 8, "python_multiprocessing": False, "drop_remainder": True,
               "repeat": 2}
    config = {"train_dataset": section,
              "train_dataset_task": {"type": "CausalLanguageModelDataset", "dataset_config": {}}}
    check_dataset_config(config)
    made = build_dataset(config["train_dataset_task"], default_args={"batch_size": 4})
    assert (made.get_dataset_size(), made.get_batch_size(), made.get_repeat_count()) == (20, 4, 2)
    assert made.get_col_names() == ["tokens", "labels"]
    assert section["batch_size"] == 99 and section["data_loader"]["type"] == "NumpyTokens"  # left alone


def test_iterators_go_on_with_the_next_epoch(stream_file):
    from mindspore import Tensor
    made = CausalLanguageModelDataset(data_loader={"type": "NumpyTokens", "dataset_dir": stream_file, "seq_length": 10},
                                      batch_size=4, seed=1)
    iterator = made.create_dict_iterator(num_epochs=2)
    epochs = [[batch["input_ids"].asnumpy() for batch in iterator] for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [10, 10, 0]
    expected = [made.loader.batch(step)["input_ids"] for step in range(20)]
    assert np.array_equal(np.stack(epochs[0] + epochs[1]), np.stack(expected))
    made.set_init_step(13)
    pairs = list(made.create_tuple_iterator(output_numpy=True))
    assert len(pairs) == 7 and np.array_equal(pairs[0][0], expected[13])
    assert isinstance(next(iter(made.create_tuple_iterator()))[0], Tensor)


def test_to_mindspore(stream_file):
    made = CausalLanguageModelDataset(data_loader={"type": "NumpyTokens", "dataset_dir": stream_file, "seq_length": 10},
                                      batch_size=4, shuffle=False)
    rows = list(made.to_mindspore().create_dict_iterator(num_epochs=1, output_numpy=True))
    assert len(rows) == 10 and rows[0]["labels"].shape == (4, 11)
    assert np.array_equal(rows[3]["input_ids"], made.loader.batch(3)["input_ids"])


def test_eod_reset_agrees_with_documents_one_by_one():
    rng = np.random.Generator(np.random.PCG64(0))
    tokens = rng.integers(0, 5, (3, 25))
    positions, mask = reset_at_eod(tokens, eod_token_id=2)
    assert positions.dtype == np.int32 and mask.shape == (3, 24, 24)
    for row in range(3):
        document, start = 0, 0
        documents = []
        for index, token in enumerate(tokens[row, :-1]):
            documents.append(document)
            assert positions[row, index] == index - start
            if token == 2:
                document, start = document + 1, index + 1
        same = np.equal.outer(documents, documents)
        assert np.array_equal(mask[row], np.tril(same).astype(np.uint8))
        assert not np.array_equal(mask[row], np.tril(np.ones((24, 24), np.uint8)))  # control: plain causal differs


def test_eod_reset_columns():
    rows = TokenRows(np.tile([5, 6, 2], 30), 8)
    made = CausalLanguageModelDataset(data_loader=rows, input_columns=["input_ids"], batch_size=2, eod_reset=True,
                                      eod_token_id=2)
    assert made.get_col_names() == ["input_ids", "labels", "position_ids", "attention_mask"]  # as the models take them
    assert made.output_shapes() == [[2, 9], [2, 9], [2, 8], [2, 8, 8]]
    batch = made.loader.batch(0)
    assert np.array_equal(batch["labels"], batch["input_ids"])
    with pytest.raises(ConfigError, match="needs eod_token_id"):
        CausalLanguageModelDataset(data_loader=rows, eod_reset=True)


@pytest.mark.parametrize("longest,width", [(1, 9), (9, 9), (10, 17), (17, 17)])
def test_dynamic_width(longest, width):
    rows = [{"input_ids": np.ones(longest, np.int32)}, {"input_ids": np.ones(1, np.int32)}]
    assert dyn_batch_wrapper(8, 1)(rows)["input_ids"].shape == (2, width)


def test_dynamic_batch_needs_its_numbers():
    with pytest.raises(ConfigError, match="divisor"):
        CausalLanguageModelDataset(data_loader=TokenRows(np.arange(30), 4), dynamic_batch=True)


def test_network_columns_in_its_order():
    rows = TokenRows(np.arange(30), 4)
    made = CausalLanguageModelDataset(data_loader=rows, batch_size=2, construct_args_key=["labels", "input_ids"])
    assert made.get_col_names() == ["labels", "input_ids"]
    with pytest.raises(ConfigError, match="'mask'"):
        CausalLanguageModelDataset(data_loader=rows, net_input_columns=["mask"])


def test_wrong_settings():
    with pytest.raises(ValueError, match="data_loader is missing"):
        CausalLanguageModelDataset({"batch_size": 2})
    with pytest.raises(ConfigError, match="no setting 'bath_size'. Did you mean 'batch_size'"):
        CausalLanguageModelDataset({"bath_size": 2})
    with pytest.raises(ConfigError, match="no column 'label'.*Did you mean 'labels'"):
        CausalLanguageModelDataset(data_loader=TokenRows(np.arange(30), 4), input_columns=["input_ids", "label"])
    with pytest.raises(ConfigError, match="must pair"):
        CausalLanguageModelDataset(data_loader=TokenRows(np.arange(30), 4), output_columns=["a"])
    with pytest.raises(ValueError, match="NumpyToken.*Did you mean 'NumpyTokens'"):
        build_dataset_loader({"type": "NumpyToken"})
    with pytest.raises(ConfigError, match="must name its type"):
        build_dataset_loader({"dataset_dir": "x"})
    with pytest.raises(ConfigError, match="must name its type"):
        build_dataset({"dataset_config": {}})
    with pytest.raises(ConfigError, match="input_ids' *|no column 'input_ids'"):
        GeneralDataset(dataset=[{"x": 1}] * 8).check()


def test_general_dataset_takes_what_can_be_iterated():
    items = [{"x": np.full(2, index), "y": index} for index in range(5)]

    def generate():
        yield from items

    for source in (items, generate, iter(items)):
        made = GeneralDataset({"batch_size": 2, "drop_remainder": False}, source)
        assert [batch["y"].tolist() for batch in made] == [[0, 1], [2, 3], [4]]
    pairs = GeneralDataset({"batch_size": 2, "input_columns": ["x", "y"]}, [(1.5, 2)] * 4)
    assert pairs.loader.batch(0)["x"].dtype == np.float64 and pairs.loader.batch(0)["y"].dtype == np.int32
    collated = GeneralDataset({"batch_size": 2}, items, lambda rows: {"sum": np.asarray(sum(row["y"] for row in rows))})
    assert [int(batch["sum"]) for batch in collated] == [1, 5] and collated.get_col_names() == ["sum"]
    with pytest.raises(ValueError, match="int is no data set"):
        GeneralDataset(dataset=3)
    with pytest.raises(ConfigError, match="name their columns"):
        GeneralDataset(dataset=[(1, 2)])
    with pytest.raises(ConfigError, match="empty"):
        GeneralDataset(dataset=[])
    with pytest.raises(ConfigError, match="row 2 has no column 'y'"):
        list(GeneralDataset({"batch_size": 1}, [*items[:2], {"x": np.zeros(2)}]))


@pytest.mark.parametrize("name", ["MultiTurnDataset", "KeyWordGenDataset"])
def test_names_that_are_not_carried_say_what_works(name):
    with pytest.raises(UnsupportedError, match="CausalLanguageModelDataset"):
        getattr(room, name)
    with pytest.raises(UnsupportedError, match="SFTDataLoader"):
        build_dataset({"type": name, "dataset_config": {}})
    with pytest.raises(UnsupportedError, match="TFRecordToMR"):
        build_dataset_loader({"type": "TFRecordDataset"})
    with pytest.raises(AttributeError, match="Did you mean 'BatchLoader'"):
        getattr(room, "BatchLoade")


def test_every_public_name_imports():
    assert all(getattr(room, name) is not None for name in room.__all__)
