"""SFTDataLoader: prompts and answers, one sample a row."""
import numpy as np

from mindformers.dataset.dataloader.records import RECORD_FORMATS, find_files, format_of, read_records, read_text
from mindformers.dataset.dataloader import sft_map_functions
from mindformers.dataset.rows import IGNORE_TOKEN_ID, SequenceRows, as_row
from mindformers.dataset.text_encoder import build_text_encoder
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger


class SFTDataLoader(SequenceRows):
    """Samples of a jsonl, json, csv, tsv or text file, through a map function (YAML: ``type: SFTDataLoader``).

    Args:
        dataset_dir (str): file, or folder with files of one format; or dataset_files (list[str]).
        column_names (list[str]): columns of a row, from those the map function returns. Default: ["input_ids",
            "labels"].
        tokenizer: see `build_text_encoder`; the job's tokenizer when not given in a YAML.
        dataset_name (str): chooses the map function: "" (default_map_fn), "alpaca", "advertisegen", "multi-round-chat",
            "multi-round-chat-dyn", "multi-instruct-dyn".
        file_format (str): jsonl, json, csv, tsv or text (a sample a line). Default: by extension.
        max_length (int): tokens of a row: seq_length + 1. Default: 1025.
        read_function (callable): ``path -> iterable of records``, or of lists by column name.
        map_function (callable | str): ``(example, **kwargs) -> dict``, or the name of one in `sft_map_functions`; wins
            over dataset_name.
        map_function_kwargs (dict): further keyword arguments of it.
        shuffle (bool): default: None, the dataset decides.

    A sample of which nothing is left to learn once it is cut to `max_length` is left out; a warning counts them.

    Raises:
        ConfigError: a record that the map function cannot read (file:line), an unknown name, no sample.
        FileNotFoundError, ValueError: see `find_files`.
    """

    def __init__(self, dataset_dir=None, column_names=("input_ids", "labels"), tokenizer=None, dataset_name="",
                 file_format=None, max_length=1025, read_function=None, map_function=None, map_function_kwargs=None,
                 shuffle=None, dataset_files=None):
        map_function = _choose_map_function(map_function, dataset_name)
        encoder = build_text_encoder(tokenizer)
        self.vocab_size = encoder.vocab_size
        files = find_files(dataset_dir, dataset_files, lambda name: format_of(name) in RECORD_FORMATS or file_format,
                           "jsonl, json, csv or tsv")
        kwargs = {**(map_function_kwargs or {}), "tokenizer": encoder, "max_length": max_length}
        samples, untaught = [], 0
        for path in files:
            for place, record in _records(path, file_format, read_function):
                sample = _apply(map_function, record, kwargs, column_names, place)
                if "labels" in sample and sample["labels"].ndim and np.all(sample["labels"][1:] == IGNORE_TOKEN_ID):
                    untaught += 1
                else:
                    samples.append(sample)
        if untaught:
            logger.warning("%d of %d samples of %s have nothing to learn within max_length=%d and are left out; raise "
                           "max_length", untaught, untaught + len(samples), dataset_dir or dataset_files, max_length)
        if not samples:
            raise ConfigError(f"{dataset_dir or dataset_files} has no sample with anything to learn within max_length="
                              f"{max_length}")
        super().__init__(samples, column_names, shuffle)


def _choose_map_function(map_function, dataset_name):
    if callable(map_function):
        return map_function
    if map_function is not None:
        names = [name for name in dir(sft_map_functions) if name.endswith("_map_fn")]
        if map_function not in names:
            raise ConfigError(f"map_function {map_function!r} is unknown.{did_you_mean(map_function, names)} Known: "
                              f"{', '.join(names)}")
        return getattr(sft_map_functions, map_function)
    known = sft_map_functions.MAP_FUNCTIONS
    if dataset_name not in known:
        raise ConfigError(f"dataset_name {dataset_name!r} has no map function.{did_you_mean(dataset_name, known)} "
                          f"Known: {', '.join(name for name in known if name)}; or give map_function")
    return known[dataset_name]


def _records(path, file_format, read_function):
    """Yield ``(place, record)`` of a file; a text file has a sample ``{"text": line}`` in each non-blank line."""
    if read_function is not None:
        content = read_function(path)
        if isinstance(content, dict):
            content = [dict(zip(content, values)) for values in zip(*content.values(), strict=True)]
        yield from ((f"{path}[{index}]", record) for index, record in enumerate(content))
    elif format_of(path, file_format) == "text":
        lines = enumerate(read_text(path).split("\n"), 1)
        yield from ((f"{path}:{number}", {"text": line}) for number, line in lines if line.strip())
    else:
        yield from read_records(path, file_format)


def _apply(map_function, record, kwargs, column_names, place):
    try:
        return as_row(map_function(record, **kwargs), tuple(column_names), place)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
