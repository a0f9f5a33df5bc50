"""The room as a whole: what it imports, its names, tensors of MindSpore, MindFormers' scorer."""
import importlib
import subprocess
import sys

import numpy as np
import pytest

import mindformers.generation as generation
from mindformers.generation.beam_search import BeamHypotheses, BeamSearchScorer
from mindformers.generation.parallel_decoding import parallel_decoding_control
from mindformers.generation.utils import candidates_of_largest
from mindformers.tools.errors import UnsupportedError


def test_nothing_here_imports_mindspore():
    code = ("import sys, mindformers.generation.text_generator, mindformers.generation.streamers, "
            "mindformers.pipeline.text_generation_pipeline; sys.exit('mindspore' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_every_exported_name_exists():
    assert len(generation.__all__) > 25
    for name in generation.__all__:
        assert callable(getattr(generation, name))


def test_names_of_mindformers_modules():
    for path in ("text_generator:get_valid_length_each_example", "text_generator:GenerationMode", "utils:topk",
                 "beam_search:BeamSearchScorer", "beam_search:BeamHypotheses", "logits_process:run_using_numpy",
                 "parallel_decoding:parallel_decoding_control"):
        module, name = path.split(":")
        assert hasattr(importlib.import_module(f"mindformers.generation.{module}"), name), path


def test_valid_lengths():
    from mindformers.generation.text_generator import get_valid_length_each_example
    lengths, longest = get_valid_length_each_example(np.array([[5, 6, 0], [0, 0, 7], [0, 0, 0], [5, 0, 6]]), 0)
    assert lengths.tolist() == [2, 1, 0, 3] and longest == 3


def test_processors_take_tensors():
    mindspore = pytest.importorskip("mindspore")
    scores = mindspore.Tensor(np.array([[1.0, 3.0, 2.0]], np.float32))
    ids = mindspore.Tensor(np.array([[1, 1]], np.int32))
    chain = generation.LogitsProcessorList([generation.RepetitionPenaltyLogitsProcessor(3.0),
                                            generation.TopKLogitsWarper(2)])
    for out in (chain(ids, scores), chain.process_ms(ids, scores)):
        assert isinstance(out, mindspore.Tensor)
        np.testing.assert_allclose(out.asnumpy(), [[1.0, 1.0, 2.0]])
    assert generation.GreedySearchLogitsProcessor()(ids, scores)[1].asnumpy().tolist() == [1]
    assert generation.SamplingLogitsProcessor(True, 3)(ids, scores)[1].asnumpy().shape == (1,)


@pytest.mark.parametrize("size, count", [(10, 1), (1000, 7), (1000, 300), (32000, 50), (4099, 3)])
def test_candidates_hold_the_largest(size, count):
    generator = np.random.default_rng(size)
    for x in (generator.normal(size=size), np.round(generator.normal(size=size)), -np.arange(size) * 1.0,
              np.where(np.arange(size) < count, 1.0, -np.inf), np.full(size, -np.inf)):
        found = candidates_of_largest(x.astype(np.float32), count)
        assert np.array_equal(np.sort(x[found])[-count:], np.sort(x)[-count:])
    assert len(candidates_of_largest(generator.normal(size=32000), 50)) < 400


def test_beam_hypotheses_keep_the_best():
    beams = BeamHypotheses(2, 1.0, False)
    assert not beams.is_done(0.0, 1)
    for tokens, total in (([1, 2], -4.0), ([1, 2, 3], -3.0), ([1], -5.0), ([4], -1.5)):
        beams.add(tokens, total)
    assert [(round(float(score), 2), tokens) for score, tokens, _ in beams.beams] == [(-1.0, [1, 2, 3]), (-1.5, [4])]
    assert beams.is_done(-9.0, 4) and not beams.is_done(-2.0, 4)
    assert BeamHypotheses(1, 1.0, True).is_done(0, 1) is False
    with pytest.raises(ValueError, match="max_length"):
        BeamHypotheses(2, 1.0, "never")


def test_beam_scorer_finds_the_best_path():
    """A loop of one's own over a table of log probabilities; the result is compared with a full search."""
    table = np.log(np.random.default_rng(5).dirichlet(np.ones(5), 5)).astype(np.float32)  # token -> next token; 4 ends
    beams, length = 5, 4
    scorer = BeamSearchScorer(1, beams, length_penalty=0.0, num_beam_hyps_to_keep=2, max_length=length)
    ids, totals = np.zeros((beams, 1), int), np.array([0.0] + [-1e9] * (beams - 1))
    while ids.shape[1] < length and not scorer.is_done:
        flat = (totals[:, None] + table[ids[:, -1]]).reshape(-1)
        best = np.argsort(-flat)[:2 * beams]
        out = scorer.process(ids, flat[best][None], (best % 5)[None], (best // 5)[None], eos_token_id=4)
        ids = np.column_stack([ids[out["next_beam_indices"]], out["next_beam_tokens"]])
        totals = out["next_beam_scores"]
    result = scorer.finalize(ids, totals, length, pad_token_id=9, eos_token_id=4)

    def paths(prefix, total):
        if len(prefix) == length or prefix[-1] == 4:
            yield total, prefix
        else:
            for token in range(5):
                yield from paths([*prefix, token], total + table[prefix[-1], token])

    wanted = sorted(paths([0], 0.0), reverse=True)[:2]
    np.testing.assert_allclose(result["sequence_scores"], [total for total, _ in wanted], rtol=1e-5)
    assert [[token for token in row if token != 9] for row in result["sequences"].tolist()] == [p for _, p in wanted]
    with pytest.raises(UnsupportedError, match="num_beam_groups"):
        BeamSearchScorer(1, 2, num_beam_groups=2)
    with pytest.raises(ValueError, match="greater than 1"):
        BeamSearchScorer(1, 1)


def test_parallel_decoding_is_refused():
    assert parallel_decoding_control(object()) is False
    with pytest.raises(UnsupportedError, match="look-ahead"):
        parallel_decoding_control(type("Config", (), {"parallel_decoding_params": {"parallel_decoding": "la"}}))
