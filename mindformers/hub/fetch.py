"""One file from a hub into the cache: once for all processes, going on where an earlier run stopped, and checked."""
import contextlib
import os
import queue
import threading
import time

from mindformers.hub.cache import is_intact
from mindformers.hub.errors import HubError, HubOfflineError, kind_of, translate
from mindformers.tools.logger import logger

_THREADS = 4  # files at once
_PATIENCE = 5  # seconds to wait for another process before saying so
_BREATH = 0.5  # seconds after a connection that broke


def together(job, items):
    """Run ``job(item, stop)`` for each item, a few at once; the first fault, or Ctrl-C, ends all and is raised.

    `stop` is an Event that tells a job to end. The threads do not keep the process alive: one that waits for a slow hub
    would hold up Ctrl-C.
    """
    waiting, stop, faults = queue.SimpleQueue(), threading.Event(), []
    for item in items:
        waiting.put(item)

    def work():
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                job(item, stop)
            except Exception as error:  # raised below, in the caller's thread
                faults.append(error)
                stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(_THREADS, len(items)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
    if faults:
        raise faults[0]


def fetch(client, cache, listing, file, revision="main", force=False, resume=True, stop=None):
    """Fetch a RepoFile of a Listing; returns its path in the snapshot.

    Args:
        client: of the hub, see `huggingface.HuggingFace`.
        cache (RepoCache): of the repository.
        force (bool): fetch what is here already, too. Default: False.
        resume (bool): go on with what an interrupted run left. Default: True.
        stop (Event | None): set to end the download; what has arrived is kept. Default: None.

    Raises:
        HubError: of the kind that fits; the message names the file.
    """
    pointer = cache.pointer(listing.commit, file.path)
    if pointer.is_file() and not force:
        return pointer
    blob = cache.blob(file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _locked(cache.lock(file), file):
        if force or not blob.is_file():
            if not client.fetch_itself(listing, file, cache, force):
                _download(client, listing, file, blob, revision, resume, stop)
        if force or not pointer.is_file():
            cache.link(listing.commit, file)
    return pointer


@contextlib.contextmanager
def _locked(path, file):
    """Hold the lock of a file; waiting for another process is said."""
    import filelock  # comes with either client library
    lock = filelock.FileLock(str(path))
    try:
        lock.acquire(timeout=_PATIENCE)
    except filelock.Timeout:
        logger.info("another process fetches %s; waiting for it", file.path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(client, listing, file, blob, revision, resume, stop):
    """Write the content to `blob`; what is left of an interrupted run is completed, and begun anew if it is wrong."""
    partial = blob.with_name(blob.name + ".incomplete")
    if not resume:
        partial.unlink(missing_ok=True)
    while True:
        have = partial.stat().st_size if partial.exists() else 0
        if file.size is not None and have > file.size:
            partial.unlink()
            have = 0
        if have:
            logger.info("%s: going on at %s of %s bytes", file.path, f"{have:,}", f"{file.size or 0:,}")
        if have != file.size or not have:
            try:
                _get(client, listing, file, partial, have, revision, stop)
            except HubOfflineError:
                if partial.stat().st_size <= have:
                    raise
                logger.warning("%s: the connection broke; going on", file.path)
                time.sleep(_BREATH)
                continue
        if is_intact(partial, file):
            os.replace(partial, blob)
            return
        size = partial.stat().st_size
        partial.unlink()
        if not have:
            raise HubError(f"{file.path} of {listing.repo_id!r} arrived damaged: {size:,} bytes whose checksum is not "
                           f"{file.etag} as {client.title} says; try again, or another mirror=")


def _get(client, listing, file, partial, have, revision, stop):
    try:
        with open(partial, "ab") as stream:
            client.get(listing, file, _Stoppable(stream, stop), have)
    except HubError:
        raise
    except Exception as error:  # of two client libraries and the three they stand on; translated, never swallowed
        if have and kind_of(error) == "other":  # the hub does not take up in the middle of it
            return
        fault = translate(error, client, listing.repo_id, revision)
        raise type(fault)(f"{file.path}: {fault}. What has arrived is kept; the next call goes on") from error


class _Stoppable:
    """A file whose `write` ends the download when `stop` is set."""

    def __init__(self, file, stop):
        self._file, self._stop = file, stop

    def write(self, data):
        """Write, unless told to stop."""
        if self._stop is not None and self._stop.is_set():
            raise HubError("stopped, as another file failed; what has arrived is kept")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)
