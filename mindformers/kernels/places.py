"""Where Parameters lie in the memory of a CPU: what steps without a graph read and write."""
import ctypes

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore.common import np_dtype

_NUMPY = {ms.float32: np.dtype(np.float32), ms.float16: np.dtype(np.float16), ms.int8: np.dtype(np.int8),
          ms.bfloat16: np.dtype(np_dtype.bfloat16)}


class Places:
    """Addresses of Parameters, which stay alive with it.

    Attributes:
        parameters (list[Parameter]): in the order they were given.
        addresses (list[int]): of their memory, as of the last `moved`; None before it.
    """

    def __init__(self, parameters):
        self.parameters, self._ask = parameters, [parameter.data_ptr for parameter in parameters]
        self._is_whole = [parameter.is_contiguous for parameter in parameters]
        self.addresses = None

    def moved(self):
        """Look again, having waited for what MindSpore still writes; returns whether anything lies elsewhere.

        A Parameter that was set to a strided view (`set_data(x.T)`) gets memory of its own, where rows lie together.

        Raises:
            RuntimeError: a Parameter without data.
        """
        addresses = [ask() for ask in self._ask]
        if addresses == self.addresses and all(is_whole() for is_whole in self._is_whole):
            return False
        for parameter in self.parameters:
            if not parameter.is_contiguous():
                parameter.set_data(Tensor.from_numpy(_in_order(parameter)))
        self.addresses = addresses = [ask() for ask in self._ask]
        if 0 in addresses:
            name = self.parameters[addresses.index(0)].name
            raise RuntimeError(f"the Parameter {name} holds no data: load or set it")
        return True

    def arrays(self):
        """The memory of the Parameters as numpy arrays, bfloat16 as MindSpore's numpy type; valid until one moves."""
        return [_view(address, parameter.shape, _NUMPY[parameter.dtype])
                for address, parameter in zip(self.addresses, self.parameters)]


def _view(address, shape, dtype, strides=None):
    """A numpy array on memory; strides in bytes."""
    strides = strides or [dtype.itemsize * int(np.prod(shape[axis + 1:])) for axis in range(len(shape))]
    length = dtype.itemsize + sum((size - 1) * step for size, step in zip(shape, strides))
    return np.ndarray(shape, dtype, (ctypes.c_uint8 * length).from_address(address), 0, strides)


def _in_order(parameter):
    """A copy of a strided view, rows together; MindSpore has no such copy of bfloat16 on CPU."""
    dtype = _NUMPY[parameter.dtype]
    strides = [dtype.itemsize * step for step in parameter.stride()]
    return _view(parameter.data_ptr(), parameter.shape, dtype, strides).copy(order="C")
