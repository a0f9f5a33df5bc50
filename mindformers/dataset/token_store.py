"""Token streams on disk: a folder with .npy files and a manifest.json that is written last and vouches for them."""
import contextlib
import fcntl
import hashlib
import json
import os

import numpy as np

from mindformers.tools.errors import ConfigError
from mindformers.tools.utils import atomic_write

MANIFEST = "manifest.json"


def token_dtype(vocab_size):
    """Return the smallest dtype that holds the ids 0..vocab_size-1: uint16 or int32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)


def file_digest(path):
    """Return the blake2b hash (hex, 128 bit) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def write_tokens(path, tokens, vocab_size):
    """Write `tokens` (iterable of int arrays) to `path` (.npy, 1-D) atomically; return the number of tokens.

    Raises:
        ConfigError: a token outside 0..vocab_size-1.
    """
    parts = [_checked(np.asarray(part), vocab_size) for part in tokens]
    stream = np.concatenate(parts) if parts else np.zeros(0, token_dtype(vocab_size))
    with atomic_write(path) as temporary:
        np.save(temporary, stream)
    return int(stream.size)


def _checked(part, vocab_size):
    if part.size and not (part.min() >= 0 and part.max() < vocab_size):
        raise ConfigError(f"token ids run from {part.min()} to {part.max()}, outside 0..{vocab_size - 1} of the "
                          f"tokenizer's vocabulary")
    return part.astype(token_dtype(vocab_size))


def write_manifest(folder, names, **facts):
    """Write `folder`/manifest.json: `facts`, and the hash of each file in `names`. The last step of preparing."""
    facts["files"] = {name: file_digest(os.path.join(folder, name)) for name in names}
    with atomic_write(os.path.join(folder, MANIFEST)) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(facts, file, indent=2, sort_keys=True)
    return facts


def read_manifest(folder):
    """Return the manifest of a prepared folder after checking each file's hash, or None when there is none.

    Raises:
        ConfigError: the manifest cannot be read, or a file is missing or is not the one that was written.
    """
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        return None
    way_out = f"delete the folder {folder!r} to have it prepared again"
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
        digests = facts["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}); {way_out}") from None
    for name, digest in digests.items():
        file = os.path.join(folder, name)
        if not os.path.isfile(file):
            raise ConfigError(f"{file} is missing, though {path} lists it; {way_out}")
        if file_digest(file) != digest:
            raise ConfigError(f"{file} is damaged: its content is not the one {path} vouches for; {way_out}")
    return facts


def open_tokens(path):
    """Return the tokens of a .npy file as a read-only memmap [N]; ConfigError when it is not 1-D and integer."""
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{path} is not a readable .npy file: {error}") from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise ConfigError(f"{path} must hold one stream of integer token ids (1-D), but has shape {tokens.shape} of "
                          f"{tokens.dtype}")
    return tokens


@contextlib.contextmanager
def locked(folder):
    """Hold `folder` (created) for this process: ranks of a machine prepare data once. A dead process releases it."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
