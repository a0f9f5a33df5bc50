"""Batches in an order that is a pure function of (seed, epoch, step): resuming is a step number, nothing else."""
import queue
import threading

import numpy as np

from mindformers.dataset.rows import stack_rows
from mindformers.tools.errors import ConfigError


class BatchLoader:
    """Cut rows into batches, one rank's share of them.

    Epoch e visits the rows in the order ``np.random.Generator(np.random.PCG64([seed, e])).permutation(len(rows))`` (or
    as they lie, without shuffle). A global batch is ``batch_size * rank_size`` consecutive rows of that order; rank r
    takes the r-th slice of `batch_size`, so the ranks tile the global batch of one process.

    Args:
        rows (RowSource): the rows.
        batch_size (int): rows of a batch of this rank.
        shuffle (bool): a new order in each epoch. Default: True.
        seed (int): seed of the orders, >= 0. Default: 0.
        rank, rank_size (int): this process and how many there are. Default: 0 of 1.
        drop_remainder (bool): leave out the rows after the last full global batch of an epoch (other rows each epoch
            when shuffled). Otherwise the last batch is completed with rows whose labels are all -100, which no loss
            counts: shapes stay the same. Rows without `labels` give a shorter last batch (one rank only). Default:
            True.
        transform (callable): ``batch dict -> batch dict``, applied last. Default: None.
        collate (callable): ``list of row dicts -> batch dict``; for rows of different lengths. Default: rows are
            stacked.
        repeat (int): passes over the rows that count as one epoch, each in its own order. Default: 1.

    Raises:
        ConfigError: a value out of bounds, fewer rows than one global batch with drop_remainder, or a last batch that
            cannot be completed on several ranks.
    """

    def __init__(self, rows, batch_size, shuffle=True, seed=0, rank=0, rank_size=1, drop_remainder=True, transform=None,
                 collate=None, repeat=1):
        for name, value, low in (("batch_size", batch_size, 1), ("seed", seed, 0), ("rank_size", rank_size, 1),
                                 ("repeat", repeat, 1)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
                raise ConfigError(f"{name} must be an integer >= {low}, but got {value!r}")
        if not 0 <= rank < rank_size:
            raise ConfigError(f"rank must be in 0..{rank_size - 1}, but got {rank}")
        self.rows = rows
        self.batch_size = int(batch_size)
        self.shuffle = bool(shuffle)
        self.seed = int(seed)
        self.rank = rank
        self.rank_size = rank_size
        self.drop_remainder = bool(drop_remainder)
        self.transform = transform
        self.collate = collate
        self.repeat = repeat
        self.global_batch_size = self.batch_size * rank_size
        self._filler = None
        self._order = (None, None)
        self._check_length()

    def _check_length(self):
        remainder = len(self.rows) % self.global_batch_size
        if self.drop_remainder:
            if len(self.rows) < self.global_batch_size:
                raise ConfigError(f"the data set has {len(self.rows)} rows, fewer than one global batch of "
                                  f"{self.batch_size} x {self.rank_size} = {self.global_batch_size}: no step could be "
                                  f"made. Lower batch_size or set drop_remainder: False")
        elif remainder:
            self._filler = self.rows.filler()
            if self._filler is None and self.rank_size > 1:
                raise ConfigError(f"drop_remainder: False with {self.rank_size} ranks leaves a last global batch of "
                                  f"{remainder} rows that cannot be completed, as the rows have no column 'labels'; "
                                  f"set drop_remainder: True")

    @property
    def column_names(self):
        """Names of the columns of a batch, in order."""
        return tuple(self.rows.column_names)

    def __len__(self):
        """Steps of one epoch."""
        return self.steps_per_pass * self.repeat

    @property
    def steps_per_pass(self):
        """Steps of one pass over the rows."""
        if self.drop_remainder:
            return len(self.rows) // self.global_batch_size
        return -(-len(self.rows) // self.global_batch_size)

    def order(self, epoch):
        """Return the row order of pass `epoch`: int64 [rows], a pure function of (seed, epoch)."""
        if not self.shuffle:
            return np.arange(len(self.rows))
        held = self._order  # one read: a prefetching thread may replace it meanwhile
        if held[0] != epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            held = self._order = (epoch, generator.permutation(len(self.rows)))
        return held[1]

    def indices(self, step):
        """Return the rows of this rank at global step `step`: int64 [<= batch_size]."""
        epoch, step_in_epoch = divmod(step, self.steps_per_pass)
        first = step_in_epoch * self.global_batch_size + self.rank * self.batch_size
        return self.order(epoch)[first:first + self.batch_size]

    def batch(self, step):
        """Return the batch of global step `step` (counted over epochs): ``{column: array [batch_size, ...]}``."""
        indices = self.indices(step)
        fillers = [self._filler] * (self.batch_size - len(indices)) if self._filler is not None else []
        if self.collate:
            batch = self.collate([self.rows[int(index)] for index in indices] + fillers)
        elif fillers:
            rows = [self.rows[int(index)] for index in indices] + fillers
            batch = stack_rows(rows, self.column_names, [*indices] + [0] * len(fillers))
        else:
            batch = self.rows.take(indices)
        return self.transform(batch) if self.transform else batch

    def batches(self, start_step=0, prefetch=0):
        """Yield batches without end, from global step `start_step` on.

        Args:
            start_step (int): the first step; equal to skipping that many batches. Default: 0.
            prefetch (int): how many batches a background thread keeps ready. The order cannot change. Default: 0.
        """
        if start_step < 0:
            raise ConfigError(f"start_step must be >= 0, but got {start_step}")
        if prefetch:
            yield from _prefetched(self.batch, start_step, prefetch)
        while not prefetch:
            yield self.batch(start_step)
            start_step += 1


def _prefetched(make, start_step, depth):
    """Yield ``make(start_step), make(start_step + 1), ...`` computed by one thread at most `depth` ahead.

    A failure of the thread is raised here, at the step it belongs to; closing the generator ends the thread.
    """
    ready = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item):
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work():
        step = start_step
        while not stopped.is_set():
            try:
                put((make(step), None))
            except BaseException as error:  # handed over, raised by the consumer
                return put((None, error))
            step += 1

    thread = threading.Thread(target=work, name="batch-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        stopped.set()
        thread.join()
