"""Beam bookkeeping under MindFormers' names: the finished beams of a prompt, and a scorer for loops of one's own."""
from abc import ABC, abstractmethod

import numpy as np

from mindformers.generation.utils import to_numpy
from mindformers.tools.errors import UnsupportedError


class BeamHypotheses:
    """The best `num_beams` finished beams of one prompt.

    Args:
        num_beams (int): how many are kept.
        length_penalty (float): a score is the log probability / length ** length_penalty.
        early_stopping (bool | "never"): when `is_done` says yes, see GenerationConfig.
        max_length (int): greatest length, needed for "never" with a positive penalty. Default: None.
    """

    def __init__(self, num_beams, length_penalty, early_stopping, max_length=None):
        if early_stopping == "never" and length_penalty > 0 and max_length is None:
            raise ValueError("early_stopping='never' with length_penalty > 0 needs max_length")
        self.num_beams, self.length_penalty = num_beams, length_penalty
        self.early_stopping, self.max_length = early_stopping, max_length
        self.beams = []  # (score, hypothesis, beam_indices), best first

    def __len__(self):
        return len(self.beams)

    @property
    def worst_score(self):
        """Score of the worst beam kept; 1e9 while there is none."""
        return self.beams[-1][0] if self.beams else 1e9

    def score(self, sum_logprobs, length):
        """Return ``sum_logprobs / length ** length_penalty`` in float32."""
        return np.float32(sum_logprobs) / np.float32(length ** self.length_penalty)

    def add(self, hyp, sum_logprobs, beam_indices=None, generated_len=None):
        """Keep `hyp` if it is among the best; its length is `generated_len`, or its own when that is None."""
        score = self.score(sum_logprobs, len(hyp) if generated_len is None else generated_len)
        if len(self) == self.num_beams and score <= self.worst_score:
            return
        self.beams.append((score, hyp, beam_indices))
        self.beams.sort(key=lambda beam: -beam[0])  # stable: of equal scores the older stays in front
        del self.beams[self.num_beams:]

    def is_done(self, best_sum_logprobs, cur_len):
        """Whether no running beam, the best of which has `best_sum_logprobs` at `cur_len` tokens, can be kept."""
        if len(self) < self.num_beams:
            return False
        if self.early_stopping is True:
            return True
        never = self.early_stopping == "never" and self.length_penalty > 0.0
        return bool(self.score(best_sum_logprobs, self.max_length if never else cur_len) <= self.worst_score)


class BeamScorer(ABC):
    """Base of beam scorers."""

    @abstractmethod
    def process(self, input_ids, next_scores, next_tokens, next_indices, pad_token_id=None, eos_token_id=None,
                beam_indices=None, group_index=0):
        """Choose the beams that go on."""

    @abstractmethod
    def finalize(self, input_ids, final_beam_scores, max_length, pad_token_id=None, eos_token_id=None,
                 beam_indices=None):
        """Return the best sequences."""


