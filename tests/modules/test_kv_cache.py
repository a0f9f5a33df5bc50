"""The paged cache against a plain dictionary of rows."""
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindformers.modules.kv_cache import CachePool, PagedCache
from mindformers.tools.errors import ConfigError


def write(cache, counts, width, values):
    """What a step does, on the host: put `values` [B, width] into the slots of the plan."""
    _, slots, _ = cache.plan(np.array(counts, np.int32), width)
    array = cache.pool.arrays[0]
    data = array.asnumpy().copy()
    for slot, value in zip(slots, np.asarray(values, np.float32).reshape(-1)):
        if slot >= 0:
            data[slot] = value
    from mindspore import Tensor
    array.set_data(Tensor(data))
    cache.advance(np.array(counts, np.int32))


def rows_of(cache):
    """The tokens of each row as the block tables show them."""
    data = cache.pool.arrays[0].asnumpy()[:, 0]
    _, _, tables = cache.plan(np.zeros(len(cache.lengths), np.int32), 1)
    size = cache.pool.block_size
    return [[float(data[tables[row, i // size] * size + i % size]) for i in range(length)]
            for row, length in enumerate(cache.lengths)]


def pool():
    return CachePool(num_layers=1, kv_heads=1, head_dim=1, block_size=4)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_sequence_of_steps_and_reorders_keeps_every_row(data):
    shared = pool()
    with PagedCache(shared, 4, 24) as other, PagedCache(shared, 4, 24) as cache:
        write(other, [3, 1, 0, 2], 3, np.full((4, 3), -7))
        rows, number = [[] for _ in range(4)], 1.0
        for _ in range(data.draw(st.integers(1, 5))):
            if data.draw(st.booleans()):
                parents = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
                cache.reorder(parents)
                rows = [list(rows[parent]) for parent in parents]
            counts = [data.draw(st.integers(0, min(4, 24 - len(row)))) for row in rows]
            width = max(1, *counts) if len(counts) > 1 else max(1, counts[0])
            values = np.arange(number, number + len(rows) * width).reshape(len(rows), width)
            number += values.size
            write(cache, counts, width, values)
            for row, count, new in zip(rows, counts, values):
                row.extend(float(value) for value in new[:count])
        assert rows_of(cache) == rows
        assert rows_of(other) == [[-7] * 3, [-7], [], [-7] * 2]


def test_blocks_come_back_and_a_growing_pool_keeps_its_content():
    shared = pool()
    with PagedCache(shared, 1, 8) as cache:
        write(cache, [5], 5, [[1, 2, 3, 4, 5]])
        before = shared.num_blocks
        with PagedCache(shared, 1, 4 * 4 * before):
            assert shared.num_blocks > before
            assert rows_of(cache) == [[1, 2, 3, 4, 5]]
    assert len(shared._free) == shared.num_blocks
    cache.close()
    assert len(shared._free) == shared.num_blocks


def test_tables_are_wide_enough_and_rounded_for_single_tokens():
    with PagedCache(pool(), 1, 1000) as cache:
        cache.lengths[:] = 300
        assert cache.plan(np.array([5], np.int32), 5)[2].shape == (1, 77)
        assert cache.plan(np.array([1], np.int32), 1)[2].shape == (1, 128)
        cache.lengths[:] = 600
        assert cache.plan(np.array([1], np.int32), 1)[2].shape == (1, 256)  # no wider than the row can become
    with PagedCache(pool(), 1, 10) as cache:
        assert cache.plan(np.array([1], np.int32), 1)[2].shape == (1, 4)


@pytest.mark.parametrize("call, message", [
    (lambda cache: cache.plan(np.array([9], np.int32), 9), "would hold 9 tokens"),
    (lambda cache: cache.plan(np.array([1, 1], np.int32), 1), "holds 1 rows, but the step has 2"),
    (lambda cache: cache.reorder([0, 0]), "made for 1"),
    (lambda cache: cache.reorder([1]), "names row 1"),
    (lambda cache: (cache.close(), cache.plan(np.array([1], np.int32), 1)), "closed"),
])
def test_wrong_use_is_an_error_that_names_the_value(call, message):
    with PagedCache(pool(), 1, 8) as cache, pytest.raises(ConfigError, match=message):
        call(cache)


def test_sizes_below_one_are_refused():
    with pytest.raises(ConfigError, match="max_length must be at least 1"):
        PagedCache(pool(), 1, 0)
