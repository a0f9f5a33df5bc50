"""Names of dtypes (strings in configurations) and MindSpore dtypes, both ways."""
import mindspore as ms
import numpy as np
from mindspore.common.np_dtype import bfloat16 as np_bfloat16

from mindformers.tools.errors import did_you_mean

_BY_NAME = {
    "float32": ms.float32, "fp32": ms.float32, "float16": ms.float16, "fp16": ms.float16,
    "bfloat16": ms.bfloat16, "bf16": ms.bfloat16, "float64": ms.float64,
    "int8": ms.int8, "int16": ms.int16, "int32": ms.int32, "int64": ms.int64, "uint8": ms.uint8, "bool": ms.bool_,
}
_TO_NAME = {str(dtype).lower(): name for name, dtype in reversed(_BY_NAME.items())}


def to_ms_dtype(dtype):
    """Return the MindSpore dtype named by `dtype` ("float32", "bf16", "torch.float16", ...); a dtype stays itself.

    Raises:
        TypeError: `dtype` is neither a string nor a MindSpore dtype.
        ValueError: no dtype of that name.
    """
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.").removeprefix("mindspore.").lower()
        if name not in _BY_NAME:
            raise ValueError(f"dtype {dtype!r} is unknown; known: {', '.join(_BY_NAME)}.{did_you_mean(name, _BY_NAME)}")
        return _BY_NAME[name]
    if str(dtype).lower() in _TO_NAME:
        return dtype
    raise TypeError(f"dtype must be a string or a mindspore dtype, but got {dtype!r} ({type(dtype).__name__})")


def dtype_name(dtype):
    """Return the configuration's name of a dtype: ``mindspore.bfloat16`` or ``"bf16"`` -> ``"bfloat16"``."""
    return _TO_NAME[str(to_ms_dtype(dtype)).lower()]


def to_np_dtype(dtype):
    """Return the numpy dtype of the same values; bfloat16 is MindSpore's own numpy type."""
    name = dtype_name(dtype)
    return np_bfloat16 if name == "bfloat16" else np.dtype(name)