class BeamSearchScorer(BeamScorer):
    """Step-by-step beam scorer for decode loops of one's own; `generate` itself uses `BeamSelector`.

    Args:
        batch_size (int): prompts.
        num_beams (int): beams per prompt, at least 2.
        length_penalty (float): see `BeamHypotheses`. Default: 1.0.
        do_early_stopping (bool | "never"): see `BeamHypotheses`. Default: False.
        num_beam_hyps_to_keep (int): sequences per prompt that `finalize` returns. Default: 1.
        num_beam_groups (int): only 1 (UnsupportedError otherwise). Default: 1.
        max_length (int): greatest length. Default: None.
    """

    def __init__(self, batch_size, num_beams, length_penalty=1.0, do_early_stopping=False, num_beam_hyps_to_keep=1,
                 num_beam_groups=1, max_length=None):
        if not isinstance(num_beams, int) or num_beams <= 1:
            raise ValueError(f"`num_beams` has to be an integer strictly greater than 1, but is {num_beams!r}")
        if num_beam_groups != 1:
            raise UnsupportedError(f"num_beam_groups={num_beam_groups!r} is not supported: diverse beam search is not "
                                   f"carried; use num_beam_groups=1")
        self.num_beams, self.num_beam_hyps_to_keep = num_beams, num_beam_hyps_to_keep
        self._hyps = [BeamHypotheses(num_beams, length_penalty, do_early_stopping, max_length)
                      for _ in range(batch_size)]
        self._done = [False] * batch_size

    @property
    def is_done(self):
        """Whether every prompt is done."""
        return all(self._done)

    def process(self, input_ids, next_scores, next_tokens, next_indices, pad_token_id=None, eos_token_id=None,
                beam_indices=None, group_index=0):
        """Sort the candidates into finished beams and beams that go on.

        Args:
            input_ids (array): int [batch * beams, L], without the candidates.
            next_scores, next_tokens, next_indices (array): [batch, 2 * beams], best first: summed log probability,
                token, and beam within the prompt of each candidate.
            pad_token_id (int): token of prompts that are done. Default: None (0).
            eos_token_id (int | list[int]): end tokens. Default: None.

        Returns:
            dict with next_beam_scores, next_beam_tokens, next_beam_indices, each [batch * beams].

        Raises:
            ValueError: fewer candidates without an end token than beams.
        """
        input_ids, next_scores = to_numpy(input_ids), to_numpy(next_scores)
        next_tokens, next_indices = to_numpy(next_tokens), to_numpy(next_indices)
        ends = [] if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
        scores, tokens, indices = [], [], []
        for batch, hyps in enumerate(self._hyps):
            if self._done[batch]:
                going = [(0.0, pad_token_id or 0, 0)] * self.num_beams
            else:
                going = self._sort_candidates(batch, hyps, input_ids, ends,
                                              zip(next_scores[batch], next_tokens[batch], next_indices[batch]))
                self._done[batch] = hyps.is_done(next_scores[batch].max(), input_ids.shape[1] + 1)
            for score, token, index in going:
                scores.append(score)
                tokens.append(token)
                indices.append(index)
        return {"next_beam_scores": np.array(scores, np.float32), "next_beam_tokens": np.array(tokens, np.int64),
                "next_beam_indices": np.array(indices, np.int64)}

    def _sort_candidates(self, batch, hyps, input_ids, ends, candidates):
        going = []
        for rank, (score, token, beam) in enumerate(candidates):
            row = batch * self.num_beams + int(beam)
            if int(token) in ends:
                if rank < self.num_beams:  # beyond that they are reserves for going on, not results
                    hyps.add(input_ids[row].copy(), float(score))
            else:
                going.append((score, token, row))
            if len(going) == self.num_beams:
                return going
        raise ValueError(f"at most {self.num_beams} candidates of prompt {batch} may end, but more do: give at least "
                         f"(end tokens + 1) * num_beams candidates")

    def finalize(self, input_ids, final_beam_scores, max_length, pad_token_id=None, eos_token_id=None,
                 beam_indices=None):
        """Add the running beams and return the best.

        Returns:
            dict with sequences (int64 [batch * keep, L], ended by an end token when there is room and padded with
            `pad_token_id`) and sequence_scores (float32 [batch * keep]).
        """
        input_ids, final_beam_scores = to_numpy(input_ids), to_numpy(final_beam_scores)
        best = []
        for batch, hyps in enumerate(self._hyps):
            if not self._done[batch]:
                for row in range(batch * self.num_beams, (batch + 1) * self.num_beams):
                    hyps.add(input_ids[row].copy(), float(final_beam_scores[row]))
            best.extend(hyps.beams[:self.num_beam_hyps_to_keep])
        ends = [] if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
        longest = min(max(len(hyp) for _, hyp, _ in best) + 1, max_length)
        sequences = np.full((len(best), longest), pad_token_id or 0, np.int64)
        for target, (_, hyp, _) in zip(sequences, best):
            target[:len(hyp)] = hyp[:longest]
            if len(hyp) < longest and ends:
                target[len(hyp)] = ends[0]
        return {"sequences": sequences, "sequence_scores": np.array([score for score, _, _ in best], np.float32)}
