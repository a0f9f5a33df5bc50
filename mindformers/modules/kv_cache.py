"""The paged KV cache: blocks shared by all sequences, a block table and a length per sequence (arXiv:2309.06180).

`CachePool` owns the memory on the device and hands out blocks; `PagedCache` is one batch of sequences in it. Slot s of
a block table entry b is row ``b * block_size + s``. Nothing here is part of a checkpoint.
"""
import threading

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindformers import kernels
from mindformers.core.dtype import to_np_dtype
from mindformers.tools import memory
from mindformers.tools.errors import ConfigError

# tokens that the block table of a step of one token has room for at least, and by how much that grows when it is too
# small: every size is a compilation. Where whole tables are read, room costs time.
_ROOM, _ROOM_WHEN_READ, _ROOM_GROWTH = 4096, 128, 4


class CachePool:
    """Key and value memory of one model.

    Args:
        num_layers (int), kv_heads (int), head_dim (int): sizes of the model.
        block_size (int): tokens per block. Default: 16.
        smallest (int): tokens the pool has room for when it is first used; it grows by doubling, and every growth
            compiles the steps anew. Default: 256.
        dtype: mindspore dtype of the cache. Default: float32.
        reads_whole_tables (bool): see `kernels.reads_whole_tables`. Default: True.

    Attributes:
        arrays (list[Parameter]): keys and values of each layer, k0 v0 k1 v1 ..., in the shape that `kernels` wants.
    """

    def __init__(self, num_layers, kv_heads, head_dim, block_size=16, smallest=256, dtype=ms.float32,
                 reads_whole_tables=True):
        self.reads_whole_tables = reads_whole_tables
        self.num_layers, self.kv_heads, self.head_dim = num_layers, kv_heads, head_dim
        self.block_size, self.smallest, self._np_dtype = block_size, smallest, to_np_dtype(dtype)
        self.num_blocks = 0
        self.arrays = []
        self.lock = threading.RLock()
        self._free = []
        self._copy = None

    @property
    def spare_slot(self):
        """Slot that padding writes to."""
        return self.num_blocks * self.block_size

    @property
    def bytes_per_token(self):
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.num_layers * self.kv_heads * self.head_dim * np.dtype(self._np_dtype).itemsize

    @property
    def nbytes(self):
        """Bytes held on the device."""
        return sum(array.size * array.itemsize for array in self.arrays)

    def allocate(self, count):
        """Return the ids of `count` free blocks; the pool grows when it has fewer."""
        with self.lock:
            if count > len(self._free):
                self._grow(self.num_blocks - len(self._free) + count)
            taken, self._free = self._free[:count], self._free[count:]
            return taken

    def free(self, blocks):
        """Give blocks back."""
        with self.lock:
            self._free = sorted({*self._free, *blocks})

    def copy_blocks(self, sources, targets):
        """Copy whole blocks; int32 [n] block ids that do not overlap."""
        per_block = self.block_size * self.kv_heads
        inside = np.arange(per_block, dtype=np.int32)
        sources, targets = ((np.asarray(blocks, np.int32)[:, None] * per_block + inside).reshape(-1)
                            for blocks in (sources, targets))
        with self.lock:
            if self._copy is None:
                self._copy = _BlockCopy(self.arrays)
            self._copy(Tensor(sources), Tensor(targets))

    def _grow(self, needed):
        """Enlarge every array to at least `needed` blocks (a power of two), keeping what is stored."""
        blocks = max(needed, -(-self.smallest // self.block_size))
        blocks = 1 << (blocks - 1).bit_length()
        shape = kernels.get("cache_shape")(blocks, self.block_size, self.kv_heads, self.head_dim)
        kept = self.spare_slot * self.kv_heads
        grown = []
        for index in range(2 * self.num_layers):
            data = memory.zeros(shape, self._np_dtype)
            if self.arrays:
                data.reshape(-1, self.head_dim)[:kept] = self.arrays[index].asnumpy().reshape(-1, self.head_dim)[:kept]
            grown.append(Parameter(Tensor.from_numpy(data), name=f"cache_{index}", requires_grad=False))
        self.arrays, self._copy = grown, None
        self._free = sorted({*self._free, *range(self.num_blocks, blocks)})
        self.num_blocks = blocks


class PagedCache:
    """A batch of sequences in a pool; a context manager that gives its blocks back.

    Args:
        pool (CachePool): where the blocks come from.
        batch_size (int): most rows there can be.
        max_length (int): most tokens a row may hold.

    Attributes:
        lengths (np.ndarray): int32 [B], tokens held per row.
    """

    def __init__(self, pool, batch_size, max_length):
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value < 1:
                raise ConfigError(f"make_cache: {name} must be at least 1, but is {value}")
        self.pool, self.batch_size, self.max_length = pool, batch_size, max_length
        self.lengths = np.zeros(batch_size, np.int32)
        self.closed = False
        per_row = -(-max_length // pool.block_size)
        self._blocks = pool.allocate(batch_size * per_row)
        self._tables = np.array(self._blocks, np.int32).reshape(batch_size, per_row)
        self._rows, self._numbers, self._table = batch_size, np.arange(batch_size)[:, None], None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Give the blocks back; calling it again does nothing."""
        if not self.closed:
            self.closed = True
            self.pool.free(self._blocks)

    def plan(self, counts, width):
        """Where a step of `width` tokens per row goes.

        Args:
            counts (np.ndarray): int32 [B], how many of the `width` tokens of each row are real.

        Returns:
            positions int32 [B, width], slot_mapping int32 [B * width] (-1 for padding),
            block_tables int32 [B, blocks], wide enough for the longest row after the step; for width 1 rounded up
            to a few sizes (what lies behind a row's end is masked).

        Raises:
            ConfigError: the cache is closed, another batch size, or a row would outgrow `max_length`.
        """
        if self.closed:
            raise ConfigError("this cache is closed; make a new one with model.make_cache")
        if counts.shape != self.lengths.shape:
            raise ConfigError(f"the cache holds {len(self.lengths)} rows, but the step has {len(counts)}")
        ends = self.lengths + counts
        longest = int(ends.max())
        if longest > self.max_length:
            raise ConfigError(f"row {int(ends.argmax())} would hold {longest} tokens, but the cache was made "
                              f"for {self.max_length}; pass a larger max_length to make_cache")
        steps = np.arange(width, dtype=np.int32)
        positions = self.lengths[:, None] + steps
        padded = int(counts.min()) < width
        if padded:
            real = steps < counts[:, None]
            positions *= real
        size = self.pool.block_size
        within, inside = np.divmod(positions, size)
        slots = self._tables[self._numbers[:self._rows], within] * size + inside
        if padded:
            slots = np.where(real, slots, np.int32(-1))
        return positions, slots.reshape(-1), self._table_of(-(-longest // size), rounded=width == 1)

    def _table_of(self, blocks, rounded):
        """The block tables, `blocks` wide or rounded up; entries past a row's own blocks read block 0. The same array
        as the last time if nothing changed, not to be written."""
        wide = max(1, blocks)
        if rounded:
            room = max(1, (_ROOM_WHEN_READ if self.pool.reads_whole_tables else _ROOM) // self.pool.block_size)
            while room < wide:
                room *= _ROOM_GROWTH
            most = 1 << (self._tables.shape[1] - 1).bit_length()
            wide = min(room, most) if self.pool.reads_whole_tables else room
        if self._table is None or self._table.shape != (self._rows, wide):
            self._table = np.zeros((self._rows, wide), np.int32)
            own = self._tables[:self._rows, :wide]
            self._table[:, :own.shape[1]] = own
        return self._table

    def advance(self, counts):
        """Count the tokens that a step has written; int32 [B]."""
        self.lengths = self.lengths + counts

    def reorder(self, parents):
        """Make row i a copy of old row ``parents[i]``; the number of rows becomes ``len(parents)``.

        Raises:
            ConfigError: more rows than `batch_size`, or a parent that does not exist.
        """
        parents = np.asarray(parents, np.int64).reshape(-1)
        if len(parents) > self.batch_size or len(parents) < 1:
            raise ConfigError(f"reorder to {len(parents)} rows, but the cache was made for {self.batch_size}")
        if parents.min() < 0 or parents.max() >= self._rows:
            raise ConfigError(f"reorder names row {int(parents.max())}, but there are {self._rows}")
        sources, targets, tables = self._assign(parents)
        if len(sources):
            self.pool.copy_blocks(sources, targets)
        self._tables, self._table = tables, None
        self.lengths = self.lengths[parents]
        self._rows = len(parents)

    def _assign(self, parents):
        """Give each parent's own blocks to its first child; other children get copies in the tables left over."""
        first = {}
        for row, parent in enumerate(parents):
            first.setdefault(int(parent), row)
        tables = np.full_like(self._tables, -1)
        unused = [row for row in range(self.batch_size) if row not in first]
        sources, targets = [], []
        for row, parent in enumerate(parents):
            if first[int(parent)] == row:
                tables[row] = self._tables[parent]
                continue
            spare = unused.pop()
            tables[row] = self._tables[spare]
            held = -(-int(self.lengths[parent]) // self.pool.block_size)
            sources.extend(self._tables[parent, :held])
            targets.extend(self._tables[spare, :held])
        for row in range(len(parents), self.batch_size):
            tables[row] = self._tables[unused.pop()]
        return np.array(sources, np.int32), np.array(targets, np.int32), tables


class _BlockCopy(nn.Cell):
    """Copy rows of every array of a pool onto other rows of it, in place.

    Inputs: sources int32 [R], targets int32 [R]. Outputs: nothing of use.
    """

    def __init__(self, arrays):
        super().__init__(auto_prefix=False)
        self.arrays, self.count = ParameterTuple(arrays), len(arrays)
        self.copy_rows = kernels.get("copy_rows")
        self.set_inputs(Tensor(shape=[None], dtype=ms.int32), Tensor(shape=[None], dtype=ms.int32))

    def construct(self, sources, targets):
        done = targets
        for i in range(self.count):
            done = ops.depend(done, self.copy_rows(self.arrays[i], sources, targets))
        return done
