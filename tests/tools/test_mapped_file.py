"""Weight files on their own pages: the same content before, while and after it is copied into huge pages."""
import gc
import os
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from mindformers.tools import mapped_file

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are replaced on Linux only")


@pytest.fixture
def path(tmp_path):
    """A file of 70 MiB and some odd bytes."""
    path = tmp_path / "weights"
    content = np.arange((70 << 20) // 4 + 5, dtype=np.uint32)
    content.tofile(path)
    with open(path, "ab") as file:
        file.write(b"xyz")
    return path


def anonymous_bytes(array):
    """Bytes of the array's memory that are pages of the process, no longer of the file."""
    start = array.__array_interface__["data"][0]
    total, inside = 0, False
    with open("/proc/self/smaps", encoding="ascii") as file:
        for line in file:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(part, 16) for part in first.split("-"))
                inside = low >= start - 4096 and high <= start + array.size + 4096
            elif inside and first == "Anonymous:":
                total += int(line.split()[1]) * 1024
    return total


def test_small_files_are_not_mapped(tmp_path):
    (tmp_path / "small").write_bytes(b"0" * 1000)
    assert mapped_file.open_mapped(tmp_path / "small") is None


def test_content_survives_the_move_and_the_file_survives_writes(path):
    before = path.read_bytes()
    array = mapped_file.open_mapped(path)
    assert array.tobytes() == before
    array[10] ^= 255
    array[50 << 20] ^= 255
    mapped_file.finish()
    changed = bytearray(before)
    changed[10] ^= 255
    changed[50 << 20] ^= 255
    assert array.tobytes() == bytes(changed), "writes from before the move are kept"
    array[20 << 20] ^= 255
    changed[20 << 20] ^= 255
    assert array.tobytes() == bytes(changed)
    assert path.read_bytes() == before, "nobody writes into the file"


@LINUX
def test_pages_become_the_processes_own(path):
    array = mapped_file.open_mapped(path)
    array.sum()
    assert anonymous_bytes(array) < 1 << 20
    mapped_file.finish()
    assert anonymous_bytes(array) >= 64 << 20, "all whole huge pages"
    # once replaced, they no longer follow the file
    with open(path, "r+b") as file:
        file.seek(30 << 20)
        file.write(b"\xff" * 4096)
    assert array[30 << 20:(30 << 20) + 4096].tobytes() != b"\xff" * 4096


@LINUX
def test_nothing_is_moved_outside(path, monkeypatch):
    array = mapped_file.open_mapped(path)
    array.sum()
    begun, move = threading.Event(), mapped_file._into_huge_pages

    def slowly(*piece):
        moved = move(*piece)
        begun.set()
        time.sleep(0.1)
        return moved

    monkeypatch.setattr(mapped_file, "_into_huge_pages", slowly)
    with mapped_file.settling():
        assert begun.wait(60)
    monkeypatch.undo()
    moved = anonymous_bytes(array)
    for place in range(0, array.size, 4096):  # every write from outside must stay
        array[place] ^= 255
    time.sleep(0.05)
    changed = array.tobytes()
    mapped_file.finish()
    assert array.tobytes() == changed and 0 < moved < array.size
    assert anonymous_bytes(array) >= 64 << 20


def test_readers_never_see_anything_else(path):
    array = mapped_file.open_mapped(path)
    words = array[:array.size // 4 * 4].view(np.uint32)
    wanted = int(words[:-1].sum(dtype=np.uint64))
    found, stop = [], threading.Event()

    def read():
        while not stop.is_set() or len(found) < 3:
            found.append(int(words[:-1].sum(dtype=np.uint64)))

    reader = threading.Thread(target=read)
    reader.start()
    mapped_file.finish()
    stop.set()
    reader.join()
    assert set(found) == {wanted}


def test_mapping_goes_with_its_last_array(path):
    array = mapped_file.open_mapped(path)
    mapping = weakref.ref(array.base if isinstance(array.base, mapped_file.MappedFile) else array.base.obj)
    part = array[100:200]
    del array
    gc.collect()
    assert mapping() is not None and part[0] == path.read_bytes()[100]
    mapped_file.finish()
    del part
    gc.collect()
    assert mapping() is None


def test_what_was_dropped_is_skipped(path):
    array = mapped_file.open_mapped(path)
    del array
    gc.collect()
    kept = mapped_file.open_mapped(path)
    mapped_file.finish()
    assert kept.tobytes() == path.read_bytes()


@LINUX
def test_a_mapping_that_waits_to_be_moved_can_be_dropped(path):
    array = mapped_file.open_mapped(path)
    with mapped_file.settling():
        pass  # begins, and waits for the next step
    time.sleep(0.2)
    gone = weakref.ref(array.base)
    del array
    gc.collect()
    assert gone() is None
    other = mapped_file.open_mapped(path)
    mapped_file.finish()
    assert anonymous_bytes(other) >= 64 << 20


@LINUX
def test_a_forked_process_can_settle(path):
    array = mapped_file.open_mapped(path)
    with mapped_file._gate, mapped_file._counting:  # as if the thread had them
        child = os.fork()
        if child == 0:
            mapped_file.finish()
            os._exit(0 if anonymous_bytes(array) >= 64 << 20 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
