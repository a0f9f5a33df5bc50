"""Greedy runs, beam searches and logits processors equal those of transformers.

The golden files are made by tests/reference/make_generation_goldens.py.
"""
import json
from pathlib import Path

import numpy as np
import pytest

from mindformers.generation import logits_process as lp
from mindformers.generation import logits_rules as rules
from tests.generation.fake_model import FakeModel

FOLDER = Path(__file__).resolve().parents[1] / "reference" / "generation"
RUNS = json.loads((FOLDER / "runs.json").read_text())
PROCESSORS = dict(np.load(FOLDER / "processors.npz"))
CHAINS = dict(np.load(FOLDER / "chains.npz"))


def table_model():
    tables = np.load(FOLDER / "tables.npz")
    return FakeModel(vocab_size=40, tables=(tables["A"], tables["B"], tables["C"]), eos_token_id=tables["eos"].tolist())


def record_id(record):
    return ",".join(f"{name}={value}" for name, value in record["settings"].items())


def run(record, **changes):
    model = table_model()
    out = model.generate(record["prompt"], return_dict_in_generate=True, output_scores=True,
                         **{**record["settings"], **changes})
    assert model.open_caches == 0
    return [sequence.tolist() for sequence in out.sequences], out.sequences_scores


@pytest.mark.parametrize("record", RUNS["greedy"], ids=record_id)
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_equals_transformers(record, use_cache):
    sequences, _ = run(record, use_cache=use_cache)
    assert sequences == record["sequences"]


@pytest.mark.parametrize("record", RUNS["beams"], ids=record_id)
def test_beams_equal_transformers(record):
    sequences, scores = run(record)
    assert sequences == record["sequences"]
    np.testing.assert_allclose(scores, record["scores"], atol=1e-5)


def test_beams_without_cache_equal_transformers():
    for record in RUNS["beams"][::7]:
        assert run(record, use_cache=False)[0] == record["sequences"]


def test_beam_goldens_tell_settings_apart():
    """Negative control: another length penalty or early stopping rule does not give these results."""
    beams = RUNS["beams"][:36:2]
    other_penalty = [run(record, length_penalty=record["settings"]["length_penalty"] + 1.0)[0] != record["sequences"]
                     for record in beams]
    stop = {False: True, True: "never", "never": True}
    other_stop = [run(record, early_stopping=stop[record["settings"]["early_stopping"]])[0] != record["sequences"]
                  for record in beams]
    assert sum(other_penalty) > 6 and sum(other_stop) > 3


INF = -np.inf
MADE = {
    "temperature 0.6": lp.TemperatureLogitsWarper(0.6),
    "top_k 1": lp.TopKLogitsWarper(1, INF), "top_k 7": lp.TopKLogitsWarper(7, INF),
    "top_k 1000": lp.TopKLogitsWarper(1000, INF), "top_k 2 keep 5": lp.TopKLogitsWarper(2, INF, 5),
    **{f"top_p {p}": lp.TopPLogitsWarper(p, INF) for p in (0.0, 0.1, 0.5, 0.9, 0.99)},
    "top_p 0.1 keep 4": lp.TopPLogitsWarper(0.1, INF, 4),
    **{f"min_p {p}": lp.MinPLogitsWarper(p) for p in (0.01, 0.1, 0.5, 1.0)},
    "min_p 0.9 keep 3": lp.MinPLogitsWarper(0.9, INF, 3),
    "repetition 1.3": lp.RepetitionPenaltyLogitsProcessor(1.3),
    "repetition 0.5": lp.RepetitionPenaltyLogitsProcessor(0.5),
    **{f"ngram {n}": rules.NoRepeatNGramLogitsProcessor(n) for n in (1, 2, 3)},
    "bad_words": rules.NoBadWordsLogitsProcessor([[9], [3, 8], [7, 3, 5], [2]], [2]),
    "min_length 13": lp.MinLengthLogitsProcessor(13, [2, 3]),
    "min_length 12": lp.MinLengthLogitsProcessor(12, [2, 3]),
    "min_new 5 after 8": lp.MinNewTokensLengthLogitsProcessor(8, 5, 2),
    "normalize": lp.LogitNormalization(),
}


def test_every_processor_golden_is_compared():
    assert set(MADE) == set(PROCESSORS) - {"versions", "scores", "ids"}


@pytest.mark.parametrize("name", MADE)
def test_processor_equals_transformers(name):
    scores, ids, wanted = PROCESSORS["scores"], PROCESSORS["ids"], PROCESSORS[name]
    before = scores.copy()
    got = MADE[name](ids, scores)
    assert np.array_equal(scores, before), "the argument was changed"
    for row in range(4):
        if name.startswith("top_p") and row == 1:
            # equal scores at the border: which of them is kept is open, how many is not
            assert sorted(got[row]) == pytest.approx(sorted(wanted[row]), abs=1e-5)
        else:
            np.testing.assert_allclose(got[row], wanted[row], rtol=1e-5, atol=1e-5)


def test_top_p_keeps_the_token_that_crosses():
    scores = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    kept = [np.isfinite(lp.TopPLogitsWarper(p, INF)(None, scores)).sum() for p in (0.4, 0.6, 0.81, 0.96, 1.0)]
    assert kept == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("index", range(len(json.loads(str(CHAINS["settings"])))))
def test_chain_of_settings_equals_transformers(index):
    settings = json.loads(str(CHAINS["settings"]))[index]
    out = table_model().generate(CHAINS["prompt"], do_sample=True, seed=1, max_new_tokens=4, output_scores=True,
                                 return_dict_in_generate=True, **settings)
    wanted = CHAINS[str(index)]
    np.testing.assert_allclose(out.scores[0][0], wanted, rtol=1e-5, atol=1e-5)
    assert np.isfinite(wanted).sum() < 40, "the settings filter nothing, so this proves nothing"
