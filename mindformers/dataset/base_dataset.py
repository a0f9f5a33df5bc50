"""What every dataset of the suite offers: the methods of a MindSpore dataset that training code and users call."""
import itertools

import numpy as np

from mindformers.dataset.batch_loader import BatchLoader
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger


class BaseDataset:
    """Batches behind MindSpore's dataset methods; `loader` (BatchLoader) is what the training loop reads.

    Args:
        loader (BatchLoader): the batches of this rank.
        output_names: columns of a batch, in the order a network takes them. Default: those of the rows.
        prefetch (int): batches kept ready by a background thread while iterating. Default: 0.
    """

    def __init__(self, loader: BatchLoader, output_names=None, prefetch=0):
        self.loader = loader
        self.output_names = tuple(output_names or loader.column_names)
        self.prefetch = prefetch
        self._epochs_read = 0
        self._init_step = 0
        if loader.drop_remainder and len(loader.rows) % loader.global_batch_size:
            logger.info("drop_remainder: %d of %d rows do not fill a global batch and are left out of each epoch",
                        len(loader.rows) % loader.global_batch_size, len(loader.rows))

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        """Iterate over one epoch of batches ``{column: numpy array}``; each call goes on with the next epoch."""
        first = self._epochs_read * len(self) + self._init_step
        stop = (self._epochs_read + 1) * len(self)
        self._epochs_read += 1
        self._init_step = 0
        batches = self.loader.batches(first, self.prefetch)
        try:
            yield from itertools.islice(batches, max(0, stop - first))
        finally:
            batches.close()

    def get_dataset_size(self):
        """Return the number of batches (steps) of one epoch on this rank."""
        return len(self.loader)

    def get_batch_size(self):
        """Return the rows of one batch of this rank."""
        return self.loader.batch_size

    def get_repeat_count(self):
        """Return the passes over the data that count as one epoch."""
        return self.loader.repeat

    def get_col_names(self):
        """Return the names of the columns of a batch, in order."""
        return list(self.output_names)

    def output_shapes(self):
        """Return the shape of each column of the first batch, as lists."""
        batch = self.loader.batch(0)
        return [list(batch[name].shape) for name in self.output_names]

    def output_types(self):
        """Return the numpy dtype of each column of the first batch."""
        batch = self.loader.batch(0)
        return [batch[name].dtype for name in self.output_names]

    def set_init_step(self, init_step):
        """Begin the next iteration at global step `init_step` (a resumed run)."""
        self._epochs_read, self._init_step = divmod(init_step, len(self))

    def create_dict_iterator(self, num_epochs=-1, output_numpy=False):
        """Return an iterable of batches as dicts; each pass is one epoch, at most `num_epochs` passes (-1: no end).

        Values are MindSpore tensors, or numpy arrays with `output_numpy`.
        """
        return _EpochIterable(self, num_epochs, output_numpy, dict)

    def create_tuple_iterator(self, columns=None, num_epochs=-1, output_numpy=False):
        """Like `create_dict_iterator`, batches as lists of `columns` (default: all, in order)."""
        return _EpochIterable(self, num_epochs, output_numpy, list, columns)

    def to_mindspore(self):
        """Return a ``mindspore.dataset.GeneratorDataset`` that yields these batches, an epoch a pass."""
        from mindspore.dataset import GeneratorDataset  # pylint: disable=C0415
        names = list(self.output_names)
        return GeneratorDataset(_TupleEpochs(self, names), names, shuffle=False, num_parallel_workers=1,
                                python_multiprocessing=False)

    def check(self, seq_length=None, vocab_size=None, labels_apart=False):
        """Check the first batch against a model.

        Args:
            seq_length (int): rows must have seq_length + 1 tokens, at most that many with a collate function (dynamic
                batches). None: not checked.
            vocab_size (int): tokens must be below it, and so must the vocabulary of the data's tokenizer when known.
            labels_apart (bool): every token is an input, as the targets are in the labels: rows must have seq_length
                tokens. Default: False.

        Raises:
            ConfigError: what does not fit, and the way out.
        """
        batch = self.loader.batch(0)
        tokens = batch.get("input_ids")
        if tokens is None:
            raise ConfigError(f"the data has no column 'input_ids'; its columns are {sorted(batch)}")
        if tokens.ndim != 2 or tokens.dtype.kind not in "iu":
            raise ConfigError(f"input_ids must be rows of whole numbers, but a batch has shape {tokens.shape} and "
                              f"dtype {tokens.dtype}")
        more = 0 if labels_apart else 1
        wanted = None if seq_length is None else seq_length + more
        fits = wanted is None or tokens.shape[1] == wanted or (
            self.loader.collate is not None and tokens.shape[1] <= wanted)
        if not fits:
            longer = "longer" if tokens.shape[1] > wanted else "shorter"
            why = ("labels are taken as shifted already; model_config.labels_shifted: False takes seq_length + 1"
                   if labels_apart else "the last token is a target only")
            raise ConfigError(f"rows have {tokens.shape[1]} tokens, {longer} than the model's seq_length"
                              f"{'' if labels_apart else ' + 1'} = {wanted} ({why}); set model_config.seq_length: "
                              f"{tokens.shape[1] - more} or prepare rows of {wanted} tokens")
        known = max(int(tokens.max()) + 1, getattr(self, "vocab_size", None) or 0)
        if vocab_size is not None and known > vocab_size:
            raise ConfigError(f"the data has token ids up to {known - 1}, the model a vocab_size of {vocab_size}; use "
                              f"the tokenizer of the model or set model_config.vocab_size: {known}")
        if int(tokens.min()) < 0:
            raise ConfigError(f"input_ids holds the negative token id {tokens.min()}")


class _EpochIterable:
    """Epochs of a dataset, one a pass, in the container that a create_*_iterator method promises."""

    def __init__(self, dataset, num_epochs, output_numpy, kind, columns=None):
        self.dataset = dataset
        self.passes_left = num_epochs
        self.output_numpy = output_numpy
        self.kind = kind
        self.names = list(columns or dataset.output_names)

    def __iter__(self):
        if self.passes_left == 0:
            return
        self.passes_left -= 1
        for batch in self.dataset:
            values = [np.ascontiguousarray(batch[name]) for name in self.names]
            if not self.output_numpy:
                from mindspore import Tensor  # pylint: disable=C0415
                values = [Tensor(value) for value in values]
            yield dict(zip(self.names, values)) if self.kind is dict else values


class _TupleEpochs:
    """The source object a GeneratorDataset wants: iterable anew for each epoch, with a length."""

    def __init__(self, dataset, names):
        self.dataset = dataset
        self.names = names

    def __len__(self):
        return len(self.dataset)

    def __iter__(self):
        return (tuple(batch[name] for name in self.names) for batch in self.dataset)
