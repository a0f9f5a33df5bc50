"""Rotary position embedding (arXiv:2104.09864) and the scalings that published Llama checkpoints use.

Angles are computed from positions, not looked up: a decode step computes H/2 cosines, and no table is kept for the
131,072 positions of Llama 3.1.
"""
import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindformers import kernels
from mindformers.tools.errors import UnsupportedError


def inverse_frequencies(head_dim, theta, scaling=None):
    """Return the inverse frequencies and the factor of cos and sin.

    Args:
        head_dim (int): rotated width H.
        theta (float): base.
        scaling (dict | None): Hugging Face `rope_scaling`: rope_type "default", "linear", "dynamic", "yarn", "llama3".

    Returns:
        float32 [H / 2], float. For "dynamic" the frequencies are the unscaled ones: they depend on the length.
    """
    inv_freq = 1.0 / (theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim))
    kind = (scaling or {}).get("rope_type", "default")
    factor = 1.0
    if kind == "linear":
        inv_freq = inv_freq / scaling["factor"]
    elif kind == "llama3":
        inv_freq = _llama3(inv_freq, scaling)
    elif kind == "yarn":
        inv_freq, factor = _yarn(inv_freq, head_dim, theta, scaling)
    return inv_freq.astype(np.float32), factor


def _llama3(inv_freq, scaling):
    """Llama 3.1's scaling: long waves are slowed by `factor`, short ones kept, the band between interpolated."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    rotations = scaling["original_max_position_embeddings"] * inv_freq / (2 * math.pi)
    smooth = np.clip((rotations - low) / (high - low), 0.0, 1.0)
    return (1 - smooth) * inv_freq / factor + smooth * inv_freq


def _yarn(inv_freq, head_dim, theta, scaling):
    """YaRN (arXiv:2309.00071): ramp between interpolated and kept frequencies, and the attention temperature."""
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    beta_fast, beta_slow = scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1

    def dim_of(rotations):
        return head_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dim_of(beta_fast), dim_of(beta_slow)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    high = high + 0.001 if low == high else high
    keep = 1 - np.clip((np.arange(head_dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)
    return inv_freq / factor * (1 - keep) + inv_freq * keep, _yarn_attention_factor(factor, scaling)


def _yarn_attention_factor(factor, scaling):
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])

    def temperature(mscale):
        return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return temperature(scaling["mscale"]) / temperature(scaling["mscale_all_dim"])
    return temperature(1.0)


class RotaryEmbedding(nn.Cell):
    """The rotation of each position, as `SelfAttention` takes it.

    Args:
        head_dim (int): width H of a head.
        theta (float): base. Default: 10000.0.
        scaling (dict | None): see `inverse_frequencies`.
        max_position (int): length after which "dynamic" scaling grows the base.
        interleaved (bool): rotate the pairs (2i, 2i + 1) as GLM and GPT-J do, not (i, i + H/2). Default: False.
        rotary_dim (int | None): only the first so many of the H turn; needs `interleaved`. Default: None, all.

    Inputs: positions int32 [M]. Outputs: what `rope` of `kernels` takes.
    """

    def __init__(self, head_dim, theta=10000.0, scaling=None, max_position=2048, interleaved=False, rotary_dim=None):
        super().__init__()
        rotary_dim, self.interleaved = rotary_dim or head_dim, interleaved
        inv_freq, self.factor = inverse_frequencies(rotary_dim, theta, scaling)
        if rotary_dim < head_dim:
            if not interleaved or (scaling or {}).get("rope_type") in ("yarn", "dynamic"):
                raise UnsupportedError("a rotation of a part of each head needs interleaved pairs, and a scaling other "
                                       "than yarn and dynamic, which change what does not turn too")
            # frequency 0: cosine 1, sine 0
            inv_freq = np.concatenate([inv_freq, np.zeros((head_dim - rotary_dim) // 2, np.float32)])
        self.inv_freq = Tensor(inv_freq)
        self._plain_frequencies = inv_freq  # numpy
        self.rope_plan, self.step_rotation = kernels.get("rope_plan"), kernels.get("step_rotation")
        self.dynamic = (scaling or {}).get("rope_type") == "dynamic"
        if self.dynamic:
            self.theta, self.scale, self.max_position = float(theta), float(scaling["factor"]), float(max_position)
            self.stretch = head_dim / (head_dim - 2)
            self.exponents = Tensor(-np.arange(0, head_dim, 2, dtype=np.float32) / head_dim)

    def _dynamic_frequencies(self, positions):
        """NTK-aware base for the longest position of the call, as in Hugging Face's "dynamic" rope."""
        length = ops.maximum(ops.cast(ops.ReduceMax()(positions), ms.float32) + 1.0, self.max_position)
        base = self.theta * ops.pow(self.scale * length / self.max_position - (self.scale - 1.0), self.stretch)
        return ops.pow(base, self.exponents)

    def step_frequencies(self, positions):
        """The same as `frequencies` for a step that runs outside of graphs: numpy in and out."""
        if not self.dynamic:
            return self._plain_frequencies
        length = max(float(positions.max()) + 1.0, self.max_position)
        base = self.theta * (self.scale * length / self.max_position - (self.scale - 1.0)) ** self.stretch
        return (base ** self.exponents.asnumpy().astype(np.float64)).astype(np.float32)

    def frequencies(self, positions):
        """Inverse frequencies float32 [H / 2] for these positions int32 [M]."""
        return self._dynamic_frequencies(positions) if self.dynamic else self.inv_freq

    def construct(self, positions):
        return self.rope_plan(positions, self.frequencies(positions), self.factor, self.interleaved)

    def step(self, positions, single):
        """The same for `paged_attention`; `single` says at compile time that it is one token a row."""
        return self.step_rotation(positions, self.frequencies(positions), self.factor, single, self.interleaved)
