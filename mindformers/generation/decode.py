"""The decode loop: a generator of steps that `generate`, streaming, beam search, the pipeline and servers all read.

The model is asked for a protocol, no class:

    model.config                                       vocab_size, seq_length, eos_token_id, ...
    model.make_cache(batch_size, max_length)           a context manager of batch_size empty rows;
                                                       `.reorder(parents)`: row i becomes old row parents[i]
    model.forward_step(tokens, lengths, cache)         int32 [R, T], int32 [R] -> float32 [R, V]
    model.next_logits(tokens, lengths)                 the same without a cache

Tokens are right padded; a length of 0 leaves a row idle. Shapes: R rows, T new tokens, V vocabulary.
"""
import contextlib
from dataclasses import dataclass
from typing import Optional

import numpy as np

from mindformers.generation.beam_search import BeamSelector
from mindformers.generation.prompts import check_token_ids, context_length, length_limits, to_prompts
from mindformers.generation.sampling import RowSelector, TokenTable
from mindformers.generation.stopping import StopRules
from mindformers.tools.interrupt import interruptible


@dataclass
class Step:
    """One token more for each unfinished row.

    Attributes:
        index (int): 0 for the first token of the answers.
        tokens (np.ndarray): int32 [R]; -1 for rows that had ended before.
        finished (np.ndarray): bool [R], after this step.
        reasons (list[str]): why a row ended ("eos", "length", "stop_string", "criteria", "time"), or "".
        parents (np.ndarray): int [R], the row each row continues (beam search), or None when rows stay in place.
        logits (np.ndarray): float32 [R, V] as the model gave them; read before the next step.
        scores (np.ndarray): float32 [R, V] after the processors.
    """

    index: int
    tokens: np.ndarray
    finished: np.ndarray
    reasons: list
    parents: Optional[np.ndarray]
    logits: np.ndarray
    scores: np.ndarray


def decode_steps(model, prompts, config, *, attention_mask=None, processors=None, stopping_criteria=None,
                 tokenizer=None, seed=None):
    """Generate answers to `prompts`, yielding a `Step` per token; the cache is closed when the generator ends.

    Arguments and errors are those of `GenerationMixin.generate`; faults of the input are raised at once, not at the
    first step. Close the generator (``contextlib.closing``) when it is not read to its end.

    Args:
        model: keeps the protocol of this module.
        prompts (list[int] | list[list[int]] | array): token ids, see `to_prompts`.
        config (GenerationConfig): settings.

    Returns:
        generator of Step.
    """
    selector = build_selector(model.config, prompts, config, attention_mask=attention_mask, processors=processors,
                              stopping_criteria=stopping_criteria, tokenizer=tokenizer, seed=seed)
    return run_steps(model, selector)


def build_selector(model_config, input_ids, config, *, attention_mask=None, processors=None, stopping_criteria=None,
                   tokenizer=None, seed=None, length_asked=True):
    """Check everything that can be checked and return the RowSelector or BeamSelector that chooses the tokens."""
    config.validate()
    vocab_size = model_config.vocab_size
    check_token_ids(config, vocab_size)
    prompts = to_prompts(input_ids, attention_mask, config=config, vocab_size=vocab_size)
    limits = length_limits(prompts, config, context_length(model_config), length_asked)
    stop = StopRules(config, tokenizer, stopping_criteria)
    if config.num_beams > 1:
        return BeamSelector(TokenTable(prompts, limits, config.num_beams), config, stop, processors, seed)
    return RowSelector(TokenTable(prompts, limits, config.num_return_sequences), config, stop, processors, seed)


def run_steps(model, selector):
    """Yield the steps of `selector` on `model`: feed, choose, reorder, until every row has ended."""
    table = selector.table
    with contextlib.ExitStack() as stack:
        feed = _Uncached(model, table)
        if selector.config.use_cache:
            with interruptible():
                cache = stack.enter_context(model.make_cache(len(table), table.tokens.shape[1]))
            feed = _Cached(model, table, cache)
        with interruptible():
            logits = feed.prompts()
        index = 0
        while True:
            tokens, parents, scores = selector.select(logits)
            yield Step(index, tokens, table.finished.copy(), list(table.reasons), parents, logits, scores)
            if table.finished.all():
                return
            with interruptible():
                logits = feed.next(tokens, parents)
            index += 1


class _Cached:
    """Runs each prompt once and each new token once."""

    def __init__(self, model, table, cache):
        self.model, self.table, self.cache = model, table, cache

    def prompts(self):
        """Return the logits [R, V] after the prompts; several rows of one prompt share its run."""
        prompts, copies = self.table.prompts, self.table.rows_per_prompt
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens = np.zeros((len(prompts), int(lengths.max())), np.int32)
        for row, prompt in zip(tokens, prompts):
            row[:len(prompt)] = prompt
        if copies > 1:
            self.cache.reorder(np.arange(len(prompts)))  # a new cache has all its rows; run each prompt in one of them
        logits = np.asarray(self.model.forward_step(tokens, lengths, self.cache), np.float32)
        if copies > 1:
            parents = np.repeat(np.arange(len(prompts)), copies)
            self.cache.reorder(parents)
            logits = logits[parents]
        return logits

    def next(self, tokens, parents):
        """Return the logits [R, V] after `tokens`; finished rows idle."""
        if parents is not None and not np.array_equal(parents, np.arange(len(parents))):
            self.cache.reorder(parents)
        live = ~self.table.finished
        lengths = live.astype(np.int32)
        return np.asarray(self.model.forward_step(np.where(live, tokens, 0)[:, None].astype(np.int32), lengths,
                                                  self.cache), np.float32)


class _Uncached:
    """Runs the whole text of every unfinished row at each step (``use_cache=False``)."""

    def __init__(self, model, table):
        self.model, self.table = model, table

    def prompts(self):
        """Return the logits [R, V] after the prompts."""
        return self.next(None, None)

    def next(self, tokens, parents):
        """Return the logits [R, V]; what finished rows get is undefined (zeros)."""
        table = self.table
        live = np.flatnonzero(~table.finished)
        lengths = table.lengths[live].astype(np.int32)
        found = np.asarray(self.model.next_logits(np.ascontiguousarray(table.tokens[live, :lengths.max()]), lengths),
                           np.float32)
        logits = np.zeros((len(table), found.shape[1]), np.float32)
        logits[live] = found
        return logits
