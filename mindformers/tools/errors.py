"""The errors of the suite, and the "did you mean" that all of them share."""
import difflib


class ConfigError(ValueError):
    """A configuration (YAML, config.json, argument) that cannot be honoured; the message lists every fault found."""


class CheckpointMismatchError(ValueError):
    """Weights that do not fit the model: missing, unexpected or mis-shaped names, all in one message."""


class DamagedFileError(ValueError):
    """A file that cannot be read as what its name says: cut off, corrupt, or something else."""


class UnsupportedError(NotImplementedError):
    """A name or setting of the compatible API that is not carried here; the message names what works instead."""


def did_you_mean(name, choices, limit=3, cutoff=0.6):
    """Return ``" Did you mean 'x' or 'y'?"`` for the closest of `choices`, or ``""`` when none is close.

    Args:
        name (str): what the user wrote.
        choices (Iterable[str]): what would have been valid.
        limit (int): how many suggestions at most. Default: 3.
        cutoff (float): least similarity, 0 to 1. Default: 0.6.
    """
    by_lower = {str(choice).lower(): str(choice) for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=limit, cutoff=cutoff)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[key]) for key in near)}?"
