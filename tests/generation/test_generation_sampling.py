"""Sampling: distributions, seeds, penalties, processors under MindFormers' signatures."""
import numpy as np
import pytest

from mindformers.generation import logits_process as lp
from mindformers.generation.generation_config import GenerationConfig
from mindformers.generation.sampling import _draw_of_many, build_warpers, choose_token, row_generators
from mindformers.generation.utils import log_softmax, softmax, topk
from tests.generation.fake_model import FakeModel, make_tables

DRAWS, BEAM_DRAWS = 2000, 300


def chi_square_bound(degrees, z=3.719):
    """The 0.9999 quantile of the chi-square distribution (Wilson and Hilferty's approximation)."""
    return degrees * (1 - 2 / (9 * degrees) + z * (2 / (9 * degrees)) ** 0.5) ** 3


def chi_square(counts, probabilities):
    """Statistic and degrees of freedom; cells that expect fewer than 5 draws are merged."""
    expected = probabilities * counts.sum()
    big = expected >= 5
    observed = np.append(counts[big], counts[~big].sum())
    wanted = np.append(expected[big], expected[~big].sum())
    keep = wanted > 0
    assert observed[~keep].sum() == 0, "drew what has no probability"
    return float(((observed[keep] - wanted[keep]) ** 2 / wanted[keep]).sum()), int(keep.sum()) - 1


