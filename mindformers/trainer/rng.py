"""Seeds, and the state of every random generator as JSON-able values."""
import random

import mindspore as ms
import numpy as np

from mindformers.tools.errors import ConfigError


def set_seed(seed=0):
    """Seed Python, numpy and MindSpore.

    Args:
        seed (int): 0 <= seed < 2**32; 0 is a seed like any other. Default: 0.

    Raises:
        ConfigError: `seed` is not such an int.
    """
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be an integer in 0..2**32-1, got {seed!r}")
    random.seed(int(seed))
    np.random.seed(int(seed))
    ms.set_seed(int(seed))
    ms.manual_seed(int(seed))


def get_state():
    """Return the states of the Python, numpy and MindSpore generators as a dict that JSON can hold."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {"python": [version, list(internal), gauss], "numpy": [name, keys.tolist(), *rest],
            "mindspore": ms.get_rng_state().asnumpy().tolist()}


def set_state(state):
    """Bring the generators to a state that `get_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    ms.set_rng_state(ms.Tensor(np.array(state["mindspore"], np.uint8)))
