"""Order, tiling over ranks, position, filling and prefetching of batches."""
import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mindformers.dataset.batch_loader import BatchLoader
from mindformers.dataset.rows import ArrayRows, TokenRows
from mindformers.tools.errors import ConfigError


def numbered(rows):
    """Rows whose input_ids are their own number, with labels."""
    ids = np.arange(rows, dtype=np.int32)[:, None].repeat(3, 1)
    return ArrayRows({"input_ids": ids, "labels": ids.copy()})


def first(loader, steps, **kwargs):
    """The row numbers of the first `steps` batches."""
    return [batch["input_ids"][:, 0].tolist() for batch in itertools.islice(loader.batches(**kwargs), steps)]


def test_order_depends_on_seed_and_epoch_only():
    loader = BatchLoader(numbered(20), 4, seed=7)
    expected = np.random.Generator(np.random.PCG64([7, 3])).permutation(20)
    assert loader.order(3).tolist() == expected.tolist()
    reference = first(loader, 15)
    loader.batch(99)  # reading elsewhere changes nothing
    assert first(loader, 15) == reference == first(BatchLoader(numbered(20), 4, seed=7), 15)
    assert first(BatchLoader(numbered(20), 4, seed=8), 15) != reference
    assert reference[:5] != reference[5:10]
    assert first(BatchLoader(numbered(20), 4, shuffle=False), 2) == [[0, 1, 2, 3], [4, 5, 6, 7]]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), batch=st.integers(1, 5), ranks=st.integers(1, 4), drop=st.booleans(),
       shuffle=st.booleans(), start=st.integers(0, 30))
def test_ranks_tile_the_global_batch_and_start_step_skips(rows, batch, ranks, drop, shuffle, start):
    if drop and rows < batch * ranks:
        with pytest.raises(ConfigError, match="fewer than one global batch"):
            BatchLoader(numbered(rows), batch, rank_size=ranks)
        return
    options = {"shuffle": shuffle, "seed": 3, "drop_remainder": drop}
    one = BatchLoader(numbered(rows), batch * ranks, **options)
    many = [BatchLoader(numbered(rows), batch, rank=rank, rank_size=ranks, **options) for rank in range(ranks)]
    assert {len(loader) for loader in many} == {len(one)}
    streams = [loader.batches(start) for loader in many]
    joint = itertools.islice(one.batches(), start, start + 4)
    for expected in joint:
        parts = [next(stream) for stream in streams]
        for name, column in expected.items():
            assert np.array_equal(np.concatenate([part[name] for part in parts]), column)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 60), batch=st.integers(1, 5), ranks=st.integers(1, 4), epoch=st.integers(0, 2))
def test_each_row_counts_once_an_epoch(rows, batch, ranks, epoch):
    counted = []
    for rank in range(ranks):
        loader = BatchLoader(numbered(rows), batch, rank=rank, rank_size=ranks, drop_remainder=False)
        for step in range(epoch * len(loader), (epoch + 1) * len(loader)):
            made = loader.batch(step)
            assert made["input_ids"].shape == (batch, 3)
            counted += made["labels"][made["labels"][:, 0] != -100, 0].tolist()
    assert sorted(counted) == list(range(rows))


def test_drop_remainder_leaves_out_other_rows_each_epoch():
    loader = BatchLoader(numbered(10), 4)
    epochs = [set(sum(first(loader, 2, start_step=2 * epoch), [])) for epoch in range(6)]
    assert all(len(seen) == 8 for seen in epochs)
    assert set.union(*epochs) == set(range(10))


def test_repeat_is_several_passes_in_one_epoch():
    once, twice = BatchLoader(numbered(8), 4), BatchLoader(numbered(8), 4, repeat=2)
    assert len(twice) == 2 * len(once)
    assert first(twice, 6) == first(once, 6)


def test_rows_without_labels_give_a_short_last_batch_on_one_rank_only():
    rows = ArrayRows({"x": np.arange(10)})
    loader = BatchLoader(rows, 4, shuffle=False, drop_remainder=False)
    assert [len(loader.batch(step)["x"]) for step in range(3)] == [4, 4, 2]
    with pytest.raises(ConfigError, match="no column|have no column 'labels'"):
        BatchLoader(rows, 4, rank_size=2, drop_remainder=False)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": True}, {"batch_size": 2.0}, {"seed": -1},
                                   {"rank": 1}, {"rank_size": 0}, {"repeat": 0}])
def test_values_out_of_bounds(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BatchLoader(numbered(8), **{"batch_size": 2, **wrong})


def test_prefetch_keeps_the_order_and_ends_its_thread():
    loader = BatchLoader(numbered(30), 4, seed=1)
    batches = loader.batches(5, prefetch=3)
    read = [next(batches)["input_ids"][:, 0].tolist() for _ in range(20)]
    assert read == first(loader, 20, start_step=5)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batch-prefetch"]


def test_prefetch_raises_the_failure_at_its_step():
    class Failing(ArrayRows):
        """Row 6 cannot be read."""

        def take(self, indices):
            if 6 in indices:
                raise OSError("row 6 is gone")
            return super().take(indices)

    batches = BatchLoader(Failing({"x": np.arange(8)}), 2, shuffle=False).batches(prefetch=2)
    assert [next(batches)["x"].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(OSError, match="row 6 is gone"):
        next(batches)


def test_start_step_must_not_be_negative():
    with pytest.raises(ConfigError, match="start_step"):
        next(BatchLoader(numbered(8), 2).batches(-1))


@settings(max_examples=60, deadline=None)
@given(tokens=st.integers(2, 400), seq_length=st.integers(1, 50), batch=st.integers(1, 4), ranks=st.integers(1, 3))
def test_packing_trains_every_target_once_over_an_epoch(tokens, seq_length, batch, ranks):
    stream = np.arange(tokens) + 1000
    counted = []
    for rank in range(ranks):
        loader = BatchLoader(TokenRows(stream, seq_length, pad_token_id=1), batch, rank=rank, rank_size=ranks,
                             drop_remainder=False)
        for step in range(len(loader)):
            made = loader.batch(step)
            inputs, targets = made["input_ids"][:, :-1], made["labels"][:, 1:]
            real = targets != -100
            assert np.array_equal(targets[real], inputs[real] + 1)  # the target follows its input
            counted += targets[real].tolist()
    assert sorted(counted) == stream[1:].tolist()


def test_packing_without_labels_says_what_it_leaves_out():
    rows = TokenRows(np.arange(24), 10, labels=False)
    assert (len(rows), rows.dropped_targets, rows.column_names) == (2, 3, ("input_ids",))
    assert rows[1]["input_ids"].tolist() == list(range(10, 21))
    assert TokenRows(np.arange(24), 10).dropped_targets == 0


def test_rows_that_do_not_overlap_lose_targets():
    """Negative control: cutting without the shared token trains fewer targets."""
    stream, seq_length = np.arange(101), 10
    cut = stream[:99].reshape(-1, seq_length + 1)
    packed = TokenRows(stream, seq_length)
    assert cut[:, 1:].size < 100 == sum((packed[row]["labels"][1:] != -100).sum() for row in range(len(packed)))


def test_too_few_tokens():
    with pytest.raises(ConfigError, match="at least 2 tokens"):
        TokenRows(np.arange(1), 4)
    with pytest.raises(ConfigError, match="do not fill one row"):
        TokenRows(np.arange(4), 4, labels=False)
    with pytest.raises(ConfigError, match="seq_length"):
        TokenRows(np.arange(9), 0)
