"""What the trainer needs of several processes: sums over ranks, equal weights at the start, waiting for each other."""
import numpy as np


def all_reduce(array):
    """Return the sum of a float array over all ranks, as float64 (the sum itself runs in fp32 on two halves).

    A float64 value is sent as its fp32 part and the fp32 rest, so that token counts and loss sums keep their digits.
    """
    import mindspore as ms
    from mindspore import ops
    high = np.asarray(array, np.float32)
    low = (np.asarray(array, np.float64) - high).astype(np.float32)
    reduce = ops.AllReduce()
    return reduce(ms.Tensor(high)).asnumpy().astype(np.float64) + reduce(ms.Tensor(low)).asnumpy()


def barrier():
    """Return when all ranks have called it."""
    all_reduce(np.zeros(1))


def broadcast_parameters(cell, rank):
    """Give all ranks the parameters of rank 0 (AllReduce of what the others hold as zeros)."""
    import mindspore as ms
    from mindspore import ops
    reduce = ops.AllReduce()
    for parameter in cell.get_parameters():
        value = ops.cast(parameter, ms.float32)
        value = reduce(value if rank == 0 else ops.zeros_like(value))
        parameter.set_data(ops.cast(value, parameter.dtype))
