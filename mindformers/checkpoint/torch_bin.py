"""Reading PyTorch's `.bin` files: tensors only, one at a time, without PyTorch and without running a pickle.

Two layouts (torch/serialization.py writes them). Since torch 1.6: an uncompressed zip archive with `<top>/data.pkl`, a
pickle that describes the tensors, and one entry `<top>/data/<key>` of raw values for each storage. Before: five
pickles one after another (magic number, version, system, the tensors, keys of the storages), then for each storage its
number of values (int64) and the values. Several tensors may be views of one storage, with any strides.
"""
import os

import numpy as np

from mindformers.checkpoint.arrays import ITEMSIZE, array_nbytes, numpy_dtype
from mindformers.checkpoint.source import FileSource
from mindformers.checkpoint.torch_pickle import STORAGES, Name, Storage, TensorRecord, read_pickle
from mindformers.checkpoint.zip_entries import stored_entries
from mindformers.tools import memory
from mindformers.tools.errors import UnsupportedError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80\x02"


class TorchSource(FileSource):
    """The tensors of a `.bin` file; those that do not lie in row order are read as they lie and copied into it."""

    def __init__(self, path, places, strided):
        """places as for FileSource; strided: name -> (strides in values, number of values that are read)."""
        super().__init__(path, places)
        self._strides = {name: strides for name, (strides, _) in strided.items()}
        self._spans = FileSource(path, {name: ((count,), places[name][1], places[name][2])
                                        for name, (_, count) in strided.items()})

    def read(self, name, rows=None):
        if name not in self._strides:
            return super().read(name, rows)
        shape, dtype = self._entry(name)
        values = self._spans.read(name).view(f"V{ITEMSIZE[dtype]}")
        steps = [step * ITEMSIZE[dtype] for step in self._strides[name]]
        view = np.lib.stride_tricks.as_strided(values, shape, steps)
        view = view if rows is None else view[rows[0]:rows[1]]
        array = memory.zeros(array_nbytes(view.shape, dtype)).view(values.dtype).reshape(view.shape)
        array[...] = view
        return array.view(numpy_dtype(dtype))

    def take(self, name, rows=None):
        return self.read(name, rows)  # several names may share a storage, but must not share memory


