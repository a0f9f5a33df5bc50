"""Reading and writing MindSpore's `.ckpt`: a protobuf message `Checkpoint`, no pickle.

    Checkpoint { repeated Value value = 1 }      Value { string tag = 1; TensorProto tensor = 2; ... }
    TensorProto { repeated int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3 }

A tensor larger than 512 MB is kept as several consecutive values of one tag whose contents join. The wire format is
walked here directly: tensor contents are skipped until they are asked for, so a file may be larger than memory and
than protobuf's limit of 2 GB, and neither reading nor writing makes a second copy.
"""
import os

from mindformers.checkpoint import output_file
from mindformers.checkpoint.arrays import ITEMSIZE, array_nbytes
from mindformers.checkpoint.safetensors_file import contiguous_bytes
from mindformers.checkpoint.source import FileSource
from mindformers.tools.errors import UnsupportedError

SLICE_BYTES = 512 * 1024 * 1024
MAX_TEXT = 64 * 1024 * 1024
MAX_NAME, MAX_AXES, MAX_TENSORS = 4096, 32, 1_000_000
CRC_MARK, CRC_BYTES = b"crc_num", 17
TAGS = {"bool": "Bool", "uint8": "UInt8", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
        "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float16": "Float16", "bfloat16": "BFloat16",
        "float32": "Float32", "float64": "Float64"}
DTYPES = {tag: name for name, tag in TAGS.items()}


class _Walker:
    """Walks protobuf's wire format of an open file between byte limits."""

    def __init__(self, file, path):
        self.file, self.path = file, path

    def damaged(self, reason):
        return ValueError(f"{self.path} is not a MindSpore checkpoint, is encrypted or damaged: {reason} "
                          f"(near byte {self.file.tell()})")

    def varint(self, end):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.file.read(1) if self.file.tell() < end else b""
            if not byte:
                raise self.damaged("it ends inside a number")
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        raise self.damaged("a number has more than 10 bytes")

    def fields(self, end):
        """Yield (field number, value): an int, or (begin, end) of a length-delimited field, which is then skipped."""
        while self.file.tell() < end:
            key = self.varint(end)
            number, kind = key >> 3, key & 7
            if kind == 0:
                yield number, self.varint(end)
            elif kind == 2:
                length = self.varint(end)
                begin = self.file.tell()
                if begin + length > end:
                    raise self.damaged(f"truncated: {length} bytes announced, {end - begin} left")
                yield number, (begin, begin + length)
                self.file.seek(begin + length)
            else:
                raise self.damaged(f"unknown field {number} of kind {kind}")

    def text(self, span, encoding="utf-8", limit=MAX_NAME):
        begin, end = span
        if end - begin > limit:
            raise self.damaged(f"a text of {end - begin} bytes, the limit is {limit}")
        self.file.seek(begin)
        try:
            return self.file.read(end - begin).decode(encoding)
        except UnicodeDecodeError as error:
            raise self.damaged("a name is no text") from error

    def tensor(self, span):
        """Return (dims, tensor type, (begin, end) of the content)."""
        self.file.seek(span[0])
        dims, kind, content = [], None, None
        for number, value in self.fields(span[1]):
            if number == 1 and isinstance(value, int):
                dims.append(value)
            elif number == 1:
                self.file.seek(value[0])
                while self.file.tell() < value[1] and len(dims) <= MAX_AXES:
                    dims.append(self.varint(value[1]))
            elif number == 2 and not isinstance(value, int):
                kind = self.text(value)
            elif number == 3 and not isinstance(value, int):
                content = value
            if len(dims) > MAX_AXES:
                raise self.damaged(f"a tensor of more than {MAX_AXES} axes")
        if kind is None or content is None:
            raise self.damaged("a tensor without type or content")
        if any(dim >= 1 << 62 for dim in dims):
            raise self.damaged(f"a tensor of shape {dims}")
        return dims, kind, content

    def value(self, span):
        """Return (name, dims, tensor type, content span) of one Value."""
        self.file.seek(span[0])
        name, tensor = None, None
        for number, field in self.fields(span[1]):
            if number == 1 and not isinstance(field, int):
                name = self.text(field)
            elif number == 2 and not isinstance(field, int):
                tensor = self.tensor(field)
            elif number == 3:
                raise UnsupportedError(f"{self.path}: {name!r} is a map parameter (embedding hash table), which is not "
                                       "supported; save the model without it")
        if name is None or tensor is None:
            raise self.damaged("a value without name or tensor")
        return (name, *tensor)


