"""Processors that forbid or force tokens, under Hugging Face's names. Shapes: input_ids [B, L], scores [B, V]."""
import numpy as np

from mindformers.generation.logits_process import LogitsProcessor, Threshold


class NoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Forbid the tokens that would complete an n-gram of size `ngram_size` for the second time."""

    def __init__(self, ngram_size):
        self.ngram_size = self.check_params(ngram_size, "ngram_size", force_int=True, low_threshold=Threshold(0))

    def process_np(self, logits, sequence_ids):
        head = self.ngram_size - 1
        if sequence_ids.shape[1] < self.ngram_size:
            return logits
        for row, seen in zip(logits, sequence_ids):
            if head == 0:
                row[seen] = -np.inf
                continue
            # window i is followed by seen[i + head]
            windows = np.lib.stride_tricks.sliding_window_view(seen[:-1], head)
            again = np.flatnonzero((windows == seen[-head:]).all(axis=1))
            row[seen[again + head]] = -np.inf
        return logits


class NoBadWordsLogitsProcessor(LogitsProcessor):
    """Forbid the token that would complete one of the sequences `bad_words_ids`; a lone end token stays allowed."""

    def __init__(self, bad_words_ids, eos_token_id=None):
        ends = np.atleast_1d(eos_token_id) if eos_token_id is not None else ()
        words = [list(word) for word in bad_words_ids if not (len(word) == 1 and word[0] in ends)]
        if any(not word for word in words):
            raise ValueError("bad_words_ids has an empty sequence; each needs at least one token id")
        self.always = [word[0] for word in words if len(word) == 1]
        self.after = [(np.array(word[:-1]), word[-1]) for word in words if len(word) > 1]

    def process_np(self, logits, sequence_ids):
        logits[:, self.always] = -np.inf
        for row, seen in zip(logits, sequence_ids):
            for head, last in self.after:
                if len(seen) >= len(head) and np.array_equal(seen[-len(head):], head):
                    row[last] = -np.inf
        return logits


class SuppressTokensLogitsProcessor(LogitsProcessor):
    """Forbid the tokens `suppress_tokens` always."""

    def __init__(self, suppress_tokens):
        self.suppress_tokens = list(suppress_tokens)

    def process_np(self, logits, sequence_ids):
        logits[:, self.suppress_tokens] = -np.inf
        return logits


class SuppressTokensAtBeginLogitsProcessor(SuppressTokensLogitsProcessor):
    """Forbid the tokens `begin_suppress_tokens` while a row has exactly `begin_index` tokens."""

    def __init__(self, begin_suppress_tokens, begin_index):
        super().__init__(begin_suppress_tokens)
        self.begin_index = begin_index

    def process_np(self, logits, sequence_ids):
        return super().process_np(logits, sequence_ids) if sequence_ids.shape[1] == self.begin_index else logits


def _force(logits, tokens):
    logits[:] = -np.inf
    logits[:, tokens] = 0.0
    return logits


class ForcedBOSTokenLogitsProcessor(LogitsProcessor):
    """Force `bos_token_id` as the second token of a row (after a prompt of one token)."""

    def __init__(self, bos_token_id):
        self.bos_token_id = bos_token_id

    def process_np(self, logits, sequence_ids):
        return _force(logits, [self.bos_token_id]) if sequence_ids.shape[1] == 1 else logits


class ForcedEOSTokenLogitsProcessor(LogitsProcessor):
    """Force one of `eos_token_id` as the last token, the one that makes a row `max_length` long."""

    def __init__(self, max_length, eos_token_id):
        self.max_length = max_length
        self.eos_token_id = np.atleast_1d(eos_token_id).tolist()

    def process_np(self, logits, sequence_ids):
        return _force(logits, self.eos_token_id) if sequence_ids.shape[1] == self.max_length - 1 else logits


class InfNanRemoveLogitsProcessor(LogitsProcessor):
    """Replace NaN by 0 and infinities by the largest finite float32 of their sign."""

    def process_np(self, logits, sequence_ids):
        limit = np.finfo(np.float32).max
        return np.nan_to_num(logits, copy=False, nan=0.0, posinf=limit, neginf=-limit)
