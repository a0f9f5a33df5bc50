"""Where the entries of an uncompressed zip archive lie, so that they can be read in place.

Only the directory at the end of the file is read (PKWARE's APPNOTE.TXT 4.3, with the zip64 records). Nothing is
unpacked: a compressed entry, which may claim any size, is refused, and so are entries that overlap or have names that
lead out of a folder.
"""
import struct

MAX_DIRECTORY = 16 * 1024 * 1024
_END, _END64, _LOCATOR, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", b"PK\x03\x04"
_END_SIZE, _LOCATOR_SIZE, _END64_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = 22, 20, 56, 46, 30
_FULL = 0xFFFFFFFF  # the value is in a zip64 record


def stored_entries(file, path):
    """Return ``{entry name: (offset, length)}`` of the archive `file`, an open binary file.

    Args:
        file: opened for reading.
        path (str | Path): its name in errors.

    Raises:
        ValueError: no archive, damaged, truncated, or an entry as above.
    """
    size = file.seek(0, 2)
    begin, length = _directory(file, path, size)
    if length > MAX_DIRECTORY:
        raise ValueError(f"{path} is refused: its zip directory has {length} bytes, the limit is {MAX_DIRECTORY}")
    if begin + length > size:
        raise ValueError(f"{path} is damaged: its zip directory ends at byte {begin + length}, the file at {size}")
    found = list(_entries(_read(file, begin, length), path))
    places, end = {}, 0
    for name, offset, count in sorted(found, key=lambda entry: entry[1]):
        if name in places:
            raise ValueError(f"{path} is refused: the zip entry {name!r} is there twice")
        if offset < end:
            raise ValueError(f"{path} is refused: the zip entry {name!r} overlaps another")
        head = _read(file, offset, _LOCAL_SIZE)
        if len(head) < _LOCAL_SIZE or not head.startswith(_LOCAL):
            raise ValueError(f"{path} is damaged: there is no zip entry {name!r} at byte {offset}")
        data = offset + _LOCAL_SIZE + sum(struct.unpack("<2H", head[26:]))
        end = data + count
        if end > begin:
            raise ValueError(f"{path} is truncated or damaged: the zip entry {name!r} ends at byte {end}, the entries "
                             f"at {begin}; fetch the file again")
        places[name] = (data, count)
    return places


def _read(file, offset, length):
    file.seek(offset)
    return file.read(length)


def _directory(file, path, size):
    """Return (offset, length) of the directory."""
    first = max(0, size - _END_SIZE - 0xFFFF)  # a comment of up to 65535 bytes may follow
    tail = _read(file, first, size - first)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_SIZE:
        raise ValueError(f"{path} is truncated or no zip archive: it has no directory at its end; fetch the file again")
    length, begin = struct.unpack_from("<2L", tail, at + 12)
    locator = tail[at - _LOCATOR_SIZE:at] if at >= _LOCATOR_SIZE else b""
    if not locator.startswith(_LOCATOR):
        return begin, length
    record = struct.unpack_from("<Q", locator, 8)[0]
    end64 = _read(file, record, _END64_SIZE) if record < size else b""
    if len(end64) < _END64_SIZE or not end64.startswith(_END64):
        raise ValueError(f"{path} is damaged: its zip64 record is not at byte {record}")
    length, begin = struct.unpack_from("<2Q", end64, 40)
    return begin, length


def _entries(directory, path):
    """Yield (name, offset of the local header, length of the content) of each entry."""
    at = 0
    while at < len(directory):
        if not directory.startswith(_ENTRY, at) or at + _ENTRY_SIZE > len(directory):
            raise ValueError(f"{path} is damaged: its zip directory is broken at byte {at}")
        flags, method = struct.unpack_from("<2H", directory, at + 8)
        packed, length, names, extras, comment = struct.unpack_from("<2L3H", directory, at + 20)
        offset = struct.unpack_from("<L", directory, at + 42)[0]
        name = directory[at + _ENTRY_SIZE:at + _ENTRY_SIZE + names].decode("utf-8", "replace")
        at += _ENTRY_SIZE + names
        length, packed, offset = _wide((length, packed, offset), directory[at:at + extras], name, path)
        at += extras + comment
        if method or flags & 1 or packed != length:
            raise ValueError(f"{path} is refused: the zip entry {name!r} is compressed or encrypted, which PyTorch "
                             "never writes")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"{path} is refused: the zip entry {name!r} leads out of its folder")
        if not name.endswith("/"):
            yield name, offset, length


def _wide(values, extra, name, path):
    """Return `values` (length, packed length, offset), those of 0xFFFFFFFF from the zip64 record in `extra`."""
    if _FULL not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        wanted = values.count(_FULL)
        if kind == 1 and size >= 8 * wanted and at + size <= len(extra):
            wide = iter(struct.unpack_from(f"<{wanted}Q", extra, at))
            return tuple(next(wide) if value == _FULL else value for value in values)
        at += size
    raise ValueError(f"{path} is damaged: the zip entry {name!r} lacks its zip64 sizes")
