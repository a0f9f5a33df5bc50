"""Rows with random access: what every data loader of the suite is.

A row is a dict of numpy arrays. `RowSource` is the contract; the classes below are the shapes data comes in. Legend: R
rows of a batch, S seq_length, N tokens of a stream.
"""
import numpy as np

from mindformers.dataset.utils import check_dataset_iterable, is_generator_function
from mindformers.tools.errors import ConfigError, did_you_mean

IGNORE_TOKEN_ID = -100  # label of a position that is not trained on


class RowSource:
    """Random access to rows.

    A subclass sets `column_names` (tuple of str), and defines `__len__` and one of `__getitem__` or `take`.
    `shuffle` (bool) is what the loader's own configuration asked for; None leaves the choice to the dataset.
    """

    column_names = ()
    shuffle = None

    def __len__(self):
        raise TypeError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index):
        """Return row `index` as ``{column: array}``."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} is outside 0..{len(self) - 1}")
        batch = self.take(np.asarray([index % len(self)]))
        return {name: column[0] for name, column in batch.items()}

    def take(self, indices):
        """Return the rows `indices` (int [R]) as ``{column: array [R, ...]}``.

        Raises:
            ConfigError: the rows differ in shape.
        """
        rows = [self[int(index)] for index in indices]
        return stack_rows(rows, self.column_names, indices)

    def filler(self):
        """Return a row that counts nothing in a loss, or None when the rows have no `labels` to say so with."""
        if "labels" not in self.column_names or not len(self):
            return None
        row = dict(self[0])
        row["labels"] = np.full_like(row["labels"], IGNORE_TOKEN_ID)
        return row


def stack_rows(rows, column_names, indices):
    """Stack row dicts into ``{column: array [R, ...]}``; ConfigError names the first row whose shape differs."""
    batch = {}
    for name in column_names:
        values = [np.asarray(row[name]) for row in rows]
        for index, value in zip(indices, values):
            if value.shape != values[0].shape:
                raise ConfigError(f"column {name!r}: row {index} has shape {value.shape}, row {indices[0]} has "
                                  f"{values[0].shape}; rows of one batch must have one shape (cut or pad them, or set "
                                  f"dynamic_batch: True)")
        batch[name] = np.stack(values)
    return batch


class ArrayRows(RowSource):
    """Rows held as whole arrays: ``{column: array [N, ...]}`` (memory or memmap).

    Raises:
        ConfigError: no column, or columns of different lengths.
    """

    def __init__(self, columns, shuffle=None):
        if not columns:
            raise ConfigError("rows need at least one column")
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ConfigError(f"columns must have one length, but got {lengths}")
        self.columns = dict(columns)
        self.column_names = tuple(columns)
        self.shuffle = shuffle

    def __len__(self):
        return len(self.columns[self.column_names[0]])

    def take(self, indices):
        return {name: np.asarray(column[indices]) for name, column in self.columns.items()}


class SequenceRows(RowSource):
    """Rows of any object with `__len__` and `__getitem__`, whose items are dicts, tuples or single arrays.

    Args:
        items: the object.
        column_names: names of the columns; None takes the keys of the first item.
    """

    def __init__(self, items, column_names=None, shuffle=None):
        if not len(items):
            raise ConfigError("the data set is empty: it has no row")
        first = items[0]
        if column_names is None:
            if not isinstance(first, dict):
                raise ConfigError(f"items of type {type(first).__name__} do not name their columns: give column_names")
            column_names = tuple(first)
        self.items = items
        self.column_names = tuple(column_names)
        self.shuffle = shuffle

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} is outside 0..{len(self) - 1}")
        return as_row(self.items[index], self.column_names, index)


def as_row(item, column_names, index):
    """Turn an item (dict, tuple, list or array) into ``{column: array}``; ConfigError when columns are missing."""
    if isinstance(item, dict):
        missing = [name for name in column_names if name not in item]
        if missing:
            raise ConfigError(f"row {index} has no column {missing[0]!r}; its columns are {sorted(item)}")
        return {name: np.asarray(item[name]) for name in column_names}
    values = item if isinstance(item, (tuple, list)) and len(column_names) > 1 else (item,)
    if len(values) != len(column_names):
        raise ConfigError(f"row {index} has {len(values)} values for the {len(column_names)} columns "
                          f"{list(column_names)}")
    return {name: np.asarray(value) for name, value in zip(column_names, values)}


class TokenRows(RowSource):
    """A stream of tokens [N] cut into rows of seq_length + 1 that overlap by one token.

    Row i holds tokens ``i*S .. i*S + S``. Its inputs are the first S of them, its targets the last S, so each of the
    N - 1 targets of the stream is trained on exactly once.

    Args:
        tokens: int array or memmap [N], N >= 2.
        seq_length: S.
        labels: give a column `labels` too. The last, incomplete row is then filled with `pad_token_id`, and its filling
            has label -100: no target is lost. Without labels nothing can mark the filling, and the incomplete row
            (fewer than S targets) is left out; `dropped_targets` says how many.
        pad_token_id: what the last row is filled with. Default: 0.
    """

    def __init__(self, tokens, seq_length, labels=True, pad_token_id=0, shuffle=None):
        if not isinstance(seq_length, int) or seq_length < 1:
            raise ConfigError(f"seq_length must be a positive integer, but got {seq_length!r}")
        if len(tokens) < 2:
            raise ConfigError(f"a token stream needs at least 2 tokens to make a target, but got {len(tokens)}")
        self.tokens = tokens
        self.seq_length = seq_length
        self.pad_token_id = pad_token_id
        self.shuffle = shuffle
        self.column_names = ("input_ids", "labels") if labels else ("input_ids",)
        targets = len(tokens) - 1
        self.dropped_targets = 0 if labels else targets % seq_length
        self._length = -(-targets // seq_length) if labels else targets // seq_length
        if not self._length:
            raise ConfigError(f"{len(tokens)} tokens do not fill one row of seq_length + 1 = {seq_length + 1}; give "
                              f"more text, a smaller seq_length, or the column 'labels' (the row is then padded)")

    def __len__(self):
        return self._length

    def take(self, indices):
        offsets = np.asarray(indices, np.int64)[:, None] * self.seq_length + np.arange(self.seq_length + 1)
        real = offsets < len(self.tokens)
        rows = self.tokens[np.minimum(offsets, len(self.tokens) - 1)].astype(np.int32)
        batch = {"input_ids": np.where(real, rows, np.int32(self.pad_token_id))}
        if "labels" in self.column_names:
            batch["labels"] = np.where(real, rows, np.int32(IGNORE_TOKEN_ID))
        return batch


def as_rows(source, column_names=None):
    """Turn what a user calls a data set into a RowSource.

    Args:
        source: a RowSource; an object with `__len__` and `__getitem__`; a MindSpore dataset; an iterable or a generator
            function (both are read once, into memory).
        column_names: names of the columns, for items that are not dicts.

    Raises:
        ConfigError: no rows, or unnamed columns.
        ValueError: nothing that can be read as rows.
    """
    if isinstance(source, RowSource):
        return source
    if hasattr(source, "create_dict_iterator"):
        names = tuple(source.get_col_names())
        items = list(source.create_dict_iterator(num_epochs=1, output_numpy=True))
        return SequenceRows(items, names)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return SequenceRows(source, column_names)
    check_dataset_iterable(source)
    return SequenceRows(list(source() if is_generator_function(source) else source), column_names)


class SelectedRows(RowSource):
    """The rows of another source with its columns chosen, put in order and renamed; integers become int32.

    Args:
        rows (RowSource): the source.
        input_columns: names to take, in order. None takes all.
        output_columns: their new names. Default: the same.
        limit (int): take the first `limit` rows only. Default: None.

    Raises:
        ConfigError: a column that is not there, or names that do not pair.
    """

    def __init__(self, rows, input_columns=None, output_columns=None, limit=None):
        self.rows = rows
        self.inputs = tuple(input_columns or rows.column_names)
        self.column_names = tuple(output_columns or self.inputs)
        self.shuffle = rows.shuffle
        self.limit = limit
        missing = [name for name in self.inputs if name not in rows.column_names]
        if missing:
            raise ConfigError(f"input_columns: the data has no column {missing[0]!r}; its columns are "
                              f"{list(rows.column_names)}.{did_you_mean(missing[0], rows.column_names)}")
        if len(self.inputs) != len(self.column_names):
            raise ConfigError(f"output_columns {list(self.column_names)} must pair with input_columns "
                              f"{list(self.inputs)}")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ConfigError(f"num_samples must be a positive integer, but got {limit!r}")

    def __len__(self):
        return len(self.rows) if self.limit is None else min(self.limit, len(self.rows))

    def __getitem__(self, index):
        return self._select(self.rows[index])

    def take(self, indices):
        return self._select(self.rows.take(indices))

    def _select(self, columns):
        selected = {}
        for name, new_name in zip(self.inputs, self.column_names):
            column = np.asarray(columns[name])
            selected[new_name] = column.astype(np.int32) if column.dtype.kind in "iu" else column
        return selected