def drawn_counts(**settings):
    """First tokens of many rows after one prompt, drawn by generate()."""
    model = FakeModel(eos_token_id=[], tables=make_tables(scale=0.8))
    out = model.generate([5, 6, 7], max_new_tokens=1, do_sample=True, seed=17, num_return_sequences=DRAWS, **settings)
    return np.bincount([row[3] for row in out], minlength=50), model.logits_of([5, 6, 7]).astype(np.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_softmax(temperature):
    counts, logits = drawn_counts(temperature=temperature, top_k=0)
    statistic, degrees = chi_square(counts, softmax(logits / temperature).astype(np.float64))
    assert statistic < chi_square_bound(degrees)
    # negative control: the distribution of another temperature does not fit
    other, degrees = chi_square(counts, softmax(logits / (temperature * 1.5)).astype(np.float64))
    assert other > 2 * chi_square_bound(degrees)


@pytest.mark.parametrize("settings", [dict(top_k=8), dict(top_k=0, top_p=0.7), dict(top_k=0, min_p=0.2),
                                      dict(top_k=20, top_p=0.9, min_p=0.05, temperature=1.4)], ids=str)
def test_draws_follow_the_filtered_softmax(settings):
    counts, logits = drawn_counts(**settings)
    probabilities = softmax(logits / settings.get("temperature", 1.0)).astype(np.float64)
    order = np.argsort(-probabilities)
    kept = order[:settings["top_k"]] if settings["top_k"] else order
    share = probabilities[kept] / probabilities[kept].sum()
    before = np.cumsum(share) - share
    kept = kept[before < settings.get("top_p", 1.0)]
    kept = kept[probabilities[kept] >= settings.get("min_p", 0.0) * probabilities[order[0]]]
    wanted = np.zeros(50)
    wanted[kept] = probabilities[kept] / probabilities[kept].sum()
    assert 3 < len(kept) < 45
    statistic, degrees = chi_square(counts, wanted)
    assert statistic < chi_square_bound(degrees)


def test_beam_draws_are_without_replacement_and_follow_the_softmax():
    model = FakeModel(eos_token_id=[], tables=make_tables(scale=0.8))
    counts = np.zeros(50)
    for seed in range(BEAM_DRAWS):
        out = model.generate([5, 6, 7], max_new_tokens=1, do_sample=True, num_beams=2, num_return_sequences=2, top_k=0,
                             seed=seed, return_dict_in_generate=True, output_scores=True)
        first, second = (row[3] for row in out.sequences)
        assert first != second and out.sequences_scores[0] >= out.sequences_scores[1]
        counts[[first, second]] += 1
    p = softmax(model.logits_of([5, 6, 7]).astype(np.float64)).astype(np.float64)
    wanted = p * (1 + (p / (1 - p)).sum() - p / (1 - p))  # chance of being first or second
    error = np.abs(counts / BEAM_DRAWS - wanted)
    assert (error < 4.5 * np.sqrt(wanted * (1 - wanted) / BEAM_DRAWS) + 1e-3).all()


def test_seeds_repeat_runs_and_leave_numpy_alone():
    model = FakeModel()
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    pair, settings = [[5, 6], [5, 6]], dict(max_new_tokens=12, do_sample=True, top_k=0)
    runs = [[row.tolist() for row in model.generate(pair, **settings, **seed)]
            for seed in (dict(seed=4), dict(seed=4), dict(seed=5), dict(), dict(), dict(seed=[4, 4]))]
    assert runs[0] == runs[1] != runs[2] and runs[3] != runs[4]
    assert runs[0][0] != runs[0][1], "rows of an int seed have streams of their own"
    assert runs[5][0] == runs[5][1] == runs[0][0]
    assert np.array_equal(before, np.random.get_state()[1])
    config = GenerationConfig(max_new_tokens=12, do_sample=True, top_k=0, seed=4)
    assert [row.tolist() for row in model.generate([[5, 6], [5, 6]], config)] == runs[0]


def test_a_row_does_not_change_with_its_neighbours():
    model = FakeModel(eos_token_id=[])
    alone = model.generate([[8, 9]], max_new_tokens=10, do_sample=True, seed=[7])[0].tolist()
    among = model.generate([[5, 6, 7, 4], [8, 9], [3]], max_new_tokens=10, do_sample=True, seed=[1, 7, 2])[1].tolist()
    assert alone == among


def test_penalties_count_prompt_and_answer():
    model = FakeModel(eos_token_id=[])
    raw = model.logits_of([5, 6, 5])
    settings = dict(max_new_tokens=1, return_dict_in_generate=True, output_scores=True)
    scores = model.generate([5, 6, 5], frequency_penalty=0.5, presence_penalty=0.25, **settings).scores[0][0]
    wanted = raw.copy()
    wanted[5] -= 2 * 0.5 + 0.25
    wanted[6] -= 0.5 + 0.25
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    later = model.generate([5], frequency_penalty=0.5, **{**settings, "max_new_tokens": 3})
    token = later.sequences[0][1]
    assert later.scores[1][0][token] == pytest.approx(model.logits_of([5, token])[token] - 0.5, abs=1e-5)


def test_processors_take_given_counts_and_masks():
    scores = np.zeros((2, 4), np.float32)
    counts, mask = np.array([[0, 1, 2, 0], [3, 0, 0, 0]]), np.array([[0, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(lp.FrequencyPenaltyLogitsProcessor(0.5, counts)(None, scores), -0.5 * counts)
    np.testing.assert_allclose(lp.PresencePenaltyLogitsProcessor(0.5, mask)(None, scores), -0.5 * mask)
    ids = np.array([[1, 2, 2], [0, 0, 0]])
    np.testing.assert_allclose(lp.FrequencyPenaltyLogitsProcessor(0.5)(ids, scores), -0.5 * counts)
    np.testing.assert_allclose(lp.PresencePenaltyLogitsProcessor(0.5)(ids, scores), -0.5 * mask)


@pytest.mark.parametrize("make, words", [
    (lambda: lp.TemperatureLogitsWarper(), "`temperature` is required, but is None"),
    (lambda: lp.TemperatureLogitsWarper(0), "`temperature` is required to be more than 0, but is 0"),
    (lambda: lp.RepetitionPenaltyLogitsProcessor(-1), "more than 0, but is -1"),
    (lambda: lp.TopKLogitsWarper(0), "`top_k` is required to be more than 0"),
    (lambda: lp.TopKLogitsWarper(1.5), "an int"),
    (lambda: lp.TopPLogitsWarper(1.1), "less than or equal to 1, but is 1.1"),
    (lambda: lp.MinPLogitsWarper(-0.1), "more than or equal to 0"),
    (lambda: lp.MinLengthLogitsProcessor(3, None), "`eos_token_id` is required"),
    (lambda: lp.MinLengthLogitsProcessor(3, [-1]), "non-negative ints"),
])
def test_processor_arguments_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_filter_value_and_list():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0]], np.float32)
    kept = lp.LogitsProcessorList([lp.TopKLogitsWarper(2), lp.TemperatureLogitsWarper(2.0)])
    np.testing.assert_allclose(kept(None, scores), [[1.5, -25000, 1.0], [-25000, 1.5, 1.0]])
    np.testing.assert_allclose(kept(None, scores, is_finished=[False, True])[1], scores[1])
    changed = scores.copy()
    kept.process(1, np.zeros((2, 1), int), changed)
    np.testing.assert_allclose(changed, [[3.0, 1.0, 2.0], [-25000, 1.5, 1.0]])


def test_min_length_counts_without_padding():
    ids = np.array([[5, 6, 0, 0], [0, 5, 6, 7]])
    out = lp.MinLengthLogitsProcessor(3, [1, 2], pad_token_id=0)(ids, np.zeros((2, 4), np.float32))
    assert np.isinf(out[0, 1:3]).all() and np.isfinite(out[1]).all()


def test_choosing_processors():
    scores = np.log(np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], np.float32))
    logits, tokens = lp.GreedySearchLogitsProcessor()(None, scores)
    assert tokens.tolist() == [1, 0] and logits.shape == (2, 3)
    many = np.repeat(scores[:1], 3000, axis=0)
    _, drawn = lp.SamplingLogitsProcessor(True, np.arange(3000))(None, many)
    statistic, degrees = chi_square(np.bincount(drawn, minlength=3), np.array([0.1, 0.6, 0.3]))
    assert statistic < chi_square_bound(degrees)
    again = lp.SamplingLogitsProcessor(np.array([False, True]), [3, 4])(None, scores)[1]
    assert again[0] == 1 and again[1] == lp.SamplingLogitsProcessor(True, [4])(None, scores[1:])[1][0]


