"""Large weight files mapped into memory: ready at once, copied into huge pages while the first step is compiled.

A mapping is private: who writes into an array gets pages of its own, and the file stays as it is. Its 4 KiB pages are
read up to 1.8 times slower than huge ones, so `settle` replaces them, at the same addresses and with the same content,
in a thread of low priority. What writes in place (training) calls `finish` first.
"""
import contextlib
import ctypes
import mmap
import os
import sys
import threading
import weakref

import numpy as np

from mindformers.tools.logger import logger

SMALLEST = 64 * 2 ** 20  # bytes of a file that is worth it
_HUGE = 2 * 2 ** 20
_CHUNK = 16 * _HUGE  # bytes copied at a time; the most that is held twice
_NICENESS = 10
_MOVE = 1 | 2  # MREMAP_MAYMOVE | MREMAP_FIXED, Linux
_pending = []  # weak references to mappings that have not been settled
_lock = threading.Lock()
_thread = None


class MappedFile(mmap.mmap):
    """A whole file, private and writable; the last array on it closes it."""


def open_mapped(path):
    """Return the bytes of file `path` as a uint8 array on its pages, None where it is too small or cannot be mapped."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < SMALLEST:
            return None
        try:
            mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError):  # a file system that cannot
            return None
    if hasattr(mmap, "MADV_WILLNEED"):
        with contextlib.suppress(OSError):
            mapped.madvise(mmap.MADV_WILLNEED)
    with _lock:
        _pending.append(weakref.ref(mapped))
    return np.frombuffer(mapped, np.uint8)


def settle():
    """Start to copy what is mapped into huge pages; returns at once, and does nothing where there is nothing to do."""
    global _thread
    if not _pending or not sys.platform.startswith("linux"):
        return
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_settle_all, name="settle-weights", daemon=True)
            _thread.start()


def finish():
    """Settle what is mapped and return when it is done: from then on arrays may be written in place."""
    settle()
    with _lock:
        thread = _thread
    if thread is not None:
        thread.join()


def _after_fork():
    """A forked process has no such thread, and nobody there to open a lock that was closed."""
    global _thread, _lock
    _thread, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _settle_all():
    global _thread
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    while True:
        with _lock:
            if not _pending:
                _thread = None
                return
            mapped = _pending.pop()()
        if mapped is not None and _fits(len(mapped)):
            try:
                _into_huge_pages(mapped)
            except OSError as error:
                logger.debug("weights stay in pages of the file: %s", error)


def _fits(size):
    """Whether memory has room for a copy: pages of a file can be dropped and read again, pages of a copy cannot."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable")), 0)
    return size < 0.8 * available * 1024


def _into_huge_pages(mapped):
    """Replace the pages of a mapping, chunk by chunk; what lies outside whole huge pages stays."""
    libc = _libc()
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    place, end = -(-start // _HUGE) * _HUGE, (start + len(mapped)) // _HUGE * _HUGE
    while place < end:
        size = min(_CHUNK, end - place)
        region = libc.mmap(None, size + _HUGE, mmap.PROT_READ | mmap.PROT_WRITE,
                           mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if region == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "no memory for huge pages")
        copy = -(-region // _HUGE) * _HUGE
        libc.madvise(copy, size, mmap.MADV_HUGEPAGE)
        ctypes.memmove(copy, place, size)
        moved = libc.mremap(copy, size, size, _MOVE, place)
        libc.munmap(region, copy - region)  # what is left on either side of the copy
        libc.munmap(copy + size, region + _HUGE - copy)
        if moved != place:
            libc.munmap(copy, size)
            raise OSError(ctypes.get_errno(), "the pages could not be moved")
        place += size


def _libc():
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.argtypes = (pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
    libc.mremap.argtypes = (pointer, size, size, ctypes.c_int, pointer)
    libc.mmap.restype = libc.mremap.restype = pointer
    libc.munmap.argtypes, libc.madvise.argtypes = (pointer, size), (pointer, size, ctypes.c_int)
    return libc
