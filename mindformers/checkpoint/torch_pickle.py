"""The pickle inside a PyTorch file, read as data: nothing that it names is imported or called.

Python's own unpickler calls whatever a pickle names and reserves whatever memory it claims. Here the few instructions
that PyTorch writes (the opcodes of the standard library's `pickletools`, which parses them) act on plain values; the
names of `CALLS`, `STORAGES` and `DTYPES` are all that a pickle may mention.
"""
from dataclasses import dataclass

from mindformers.tools.errors import UnsupportedError

MAX_BYTES = 32 * 1024 * 1024
MAX_STEPS = 1_000_000  # instructions; a tensor takes about 40

_STORAGE_DTYPES = {"Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Double": "float64",
                   "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
STORAGES = {f"{module}.{kind}Storage": dtype for kind, dtype in _STORAGE_DTYPES.items()
            for module in ("torch", "torch.cuda")} | {"torch.storage.UntypedStorage": "uint8",
                                                      "torch.UntypedStorage": "uint8"}
DTYPES = {f"torch.{dtype}": dtype for dtype in (*_STORAGE_DTYPES.values(), "uint16", "uint32", "uint64")}


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle mentions, "module.name"."""

    text: str


@dataclass(frozen=True)
class Storage:
    """`count` values of `dtype` in the archive entry or block `key`, from value `first` on."""

    dtype: str
    key: str
    count: int
    first: int = 0


@dataclass(frozen=True)
class TensorRecord:
    """A tensor: `dtype`, and the `shape` and `strides` (in values of it) of a view of `storage` from `offset` on."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple
    dtype: str


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    if metadata:
        raise UnsupportedError("a tensor is kept negated or conjugated: call .resolve_neg() before saving")
    return _view(storage, offset, shape, strides, storage.dtype)


def _tensor_of_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, metadata=None):
    if dtype.text not in DTYPES:
        raise UnsupportedError(f"a tensor has dtype {dtype.text}, which is not supported: save it in bfloat16 or "
                               "float32")
    return _view(storage, offset, shape, strides, DTYPES[dtype.text])


def _view(storage, offset, shape, strides, dtype):
    shape, strides = tuple(shape), tuple(strides)
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) \
            or not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
        raise ValueError(f"a tensor of shape {shape[:8]} with strides {strides[:8]} from {offset}")
    return TensorRecord(storage, offset, shape, strides, dtype)


CALLS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, requires_grad=True, hooks=None: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, requires_grad, hooks, state: tensor,
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "torch.Size": tuple,
}
_KNOWN = CALLS.keys() | STORAGES.keys() | DTYPES.keys()
_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
           "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": lambda: _MARK}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}


class BoundedFile:
    """The bytes [begin, end) of an open file, for a parser that believes the lengths it reads."""

    def __init__(self, file, begin, end, path):
        self.file, self.end, self.path = file, end, path
        file.seek(begin)

    def tell(self):
        """Position in the file."""
        return self.file.tell()

    def read(self, count):
        """Exactly `count` bytes.

        Raises:
            ValueError: so many are not there.
        """
        left = self.end - self.file.tell()
        if count > left:
            raise ValueError(f"{count} bytes announced, {left} left")
        return self.file.read(count)

    def readline(self):
        """A line, of no more than 4096 bytes."""
        return self.file.readline(min(4096, self.end - self.file.tell()))


def read_pickle(file, begin, end, path, open_storage=None):
    """Return (value, end position) of the pickle that begins at byte `begin` of `file`.

    Args:
        file: binary file; no byte from `end` on is read, and no more than `MAX_BYTES`.
        path (str | Path): its name in errors.
        open_storage (Callable | None): makes a Storage of the tuple that a persistent id is. Default: none allowed.

    Returns:
        Plain values: dict, list, tuple, str, bytes, numbers, None, TensorRecord, Storage, Name.

    Raises:
        ValueError: damaged, too large. UnsupportedError: a name that is not a tensor's; the message has it.
    """
    import pickletools  # only here: the check of a folder is to start fast
    bounded = BoundedFile(file, begin, min(end, begin + MAX_BYTES), path)
    machine = _Machine(open_storage)
    try:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(bounded)):
            if step > MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS} instructions")
            if opcode.name == "STOP":
                return machine.stack.pop(), bounded.tell()
            machine.run(opcode.name, argument)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path} is refused: {error}") from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or not a PyTorch file: its pickle is broken near byte {bounded.tell()} "
                         f"({error or type(error).__name__})") from None
    raise ValueError(f"{path} is damaged: its pickle does not end")


class _Machine:
    """A stack, numbered memories, and what each instruction does with them."""

    def __init__(self, open_storage):
        self.stack, self.memo, self.open_storage = [], {}, open_storage

    def run(self, name, argument):
        """Act on the instruction `name`."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in _TUPLES:
            self.stack.append(tuple([self.stack.pop() for _ in range(_TUPLES[name])][::-1]))
        elif name not in _NOTHING:
            action = getattr(self, f"do_{name.lower()}", None)
            if action is None:
                raise ValueError(f"the instruction {name}, which PyTorch never writes")
            action(argument)

    def pop_mark(self):
        """The values above the last mark, which go with it."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
        values = self.stack[at + 1:]
        del self.stack[at:]
        return values

    def do_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_tuple(self, _):
        self.stack.append(tuple(self.pop_mark()))

    def do_append(self, _):
        value = self.stack.pop()
        _only(list, self.stack[-1]).append(value)

    def do_appends(self, _):
        values = self.pop_mark()
        _only(list, self.stack[-1]).extend(values)

    def do_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        _only(dict, self.stack[-1])[_only((str, int), key)] = value

    def do_setitems(self, _):
        values = self.pop_mark()
        target = _only(dict, self.stack[-1])
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_only((str, int), key)] = value

    def do_build(self, _):
        self.stack.pop()  # attributes of what is below, such as a state_dict's _metadata: none is needed
        _only((dict, TensorRecord), self.stack[-1])

    def do_global(self, text):
        self.mention(text.replace(" ", ".", 1))

    def do_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.mention(f"{module}.{name}")

    def mention(self, name):
        """Push a Name; one that no tensor needs is refused."""
        if name not in _KNOWN:
            raise UnsupportedError(f"its pickle asks for {name[:200]}, and only tensors are read from .bin files, as "
                                   "other names can run code. Where the file is trusted and loads with PyTorch, save "
                                   "its state_dict() as .safetensors")
        self.stack.append(Name(name))

    def do_binpersid(self, _):
        if self.open_storage is None:
            raise ValueError("a storage where none can be")
        self.stack.append(self.open_storage(_only(tuple, self.stack.pop())))

    def do_reduce(self, _):
        arguments, function = _only(tuple, self.stack.pop()), self.stack.pop()
        if not isinstance(function, Name) or function.text not in CALLS:
            raise ValueError(f"a call of {getattr(function, 'text', type(function).__name__)}")
        self.stack.append(CALLS[function.text](*arguments))


def _only(kinds, value):
    if not isinstance(value, kinds):
        raise ValueError(f"a {type(value).__name__} in the wrong place")
    return value

