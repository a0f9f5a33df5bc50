"""Logits processors and warpers under MindFormers' names, computed with numpy.

A processor is any callable ``(input_ids, scores) -> scores``. Shapes: input_ids int [B, L] (what each row holds so far,
padding never included by `generate`, which calls processors one row at a time), scores float32 [B, V]. The classes
here leave their arguments as they are and return a new array. Forbidden tokens get ``-inf`` (or `filter_value`).
"""
from dataclasses import dataclass

import numpy as np

from mindformers.generation.utils import candidates_of_largest, log_softmax, softmax, to_numpy


def run_using_numpy():
    """Whether post-processing runs on the host with numpy: always."""
    return True


@dataclass
class Threshold:
    """A bound of a parameter; `check_equal` allows the bound itself."""

    value: float = 0.0
    check_equal: bool = False


class LogitsProcessor:
    """Base of the processors: a subclass writes `process_np` (or overrides `__call__`)."""

    def __call__(self, input_ids, scores, **kwargs):
        """Return the processed scores: float32 [B, V] for numpy input, a tensor for a MindSpore tensor."""
        if hasattr(scores, "asnumpy"):
            return self.process_ms(scores, input_ids, **kwargs)
        return self.process_np(np.array(scores, np.float32), None if input_ids is None else to_numpy(input_ids))

    def process_np(self, logits, sequence_ids):
        """Return the processed `logits` [B, V]; may write into them. `sequence_ids` is int [B, L]."""
        raise TypeError(f"{type(self).__name__} must define process_np(logits, sequence_ids) or __call__")

    def process_ms(self, logits, sequence_ids, **kwargs):
        """Like `process_np` for MindSpore tensors, by way of the host."""
        from mindspore import Tensor
        return Tensor(self(None if sequence_ids is None else to_numpy(sequence_ids), to_numpy(logits), **kwargs))

    @staticmethod
    def check_params(params, params_name, force_float=False, force_int=False, force_int_tuple=False,
                     low_threshold=None, high_threshold=None):
        """Return `params`, or `float(params)` with `force_float`, after checking type and bounds.

        Raises:
            ValueError: missing, of a wrong type, or out of bounds.
        """
        if params is None:
            raise ValueError(f"`{params_name}` is required, but is None.")
        if force_int_tuple:
            params = (params,) if isinstance(params, (int, np.integer)) else tuple(params)
            if not params or any(isinstance(item, bool) or not isinstance(item, (int, np.integer)) or item < 0
                                 for item in params):
                raise ValueError(f"`{params_name}` is required to be non-negative ints, but is {params}.")
            return params
        kinds = (int, np.integer) if force_int else (int, float, np.integer, np.floating)
        if isinstance(params, bool) or not isinstance(params, kinds):
            raise ValueError(f"`{params_name}` is required to be {'an int' if force_int else 'a number'}, "
                             f"but is {params!r}.")
        for bound, word, beyond in ((low_threshold, "more", lambda v, b: v < b),
                                    (high_threshold, "less", lambda v, b: v > b)):
            if bound is not None and (beyond(params, bound.value) or
                                      (params == bound.value and not bound.check_equal)):
                equal = " or equal to" if bound.check_equal else ""
                raise ValueError(f"`{params_name}` is required to be {word} than{equal} {bound.value:g}, "
                                 f"but is {params}.")
        return float(params) if force_float else params


class LogitsProcessorList(list):
    """Processors applied one after another."""

    def __call__(self, input_ids, scores, is_finished=None, **kwargs):
        """Return the processed scores [B, V]; rows with ``is_finished`` are returned as they came."""
        result = scores
        for processor in self:
            result = processor(input_ids, result, **kwargs)
        if is_finished is not None and np.any(is_finished) and result is not scores:
            keep = np.asarray(is_finished, bool)
            result, before = np.array(to_numpy(result)), to_numpy(scores)
            result[keep] = before[keep]
        return result

    def process(self, i, input_ids, scores):
        """Write the processed scores of row `i` into `scores` (numpy, [B, V])."""
        scores[i] = self(input_ids[i:i + 1], scores[i:i + 1])[0]

    def process_ms(self, input_ids, scores, **kwargs):
        """Like calling the list, for MindSpore tensors."""
        for processor in self:
            scores = processor.process_ms(scores, input_ids, **kwargs)
        return scores


