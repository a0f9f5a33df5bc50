"""Beam search as a selector of the decode loop; results equal those of transformers' `num_beams`.

Shapes: R = prompts x beams rows, V vocabulary, K candidates of one prompt.
"""
import numpy as np

from mindformers.generation.beam_scorer import BeamHypotheses, BeamScorer, BeamSearchScorer
from mindformers.generation.sampling import apply_processors, build_processor_rows, check_finite, row_generators
from mindformers.generation.utils import candidates_of_largest, log_softmax

__all__ = ["BeamHypotheses", "BeamScorer", "BeamSearchScorer", "BeamSelector"]

NEVER = np.float32(-1e9)  # score of a beam that must not be chosen, yet ranks among its like


class BeamSelector:
    """Chooses the next token of all beams of a prompt together.

    Each step scores every continuation of every beam, takes the K = max(2, 1 + end tokens) * beams best, moves those
    that end and rank among the first `num_beams` to the finished beams, and goes on with the best `num_beams` others.
    A prompt is done when its finished beams cannot be bettered (`BeamHypotheses.is_done`) or nothing can go on.

    Args: as RowSelector.
    """

    def __init__(self, table, config, stop, processors=None, seed=None):
        self.table, self.config, self.stop = table, config, stop
        self.beams = config.num_beams
        self.keep = max(2, 1 + len(config.eos_token_id)) * self.beams
        lengths, limits = table.prompt_lengths.tolist(), table.limits.tolist()
        self.processors = build_processor_rows(config, lengths, limits, processors)
        prompts = len(table.prompts)
        # all beams of a prompt start equal: only the first may count at the first step
        self.scores = np.full((prompts, self.beams), NEVER, np.float32)
        self.scores[:, 0] = 0.0
        self.ended = [BeamHypotheses(self.beams, config.length_penalty, config.early_stopping, limit - length)
                      for length, limit in zip(lengths[::self.beams], limits[::self.beams])]
        self.trace = np.full((len(table), 0), -1, np.int64)  # the row each token of a running beam came from
        seed = config.seed if seed is None else seed
        self.generators = row_generators(seed, prompts, 1) if config.do_sample else None

    def select(self, logits):
        """Take logits [R, V]; return ``(tokens [R], parents [R], scores [R, V])`` and write the table."""
        table, rows = self.table, len(self.table)
        tokens, parents = np.full(rows, -1, np.int32), np.arange(rows)
        scores = np.zeros_like(logits)
        for prompt in range(len(table.prompts)):
            own = np.arange(prompt * self.beams, (prompt + 1) * self.beams)
            if not table.finished[own[0]]:
                scores[own] = self._log_probabilities(own, logits)
                tokens[own], parents[own] = self._advance(prompt, own, scores[own])
        live = ~table.finished | (tokens >= 0)
        self.trace = np.concatenate([self.trace[parents], np.where(live, parents, -1)[:, None]], axis=1)
        table.tokens = table.tokens[parents]
        for row in np.flatnonzero(tokens >= 0):
            table.append(row, tokens[row])
        return tokens, parents, scores

    def _log_probabilities(self, own, logits):
        if not self.config.remove_invalid_values:
            for row in own:
                check_finite(logits[row], row)
        scores = log_softmax(logits[own])
        for beam, row in enumerate(own):
            if self.processors[row]:
                scores[beam] = apply_processors(self.processors[row], self.table.history(row), scores[beam])
        return scores

    def _advance(self, prompt, own, scores):
        """Do one step of one prompt; return the tokens and parent rows of its beams."""
        table, vocab = self.table, scores.shape[1]
        total = (scores + self.scores[prompt][:, None]).reshape(-1)
        places = self._candidates(prompt, total)
        sums, beams, tokens = total[places], places // vocab, (places % vocab).astype(np.int32)
        rows = own[beams]
        generated = int(table.lengths[own[0]] + 1 - table.prompt_lengths[own[0]])
        reasons = [self._reason(row, token, scores[beam]) for row, token, beam in zip(rows, tokens, beams)]
        ends = np.array([bool(reason) for reason in reasons])
        finished = self.ended[prompt]
        if sums[0] <= NEVER / 2:  # nothing can go on
            if not finished.beams:
                raise ValueError(f"every token of prompt {prompt} is forbidden: the settings and processors leave none "
                                 f"to choose")
            ends[:] = True
        for rank in np.flatnonzero(ends[:self.beams] & (sums[:self.beams] > NEVER / 2)):
            row = rows[rank]
            sequence = np.append(table.history(row), tokens[rank])
            finished.add((sequence, reasons[rank]), sums[rank], np.append(self.trace[row], row), generated)
        running = sums + ends * NEVER
        best = np.argsort(-running, kind="stable")[:self.beams]
        self.scores[prompt] = running[best]
        if finished.is_done(running[best[0]], generated) or ends.all():
            table.finished[own] = True
            for row in own:
                table.reasons[row] = finished.beams[0][1][1]
        return tokens[best], rows[best]

    def _candidates(self, prompt, total):
        """Return the places of the K best entries of `total`, best first, or of K drawn ones in order of draw."""
        if self.generators is not None:
            # the largest of log p + Gumbel noise are a draw without replacement (Kool et al., 2019)
            total = total + self.generators[prompt].gumbel(size=len(total)).astype(np.float32)
        count = min(self.keep, len(total))
        found = candidates_of_largest(total, count)
        return found[np.argsort(-total[found], kind="stable")[:count]]

    def _reason(self, row, token, scores):
        sequence = np.append(self.table.history(row), token)
        return self.stop.reason(sequence, self.table.prompt_lengths[row], self.table.limits[row], scores)

    def results(self):
        """Return ``(sequences, reasons, scores, paths)`` of the best `num_return_sequences` beams of each prompt.

        Raises:
            ValueError: fewer beams than that were possible.
        """
        wanted = self.config.num_return_sequences
        for prompt, ended in enumerate(self.ended):
            if len(ended) < wanted:
                raise ValueError(f"prompt {prompt} has only {len(ended)} possible answers, but num_return_sequences="
                                 f"{wanted}")
        best = [beam for ended in self.ended for beam in ended.beams[:wanted]]
        return ([sequence.astype(np.int32) for _, (sequence, _), _ in best], [reason for _, (_, reason), _ in best],
                np.array([score for score, _, _ in best], np.float32), [path for _, _, path in best])
