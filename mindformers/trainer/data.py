"""Batches for the loop, from whatever dataset the user brought."""
import inspect
import itertools

from mindformers.tools.errors import ConfigError


class TrainData:
    """Endless batches of a dataset: ``data(start_step)`` iterates over tuples of numpy arrays from that step on.

    Args:
        dataset: a dataset of this suite (it knows its order, so a resumed run reads on exactly where it stopped), or a
            mindspore dataset (`create_dict_iterator`; resuming reads and drops the batches done).

    Attributes:
        steps_per_epoch (int): batches of one pass.
        seed (int | None): seed of the order of the rows, when it is known.

    Raises:
        ConfigError: the object is no dataset, or an empty one.
    """

    def __init__(self, dataset):
        self.dataset = dataset
        self._loader = getattr(dataset, "loader", None)
        if self._loader is None and not hasattr(dataset, "create_dict_iterator"):
            raise ConfigError("a dataset must have create_dict_iterator (a mindspore dataset, GeneralDataset, "
                              f"CausalLanguageModelDataset), got {type(dataset).__name__}")
        self.steps_per_epoch = len(self._loader) if self._loader is not None else dataset.get_dataset_size()
        if self.steps_per_epoch < 1:
            raise ConfigError("the dataset has no batch; make it larger or the batch smaller")
        self.seed = getattr(self._loader, "seed", None)
        self.columns = list(dataset.get_col_names())

    def check(self, seq_length=None, vocab_size=None, labels_shifted=False):
        """Check the first batch against a model of these sizes, when the dataset can; see `BaseDataset.check`.

        `labels_shifted` says that the model takes labels that stand at their own positions already.
        """
        if hasattr(self.dataset, "check") and (seq_length is not None or vocab_size is not None):
            self.dataset.check(seq_length, vocab_size, labels_apart=labels_shifted and "labels" in self.columns)

    def feed(self, network):
        """Deliver the columns in the order in which the construct of `network` takes them, from now on; returns self.

        Columns that are no parameters of it are delivered as the dataset has them. A parameter `labels` that is
        skipped by the columns gets `input_ids`, which means the same.

        Raises:
            ConfigError: it is skipped, and the network takes labels that are shifted already.
        """
        parameters = list(inspect.signature(network.construct).parameters)
        if set(self.columns) <= set(parameters):
            last = max(map(parameters.index, self.columns))
            wanted = [name if name in self.columns else {"labels": "input_ids"}.get(name)
                      for name in parameters[:last + 1]]
            if None not in wanted:
                if "labels" not in self.columns and "labels" in parameters[:last + 1] and \
                        getattr(network, "labels_shifted", False):
                    raise ConfigError(f"{type(network).__name__} takes labels that are shifted already, but the data "
                                      f"has the columns {self.columns}; add labels, or set model_config.labels_shifted "
                                      "to False")
                self.columns = wanted
        return self

    def __call__(self, start_step=0):
        """Yield the batch of step `start_step` (from 0, counted over epochs) and all that follow, without end."""
        if self._loader is not None:
            batches = self._loader.batches(start_step, self.dataset.prefetch)
            return (tuple(batch[name] for name in self.columns) for batch in batches)
        return itertools.islice(self._stream(), start_step, None)

    def epoch(self):
        """Yield the batches of the first epoch."""
        return itertools.islice(self(0), self.steps_per_epoch)

    def _stream(self):
        """All epochs, one after the other; one iterator, so that a shuffling dataset goes on with its generator."""
        epochs = self.dataset.create_dict_iterator(num_epochs=-1, output_numpy=True)
        while True:
            for batch in epochs:
                yield tuple(batch[name] for name in self.columns)