class TemperatureLogitsWarper(LogitsProcessor):
    """Divide the scores by `temperature` > 0."""

    def __init__(self, temperature=None):
        self.temperature = self.check_params(temperature, "temperature", force_float=True, low_threshold=Threshold(0))

    def process_np(self, logits, sequence_ids):
        logits /= np.float32(self.temperature)
        return logits


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Divide positive and multiply negative scores of the tokens seen by `repetition_penalty` > 0 (Keskar, 2019)."""

    def __init__(self, repetition_penalty=None):
        self.repetition_penalty = self.check_params(repetition_penalty, "repetition_penalty", force_float=True,
                                                    low_threshold=Threshold(0))

    def process_np(self, logits, sequence_ids):
        penalty = np.float32(self.repetition_penalty)
        seen = np.take_along_axis(logits, sequence_ids, axis=1)
        # a token that occurs twice is read before anything is written, so it is penalised once
        np.put_along_axis(logits, sequence_ids, np.where(seen < 0, seen * penalty, seen / penalty), axis=1)
        return logits


class FrequencyPenaltyLogitsProcessor(LogitsProcessor):
    """Subtract `frequency_penalty` from a score once per time its token was seen.

    Args:
        frequency_penalty (float): any number.
        output_tokens_counts (array [B, V]): how often each token was seen; None counts `input_ids`. Default: None.
    """

    def __init__(self, frequency_penalty=None, output_tokens_counts=None):
        self.frequency_penalty = self.check_params(frequency_penalty, "frequency_penalty", force_float=True)
        self.output_tokens_counts = output_tokens_counts

    def process_np(self, logits, sequence_ids):
        penalty = np.float32(self.frequency_penalty)
        if self.output_tokens_counts is not None:
            return logits - penalty * to_numpy(self.output_tokens_counts).astype(np.float32)
        for row, seen in zip(logits, sequence_ids):
            np.subtract.at(row, seen, penalty)
        return logits


class PresencePenaltyLogitsProcessor(LogitsProcessor):
    """Subtract `presence_penalty` from the score of each token seen.

    Args:
        presence_penalty (float): any number.
        output_tokens_mask (array [B, V]): 1 where a token was seen; None looks into `input_ids`. Default: None.
    """

    def __init__(self, presence_penalty=None, output_tokens_mask=None):
        self.presence_penalty = self.check_params(presence_penalty, "presence_penalty", force_float=True)
        self.output_tokens_mask = output_tokens_mask

    def process_np(self, logits, sequence_ids):
        penalty = np.float32(self.presence_penalty)
        if self.output_tokens_mask is not None:
            return logits - penalty * to_numpy(self.output_tokens_mask).astype(np.float32)
        seen = np.take_along_axis(logits, sequence_ids, axis=1)
        np.put_along_axis(logits, sequence_ids, seen - penalty, axis=1)
        return logits


class TopKLogitsWarper(LogitsProcessor):
    """Keep the `top_k` highest scores (and what equals the last of them); the others become `filter_value`."""

    def __init__(self, top_k=None, filter_value=-50000, min_tokens_to_keep=1):
        self.top_k = max(self.check_params(top_k, "top_k", force_int=True, low_threshold=Threshold(0)),
                         min_tokens_to_keep)
        self.filter_value = np.float32(filter_value)

    def process_np(self, logits, sequence_ids):
        if self.top_k < logits.shape[1]:
            for row in logits:
                found = candidates_of_largest(row, self.top_k)
                values = row[found]
                _keep_only(row, found[values >= np.partition(values, -self.top_k)[-self.top_k]], self.filter_value)
        return logits


def _keep_only(row, kept, filter_value):
    """Write `filter_value` to every entry of `row` [V] whose index is not in `kept`."""
    values = row[kept]
    row.fill(filter_value)
    row[kept] = values


class TopPLogitsWarper(LogitsProcessor):
    """Keep the smallest set of most likely tokens whose probability reaches `top_p`, in [0, 1] (Holtzman, 2019).

    The token that crosses the threshold is kept; ``top_p=1.0`` keeps everything. At least `min_tokens_to_keep`
    tokens stay. The others become `filter_value`.
    """

    def __init__(self, top_p=None, filter_value=-50000, min_tokens_to_keep=1):
        self.top_p = self.check_params(top_p, "top_p", force_float=True, low_threshold=Threshold(0, True),
                                       high_threshold=Threshold(1, True))
        self.filter_value = np.float32(filter_value)
        self.min_tokens_to_keep = self.check_params(min_tokens_to_keep, "min_tokens_to_keep", force_int=True,
                                                    low_threshold=Threshold(0))

    def process_np(self, logits, sequence_ids):
        if self.top_p < 1.0:
            for row in logits:
                _keep_only(row, _nucleus(row, self.top_p, self.min_tokens_to_keep), self.filter_value)
        return logits


def _nucleus(scores, top_p, at_least):
    """Return the indices of the smallest set of highest `scores` [V] whose softmax reaches `top_p`.

    Of equal scores at its border the lower tokens are kept.
    """
    few = np.count_nonzero(scores > -np.inf) < len(scores)  # after top-k
    alive = np.flatnonzero(scores > -np.inf) if few else None
    values = scores[alive] if few else scores
    weights = np.exp(values - values.max())
    bound, count = _border(weights, top_p * weights.sum(dtype=np.float64))
    kept = weights > bound
    equal = np.flatnonzero(weights == bound)
    kept[equal[np.argsort(-values[equal], kind="stable")[:count]]] = True
    if at_least > 1 and np.count_nonzero(kept) < at_least:
        kept[np.argsort(-values, kind="stable")[:at_least]] = True
    return alive[kept] if few else np.flatnonzero(kept)


def _border(weights, wanted):
    """Return the least weight among the fewest largest `weights` that add up to `wanted`, and how often it is there.

    No sort of all: a sample tells between which two weights the border will be; what lies above them is only added up.
    """
    pool, above = weights, 0.0
    while len(pool) > 1024:
        high, low = _bracket(pool, wanted - above)
        upper = pool[np.flatnonzero(pool > high)]
        mass = above + upper.sum(dtype=np.float64)
        middle = pool[np.flatnonzero((pool <= high) & (pool >= low))]
        if mass >= wanted:
            rest = upper
        elif mass + middle.sum(dtype=np.float64) >= wanted:
            rest, above = middle, mass
        else:
            rest, above = pool[np.flatnonzero(pool < low)], mass + middle.sum(dtype=np.float64)
        if not 0 < len(rest) < len(pool):
            break  # many are equal, or rounding left nothing
        pool = rest
    order = np.sort(pool)[::-1]
    place = min(int(np.searchsorted(above + np.cumsum(order, dtype=np.float64), wanted)), len(order) - 1)
    return order[place], place + 1 - int(np.argmax(order == order[place]))  # the one that crosses is the last one kept


def _bracket(pool, wanted):
    """Two weights that probably lie above and below the one at which the largest of `pool` add up to `wanted`."""
    sample = np.sort(pool[::len(pool) // 512])[::-1]
    sums = np.cumsum(sample, dtype=np.float64)
    place = int(np.searchsorted(sums, wanted / pool.sum(dtype=np.float64) * sums[-1]))
    margin = len(sample) // 16
    return sample[max(place - margin, 0)], sample[min(place + margin, len(sample) - 1)]


class MinPLogitsWarper(LogitsProcessor):
    """Keep tokens at least `min_p` times as likely as the most likely one (Nguyen, 2024).

    At least `min_tokens_to_keep` tokens stay. The others become `filter_value`.
    """

    def __init__(self, min_p=None, filter_value=-np.inf, min_tokens_to_keep=1):
        self.min_p = self.check_params(min_p, "min_p", force_float=True, low_threshold=Threshold(0, True),
                                       high_threshold=Threshold(1, True))
        self.filter_value = np.float32(filter_value)
        self.min_tokens_to_keep = self.check_params(min_tokens_to_keep, "min_tokens_to_keep", force_int=True,
                                                    low_threshold=Threshold(0))

    def process_np(self, logits, sequence_ids):
        if self.min_p == 0.0:
            return logits
        bound = logits.max(axis=1, keepdims=True) + np.float32(np.log(self.min_p))
        if self.min_tokens_to_keep > 1:
            place = min(self.min_tokens_to_keep, logits.shape[1])
            bound = np.minimum(bound, np.partition(logits, -place, axis=1)[:, -place, None])
        np.putmask(logits, logits < bound, self.filter_value)
        return logits


class LogitNormalization(LogitsProcessor):
    """Replace the scores by log probabilities."""

    def process_np(self, logits, sequence_ids):
        return log_softmax(logits)


class MinLengthLogitsProcessor(LogitsProcessor):
    """Forbid the end tokens until prompt and answer together have `min_length` tokens.

    Args:
        min_length (int): at least 0.
        eos_token_id (int | list[int]): the end tokens.
        pad_token_id (int): not counted at either end of a row. Default: None.
    """

    def __init__(self, min_length=None, eos_token_id=None, pad_token_id=None):
        self.min_length = self.check_params(min_length, "min_length", force_int=True,
                                            low_threshold=Threshold(0, True))
        self.eos_token_id = list(self.check_params(eos_token_id, "eos_token_id", force_int_tuple=True))
        self.pad_token_id = pad_token_id

    def process_np(self, logits, sequence_ids):
        short = valid_lengths(sequence_ids, self.pad_token_id) < self.min_length
        logits[np.ix_(short, self.eos_token_id)] = -np.inf
        return logits


class MinNewTokensLengthLogitsProcessor(LogitsProcessor):
    """Forbid the end tokens until the answer, which begins after `prompt_length_to_skip`, has `min_new_tokens`."""

    def __init__(self, prompt_length_to_skip=None, min_new_tokens=None, eos_token_id=None, pad_token_id=None):
        self.prompt_length_to_skip = self.check_params(prompt_length_to_skip, "prompt_length_to_skip",
                                                       force_int=True, low_threshold=Threshold(0, True))
        self.min_new_tokens = self.check_params(min_new_tokens, "min_new_tokens", force_int=True,
                                                low_threshold=Threshold(0, True))
        self.eos_token_id = list(self.check_params(eos_token_id, "eos_token_id", force_int_tuple=True))
        self.pad_token_id = pad_token_id

    def process_np(self, logits, sequence_ids):
        new = valid_lengths(sequence_ids, self.pad_token_id) - self.prompt_length_to_skip
        logits[np.ix_(new < self.min_new_tokens, self.eos_token_id)] = -np.inf
        return logits


def valid_lengths(sequence_ids, pad_token_id=None):
    """Return int [B]: tokens per row of `sequence_ids` [B, L], without the runs of `pad_token_id` at both ends."""
    if pad_token_id is None:
        return np.full(len(sequence_ids), sequence_ids.shape[1])
    real = sequence_ids != pad_token_id
    spans = sequence_ids.shape[1] - np.argmax(real, axis=1) - np.argmax(real[:, ::-1], axis=1)
    return np.where(real.any(axis=1), spans, 0)


class SamplingLogitsProcessor(LogitsProcessor):
    """Choose a token per row: drawn where `do_sample`, else the most likely; returns ``(logits, tokens)``.

    Args:
        do_sample (bool | array [B]): whether a row is drawn. Default: None (all are drawn).
        seed_array (int | array [B]): seed of each row's draw; None draws fresh ones. Default: None.
    """

    def __init__(self, do_sample=None, seed_array=None):
        self.do_sample = do_sample
        self.seed_array = seed_array

    def process_np(self, logits, sequence_ids):
        rows = len(logits)
        drawn = np.broadcast_to(True if self.do_sample is None else to_numpy(self.do_sample), (rows,))
        tokens = np.argmax(logits, axis=1)
        if drawn.any():
            seeds = None if self.seed_array is None else np.broadcast_to(to_numpy(self.seed_array), (rows,))
            tokens = np.where(drawn, self.multinomial_np(softmax(logits), 1, seeds)[:, 0], tokens)
        return logits, tokens

    @staticmethod
    def multinomial_np(prob_matrix, num_samples, seeds):
        """Draw int [B, num_samples] from the rows of `prob_matrix` [B, V]; row i uses ``seeds[i]``."""
        seeds = [None] * len(prob_matrix) if seeds is None else [int(seed) for seed in np.ravel(seeds)]
        return np.stack([draw(row, np.random.default_rng(seed).random(num_samples))
                         for row, seed in zip(prob_matrix, seeds)])

    def process_ms(self, logits, sequence_ids, **kwargs):
        """Like `process_np` for MindSpore tensors, by way of the host."""
        from mindspore import Tensor
        return logits, Tensor(self(None, to_numpy(logits))[1])


def draw(weights, uniform):
    """Return the indices at which the running sum of `weights` [V] (unnormalised) passes `uniform` in [0, 1)."""
    running = np.cumsum(weights, dtype=np.float64)
    # the product may round up to the total, which no index lies beyond
    point = np.minimum(np.asarray(uniform) * running[-1], np.nextafter(running[-1], 0.0))
    return np.searchsorted(running, point, side="right")


class GreedySearchLogitsProcessor(LogitsProcessor):
    """Choose the most likely token per row; returns ``(logits, tokens)``."""

    def process_np(self, logits, sequence_ids):
        return logits, np.argmax(logits, axis=1)

    def process_ms(self, logits, sequence_ids, **kwargs):
        """Like `process_np` for MindSpore tensors, by way of the host."""
        from mindspore import Tensor
        return logits, Tensor(np.argmax(to_numpy(logits), axis=1))
