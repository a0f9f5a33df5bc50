"""BatchEncoding: what a tokenizer returns, and the small types of its options."""
from collections import UserDict
from typing import NamedTuple

import numpy as np

from mindformers.tools.errors import did_you_mean
from mindformers.tools.utils import ExplicitEnum


class PaddingStrategy(ExplicitEnum):
    """Values of ``padding=``: up to the longest row, up to `max_length`, or not at all."""

    LONGEST = "longest"
    MAX_LENGTH = "max_length"
    DO_NOT_PAD = "do_not_pad"


class TruncationStrategy(ExplicitEnum):
    """Values of ``truncation=``: which of text and text_pair loses tokens."""

    ONLY_FIRST = "only_first"
    ONLY_SECOND = "only_second"
    LONGEST_FIRST = "longest_first"
    DO_NOT_TRUNCATE = "do_not_truncate"


class TensorType(ExplicitEnum):
    """Values of ``return_tensors=``: "ms" for mindspore.Tensor (int32), "np" for numpy arrays (int64)."""

    MINDSPORE = "ms"
    NUMPY = "np"


class CharSpan(NamedTuple):
    """Characters ``[start, end)`` of the original text."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens ``[start, end)`` of an encoded row."""

    start: int
    end: int


def to_py_obj(obj):
    """Return `obj` with arrays and tensors turned into nested lists of Python numbers."""
    if isinstance(obj, (dict, UserDict)):
        return {key: to_py_obj(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [to_py_obj(value) for value in obj]
    if hasattr(obj, "asnumpy"):
        return obj.asnumpy().tolist()
    if isinstance(obj, (np.ndarray, np.generic)):
        return obj.tolist()
    return obj


def as_tensor(value, tensor_type):
    """Return nested lists as an array of `tensor_type`; MindSpore is imported here, when asked for, and not before.

    Raises:
        ValueError: rows of different length.
    """
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype == object:
        raise ValueError("rows of different length cannot become one tensor: pass padding=True and truncation=True, "
                         "or leave return_tensors out")
    if not array.size:
        array = array.astype(np.int64)
    if TensorType(tensor_type) is TensorType.NUMPY:
        return array
    import mindspore  # 1.3 s, so only when tensors are asked for
    return mindspore.Tensor(array.astype(np.int32) if array.dtype.kind in "iu" else array)


class BatchEncoding(UserDict):
    """The output of a tokenizer: a dict with attribute access.

    A fast tokenizer adds the mapping between tokens, words and characters, one `tokenizers.Encoding` a row.

    Args:
        data (dict | None): "input_ids", "attention_mask", ... lists, or lists of lists for a batch.
        encoding (tokenizers.Encoding | list | None): rows of a fast tokenizer. Default: None.
        tensor_type (str | None): "np" or "ms" converts every value. Default: None.
        prepend_batch_axis (bool): add the batch axis when converting. Default: False.
        n_sequences (int | None): 1 for a text, 2 for a pair. Default: what `encoding` says.
    """

    def __init__(self, data=None, encoding=None, tensor_type=None, prepend_batch_axis=False, n_sequences=None):
        super().__init__(data)
        if encoding is not None and not isinstance(encoding, (list, tuple)):
            encoding = [encoding]
        self._encodings = list(encoding) if encoding is not None else None
        if n_sequences is None and self._encodings:
            n_sequences = self._encodings[0].n_sequences
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, item):
        if isinstance(item, str):
            return self.data[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        return self._rows("an integer index")[item]

    def __getattr__(self, name):
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"BatchEncoding has no {name!r}.{did_you_mean(name, data)}")

    def __getstate__(self):
        return {"data": self.data, "_encodings": self._encodings, "_n_sequences": self._n_sequences}

    def __setstate__(self, state):
        self.__dict__.update(state)

    def keys(self):
        """Names of the values."""
        return self.data.keys()

    def values(self):
        """The values."""
        return self.data.values()

    def items(self):
        """Pairs of name and value."""
        return self.data.items()

    @property
    def n_sequences(self):
        """1 for a text, 2 for a pair, None when not known."""
        return self._n_sequences

    @property
    def is_fast(self):
        """Whether a fast tokenizer made it (word, token and character mappings are there)."""
        return self._encodings is not None

    @property
    def encodings(self):
        """One `tokenizers.Encoding` a row, or None."""
        return self._encodings

    def _rows(self, what):
        if self._encodings is None:
            raise ValueError(f"{what} needs a fast tokenizer: use PreTrainedTokenizerFast or a ...TokenizerFast class")
        return self._encodings

    def tokens(self, batch_index=0):
        """Tokens (str) of one row."""
        return self._rows("tokens()")[batch_index].tokens

    def sequence_ids(self, batch_index=0):
        """Per token: 0 for the text, 1 for the pair, None for special tokens."""
        return self._rows("sequence_ids()")[batch_index].sequence_ids

    def word_ids(self, batch_index=0):
        """Per token: the number of its word, None for special tokens."""
        return self._rows("word_ids()")[batch_index].word_ids

    def words(self, batch_index=0):
        """Old name of `word_ids`."""
        return self.word_ids(batch_index)

    def _locate(self, first, second, what, length=None):
        """``(row, index)`` of the calls f(index) and f(row, index); a negative index counts from the end."""
        rows = self._rows(what)
        row, index = (0, first) if second is None else (first, second)
        row = row + len(rows) if row < 0 else row
        if index < 0 and length is not None:
            index += length(rows[row])
        return rows[row], index

    def token_to_sequence(self, batch_or_token_index, token_index=None):
        """0 or 1: the text the token comes from; None for special tokens."""
        row, index = self._locate(batch_or_token_index, token_index, "token_to_sequence()", len)
        return row.token_to_sequence(index)

    def token_to_word(self, batch_or_token_index, token_index=None):
        """Number of the word of a token, or None."""
        row, index = self._locate(batch_or_token_index, token_index, "token_to_word()", len)
        return row.token_to_word(index)

    def word_to_tokens(self, batch_or_word_index, word_index=None, sequence_index=0):
        """TokenSpan of a word, or None."""
        row, index = self._locate(batch_or_word_index, word_index, "word_to_tokens()")
        span = row.word_to_tokens(index, sequence_index)
        return None if span is None else TokenSpan(*span)

    def token_to_chars(self, batch_or_token_index, token_index=None):
        """CharSpan of a token, or None for special tokens."""
        row, index = self._locate(batch_or_token_index, token_index, "token_to_chars()", len)
        span = row.token_to_chars(index)
        return None if span is None else CharSpan(*span)

    def char_to_token(self, batch_or_char_index, char_index=None, sequence_index=0):
        """Index of the token that holds a character, or None."""
        row, index = self._locate(batch_or_char_index, char_index, "char_to_token()")
        return row.char_to_token(index, sequence_index)

    def word_to_chars(self, batch_or_word_index, word_index=None, sequence_index=0):
        """CharSpan of a word, or None."""
        row, index = self._locate(batch_or_word_index, word_index, "word_to_chars()")
        span = row.word_to_chars(index, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_word(self, batch_or_char_index, char_index=None, sequence_index=0):
        """Number of the word that holds a character, or None."""
        row, index = self._locate(batch_or_char_index, char_index, "char_to_word()")
        return row.char_to_word(index, sequence_index)

    def convert_to_tensors(self, tensor_type=None, prepend_batch_axis=False):
        """Turn every value into an array, in place, and return self.

        Args:
            tensor_type (str | TensorType | None): "np" (int64 arrays), "ms" (int32 tensors) or None: leave as it is.
            prepend_batch_axis (bool): wrap single rows to shape [1, T]. Default: False.

        Raises:
            ValueError: rows of different length, or an unknown `tensor_type`.
        """
        if tensor_type is None:
            return self
        tensor_type = TensorType(tensor_type)
        for key, value in self.data.items():
            if prepend_batch_axis:
                value = [value]
            try:
                self.data[key] = as_tensor(value, tensor_type)
            except ValueError as fault:
                raise ValueError(f"{key}: {fault}") from None
        return self
