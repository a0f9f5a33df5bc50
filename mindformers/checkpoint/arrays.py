"""Dtypes by name, and conversions between them that never corrupt a value in silence.

bfloat16 arrays have MindSpore's numpy dtype (`mindspore.common.np_dtype.bfloat16`): `array.astype(np.float32)`,
slicing, `np.concatenate`, `array.view(np.uint16)` and `mindspore.Tensor(array)` all work on them. MindSpore is only
imported when such an array is made.
"""
import numpy as np

from mindformers.tools.errors import CheckpointMismatchError, UnsupportedError, did_you_mean

ITEMSIZE = {"bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8,
            "int64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
FLOATS = ("float16", "bfloat16", "float32", "float64")


def numpy_dtype(name):
    """Return the numpy dtype called `name`; "bfloat16" is MindSpore's.

    Raises:
        ValueError: `name` is not in `ITEMSIZE`.
        UnsupportedError: bfloat16 with a numpy that MindSpore was not built for.
    """
    if name not in ITEMSIZE:
        raise ValueError(f"dtype {name!r} is not one of {', '.join(ITEMSIZE)}.{did_you_mean(name, ITEMSIZE)}")
    if name != "bfloat16":
        return np.dtype(name)
    from mindspore.common import np_dtype
    if not hasattr(np_dtype, "bfloat16"):
        raise UnsupportedError(f"numpy {np.__version__} cannot hold bfloat16 with this MindSpore: "
                               "install numpy>=1.26,<2 or convert the weights to float32")
    return np.dtype(np_dtype.bfloat16)


def dtype_name(dtype):
    """Return the name of a numpy or MindSpore dtype (or its string): "float32", "bfloat16", "bool", ...

    Raises:
        ValueError: a dtype that checkpoints do not hold.
    """
    text = str(dtype).rsplit(".", maxsplit=1)[-1].lower().rstrip("_")
    name = text if text in ITEMSIZE else str(getattr(dtype, "name", "")).lower()
    if name not in ITEMSIZE:
        raise ValueError(f"dtype {dtype} cannot be kept in a checkpoint: use one of {', '.join(ITEMSIZE)}")
    return name


def array_nbytes(shape, dtype):
    """Return the number of bytes of an array of `shape` and dtype name `dtype`."""
    count = ITEMSIZE[dtype]
    for size in shape:
        count *= size
    return count


def as_array(value, name="value"):
    """Return `value` (numpy array, numpy scalar, MindSpore Tensor or Parameter) as a numpy array, maybe sharing memory.

    Raises:
        TypeError: anything else; no guess is made about lists or tensors of other frameworks.
    """
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{name} must be a numpy array or a MindSpore tensor, but is {type(value).__name__}")
    return np.asarray(value)


def convert(array, dtype, name="value"):
    """Return `array` in dtype name `dtype`; the array itself when nothing changes.

    Floats convert to floats (round to nearest even, NaN stays NaN). Other pairs must keep every value.

    Raises:
        CheckpointMismatchError: a finite number that becomes infinite, or a value that the dtype cannot hold.
    """
    source = dtype_name(array.dtype)
    if source == dtype:
        return array
    target = numpy_dtype(dtype)
    if source in FLOATS and dtype in FLOATS:
        return _convert_float(array, source, dtype, target, name)
    if source in FLOATS or dtype in FLOATS:
        raise CheckpointMismatchError(f"{name} is {source} and cannot become {dtype}: only floating point dtypes "
                                      "convert into each other (quantised weights need the quantised model)")
    converted = array.astype(target)
    if not np.array_equal(converted, array):
        raise CheckpointMismatchError(f"{name} is {source} and holds values that {dtype} cannot: "
                                      f"{array.min()} to {array.max()}")
    return converted


def _convert_float(array, source, dtype, target, name):
    with np.errstate(all="ignore"):
        wide = array.astype(np.float32) if "bfloat16" in (source, dtype) and source != "float32" else array
        converted = wide.astype(target, copy=False)
        if ITEMSIZE[dtype] >= 4 or (source, dtype) == ("float16", "bfloat16"):
            return converted
        lost = ~np.isfinite(converted.astype(np.float32)) & np.isfinite(wide)
    if lost.any():
        raise CheckpointMismatchError(
            f"{name} holds {int(lost.sum())} numbers too large for {dtype} (up to {np.abs(wide[lost]).max():.6g}): "
            "load with a dtype of more range, such as bfloat16 or float32")
    return converted


def is_finite(array):
    """Whether a floating point array has neither NaN nor infinity; other dtypes always are finite."""
    name = dtype_name(array.dtype)
    if name not in FLOATS:
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(array.astype(np.float32) if name == "bfloat16" else array).all())
