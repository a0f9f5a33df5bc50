"""Megatron-LM's indexed data sets: ``<prefix>.bin`` holds tokens, ``<prefix>.idx`` where sequences and documents begin.

Layout of the .idx file (little endian): magic ``MMIDIDX\\0\\0`` (9 bytes), version uint64 = 1, code of the token type
uint8, number of sequences uint64, number of document bounds uint64, lengths int32 [sequences], byte offsets int64
[sequences], document bounds int64.
Source: Megatron-LM, megatron/core/datasets/indexed_dataset.py.
"""
import os
import struct
from enum import Enum

import numpy as np

from mindformers.dataset.rows import RowSource, TokenRows
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.utils import atomic_write

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")


class DType(Enum):
    """Token types and their codes in an .idx file."""

    uint8 = 1
    int8 = 2
    int16 = 3
    int32 = 4
    int64 = 5
    float64 = 6
    float32 = 7
    uint16 = 8

    @classmethod
    def code_from_dtype(cls, value):
        """Return the code of a numpy dtype."""
        return cls[np.dtype(value).name].value

    @classmethod
    def dtype_from_code(cls, value):
        """Return the numpy dtype of a code."""
        return np.dtype(cls(value).name)

    @staticmethod
    def size(key):
        """Return the bytes of one element of a dtype or code."""
        return (DType.dtype_from_code(key) if isinstance(key, int) else np.dtype(key)).itemsize

    @staticmethod
    def optimal_dtype(cardinality):
        """Return the smallest type for `cardinality` different tokens: uint16, or int32 from 65500 on (as Megatron)."""
        return np.dtype(np.uint16 if cardinality is not None and cardinality < 65500 else np.int32)


def get_idx_path(path_prefix):
    """Return ``<path_prefix>.idx``."""
    return f"{path_prefix}.idx"


def get_bin_path(path_prefix):
    """Return ``<path_prefix>.bin``."""
    return f"{path_prefix}.bin"


class IndexedDataset:
    """Sequences of a .bin/.idx pair, memory-mapped: ``dataset[i]`` is an int array [length of sequence i].

    Args:
        path_prefix (str): path without .bin / .idx.
        mutimodal (bool): only False (UnsupportedError).
        mmap (bool): map the tokens instead of reading them. Default: True.

    Attributes:
        sequence_lengths int32 [sequences], sequence_pointers int64 [sequences] (bytes), document_indices int64
        (sequence numbers).

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: not such a pair, or cut short.
    """

    def __init__(self, path_prefix, mutimodal=False, mmap=True):
        if mutimodal:
            raise UnsupportedError("multimodal indexed data sets are not carried; sequences of tokens are")
        for path in (get_idx_path(path_prefix), get_bin_path(path_prefix)):
            if not os.path.isfile(path):
                raise FileNotFoundError(f"indexed data set {path_prefix!r}: {path} is missing")
        self.path_prefix = path_prefix
        self.mmap = mmap
        self.initialize()

    def initialize(self):
        """Read the index and open the tokens."""
        path, bin_path = get_idx_path(self.path_prefix), get_bin_path(self.path_prefix)
        with open(path, "rb") as file:
            content = file.read()
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            raise ConfigError(f"{path} is no index of an indexed data set (it does not start with MMIDIDX)")
        _, version, code, sequences, documents = _HEADER.unpack_from(content)
        if version != 1 or code not in {kind.value for kind in DType}:
            raise ConfigError(f"{path}: version {version} with token type {code} is unknown (expected version 1, type "
                              f"1..8)")
        if len(content) != _HEADER.size + 12 * sequences + 8 * documents:
            raise ConfigError(f"{path} is cut short or damaged: {len(content)} bytes for {sequences} sequences and "
                              f"{documents} document bounds")
        offset = _HEADER.size
        self.dtype = DType.dtype_from_code(code)
        self.sequence_lengths = np.frombuffer(content, np.int32, sequences, offset)
        self.sequence_pointers = np.frombuffer(content, np.int64, sequences, offset + 4 * sequences)
        self.document_indices = np.frombuffer(content, np.int64, documents, offset + 12 * sequences)
        needed = int(self.sequence_lengths.sum(dtype=np.int64)) * self.dtype.itemsize
        if os.path.getsize(bin_path) != needed:
            raise ConfigError(f"{bin_path} has {os.path.getsize(bin_path)} bytes, its index counts {needed}: one of "
                              f"the two is cut short or belongs to another data set")
        if not sequences:
            raise ConfigError(f"{path} has no sequences")
        self.tokens = np.memmap(bin_path, self.dtype, "r") if self.mmap else np.fromfile(bin_path, self.dtype)

    def __len__(self):
        return len(self.sequence_lengths)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} is outside 0..{len(self) - 1}")
        start = int(self.sequence_pointers[index]) // self.dtype.itemsize
        return np.asarray(self.tokens[start:start + int(self.sequence_lengths[index])])


