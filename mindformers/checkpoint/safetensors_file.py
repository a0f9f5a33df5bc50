"""Reading and writing `.safetensors`: 8 bytes header length, a JSON header, the arrays one after another.

The format: https://github.com/huggingface/safetensors#format. It is read and written here directly, so that arrays go
to and from disk one at a time, transposed or sliced arrays are written right, and every fault of a file is named.
"""
import json
import os

import numpy as np

from mindformers.checkpoint import output_file
from mindformers.checkpoint.arrays import ITEMSIZE, array_nbytes, dtype_name
from mindformers.checkpoint.source import FileSource
from mindformers.tools.errors import UnsupportedError

_ALIGN = 64  # bytes; arrays then begin at cache lines, which a file that is mapped is read in
MAX_HEADER = 32 * 1024 * 1024  # some 200 000 tensors
DTYPES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
          "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
          "F64": "float64"}
TAGS = {name: tag for tag, name in DTYPES.items()}


def open_safetensors(path):
    """Return a FileSource of `path`; only the header is read.

    Raises:
        ValueError: the file is damaged; the message says where.
        UnsupportedError: a tensor has a dtype that MindSpore lacks (float8).
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{path} is damaged: {size} bytes, too short for a safetensors header")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER:
            raise ValueError(f"{path} is not a safetensors file or is damaged: it announces a header of {length} bytes,"
                             f" the limit is {MAX_HEADER}")
        if 8 + length > size:
            raise ValueError(f"{path} is damaged: it announces a header of {length} bytes, but the file has {size}")
        header = _parse_header(file.read(length), path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{path} is damaged: __metadata__ must map names to texts")
    places = {name: _place(name, info, path) for name, info in header.items()}
    _check_coverage(places, size - 8 - length, path)
    for name, (shape, dtype, (begin, end)) in places.items():
        places[name] = (shape, dtype, [(8 + length + begin, end - begin)])
    return FileSource(path, places, metadata)


def _parse_header(raw, path):
    def no_repeats(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=no_repeats)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a safetensors file or is damaged: its header is no valid JSON ({error})"
                         ) from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} is damaged: its header is not a JSON object")
    return header


def _is_size(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _place(name, info, path):
    """Return (shape, dtype, (begin, end)) of one header entry, offsets counted from the end of the header."""
    fault = f"{path} is damaged: tensor {name!r}"
    if not isinstance(info, dict) or not {"dtype", "shape", "data_offsets"} <= set(info):
        raise ValueError(f"{fault} needs dtype, shape and data_offsets in the header")
    shape, offsets, dtype = info["shape"], info["data_offsets"], DTYPES.get(str(info["dtype"]))
    if dtype is None:
        raise UnsupportedError(f"{path}: tensor {name!r} has dtype {info['dtype']}, which is not supported; "
                               f"supported: {', '.join(DTYPES)}. Save the weights in BF16 or F32")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise ValueError(f"{fault} has shape {shape}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ValueError(f"{fault} has data_offsets {offsets}")
    begin, end = offsets
    if end - begin != array_nbytes(shape, dtype):
        raise ValueError(f"{fault} of shape {shape} and dtype {dtype} needs {array_nbytes(shape, dtype)} bytes, "
                         f"but data_offsets {offsets} give {end - begin}")
    return tuple(shape), dtype, (begin, end)


def _check_coverage(places, size, path):
    """The arrays must fill the data part exactly: no overlap, no hole, no missing or surplus byte."""
    position, previous = 0, None
    for name, (_, _, (begin, end)) in sorted(places.items(), key=lambda item: item[1][2]):
        if begin < position:
            raise ValueError(f"{path} is damaged: tensors {previous!r} and {name!r} overlap")
        if begin > position:
            raise ValueError(f"{path} is damaged: {begin - position} bytes before tensor {name!r} belong to none")
        if end > size:
            raise ValueError(f"{path} is truncated: tensor {name!r} ends at byte {end} of the data, "
                             f"but only {size} are there; fetch the file again")
        position, previous = end, name
    if position != size:
        raise ValueError(f"{path} is damaged: {size - position} bytes after the last tensor belong to none")


def write_safetensors(path, source, names=None, metadata=None, target=None):
    """Write `names` of a WeightSource to `path`, reading and writing one array at a time.

    Args:
        path (str | Path): file to write, not atomically (see `save`).
        source (WeightSource): where the arrays come from.
        names (Iterable[str]): what to write. Default: all.
        metadata (dict[str, str]): texts for the header. Default: none.
        target (str | Path): the name used in errors. Default: `path`.
    """
    # widest dtype first: then every array is aligned to its own item size
    order = sorted(source.names() if names is None else names, key=lambda name: -ITEMSIZE[source.dtype(name)])
    header, position = {}, 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    for name in order:
        end = position + source.nbytes(name)
        header[name] = {"dtype": TAGS[source.dtype(name)], "shape": list(source.shape(name)),
                        "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    raw += b" " * (-(8 + len(raw)) % _ALIGN)
    with output_file.create(path, target or path) as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in order:
            file.write(contiguous_bytes(source, name))


def contiguous_bytes(source, name):
    """Return the bytes of array `name` in C order, after checking that the source keeps its word about it."""
    array = source.read(name)
    if array.shape != source.shape(name) or dtype_name(array.dtype) != source.dtype(name):
        raise ValueError(f"{source.where}: {name} was announced as {source.dtype(name)} {source.shape(name)} "
                         f"but read as {array.dtype} {array.shape}")
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
