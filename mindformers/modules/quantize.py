"""Weight-only int8 quantisation of the Linear cells of a model: symmetric, rounded to nearest, one scale per output
channel or per group of input channels.

Only generation and evaluation: a quantised weight is not trained and not saved.
"""
import re

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from mindformers.modules.layers import Linear
from mindformers.tools import memory
from mindformers.tools.errors import ConfigError

_ROWS = 1024  # rows converted at a time: bounds the float32 copy of a large weight
_SMALLEST_GROUP = 32


def parse_quantization(quantization):
    """Return the group size that ``"int8"`` (None: whole channels) or ``"int8:G"`` means.

    Raises:
        ConfigError: anything else.
    """
    match = re.fullmatch(r"int8(?::(\d+))?", str(quantization))
    if not match or (match[1] and int(match[1]) < _SMALLEST_GROUP):
        raise ConfigError(f"quantization={quantization!r} is unknown; use 'int8' (a scale per output channel) or "
                          f"'int8:G' (a scale per group of G inputs, G at least {_SMALLEST_GROUP})")
    return int(match[1]) if match[1] else None


def quantize_rows(weight, group_size=None):
    """Quantise weight [O, I] (any float dtype).

    Returns:
        int8 [O, I], scales float32 [O] or [O, I / group_size]; weight ~ int8 * scale, error at most scale / 2.
    """
    outputs, inputs = weight.shape
    groups = 1 if group_size is None else inputs // group_size
    values, scales = memory.zeros((outputs, inputs), np.int8), np.empty((outputs, groups), np.float32)
    for begin in range(0, outputs, _ROWS):
        rows = weight[begin:begin + _ROWS].astype(np.float32).reshape(-1, groups, inputs // groups)
        scale = np.maximum(np.abs(rows).max(2) / 127.0, np.finfo(np.float32).tiny)
        values[begin:begin + _ROWS] = np.rint(rows / scale[:, :, None]).reshape(-1, inputs)
        scales[begin:begin + _ROWS] = scale
    return values, scales[:, 0].copy() if group_size is None else scales


def quantize_linear(cell, group_size=None):
    """Make the weight of a Linear cell int8.

    Raises:
        ConfigError: the group size does not divide its inputs.
    """
    if group_size is not None and cell.in_channels % group_size:
        raise ConfigError(f"quantization in groups of {group_size} does not fit {cell.weight.name} with "
                          f"{cell.in_channels} inputs; use a divisor, or 'int8'")
    name = cell.weight.name
    values, scales = quantize_rows(cell.weight.asnumpy(), group_size)
    del cell.weight, cell.weight_scale
    cell.weight = Parameter(Tensor.from_numpy(values), name=name, requires_grad=False)
    cell.weight_scale = Parameter(Tensor.from_numpy(scales), name=f"{name}_scale", requires_grad=False)


def quantize(model, quantization):
    """Make every Linear of `model` int8, see `parse_quantization`; returns the model."""
    group_size = parse_quantization(quantization)
    for _, cell in model.cells_and_names():
        if type(cell) is Linear and cell.weight.dtype != ms.int8:
            quantize_linear(cell, group_size)
    return model
