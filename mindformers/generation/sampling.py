"""Rows that are decoded independently: greedy or drawn, one random stream per row.

Shapes: R rows (prompts x answers per prompt), L tokens a row can hold, V vocabulary.
"""
import numpy as np

from mindformers.generation.logits_process import (
    FrequencyPenaltyLogitsProcessor, LogitNormalization, LogitsProcessor, LogitsProcessorList, MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor, MinPLogitsWarper, PresencePenaltyLogitsProcessor,
    RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, draw)
from mindformers.generation.logits_rules import (
    ForcedBOSTokenLogitsProcessor, ForcedEOSTokenLogitsProcessor, InfNanRemoveLogitsProcessor,
    NoBadWordsLogitsProcessor, NoRepeatNGramLogitsProcessor, SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor)

_FEW = 1024  # tokens that are left to draw from, up to which their running sum is made at once
_BLOCK = 128


class TokenTable:
    """The tokens of all rows in one buffer: no step copies a history.

    Attributes: tokens int32 [R, L]; lengths, prompt_lengths, limits int [R]; finished bool [R]; reasons list[str].
    """

    def __init__(self, prompts, limits, rows_per_prompt=1):
        self.prompts = prompts
        self.rows_per_prompt = rows_per_prompt
        self.limits = np.repeat(np.asarray(limits), rows_per_prompt)
        rows = len(self.limits)
        self.tokens = np.zeros((rows, int(self.limits.max())), np.int32)
        self.prompt_lengths = np.repeat([len(prompt) for prompt in prompts], rows_per_prompt)
        self.lengths = self.prompt_lengths.copy()
        for row in range(rows):
            self.tokens[row, :self.lengths[row]] = prompts[row // rows_per_prompt]
        self.finished = np.zeros(rows, bool)
        self.reasons = [""] * rows

    def __len__(self):
        return len(self.lengths)

    def history(self, row):
        """Return the tokens of `row`, int32 [length], a view."""
        return self.tokens[row, :self.lengths[row]]

    def append(self, row, token):
        """Add `token` to `row`."""
        self.tokens[row, self.lengths[row]] = token
        self.lengths[row] += 1


class RowSelector:
    """Chooses the next token of each row on its own.

    Args:
        table (TokenTable): the rows; this object fills it.
        config (GenerationConfig): settings.
        stop (StopRules): when a row ends.
        processors (list[callable]): the caller's own. Default: None.
        seed (None | int | list[int]): see `row_generators`; None takes the one of `config`. Default: None.
    """

    def __init__(self, table, config, stop, processors=None, seed=None):
        self.table, self.config, self.stop = table, config, stop
        lengths, limits = table.prompt_lengths.tolist(), table.limits.tolist()
        self.processors = build_processor_rows(config, lengths, limits, processors)
        self.generators = None
        if config.do_sample:
            seed = config.seed if seed is None else seed
            self.generators = row_generators(seed, len(table.prompts), table.rows_per_prompt)
        self.plain = not any(self.processors) and not config.do_sample

    def select(self, logits):
        """Take logits [R, V], write one token to each unfinished row; return ``(tokens, parents, scores)``.

        tokens int32 [R] (-1 for finished rows), parents None (rows stay in place), scores float32 [R, V] after the
        processors (finished rows as the model gave them).
        """
        table = self.table
        live = np.flatnonzero(~table.finished)
        tokens = np.full(len(table), -1, np.int32)
        scores = logits if self.plain else logits.copy()
        for row in live:
            if not self.config.remove_invalid_values:
                check_finite(logits[row], row)
            if not self.plain:
                scores[row] = apply_processors(self.processors[row], table.history(row), logits[row])
            generator = None if self.generators is None else self.generators[row]
            tokens[row] = choose_token(scores[row], generator, row)
            table.append(row, tokens[row])
            reason = self.stop.reason(table.history(row), table.prompt_lengths[row], table.limits[row], scores[row])
            table.finished[row], table.reasons[row] = bool(reason), reason
        return tokens, None, scores

    def results(self):
        """Return ``(sequences, reasons, None, None)`` of all rows."""
        return ([self.table.history(row).copy() for row in range(len(self.table))], list(self.table.reasons), None,
                None)


def choose_token(scores, generator, row):
    """Return the most likely token of `scores` [V], or one drawn with `generator` when that is not None.

    Raises:
        ValueError: every score is ``-inf``.
    """
    best = int(scores.argmax())
    if scores[best] == -np.inf:
        raise ValueError(f"every token of row {row} is forbidden: the settings and processors leave none to choose")
    if generator is None:
        return best
    allowed = scores > -np.inf
    if np.count_nonzero(allowed) > _FEW:
        return _draw_of_many(np.exp(scores - scores[best]), generator.random())
    candidates = np.flatnonzero(allowed)
    return int(candidates[draw(np.exp(scores[candidates] - scores[best]), generator.random())])


def _draw_of_many(weights, uniform):
    """`draw` of one index: the sums of blocks choose a block, its running sum the index in it."""
    whole = len(weights) // _BLOCK * _BLOCK
    sums = np.append(weights[:whole].reshape(-1, _BLOCK).sum(axis=1), weights[whole:].sum())
    running = np.cumsum(sums, dtype=np.float64)
    point = min(uniform * running[-1], np.nextafter(running[-1], 0.0))
    block = int(np.searchsorted(running, point, side="right"))
    inner = np.cumsum(weights[block * _BLOCK:(block + 1) * _BLOCK], dtype=np.float64)
    rest = min(point - (running[block - 1] if block else 0.0), np.nextafter(inner[-1], 0.0))
    return block * _BLOCK + int(np.searchsorted(inner, rest, side="right"))


def check_finite(logits, row):
    """Raise ValueError when `logits` [V] of `row` hold NaN or plus infinity."""
    top = logits.max()  # NaN wins every comparison of max
    if not top < np.inf:
        raise ValueError(f"the model returned logits with {'NaN' if np.isnan(top) else 'infinity'} for row {row}: the "
                         f"weights or the number format are at fault (remove_invalid_values=True goes on regardless)")


def apply_processors(processors, history, logits):
    """Return float32 [V]: `logits` [V] after `processors`, each called with ``([1, L], [1, V])``.

    Raises:
        TypeError, ValueError: a processor that returns no array of shape [1, V], or NaN.
    """
    scores, history = logits[None].copy(), history[None]  # a processor may write into what it gets
    for processor in processors:
        if getattr(type(processor), "__call__", None) is LogitsProcessor.__call__:
            result = processor.process_np(scores, history)  # one of ours: without the copy that it makes when called
        else:
            result = processor(history, scores)
        result = result.asnumpy() if hasattr(result, "asnumpy") else result
        if not isinstance(result, np.ndarray):
            raise TypeError(f"logits processor {processor!r} must return an array [1, V], but returned "
                            f"{type(result).__name__}")
        if result.shape != scores.shape:
            raise ValueError(f"logits processor {processor!r} must return shape {list(scores.shape)}, but returned "
                             f"{list(result.shape)}")
        scores = result
    if processors and np.isnan(scores.max()):
        raise ValueError(f"the logits processors {list(processors)!r} left NaN among the scores; return -inf for "
                         "tokens that may not be chosen")
    return scores[0]


def row_generators(seed, prompts, answers):
    """Return one `numpy.random.Generator` per row; numpy's global state is neither read nor changed.

    Row r with an int `seed` draws from stream (seed, r). A list of seeds has one per prompt: answer j of prompt i draws
    from stream (seeds[i], j), so that a batch equals its prompts one by one, each with its own int seed. None seeds
    freshly from the operating system.

    Raises:
        ValueError: a list whose length is not the number of prompts.
    """
    if seed is None:
        return [np.random.Generator(np.random.PCG64()) for _ in range(prompts * answers)]
    if isinstance(seed, (list, tuple, np.ndarray)):
        if len(seed) != prompts:
            raise ValueError(f"seed has {len(seed)} values for {prompts} prompts: give one int, or one per prompt")
        streams = [(int(value), answer) for value in seed for answer in range(answers)]
    else:
        streams = [(int(seed), row) for row in range(prompts * answers)]
    return [np.random.Generator(np.random.PCG64(stream)) for stream in streams]


def step_generator(seed, row, length):
    """Return the `numpy.random.Generator` of one step of one row; `seed` as in `row_generators`."""
    if seed is None:
        return np.random.Generator(np.random.PCG64())
    stream = (int(seed), row) if np.ndim(seed) == 0 else (int(seed[row]), 0)
    return np.random.Generator(np.random.PCG64((*stream, length)))


def build_processor_rows(config, prompt_lengths, limits, custom=None):
    """Return the list of processors of each row; rows with the same prompt length and limit share one list."""
    custom = custom if custom is None else _as_list(custom)
    keys = list(zip(prompt_lengths, limits))
    built = {key: build_processors(config, *key, custom) for key in set(keys)}
    return [built[key] for key in keys]


def build_processors(config, prompt_length, limit, custom=None):
    """Return the LogitsProcessorList of one row: penalties, rules, the caller's own, then the warpers of sampling."""
    processors = LogitsProcessorList(build_rules(config, prompt_length, limit))
    merge_custom(processors, custom)
    if config.do_sample:
        processors.extend(build_warpers(config))
    if config.renormalize_logits:
        processors.append(LogitNormalization())
    return processors


def build_rules(config, prompt_length, limit):
    """Return the processors that hold for greedy decoding, sampling and beam search alike."""
    ends, rules = config.eos_token_id, []
    if config.remove_invalid_values:
        rules.append(InfNanRemoveLogitsProcessor())
    if config.repetition_penalty != 1.0:
        rules.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
    if config.frequency_penalty != 0.0:
        rules.append(FrequencyPenaltyLogitsProcessor(config.frequency_penalty))
    if config.presence_penalty != 0.0:
        rules.append(PresencePenaltyLogitsProcessor(config.presence_penalty))
    if config.no_repeat_ngram_size > 0:
        rules.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
    if config.bad_words_ids:
        rules.append(NoBadWordsLogitsProcessor(config.bad_words_ids, ends or None))
    if config.min_length > 0 and ends:
        rules.append(MinLengthLogitsProcessor(config.min_length, ends))
    if config.min_new_tokens and ends:
        rules.append(MinNewTokensLengthLogitsProcessor(prompt_length, config.min_new_tokens, ends))
    if config.forced_bos_token_id is not None:
        rules.append(ForcedBOSTokenLogitsProcessor(config.forced_bos_token_id))
    if config.forced_eos_token_id is not None:
        rules.append(ForcedEOSTokenLogitsProcessor(limit, config.forced_eos_token_id))
    if config.suppress_tokens:
        rules.append(SuppressTokensLogitsProcessor(config.suppress_tokens))
    if config.begin_suppress_tokens:
        # a forced first token comes before the first free one
        forced = config.forced_bos_token_id is not None and prompt_length == 1
        rules.append(SuppressTokensAtBeginLogitsProcessor(config.begin_suppress_tokens, prompt_length + forced))
    return rules


def build_warpers(config):
    """Return the processors that shape the distribution that is sampled: temperature, top-k, top-p, min-p."""
    keep = len(config.eos_token_id) + 1 if config.num_beams > 1 else 1  # beams need a way on beside each end token
    warpers = []
    if config.temperature != 1.0:
        warpers.append(TemperatureLogitsWarper(config.temperature))
    if config.top_k > 0:
        warpers.append(TopKLogitsWarper(config.top_k, -np.inf, keep))
    if config.top_p < 1.0:
        warpers.append(TopPLogitsWarper(config.top_p, -np.inf, keep))
    if config.min_p is not None:
        warpers.append(MinPLogitsWarper(config.min_p, -np.inf, keep))
    return warpers


def merge_custom(processors, custom):
    """Append the caller's processors.

    Raises:
        TypeError: one that cannot be called.
        ValueError: one of a class that the settings create already.
    """
    custom = [] if custom is None else _as_list(custom)
    kinds = {type(processor) for processor in processors}
    for processor in custom:
        if not callable(processor):
            raise TypeError(f"a logits processor must be callable as (input_ids, scores) -> scores, but is "
                            f"{processor!r}")
        if type(processor) in kinds:
            raise ValueError(f"a {type(processor).__name__} is made from the generation settings already: give either "
                             f"the setting or the processor, not both")
    processors.extend(custom)


def _as_list(custom):
    """One processor or several, as a list."""
    if callable(custom) and not isinstance(custom, list):
        return [custom]
    if not isinstance(custom, (list, tuple)):
        raise TypeError(f"logits_processor must be a callable (input_ids, scores) -> scores or a list of them, but is "
                        f"{custom!r}")
    return list(custom)
