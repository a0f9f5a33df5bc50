"""WeightSource: named arrays that are read one at a time, wherever they are kept."""
import os

import numpy as np

from mindformers.checkpoint.arrays import ITEMSIZE, array_nbytes, as_array, dtype_name, numpy_dtype
from mindformers.tools import mapped_file, memory
from mindformers.tools.errors import did_you_mean


class WeightSource:
    """Names, shapes and dtypes known at once; values read on demand.

    Subclasses fill `entries` and implement `read`.

    Attributes:
        where (str): what error messages call this source.
        entries (dict[str, tuple[tuple[int, ...], str]]): name -> (shape, dtype name), in file order.
        metadata (dict[str, str]): texts kept beside the arrays.
    """

    def __init__(self, where, entries=None, metadata=None):
        self.where = str(where)
        self.entries = dict(entries or {})
        self.metadata = dict(metadata or {})

    def names(self):
        """Return the names, in order."""
        return list(self.entries)

    def shape(self, name):
        """Return the shape of `name`, a tuple."""
        return self._entry(name)[0]

    def dtype(self, name):
        """Return the dtype name of `name`, such as "bfloat16"."""
        return self._entry(name)[1]

    def nbytes(self, name):
        """Return the size of `name` in bytes."""
        return array_nbytes(*self._entry(name))

    def read(self, name, rows=None):
        """Return the array `name`, C-contiguous and the caller's own; `rows` = (begin, end) reads a part of axis 0.

        Raises:
            KeyError: no such name. ValueError: damaged file.
        """
        raise TypeError(f"{type(self).__name__} does not say how to read {name!r}")

    def take(self, name, rows=None):
        """As `read`, but the memory may be private pages of the file itself (`tools.mapped_file`): nothing is copied,
        and who writes into the array does not change the file."""
        return self.read(name, rows)

    def _entry(self, name):
        if name not in self.entries:
            raise KeyError(f"{self.where} has no tensor {name!r}.{did_you_mean(name, self.entries)}")
        return self.entries[name]

    def __contains__(self, name):
        return name in self.entries

    def __len__(self):
        return len(self.entries)

    def __repr__(self):
        return f"{type(self).__name__}({self.where!r}, {len(self)} tensors)"


class DictSource(WeightSource):
    """Arrays in memory: a dict of numpy arrays, MindSpore tensors or parameters."""

    def __init__(self, arrays, where="the given dict", metadata=None):
        super().__init__(where, metadata=metadata)
        self._arrays = dict(arrays)
        for name, value in self._arrays.items():
            if not hasattr(value, "shape") or not hasattr(value, "dtype"):
                raise TypeError(f"{name} must be a numpy array or a MindSpore tensor, but is {type(value).__name__}")
            self.entries[name] = (tuple(value.shape), dtype_name(value.dtype))

    def read(self, name, rows=None):
        self._entry(name)
        array = as_array(self._arrays[name], name)
        return np.array(array if rows is None else array[rows[0]:rows[1]], order="C", copy=True)


class CellSource(DictSource):
    """The parameters of one or several cells, by parameter name; a parameter shared by two cells counts once."""

    def __init__(self, *cells, where="the model"):
        super().__init__(cell_parameters(*cells), where)


def cell_parameters(*cells):
    """Return {parameter name: Parameter} of the cells; None cells are skipped, shared parameters come once.

    Raises:
        ValueError: two different parameters have one name, so a checkpoint could not tell them apart.
    """
    found = {}
    for cell in cells:
        for _, parameter in cell.parameters_and_names() if cell is not None else ():
            known = found.setdefault(parameter.name, parameter)
            if known is not parameter:
                raise ValueError(f"two parameters are named {parameter.name!r}: names must be unique to be saved")
    return found


class FileSource(WeightSource):
    """Arrays at known places of one file, which is opened for each `read`, and mapped for `take`.

    Args:
        path (str | Path): the file.
        places (dict[str, tuple[shape, dtype, segments]]): segments = [(offset, length), ...] in bytes.
        metadata (dict[str, str]): texts of the file.
    """

    def __init__(self, path, places, metadata=None):
        super().__init__(path, {name: place[:2] for name, place in places.items()}, metadata)
        self.path = str(path)
        self._segments = {name: place[2] for name, place in places.items()}
        self._size = os.path.getsize(path)
        self._mapped = None

    def read(self, name, rows=None):
        shape, begin, end = self._range(name, rows)
        data = memory.zeros(end - begin)
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != self._size:
                raise ValueError(f"{self.path} changed its size while it was being read")
            _read_range(file, self._segments[name], begin, end, memoryview(data), f"{self.path}: {name}")
        return data.view(numpy_dtype(self.dtype(name))).reshape(shape)

    def take(self, name, rows=None):
        shape, begin, end = self._range(name, rows)
        segments, item = self._segments[name], ITEMSIZE[self.dtype(name)]
        if len(segments) != 1 or (segments[0][0] + begin) % item or begin == end:
            return self.read(name, rows)
        if self._mapped is None:
            self._mapped = mapped_file.open_mapped(self.path)
        if self._mapped is None or self._mapped.size != self._size:
            return self.read(name, rows)
        offset = segments[0][0]
        return self._mapped[offset + begin:offset + end].view(numpy_dtype(self.dtype(name))).reshape(shape)

    def _range(self, name, rows):
        """Shape, and first and last byte within the array, of its `rows`."""
        shape, dtype = self._entry(name)
        if rows is None:
            return shape, 0, array_nbytes(shape, dtype)
        row = array_nbytes(shape[1:], dtype)
        return (rows[1] - rows[0], *shape[1:]), rows[0] * row, rows[1] * row


def _read_range(file, segments, begin, end, out, what):
    """Fill `out` with bytes [begin, end) of the concatenated segments."""
    start, filled = 0, 0
    for offset, length in segments:
        first, last = max(begin, start), min(end, start + length)
        if first < last:
            file.seek(offset + first - start)
            part = out[filled:filled + last - first]
            while part:
                count = file.readinto(part)
                if not count:
                    raise ValueError(f"{what}: the file ended while it was being read")
                part, filled = part[count:], filled + count
        start += length