def open_torch(path):
    """Return a TorchSource of the `.bin` file `path`; of the values, nothing is read.

    Raises:
        ValueError: damaged, truncated, or a tensor that lies outside its storage.
        UnsupportedError: the pickle asks for anything but tensors, named in the message; a dtype that MindSpore lacks;
            a file that is no plain dict of tensors.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        if head == _ZIP:
            content, blocks = _read_zip(file, path)
        elif head.startswith(_PICKLE):
            content, blocks = _read_legacy(file, path)
        else:
            raise ValueError(f"{path} is damaged or not a PyTorch file: it begins with {head!r}")
    places, strided = {}, {}
    for name, record in _tensors(content, path).items():
        places[name], more = _place(name, record, blocks, path)
        if more:
            strided[name] = more
    return TorchSource(path, places, strided)


def _tensors(content, path):
    if not isinstance(content, dict):
        raise UnsupportedError(f"{path} holds a {type(content).__name__}, not a dict of tensors; save the model's "
                               "state_dict()")
    for name, value in content.items():
        if not isinstance(value, TensorRecord) or not isinstance(name, str):
            kind = "dict" if isinstance(value, dict) else type(value).__name__
            raise UnsupportedError(f"{path}: {name!r} is a {kind}, not a tensor; this is no plain state_dict() but "
                                   "something around one, such as a training checkpoint: save model.state_dict() alone")
    return content


def _place(name, record, blocks, path):
    """Return ((shape, dtype, segments) for FileSource, and (strides, values to read) or None for row order)."""
    shape, storage = record.shape, record.storage
    if storage.key not in blocks:
        raise ValueError(f"{path} is damaged: the values of {name!r} (storage {storage.key!r}) are not in it")
    begin, length = blocks[storage.key]
    size, base = ITEMSIZE[record.dtype], ITEMSIZE[storage.dtype]
    first = storage.first * base + record.offset * size
    count = 1
    for number in shape:
        count *= number
    span = 1 + sum((number - 1) * step for number, step in zip(shape, record.strides)) if count else 0
    if storage.first < 0 or (storage.first + storage.count) * base > length \
            or first + span * size > (storage.first + storage.count) * base:
        raise ValueError(f"{path} is damaged or truncated: tensor {name!r} of shape {shape} and dtype {record.dtype} "
                         f"ends beyond the {min(length, storage.count * base)} bytes of its storage")
    if count > span:
        raise UnsupportedError(f"{path}: tensor {name!r} repeats its values (shape {shape}, strides {record.strides}): "
                               "call .contiguous() on it before saving")
    segments = [(begin + first, span * size)]
    plain = span == count and record.strides == _row_order(shape, record.strides)
    return (shape, record.dtype, segments), None if plain else (record.strides, span)


def _row_order(shape, strides):
    """The strides of row order; axes of length 1 may have any."""
    out, step = [], 1
    for number, own in zip(reversed(shape), reversed(strides)):
        out.append(own if number == 1 else step)
        step *= max(number, 1)
    return tuple(reversed(out)) if step and 0 not in shape else strides


def _storage(identity, view=None):
    """The Storage of a persistent id ("storage", type, key, device, number of values)."""
    kind, storage_type, key, _, count = identity
    if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str) \
            or type(count) is not int or not 0 <= count < 1 << 62:
        raise ValueError("a storage without type, key or size")
    if storage_type.text not in STORAGES:
        raise ValueError(f"a storage of type {storage_type.text}")
    dtype = STORAGES[storage_type.text]
    if view is None:
        return Storage(dtype, key, count)
    _, first, size = view
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in (first, size)) or first + size > count:
        raise ValueError(f"a view of values {first} to {first + size} of {count}")
    return Storage(dtype, key, size, first)


def _read_zip(file, path):
    """Return (content of the pickle, {storage key: (offset, bytes)})."""
    entries = stored_entries(file, path)
    tops = [name[:-len("data.pkl")] for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(tops) != 1:
        raise ValueError(f"{path} is a zip archive but not one that PyTorch wrote: it has {len(tops)} data.pkl")
    top = tops[0]
    if f"{top}byteorder" in entries:
        offset, _ = entries[f"{top}byteorder"]
        file.seek(offset)
        if file.read(3) == b"big":
            raise UnsupportedError(f"{path} was written on a big-endian machine, which is not read: save it on another")
    begin, length = entries[f"{top}data.pkl"]
    content, _ = read_pickle(file, begin, begin + length, path, _storage)
    data = f"{top}data/"
    return content, {name[len(data):]: place for name, place in entries.items() if name.startswith(data)}


def _read_legacy(file, path):
    """The same of the layout before torch 1.6."""
    size, kinds = os.fstat(file.fileno()).st_size, {}

    def open_storage(identity):
        storage = _storage(identity[:5], *identity[5:])
        if kinds.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise ValueError(f"storage {storage.key!r} has two dtypes")
        return storage

    magic, position = read_pickle(file, 0, size, path)
    if magic != MAGIC_NUMBER:
        raise ValueError(f"{path} is a pickle but not one that PyTorch wrote")
    version, position = read_pickle(file, position, size, path)
    system, position = read_pickle(file, position, size, path)
    if version != LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsupportedError(f"{path} is of another version of PyTorch's old format than {LEGACY_VERSION}, or "
                               "big-endian: load it with PyTorch and save the state_dict() as .safetensors")
    content, position = read_pickle(file, position, size, path, open_storage)
    keys, position = read_pickle(file, position, size, path)
    blocks = {}
    for key in keys if isinstance(keys, list) else ():
        if key not in kinds or key in blocks:
            raise ValueError(f"{path} is damaged: it has a storage {str(key)[:80]!r} that no tensor needs, or twice")
        file.seek(position)
        length = int.from_bytes(file.read(8), "little", signed=True) * ITEMSIZE[kinds[key]]
        position += 8
        if not 0 <= length <= size - position:
            raise ValueError(f"{path} is truncated: storage {key!r} has {length} bytes, {max(size - position, 0)} are "
                             "left; fetch the file again")
        blocks[key] = (position, length)
        position += length
    return content, blocks
