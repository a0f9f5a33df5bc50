"""GeneralDataset: whatever a user can iterate over."""
from mindformers.dataset.base_dataset import BaseDataset
from mindformers.dataset.causal_language_model_dataset import DEFAULTS, make_loader, merge_settings
from mindformers.dataset.rows import SelectedRows, as_rows
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister


@MindFormerRegister.register(MindFormerModuleType.DATASET)
class GeneralDataset(BaseDataset):
    """Batches of a user's own data set.

    Args:
        dataset_config (dict): settings as of CausalLanguageModelDataset: batch_size, drop_remainder, shuffle, seed,
            input_columns, output_columns, rank, rank_size. Default order: as the data lies.
        dataset: an object with `__len__` and `__getitem__`, an iterable, or a generator function (the last two are read
            once, into memory). Items are dicts, or tuples with `input_columns` naming their columns.
        data_collator (callable): ``list of rows -> batch dict`` instead of stacking.

    Raises:
        ValueError: `dataset` cannot be read as rows.
        ConfigError: an unknown setting, unnamed columns, no rows.
    """

    def __init__(self, dataset_config=None, dataset=None, data_collator=None, **kwargs):
        if dataset is None:
            raise ValueError("GeneralDataset needs a dataset: an iterable, a generator function, or an object with "
                             "__getitem__ and __len__")
        settings = merge_settings({**DEFAULTS, "shuffle": False}, dataset_config, kwargs, type(self).__name__)
        names = settings["input_columns"]
        rows = SelectedRows(as_rows(dataset, names), names, settings["output_columns"])
        loader = make_loader(rows, settings, collate=data_collator)
        super().__init__(loader, list(loader.batch(0)) if data_collator else None, settings["prefetch_size"] or 0)