def open_ckpt(path):
    """Return a FileSource of the `.ckpt` file `path`; tensor contents are not read. Texts are in `.metadata`.

    Raises:
        ValueError: the file is damaged or encrypted. UnsupportedError: a dtype or map parameter that is not carried.
    """
    size = os.path.getsize(path)
    pieces, metadata, previous = {}, {}, None
    with open(path, "rb", buffering=4096) as file:
        if size > CRC_BYTES:
            file.seek(size - CRC_BYTES)
            size -= CRC_BYTES if file.read(len(CRC_MARK)) == CRC_MARK else 0
            file.seek(0)
        walker = _Walker(file, path)
        for number, span in walker.fields(size):
            if number != 1 or isinstance(span, int):
                raise walker.damaged(f"unknown field {number}")
            name, dims, kind, content = walker.value(span)
            if kind == "str":
                metadata[name] = walker.text(content, "utf-32-le", MAX_TEXT).rstrip("\0")
                continue
            if kind not in DTYPES:
                raise UnsupportedError(f"{path}: {name!r} has type {kind!r}, which is not supported")
            if name in pieces and (name != previous or pieces[name][:2] != (dims, DTYPES[kind])):
                raise walker.damaged(f"two tensors are named {name!r}")
            pieces.setdefault(name, (dims, DTYPES[kind], []))[2].append((content[0], content[1] - content[0]))
            previous = name
            if len(pieces) > MAX_TENSORS:
                raise walker.damaged(f"more than {MAX_TENSORS} tensors")
    if not pieces and not metadata:
        raise ValueError(f"{path} holds no tensors: {'the file is empty' if not size else 'is it a checkpoint?'}")
    return FileSource(path, {name: _place(name, *piece, path) for name, piece in pieces.items()}, metadata)


def _place(name, dims, dtype, segments, path):
    total = sum(length for _, length in segments)
    if dims == [0] and total == ITEMSIZE[dtype]:
        dims = []  # how some writers spell a scalar
    if total != array_nbytes(dims, dtype):
        raise ValueError(f"{path} is damaged: tensor {name!r} of shape {dims} and dtype {dtype} needs "
                         f"{array_nbytes(dims, dtype)} bytes but has {total}")
    return tuple(dims), dtype, segments


def write_ckpt(path, source, names=None, metadata=None, target=None):
    """Write `names` of a WeightSource to `path` as MindSpore does; `mindspore.load_checkpoint` reads the file.

    Args:
        path (str | Path): file to write, not atomically (see `save`).
        source (WeightSource): where the arrays come from.
        names (Iterable[str]): what to write. Default: all.
        metadata (dict[str, str]): texts, kept as string values. Default: none.
        target (str | Path): the name used in errors. Default: `path`.
    """
    with output_file.create(path, target or path) as file:
        for name in source.names() if names is None else names:
            content, dims, kind = contiguous_bytes(source, name), source.shape(name), TAGS[source.dtype(name)]
            for begin in range(0, max(len(content), 1), SLICE_BYTES):
                _write_value(file, name, dims, kind, content[begin:begin + SLICE_BYTES])
        for name, text in (metadata or {}).items():
            # MindSpore reads a text as one numpy string, which has at least one character
            _write_value(file, name, (0,), "str", text.encode("utf-32-le") or bytes(4))


def _varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _length_delimited(number, length):
    return _varint(number << 3 | 2) + _varint(length)


def _write_value(file, name, dims, kind, content):
    tag, kind = name.encode("utf-8"), kind.encode("ascii")
    head = b"".join(b"\x08" + _varint(dim) for dim in dims) + _length_delimited(2, len(kind)) + kind
    head += _length_delimited(3, len(content))
    tag = _length_delimited(1, len(tag)) + tag
    tensor = _length_delimited(2, len(head) + len(content))
    file.write(_length_delimited(1, len(tag) + len(tensor) + len(head) + len(content)) + tag + tensor + head)
    file.write(content)
