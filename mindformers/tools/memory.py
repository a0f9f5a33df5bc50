"""Memory in huge pages for what is streamed again and again: weights and KV caches.

Reading from 2 MiB pages is up to 1.8 times as fast as from pages of 4 KiB, which is what decoding on CPU spends its
time on. Small arrays share a mapping, so that they lie in huge pages too; a mapping goes when its last array does.
"""
import contextlib
import mmap
import threading

import numpy as np

_HUGE = 2 * 2 ** 20
_SHARED = 32 * 2 ** 20  # bytes of a mapping that small arrays share
_ALIGN = 64
_STATE = threading.local()


def zeros(shape, dtype=np.uint8):
    """Return an array of zeros, in huge pages where the system has them; its pages come when they are first touched.

    Args:
        shape (int | tuple): sizes.
        dtype: numpy dtype. Default: uint8.
    """
    shape, dtype = tuple(np.atleast_1d(shape).tolist()), np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if not nbytes:
        return np.zeros(shape, dtype)
    return _take(nbytes).view(dtype).reshape(shape)


def place(array):
    """Return a copy of `array` made by `zeros`."""
    placed = zeros(array.shape, array.dtype)
    placed[...] = array
    return placed


def _take(nbytes):
    """nbytes zeroed bytes, 64-byte aligned; no byte is handed out twice."""
    if nbytes >= _SHARED // 4:
        return _mapping(nbytes)[:nbytes]
    rest = getattr(_STATE, "rest", None)
    if rest is None or rest.size < nbytes:
        rest = _mapping(_SHARED)
    used = -(-nbytes // _ALIGN) * _ALIGN
    _STATE.rest = rest[used:] if used < rest.size else None
    return rest[:nbytes]


def _mapping(nbytes):
    """Zeroed bytes of a mapping of their own, whole huge pages."""
    size = -(-nbytes // _HUGE) * _HUGE
    mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages: the memory is as good, only slower
            mapped.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapped, np.uint8)
