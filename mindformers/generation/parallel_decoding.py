"""Decoding with look-ahead, memory or prefix caches (MindFormers' `parallel_decoding_params`): refused by name."""
from mindformers.tools.errors import UnsupportedError


def parallel_decoding_control(config):
    """Return False for a model config without `parallel_decoding_params`.

    Raises:
        UnsupportedError: the config asks for parallel decoding.
    """
    wanted = getattr(config, "parallel_decoding_params", None)
    if wanted:
        raise UnsupportedError(f"parallel_decoding_params={wanted!r} is not supported: decoding with look-ahead is not "
                               f"carried; remove it from the model config")
    return False