def test_top_p_of_one_keeps_every_token():
    """Also tokens so unlikely that the running sum of float32 has reached 1 before them."""
    row = np.concatenate([np.zeros(8), np.full(4000, -30.0)]).astype(np.float32)
    assert np.cumsum(np.sort(softmax(row))[::-1], dtype=np.float32)[7] == 1.0  # an inclusive sum would cut off the rest
    assert np.array_equal(lp.TopPLogitsWarper(1.0)(None, row[None])[0], row)
    below = lp.TopPLogitsWarper(np.nextafter(1.0, 0.0) - 1e-6)(None, row[None])[0]
    assert (below == -50000).sum() > 1000  # just below 1 is a cut
    settings = dict(max_new_tokens=20, do_sample=True, top_k=0, seed=3)
    free, whole = (FakeModel(eos_token_id=[]).generate([5, 6], **settings, **more) for more in ({}, {"top_p": 1.0}))
    assert np.array_equal(free[0], whole[0])
    assert not build_warpers(GenerationConfig(do_sample=True, top_k=0, top_p=1.0))
    assert len(build_warpers(GenerationConfig(do_sample=True, top_k=0, top_p=0.99))) == 1


def test_draw_stays_inside_whatever_the_rounding():
    weights = np.array([0.3, 0.0, 0.7, 0.0])
    assert lp.draw(weights, [0.0, 0.29999, 0.30001, np.nextafter(1.0, 0.0), 1.0]).tolist() == [0, 0, 2, 2, 2]


def test_nucleus_is_right_however_many_candidates_it_needs():
    generator = np.random.default_rng(0)
    for spread in (0.01, 0.5, 3.0):
        scores = generator.normal(0, spread, (1, 20000)).astype(np.float32)
        p = softmax(scores)[0].astype(np.float64)
        for top_p in (0.05, 0.5, 0.95):
            kept = np.isfinite(lp.TopPLogitsWarper(top_p, -np.inf)(None, scores)[0])
            assert p[kept].sum() >= top_p - 1e-6 and p[kept].sum() - p[kept].min() < top_p + 1e-6
            assert p[kept].min() >= p[~kept].max()


def test_streams_of_rows():
    with pytest.raises(ValueError, match="2 values for 3 prompts"):
        row_generators([1, 2], 3, 1)
    streams = [generator.random() for generator in row_generators(1, 2, 2)]
    assert len(set(streams)) == 4
    scores = np.array([-np.inf, 0.0, -np.inf], np.float32)
    assert choose_token(scores, row_generators(1, 1, 1)[0], 0) == 1


def test_array_helpers():
    x = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    np.testing.assert_allclose(softmax(x).sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_softmax(x)), softmax(x), rtol=1e-5)
    for largest in (True, False):
        values, indices = topk(x, 5, largest=largest)
        order = np.argsort(-x if largest else x, axis=1)[:, :5]
        assert (indices == order).all() and (values == np.take_along_axis(x, order, 1)).all()
    with pytest.raises(ValueError, match="top_k"):
        topk(x, 41)


def test_a_draw_of_many_is_the_draw():
    """By blocks, and by the running sum of all: the same index, but where rounding decides between neighbours."""
    generator = np.random.default_rng(5)
    for size in (1, 127, 128, 5000, 32000):
        weights = np.exp(generator.normal(size=size) * 3).astype(np.float32)
        weights[generator.random(size) < 0.3] = 0.0
        weights[-1] = 1.0
        uniforms = [0.0, np.nextafter(1.0, 0.0), *generator.random(200)]
        found, wanted = [_draw_of_many(weights, uniform) for uniform in uniforms], lp.draw(weights, uniforms)
        assert all(weights[index] > 0 for index in found) and np.abs(found - wanted).max() <= size * 1e-3
        assert (np.array(found) == wanted).mean() > 0.98
    weights[::2] = 0
    assert (np.array([_draw_of_many(weights, uniform) for uniform in uniforms]) % 2 == 1).all()


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1.0, 6.0])
def test_nucleus_of_a_whole_vocabulary(spread):
    """As a sort of everything tells, for flat and for sharp distributions, and where all scores are equal."""
    scores = (np.random.default_rng(8).normal(size=32000) * spread).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    weights = np.exp(scores[order].astype(np.float64) - scores.max())
    for top_p in (0.05, 0.5, 0.95, 0.9999):
        count = int(np.searchsorted(np.cumsum(weights), top_p * weights.sum())) + 1
        kept = np.flatnonzero(np.isfinite(lp.TopPLogitsWarper(top_p, -np.inf)(None, scores[None])[0]))
        assert abs(len(kept) - count) <= 1 + 1e-4 * count  # the border moves by rounding
        assert len(np.setxor1d(kept, order[:count])) <= 2 + 2e-4 * count
