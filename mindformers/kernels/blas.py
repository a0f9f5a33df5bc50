"""Products of float32 matrices in scipy's BLAS, which comes with MindSpore.

MindSpore's own MatMul of one row reads weights at half the speed. The routines are called at the addresses that
`scipy.linalg.cython_blas` gives to other languages, for other threads of Python run meanwhile, and rows may lie apart:
`scipy.linalg.blas` would keep the ones waiting and copy the others.
"""
import ctypes
import functools
import os

import numpy as np
from scipy.linalg import cython_blas
from threadpoolctl import threadpool_limits

from mindformers.tools.env import get_env
from mindformers.tools.errors import ConfigError

_MOST_THREADS = 256  # as in csrc/pool.cpp


@functools.cache
def use_all_cores():
    """Give BLAS the cores that this process may use, or MF_NUM_THREADS: importing MindSpore sets OMP_NUM_THREADS=1.

    Raises:
        ConfigError: MF_NUM_THREADS is no number from 1 to 256.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = get_env("MF_NUM_THREADS")
    if text:
        if not (text.isdecimal() and 1 <= int(text) <= _MOST_THREADS):
            raise ConfigError(f"MF_NUM_THREADS={text!r} is no number of threads from 1 to {_MOST_THREADS}")
        threads = int(text)
    threadpool_limits(threads, user_api="blas")


def prepare(x, weight, out, add=False):
    """A function without arguments that writes x [M, I] @ weight [O, I]^T to out [M, O], or adds it to what is there.

    All are float32. The elements of a row lie together in x and out, those of a row or of a column in weight. The
    function keeps the arrays alive and may be called again when their content has changed.
    """
    (rows, inner), outputs = x.shape, len(weight)
    by_rows = weight.strides[1] == weight.itemsize
    # BLAS counts along columns first: it sees each of these transposed
    turn, between = (b"T", weight.strides[0]) if by_rows else (b"N", weight.strides[1])
    left, right, result = (array.ctypes.data_as(ctypes.c_void_p) for array in (weight, x, out))
    matrix, factor, old = (left, _int(between // 4)), _float(1), _float(1 if add else 0)
    if rows == 1:
        sizes = (inner, outputs) if by_rows else (outputs, inner)
        return functools.partial(_routine("sgemv", 11), turn, *map(_int, sizes), factor, *matrix, right, _int(1), old,
                                 result, _int(1))
    return functools.partial(_routine("sgemm", 13), turn, b"N", *map(_int, (outputs, rows, inner)), factor, *matrix,
                             right, _int(x.strides[0] // 4), old, result, _int(out.strides[0] // 4))


def matmul(x, weight):
    """x [M, I] @ weight [O, I]^T -> [M, O], as `prepare` has them."""
    out = np.empty((len(x), len(weight)), np.float32)
    prepare(x, weight, out)()
    return out


def _int(value):
    return ctypes.byref(ctypes.c_int(value))


def _float(value):
    return ctypes.byref(ctypes.c_float(value))


@functools.cache
def _routine(name, arguments):
    """A routine of BLAS, all of whose arguments are addresses."""
    capsule = cython_blas.__pyx_capi__[name]
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address_of(capsule, name_of(capsule)))
