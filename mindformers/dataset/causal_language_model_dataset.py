"""CausalLanguageModelDataset: rows of tokens for pretraining and fine-tuning."""
from mindformers.dataset.base_dataset import BaseDataset
from mindformers.dataset.batch_loader import BatchLoader
from mindformers.dataset.batch_transforms import dyn_batch_wrapper, eod_reset_transform
from mindformers.dataset.dataloader.build_dataloader import build_dataset_loader
from mindformers.dataset.rows import SelectedRows, as_rows
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister
from mindformers.tools.utils import get_real_group_size, get_real_rank

# Settings and their defaults; None: decided by the data or the job.
DEFAULTS = {"data_loader": None, "input_columns": None, "output_columns": None, "batch_size": 8, "drop_remainder": True,
            "repeat": 1, "seed": 0, "prefetch_size": 1, "eod_reset": False, "eod_token_id": None,
            "dynamic_batch": False, "divisor": None, "remainder": None, "pad_token_id": 0,
            "tokenizer": None, "shuffle": None, "rank": None, "rank_size": None, "construct_args_key": None,
            "net_input_columns": None}
# Settings of MindSpore's data pipeline that change neither what is read nor its order: nothing to do for them here.
WITHOUT_EFFECT = {"num_parallel_workers", "python_multiprocessing", "numa_enable", "auto_tune", "filepath_prefix",
                  "autotune_per_step", "profile", "do_eval"}


def merge_settings(defaults, dataset_config, arguments, name):
    """Return `defaults` updated by `dataset_config`, then by the `arguments` that are not None.

    Raises:
        ConfigError: a key that is no setting, with the nearest one.
    """
    given = {**(dataset_config or {}), **{key: value for key, value in arguments.items() if value is not None}}
    unknown = sorted(set(given) - set(defaults) - WITHOUT_EFFECT)
    if unknown:
        raise ConfigError(f"{name} has no setting "
                          f"{unknown[0]!r}.{did_you_mean(unknown[0], [*defaults, *WITHOUT_EFFECT])}")
    for name in ("input_columns", "output_columns"):
        if isinstance(given.get(name), str):
            given[name] = [given[name]]
    return {**defaults, **{key: value for key, value in given.items() if key in defaults}}


@MindFormerRegister.register(MindFormerModuleType.DATASET)
class CausalLanguageModelDataset(BaseDataset):
    """Rows of tokens, in batches: `input_ids` int32 [B, seq_length + 1], and `labels` of the same shape when asked for.

    Args:
        dataset_config (dict): the settings below as one dict (the ``train_dataset`` section of a YAML). Arguments given
            beside it win over it.
        data_loader (dict | RowSource | iterable): ``{"type": name, "shuffle": bool, ...}`` of a registered loader
            (MindDataset, TextFilesDataLoader, SFTDataLoader, ...), or rows themselves.
        input_columns (list[str]): columns to take, in the order the network takes them. Default: all of the loader.
        output_columns (list[str]): new names for them.
        batch_size (int): rows of a batch of this rank. Default: 8.
        drop_remainder (bool): see BatchLoader. Default: True.
        seed (int): of the order. Default: 0.
        repeat (int): passes over the data that count as one epoch. Default: 1.
        shuffle (bool): default: the data_loader's `shuffle`, else True.
        prefetch_size (int): batches a background thread keeps ready. Default: 1.
        eod_reset (bool), eod_token_id (int): add `position_ids` and `attention_mask` that start anew after each
            `eod_token_id` (see `reset_at_eod`), behind `input_ids` and `labels` (copied from `input_ids` when the
            rows have none), in the order the models take them. Default: False.
        dynamic_batch (bool), divisor, remainder (int), pad_token_id (int): pad the rows of a batch to the smallest
            ``k * divisor + remainder`` (see `dyn_batch_wrapper`). Default: False.
        construct_args_key, net_input_columns (list[str]): which columns the network takes, in its order. Default: all.
        tokenizer: handed to a loader that reads text and names none.
        rank, rank_size (int): this process and how many there are. Default: those of the job.
        kwargs: num_parallel_workers, python_multiprocessing, numa_enable, auto_tune, ... are accepted and change
            nothing.

    Raises:
        ConfigError: an unknown setting, or values that do not go together.
        ValueError: no data_loader.
    """

    def __init__(self, dataset_config=None, data_loader=None, input_columns=None, output_columns=None, batch_size=None,
                 drop_remainder=None, seed=None, eod_reset=None, eod_token_id=None, tokenizer=None, rank=None,
                 rank_size=None, **kwargs):
        arguments = {"data_loader": data_loader, "input_columns": input_columns, "output_columns": output_columns,
                     "batch_size": batch_size, "drop_remainder": drop_remainder, "seed": seed, "eod_reset": eod_reset,
                     "eod_token_id": eod_token_id, "tokenizer": tokenizer, "rank": rank, "rank_size": rank_size,
                     **kwargs}
        settings = merge_settings(DEFAULTS, dataset_config, arguments, type(self).__name__)
        rows = open_rows(settings)
        self.vocab_size = getattr(rows.rows, "vocab_size", None)
        self.rows = rows
        transform, names = None, rows.column_names
        if settings["eod_reset"]:
            if settings["eod_token_id"] is None:
                raise ConfigError("eod_reset: True needs eod_token_id, the token that ends a document")
            if "input_ids" not in names:
                raise ConfigError(f"eod_reset: True needs the column 'input_ids'; the columns are {list(names)}")
            transform = eod_reset_transform(settings["eod_token_id"])
            names = ("input_ids", "labels", "position_ids", "attention_mask")
        collate = None
        if settings["dynamic_batch"]:
            collate = dyn_batch_wrapper(settings["divisor"], settings["remainder"], settings["pad_token_id"])
        wanted = settings["construct_args_key"] or settings["net_input_columns"] or names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ConfigError(f"the network is to take the column {missing[0]!r}, but the columns are {list(names)}")
        super().__init__(make_loader(rows, settings, transform, collate), wanted, settings["prefetch_size"] or 0)


def open_rows(settings):
    """Return the rows that ``settings["data_loader"]`` means, with the columns asked for.

    Raises:
        ValueError: no data_loader.
    """
    source = settings["data_loader"]
    if source is None:
        raise ValueError("data_loader is missing: name where the rows come from, such as data_loader: {type: "
                         "MindDataset, dataset_dir: ...}")
    limit = None
    if isinstance(source, dict):
        config = dict(source)
        limit = config.pop("num_samples", None)
        wanted_shuffle = config.get("shuffle")
        defaults = {"tokenizer": settings["tokenizer"], "column_names": settings["input_columns"]}
        defaults = {key: value for key, value in defaults.items() if value is not None}
        rows = as_rows(build_dataset_loader(config, defaults))
        if wanted_shuffle is not None:
            rows.shuffle = wanted_shuffle
    else:
        rows = as_rows(source, settings["input_columns"])
    return SelectedRows(rows, settings["input_columns"], settings["output_columns"], limit)


def make_loader(rows, settings, transform=None, collate=None):
    """Return the BatchLoader of `rows` for this rank."""
    shuffle = settings["shuffle"] if settings["shuffle"] is not None else rows.shuffle
    rank_size = get_real_group_size() if settings["rank_size"] is None else settings["rank_size"]
    rank = get_real_rank() if settings["rank"] is None else settings["rank"]
    return BatchLoader(rows, settings["batch_size"], True if shuffle is None else shuffle, settings["seed"] or 0, rank,
                       rank_size, settings["drop_remainder"], transform, collate, settings["repeat"] or 1)
