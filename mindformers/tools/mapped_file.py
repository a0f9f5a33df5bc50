"""Large weight files mapped into memory: ready at once, moved into huge pages while the first steps run.

A mapping is private: who writes into an array gets pages of its own, and the file stays as it is. Its 4 KiB pages are
read up to 1.8 times slower than huge ones, so a thread of low priority replaces them, at the same addresses and with
the same content, piece by piece. It gets memory for a piece at any time, which is what takes long, but copies and
replaces inside `settling` only: a write that fell in between would be lost, so nobody may write there. What writes in
place (training) calls `finish` first.
"""
import contextlib
import ctypes
import functools
import mmap
import os
import sys
import threading
import weakref

import numpy as np

from mindformers.tools.logger import logger

SMALLEST = 64 * 2 ** 20  # bytes of a file that is worth it
_HUGE = 2 * 2 ** 20
_PIECE = 4 * _HUGE  # bytes moved at a time; the end of `settling` waits for one copy, and one is held twice
_NICENESS = 10
_MOVE = 1 | 2  # MREMAP_MAYMOVE | MREMAP_FIXED, Linux
_pending = []  # [weak reference to a mapping, bytes of it that are done]
_gate = threading.Condition()  # held while a piece is copied and replaced
_inside = 0  # how many are in `settling`; the thread asks before it copies
_counting = threading.Lock()  # apart from the gate: who leaves need not wait for more than one piece
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
    with _gate:
        _pending.append([weakref.ref(mapped), 0])
    return np.frombuffer(mapped, np.uint8)


def settling():
    """Context in which mappings are moved, beside what it surrounds, which must not write into them."""
    return _settling() if _pending and sys.platform.startswith("linux") else contextlib.nullcontext()


@contextlib.contextmanager
def _settling():
    global _inside, _thread
    with _counting:
        _inside += 1
        if _thread is None:
            _thread = threading.Thread(target=_settle_all, name="settle-weights", daemon=True)
            _thread.start()
        first = _inside == 1
    if first:
        with _gate:
            _gate.notify_all()
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
        with _gate:  # the piece under way is done
            _gate.notify_all()


def finish():
    """Move what is mapped and return when it is done: from then on arrays may be written in place at any time."""
    with settling():
        thread = _thread
        if thread is not None:
            thread.join()


def _settle_all():
    """The thread: a piece each time it is let in, until nothing is left."""
    global _thread
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
    while True:
        with _gate:
            if not _pending:
                with _counting:
                    _thread = None
                return
            entry = _pending[0]
        if not _move_piece(entry):
            with _gate:
                _pending.remove(entry)


def _move_piece(entry):
    """Move the next piece of a mapping; whether there may be more: not if it is done, gone, or cannot be moved."""
    place, size = _next_piece(entry)
    try:
        moved = size > 0 and _into_huge_pages(entry[0], place, size)
    except OSError as error:
        logger.debug("weights stay in pages of the file: %s", error)
        return False
    entry[1] += size
    return moved


def _next_piece(entry):
    """Address and bytes, whole huge pages; 0 bytes when there is none."""
    mapped, done = entry[0](), entry[1]
    if mapped is None or (done == 0 and not _fits(len(mapped))):
        return 0, 0
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    place, end = -(-start // _HUGE) * _HUGE + done, (start + len(mapped)) // _HUGE * _HUGE
    return place, max(0, min(_PIECE, end - place))


def _after_fork():
    """A forked process has no such thread, and nobody there to open a lock that was closed."""
    global _thread, _gate, _counting
    _thread, _gate, _counting = None, threading.Condition(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _fits(size):
    """Whether memory has room for a copy: pages of a file can be dropped and read again, pages of a copy cannot."""
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next((int(line.split()[1]) for line in file if line.startswith("MemAvailable")), 0)
    return size < 0.8 * available * 1024


def _into_huge_pages(reference, place, size):
    """Replace `size` bytes at the address `place` by a copy, once somebody is in `settling`.

    The mapping, a weak reference, may be dropped meanwhile; returns whether it was there.
    """
    libc = _libc()
    region = libc.mmap(None, size + _HUGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1,
                       0)
    if region == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no memory for huge pages")
    copy = -(-region // _HUGE) * _HUGE
    libc.madvise(copy, size, mmap.MADV_HUGEPAGE)
    for page in range(copy, copy + size, _HUGE):
        ctypes.memset(page, 0, 1)  # the system gives the page now
    moved = None
    with _gate:
        _gate.wait_for(lambda: _inside)
        mapped = reference()
        if mapped is not None:
            ctypes.memmove(copy, place, size)
            moved = libc.mremap(copy, size, size, _MOVE, place)
    libc.munmap(region, copy - region)  # what is left on either side of the copy
    libc.munmap(copy + size, region + _HUGE - copy)
    if moved != place:
        libc.munmap(copy, size)
    if moved not in (None, place):
        raise OSError(ctypes.get_errno(), "the pages could not be moved")
    return moved == place


@functools.cache
def _libc():
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    libc.mmap.argtypes = (pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong)
    libc.mremap.argtypes = (pointer, size, size, ctypes.c_int, pointer)
    libc.mmap.restype = libc.mremap.restype = pointer
    libc.munmap.argtypes, libc.madvise.argtypes = (pointer, size), (pointer, size, ctypes.c_int)
    return libc
