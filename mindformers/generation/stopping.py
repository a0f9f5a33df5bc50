"""When a row ends: end token, length, stop string, a criterion of the caller, time."""
import time

import numpy as np


class StopRules:
    """The reasons to end a row.

    Args:
        config (GenerationConfig): eos_token_id, stop_strings, max_time.
        tokenizer: needed with stop_strings; has ``decode(ids, skip_special_tokens=)``. Default: None.
        criteria (callable | list): each ``(input_ids [1, L], scores [1, V]) -> bool``. Default: None.

    Raises:
        ValueError: stop_strings without a tokenizer.
        TypeError: a criterion that cannot be called.
    """

    def __init__(self, config, tokenizer=None, criteria=None):
        self.ends = frozenset(config.eos_token_id)
        self.strings = tuple(config.stop_strings or ())
        if self.strings and tokenizer is None:
            raise ValueError(f"stop_strings={list(self.strings)} needs tokenizer= in generate(): stop strings are "
                             f"looked for in the decoded answer")
        self.tokenizer = tokenizer
        criteria = [] if criteria is None else [criteria] if callable(criteria) else list(criteria)
        for criterion in criteria:
            if not callable(criterion):
                raise TypeError(f"a stopping criterion must be callable, but is {criterion!r}")
        self.criteria = criteria
        self.deadline = None if config.max_time is None else time.monotonic() + config.max_time

    def reason(self, tokens, prompt_length, limit, scores=None):
        """Return why the row ends after its last token, or "" when it goes on.

        Args:
            tokens (np.ndarray): int32 [L], prompt and answer.
            prompt_length (int): tokens of the prompt.
            limit (int): the row's greatest length.
            scores (np.ndarray): float32 [V], processed scores of the last step. Default: None.
        """
        if int(tokens[-1]) in self.ends:
            return "eos"
        if self.strings and self._has_stop_string(tokens, prompt_length):
            return "stop_string"
        if self.criteria:
            batch = None if scores is None else scores[None]
            if any(np.any(_answer(criterion(tokens[None], batch))) for criterion in self.criteria):
                return "criteria"
        if len(tokens) >= limit:
            return "length"
        return "time" if self.deadline is not None and time.monotonic() >= self.deadline else ""

    def _has_stop_string(self, tokens, prompt_length):
        """Whether the decoded end of the answer holds a stop string.

        A character takes up to four byte tokens, so a window of four tokens per character always holds the string. One
        token before the answer is decoded along with it, because decoders drop the leading space of a text.
        """
        window = 4 * max(map(len, self.strings)) + 8
        start = max(prompt_length - 1, len(tokens) - window)
        text = self.tokenizer.decode(tokens[start:].tolist(), skip_special_tokens=False)
        if start < prompt_length:
            context = self.tokenizer.decode(tokens[start:prompt_length].tolist(), skip_special_tokens=False)
            text = text[len(context):]
        return any(string in text for string in self.strings)


def _answer(value):
    return value.asnumpy() if hasattr(value, "asnumpy") else value
