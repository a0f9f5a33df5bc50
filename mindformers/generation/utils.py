"""Array helpers of generation (numpy only) and the named outputs of `generate` and `infer`.

Shapes: R rows, V vocabulary.
"""
from collections import UserDict

import numpy as np


def to_numpy(value):
    """Return `value` (numpy array, MindSpore tensor, sequence) as a numpy array, without importing MindSpore."""
    return value.asnumpy() if hasattr(value, "asnumpy") else np.asarray(value)


def softmax(x, axis=-1):
    """Return the softmax of `x` along `axis`, float32; ``-inf`` gets 0."""
    x = np.asarray(x, np.float32)
    weights = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def log_softmax(x, axis=-1):
    """Return the logarithm of the softmax of `x` along `axis`, float32; ``-inf`` stays ``-inf``."""
    x = np.asarray(x, np.float32)
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def topk(x, top_k, axis=-1, largest=True, sort=True):
    """Return ``(values, indices)`` of the `top_k` largest (or smallest) entries along `axis`.

    Args:
        x (array): any shape.
        top_k (int): how many, at most the size of the axis.
        axis (int): Default: -1.
        largest (bool): largest or smallest. Default: True.
        sort (bool): best first; False leaves the order open. Default: True.

    Raises:
        ValueError: `top_k` is not in [1, size of the axis].
    """
    x = np.asarray(x)
    size = x.shape[axis]
    if not 1 <= top_k <= size:
        raise ValueError(f"top_k must be in [1, {size}], but is {top_k}")
    split = size - top_k if largest else top_k - 1
    order = np.argpartition(x, split, axis=axis)
    part = np.arange(size - top_k, size) if largest else np.arange(top_k)
    indices = np.take(order, part, axis=axis)
    values = np.take_along_axis(x, indices, axis=axis)
    if sort:
        by_value = np.argsort(-values if largest else values, axis=axis, kind="stable")
        indices = np.take_along_axis(indices, by_value, axis=axis)
        values = np.take_along_axis(values, by_value, axis=axis)
    return values, indices


def candidates_of_largest(x, count):
    """Return ascending indices of `x` [V] that include the `count` largest entries and not many others.

    The `count`-th largest of the maxima of 4 * count chunks is a bound that at least `count` entries reach. This takes
    plain passes over `x`, where a partition of unordered data takes ten times as long.
    """
    width = len(x) // (4 * count)
    if width < 4:
        return np.arange(len(x))
    whole = len(x) // width * width
    maxima = x[:whole].reshape(-1, width).max(axis=1)
    return np.flatnonzero(x >= np.partition(maxima, -count)[-count])


class _NamedOutput(UserDict):
    """A dict whose keys are attributes too."""

    def __getattr__(self, name):
        if name != "data" and name in self.data:
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no entry {name!r}; it has {', '.join(self.data)}"
                             if name != "data" else name)


class GenerateOutput(_NamedOutput):
    """What `generate` returns with ``return_dict_in_generate=True``; entries are keys and attributes.

    Args:
        sequences (list[np.ndarray]): per answer the int32 tokens of prompt and answer, without padding.
        scores (tuple[np.ndarray]): per step the processed scores [R, V], float32, with `output_scores`, else None.
        logits (tuple[np.ndarray]): per step the logits as the model gave them [R, V], float32, with
            `output_logits`, else None.
        sequences_scores (np.ndarray): beam search: score of each answer [answers], float32, with `output_scores`.
        beam_indices (list[np.ndarray]): beam search: per answer the row each token came from, with `output_scores`.
        finish_reasons (list[str]): per answer "eos", "length", "stop_string", "criteria" or "time".
    """

    def __init__(self, sequences=None, scores=None, logits=None, sequences_scores=None, beam_indices=None,
                 finish_reasons=None):
        super().__init__(sequences=sequences, scores=scores, logits=logits, sequences_scores=sequences_scores,
                         beam_indices=beam_indices, finish_reasons=finish_reasons)


class InferOutput(_NamedOutput):
    """What `infer` returns on request: `target_list` (list of int), `probs` [R, V], `logits` [R, V]."""

    def __init__(self, target_list=None, probs=None, logits=None):
        super().__init__(target_list=target_list, probs=probs, logits=logits)
