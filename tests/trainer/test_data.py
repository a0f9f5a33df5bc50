"""Batches of any dataset, from any step on, in the order the network takes its columns."""
from itertools import islice

import mindspore.dataset as msds
import numpy as np
import pytest
from mindspore import nn

from mindformers.dataset.general_dataset import GeneralDataset
from mindformers.tools.errors import ConfigError
from mindformers.trainer.data import TrainData

ROWS = [{"x": np.array([number], np.int32)} for number in range(10)]


class Takes(nn.Cell):
    """A network with the parameters of a language model."""

    def construct(self, input_ids, labels=None, position_ids=None, attention_mask=None):
        return input_ids


def seen(data, start, count):
    return [batch[0].ravel().tolist() for batch in islice(data(start), count)]


def test_own_dataset_goes_on_at_any_step():
    data = TrainData(GeneralDataset({"batch_size": 3, "shuffle": True, "seed": 5}, ROWS))
    assert data.steps_per_epoch == 3 and data.seed == 5
    whole = seen(data, 0, 9)
    assert seen(data, 4, 5) == whole[4:]
    assert whole[:3] != whole[3:6]  # each epoch has its own order
    assert [batch[0].ravel().tolist() for batch in data.epoch()] == whole[:3]


def test_mindspore_dataset_goes_on_at_any_step():
    def dataset():
        rows = msds.NumpySlicesDataset({"x": np.arange(10, dtype=np.int32)}, shuffle=False)
        return rows.batch(4, drop_remainder=True)
    data = TrainData(dataset())
    assert data.steps_per_epoch == 2 and data.seed is None
    assert seen(data, 0, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]] * 2
    assert seen(TrainData(dataset()), 3, 2) == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_columns_follow_the_network():
    names = ("attention_mask", "position_ids", "input_ids")
    rows = [{name: np.full(2, value, np.int32) for value, name in enumerate(names)}]
    data = TrainData(GeneralDataset({"batch_size": 1}, rows)).feed(Takes())
    assert data.columns == ["input_ids", "input_ids", "position_ids", "attention_mask"]
    assert [int(column[0, 0]) for column in next(data(0))] == [2, 2, 1, 0]
    other = TrainData(GeneralDataset({"batch_size": 1}, [{"b": np.ones(1), "a": np.ones(1)}])).feed(Takes())
    assert other.columns == ["b", "a"]


def test_what_is_no_dataset_is_refused():
    with pytest.raises(ConfigError, match="create_dict_iterator"):
        TrainData([1, 2])
