"""Token ids that are already there: NumPy files, raw .bin files and MindRecord."""
import os
import re

import numpy as np

from mindformers.dataset.dataloader.records import find_files
from mindformers.dataset.dataloader.text_files import check_token_columns, row_width
from mindformers.dataset.rows import ArrayRows, SequenceRows, TokenRows
from mindformers.dataset.token_store import open_tokens
from mindformers.tools.errors import ConfigError

_MINDRECORD_NAME = re.compile(r".*\.mindrecord\d*$")


class NumpyTokens(TokenRows):
    """Rows packed from one stream of token ids (YAML: ``type: NumpyTokens``).

    Args:
        dataset_dir (str): a .npy file (1-D, integers), or a .bin file of raw ids (see `dtype`).
        seq_length (int): rows have seq_length + 1 tokens; or max_length (int): seq_length + 1. Default: 1025.
        dtype (str): of the ids in a .bin file, such as "uint16". Default: none; .npy files know theirs.
        pad_token_id (int): fills the last row (not trained on). Default: 0.
        column_names (list[str]): ["input_ids", "labels"] (default) or ["input_ids"].
        shuffle (bool): default: None, the dataset decides.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not a stream of integers, or a .bin file without dtype or of a length that is no multiple of it.
    """

    def __init__(self, dataset_dir, seq_length=None, max_length=None, dtype=None, pad_token_id=0,
                 column_names=("input_ids", "labels"), shuffle=None):
        check_token_columns(column_names)
        path = os.fspath(dataset_dir)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"NumpyTokens: dataset_dir {path!r} is no file")
        tokens = open_tokens(path) if path.endswith(".npy") else _open_bin(path, dtype)
        super().__init__(tokens, row_width(seq_length, max_length) - 1, "labels" in column_names, pad_token_id, shuffle)


def _open_bin(path, dtype):
    if dtype is None:
        raise ConfigError(f"{path} does not say what it holds: give dtype, such as uint16")
    if np.dtype(dtype).kind not in "iu":
        raise ConfigError(f"dtype must be an integer type, but got {dtype!r}")
    if os.path.getsize(path) % np.dtype(dtype).itemsize or not os.path.getsize(path):
        raise ConfigError(f"{path} has {os.path.getsize(path)} bytes, which are no whole number (of at least one) of "
                          f"{dtype} ids")
    return np.memmap(path, dtype, "r")


def _to_arrays(items, names):
    """Stack rows of one shape into arrays; rows of different shapes stay apart."""
    same = all(len({np.asarray(item[name]).shape for item in items}) == 1 for name in names)
    if not same:
        return SequenceRows(items, names)
    return ArrayRows({name: np.stack([item[name] for item in items]) for name in names})


def read_mindrecord(files, columns=None):
    """Return the rows of MindRecord `files` as a RowSource, read into memory in the order they were written.

    Args:
        files (list[str]): the files (not their .db companions).
        columns (list[str]): columns to read. Default: all.

    Raises:
        ConfigError: a file cannot be read, or has not these columns.
    """
    from mindspore.dataset import MindDataset as ReadMindRecord  # pylint: disable=C0415
    for name in files:
        if not os.path.isfile(f"{name}.db"):
            raise FileNotFoundError(f"{name} is not complete without its index {name}.db")
    try:
        reader = ReadMindRecord(list(files), columns_list=list(columns) if columns else None, shuffle=False,
                                num_parallel_workers=1)
        names = tuple(reader.get_col_names())
        items = list(reader.create_dict_iterator(num_epochs=1, output_numpy=True))
    except RuntimeError as error:
        raise ConfigError(f"cannot read the MindRecord files {list(files)}: "
                          f"{str(error).strip().splitlines()[0]}") from error
    if not items:
        raise ConfigError(f"the MindRecord files {list(files)} have no rows")
    return _to_arrays(items, columns or names)


def build_mind_dataset(dataset_dir=None, dataset_files=None, column_names=None, columns_list=None, shuffle=None):
    """Data loader ``type: MindDataset``: the rows of MindRecord files.

    They are read into memory once; order and split over ranks are the dataset's, as with every loader.

    Args:
        dataset_dir (str): folder walked for ``*.mindrecord`` and ``*.mindrecord0``, ..., or one file; or
        dataset_files (str | list[str]): the files.
        column_names, columns_list (list[str]): columns to read. Default: all.
        shuffle (bool): default: None, the dataset decides.

    Raises:
        ValueError: neither dataset_dir nor dataset_files.
        FileNotFoundError: nothing at the path.
        ConfigError: unreadable files.
    """
    files = find_files(dataset_dir, dataset_files, _MINDRECORD_NAME.match, "*.mindrecord")
    rows = read_mindrecord(files, columns_list or column_names)
    rows.shuffle = shuffle
    return rows
