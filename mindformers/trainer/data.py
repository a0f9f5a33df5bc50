"""Batches for the loop, from whatever dataset the user brought."""
import itertools

from mindformers.tools.errors import ConfigError


class TrainData:
    """Endless batches of a dataset: ``data(start_step)`` iterates over tuples of numpy arrays from that step on.

    Args:
        dataset: a dataset of this suite (it knows its order, so a resumed run reads on exactly where it stopped), or a
            mindspore dataset (`create_tuple_iterator`; resuming reads and drops the batches done).

    Attributes:
        steps_per_epoch (int): batches of one pass.
        seed (int | None): seed of the order of the rows, when it is known.

    Raises:
        ConfigError: the object is no dataset, or an empty one.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self._loader = getattr(dataset, "loader", None)
        if self._loader is None and not hasattr(dataset, "create_tuple_iterator"):
            raise ConfigError("a dataset must have create_tuple_iterator (a mindspore dataset, GeneralDataset, "
                              f"CausalLanguageModelDataset), got {type(dataset).__name__}")
        self.steps_per_epoch = len(self._loader) if self._loader is not None else dataset.get_dataset_size()
        if self.steps_per_epoch < 1:
            raise ConfigError("the dataset has no batch; make it larger or the batch smaller")
        self.seed = getattr(self._loader, "seed", None)

    def __call__(self, start_step=0):
        """Yield the batch of step `start_step` (from 0, counted over epochs) and all that follow, without end."""
        if self._loader is not None:
            names = self.dataset.output_names
            batches = self._loader.batches(start_step, self.dataset.prefetch)
            return (tuple(batch[name] for name in names) for batch in batches)
        return itertools.islice(self._stream(), start_step, None)

    def epoch(self):
        """Yield the batches of the first epoch."""
        return itertools.islice(self(0), self.steps_per_epoch)

    def _stream(self):
        """All epochs, one after the other; one iterator, so that a shuffling dataset goes on with its generator."""
        epochs = self.dataset.create_tuple_iterator(num_epochs=-1, output_numpy=True)
        while True:
            for batch in epochs:
                yield tuple(batch)
