"""Opening a file that is about to be written; a full disk is named as such."""
import contextlib
import errno
import os


@contextlib.contextmanager
def create(path, target):
    """Context manager: the new file `path`, flushed and fsynced at the end.

    Args:
        path (str | Path): the (temporary) file to write.
        target (str | Path): the file it stands for, named in errors.

    Raises:
        OSError: with the same errno; ENOSPC (disk full) says what to do.
    """
    try:
        with open(path, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"{os.strerror(error.errno)}: the file was not written, an earlier one of this "
                      "name is untouched; free space (a training run: or lower keep_checkpoint_max)", str(target)) from error