class IndexedDataBuilder:
    """Writes a .bin/.idx pair.

    Args:
        bin_path (str): the .bin file.
        dtype: of the tokens. Default: int32.
        multimodal (bool): only False (UnsupportedError).
    """

    def __init__(self, bin_path, dtype=np.int32, multimodal=False):
        if multimodal:
            raise UnsupportedError("multimodal indexed data sets are not carried; sequences of tokens are")
        self.dtype = np.dtype(dtype)
        self.sequence_lengths = []
        self.document_indices = [0]
        self._file = open(bin_path, "wb")  # pylint: disable=R1732

    def add_item(self, np_array, mode=0):
        """Add one sequence (int [L]); `mode` must be 0."""
        if mode:
            raise UnsupportedError("sequence modes belong to multimodal data sets, which are not carried")
        values = np.asarray(np_array)
        limits = np.iinfo(self.dtype)
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            raise ConfigError(f"tokens {values.min()}..{values.max()} do not fit {self.dtype}")
        self._file.write(values.astype(self.dtype).tobytes())
        self.sequence_lengths.append(len(values))

    def end_document(self):
        """End a document after the last sequence."""
        self.document_indices.append(len(self.sequence_lengths))

    def add_document(self, np_array, lengths, modes=None):
        """Add the sequences of `lengths` that lie one after another in `np_array`, as one document."""
        if sum(lengths) != len(np_array):
            raise ConfigError(f"lengths add up to {sum(lengths)}, but the document has {len(np_array)} tokens")
        for sequence in np.split(np.asarray(np_array), np.cumsum(lengths)[:-1]):
            self.add_item(sequence, mode=sum(modes or ()))
        self.end_document()

    def add_index(self, path_prefix):
        """Append another .bin/.idx pair of the same token type."""
        other = IndexedDataset(path_prefix)
        if other.dtype != self.dtype:
            raise ConfigError(f"{path_prefix} holds {other.dtype}, this data set {self.dtype}")
        self.document_indices += [len(self.sequence_lengths) + int(bound) for bound in other.document_indices[1:]]
        for index in range(len(other)):
            self.add_item(other[index])

    def finalize(self, idx_path):
        """Close the .bin file and write the .idx file `idx_path`."""
        self._file.close()
        lengths = np.asarray(self.sequence_lengths, np.int32)
        pointers = np.zeros(len(lengths), np.int64)
        np.cumsum(lengths[:-1].astype(np.int64) * self.dtype.itemsize, out=pointers[1:])
        header = _HEADER.pack(_MAGIC, 1, DType.code_from_dtype(self.dtype), len(lengths), len(self.document_indices))
        with atomic_write(idx_path) as temporary:
            temporary.write_bytes(header + lengths.tobytes() + pointers.tobytes()
                                  + np.asarray(self.document_indices, np.int64).tobytes())


class _SequenceRows(RowSource):
    """One sequence a row."""

    def __init__(self, dataset, column_name, shuffle):
        self.dataset = dataset
        self.column_names = (column_name,)
        self.shuffle = shuffle

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return {self.column_names[0]: self.dataset[index]}


def build_indexed_loader(path_prefix, mutilmodal=False, column_names=None, shuffle=None, return_in_generator=True,
                         mmap=True, seq_length=None, pad_token_id=0):
    """Data loader ``type: IndexedDataLoader``: rows of a Megatron .bin/.idx pair.

    Args:
        path_prefix (str): path without .bin / .idx.
        column_names (list[str]): without `seq_length` one name. Default: ["input_ids"]; with it ["input_ids",
            "labels"].
        seq_length (int): cut the tokens, all sequences joined, into rows of seq_length + 1 (see TokenRows). Default:
            None: a sequence is a row.
        pad_token_id (int): fills the last row then. Default: 0.
        shuffle (bool): default: None, the dataset decides.
        mmap (bool): see IndexedDataset. mutilmodal, return_in_generator: MindFormers' arguments; only False, any.

    Raises:
        FileNotFoundError, ConfigError, UnsupportedError: see IndexedDataset.
    """
    dataset = IndexedDataset(path_prefix, mutilmodal, mmap)
    if seq_length is not None:
        return TokenRows(dataset.tokens, seq_length, "labels" in (column_names or ("labels",)), pad_token_id, shuffle)
    names = list(column_names or ["input_ids"])
    if len(names) != 1:
        raise ConfigError(f"a sequence is one column, but column_names is {names}; give seq_length for packed rows "
                          f"with labels")
    return _SequenceRows(dataset, names[0], shuffle)
