"""Llama against itself: cache and no cache, batch and one by one, padding, embeddings, packed weights, dtypes, modes.

Two ways to the same numbers must agree to 1e-5 of their standard deviation unless a test says otherwise.
"""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindformers import AutoConfig, AutoModelForCausalLM
from model_helpers import ints, logits, steps_with_cache
from tests.graph_mode import graph_mode  # noqa: F401
from tests.reference.goldens import error, folder, golden

TOLERANCE = 1e-5
CASES = ["llama3_rope", *(pytest.param(case, marks=pytest.mark.slow) for case in ("llama2", "tied"))]


def build(case, **fields):
    config = AutoConfig.from_pretrained(folder(case))
    for name, value in fields.items():
        setattr(config, name, value)
    return AutoModelForCausalLM.from_pretrained(folder(case), config=config)


@pytest.fixture(scope="module")
def models():
    return {case: build(case) for case in ("llama2", "llama3_rope", "tied")}


@pytest.mark.parametrize("case", CASES)
def test_cache_equals_no_cache(models, case):
    ids = golden(case)["input_ids"]
    model = models[case]
    expected = logits(model, ids)
    one_by_one = steps_with_cache(model, ids, list(range(1, ids.shape[1])))
    assert error(one_by_one, expected) < TOLERANCE
    cuts = [7, 8, 9, 15]
    ends = [cut - 1 for cut in cuts] + [ids.shape[1] - 1]
    assert error(steps_with_cache(model, ids, cuts), expected[:, ends]) < TOLERANCE
    # control: a cache that lost its first token
    assert error(steps_with_cache(model, ids[:, 1:], [5])[:, -1], expected[:, -1]) > 10 * TOLERANCE


def test_rows_of_different_lengths_share_a_cache(models):
    """Right padded prefill of unequal prompts, then steps in which rows rest, equal each row alone."""
    model, ids = models["llama3_rope"], golden("llama3_rope")["input_ids"]
    expected = logits(model, ids)
    lengths = np.array([12, 5, 9], np.int32)
    with model.make_cache(3, 20) as cache:
        first = model.forward_step(ids[:, :12], lengths, cache)
        assert error(first, np.stack([expected[r, n - 1] for r, n in enumerate(lengths)])) < TOLERANCE
        for step in range(4):
            active = np.array([1, step % 2, 1], np.int32)
            tokens = np.array([[ids[r, cache.lengths[r]]] for r in range(3)], np.int32)
            out = model.forward_step(tokens, active, cache)
            for row in np.flatnonzero(active):
                assert error(out[row], expected[row, cache.lengths[row] - 1]) < TOLERANCE
        assert list(cache.lengths) == [16, 7, 13]


def test_reordered_cache_continues_its_parents(models):
    model, ids = models["llama3_rope"], golden("llama3_rope")["input_ids"]
    expected = logits(model, ids)
    with model.make_cache(3, 20) as cache:
        model.forward_step(ids[:, :9], np.full(3, 9, np.int32), cache)
        cache.reorder(np.array([2, 2, 0]))
        for at in range(9, 12):
            out = model.forward_step(ids[[2, 2, 0], at:at + 1], np.ones(3, np.int32), cache)
            assert error(out, expected[[2, 2, 0], at]) < TOLERANCE


def test_next_logits_equal_the_forward_pass(models):
    model, ids = models["llama3_rope"], golden("llama3_rope")["input_ids"]
    lengths = np.array([20, 3, 11], np.int32)
    expected = np.stack([logits(model, ids)[r, n - 1] for r, n in enumerate(lengths)])
    assert error(model.next_logits(ids, lengths), expected) < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_batch_equals_one_by_one(models, case):
    ids = golden(case)["input_ids"]
    together = logits(models[case], ids)
    for row in range(len(ids)):
        assert error(logits(models[case], ids[row:row + 1])[0], together[row]) < TOLERANCE
    assert error(together[0], together[1]) > 10 * TOLERANCE, "control: the rows must differ"


@pytest.mark.parametrize("case", CASES)
def test_left_padding_equals_right_padding_equals_none(models, case):
    ids = golden(case)["input_ids"][:1, :11]
    mask = np.ones_like(ids)
    plain = logits(models[case], ids)[0]
    for before, after in ((5, 0), (0, 5), (3, 2)):
        pad = ((0, 0), (before, after))
        found = logits(models[case], np.pad(ids, pad), attention_mask=ints(np.pad(mask, pad)))[0]
        assert error(found[before:before + 11], plain) < TOLERANCE


def test_padding_does_not_depend_on_what_the_padding_is(models):
    ids, mask = golden("llama3_rope")["left_input_ids"], golden("llama3_rope")["left_mask"]
    other = np.where(mask == 1, ids, 77)
    a, b = (logits(models["llama3_rope"], x, attention_mask=ints(mask)) for x in (ids, other))
    np.testing.assert_array_equal(a[mask == 1], b[mask == 1])


@pytest.mark.parametrize("case", CASES)
def test_embeddings_in_place_of_ids(models, case):
    ids = golden(case)["input_ids"]
    table = models[case].get_input_embeddings().embedding_weight.asnumpy()
    found = models[case](inputs_embeds=Tensor(table[ids])).logits.asnumpy()
    assert error(found, logits(models[case], ids)) < TOLERANCE


@pytest.mark.parametrize("case", ["biases", pytest.param("llama3_rope", marks=pytest.mark.slow)])
def test_packed_projections_equal_split_ones(case):
    packed = build(case, qkv_concat=True)
    names = [p.name for p in packed.get_parameters()]
    assert any(name.endswith("w_qkv.weight") for name in names) and not any("wq" in name for name in names)
    ids = golden(case)["input_ids"]
    assert error(logits(packed, ids), golden(case)["logits"]) < TOLERANCE
    assert error(steps_with_cache(packed, ids, [13]), golden(case)["logits"][:, [12, 19]]) < TOLERANCE


def test_a_later_token_never_changes_an_earlier_logit(models):
    ids = golden("llama3_rope")["input_ids"].copy()
    before = logits(models["llama3_rope"], ids)
    ids[:, 12] = np.where(ids[:, 12] == 50, 51, 50)
    after = logits(models["llama3_rope"], ids)
    np.testing.assert_array_equal(after[:, :12], before[:, :12])
    assert error(after[:, 12:], before[:, 12:]) > 10 * TOLERANCE


# bounds: weights rounded to 11 and 8 significant bits, through two layers; measured 8.6e-3 and 4.4e-2 of the spread
@pytest.mark.parametrize("dtype, bound", [("float16", 2e-2), pytest.param("bfloat16", 1e-1, marks=pytest.mark.slow)])
def test_half_precision_parameters(dtype, bound):
    model = AutoModelForCausalLM.from_pretrained(folder("llama2"), torch_dtype=dtype)
    assert {str(p.dtype).lower() for p in model.get_parameters()} == {dtype}
    ids, exact = golden("llama2")["input_ids"], golden("llama2")["logits"]
    out = model(ints(ids)).logits
    assert out.dtype == ms.float32
    assert TOLERANCE < error(out.asnumpy(), exact) < bound
    assert error(steps_with_cache(model, ids, [13]), exact[:, [12, 19]]) < bound


def test_stored_bfloat16_stays_bfloat16_and_widens_exactly():
    kept = AutoModelForCausalLM.from_pretrained(folder("bf16"))
    wide = AutoModelForCausalLM.from_pretrained(folder("bf16"), torch_dtype="float32")
    assert all(p.dtype == ms.bfloat16 for p in kept.get_parameters())
    assert all(p.dtype == ms.float32 for p in wide.get_parameters())
    for a, b in zip(kept.get_parameters(), wide.get_parameters()):
        np.testing.assert_array_equal(a.astype(ms.float32).asnumpy(), b.asnumpy())
    assert error(logits(kept, golden("bf16")["input_ids"]), golden("bf16")["logits"]) < 1e-1


@pytest.mark.parametrize("case", ["llama3_rope", pytest.param("biases", marks=pytest.mark.slow)])
def test_pynative_equals_graph(models, case):
    g = golden(case)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    model = build(case)
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE
    found = logits(model, g["left_input_ids"], attention_mask=ints(g["left_mask"]))
    assert error(found[1][g["left_mask"][1] == 1], g["logits"][1, :13]) < TOLERANCE
    assert error(steps_with_cache(model, g["input_ids"], [8, 9]), g["logits"][:, [7, 8, 19]]) < TOLERANCE
    model.set_train()
    loss, grads = ms.value_and_grad(model, None, model.trainable_params())(ints(g["input_ids"]), ints(g["labels"]))
    assert float(loss.asnumpy()) == pytest.approx(float(g["loss"]), rel=1e-5)
    names = [p.name for p in model.trainable_params()]
    found = grads[names.index("model.layers.0.attention.wq.weight")].asnumpy()
    assert error(found, g["grad/model.layers.0.self_attn.q_proj.weight"]) < 1e-4


def test_a_model_that_failed_is_still_usable(models):
    model, g = models["llama3_rope"], golden("llama3_rope")
    with pytest.raises(ValueError, match="vocabulary"):
        model(ints([[5, 9999]]))
    with pytest.raises(TypeError, match="attention_mask"):
        model(ints(g["input_ids"]), attention_maks=None)
    with pytest.raises(ValueError, match="attention_mask"):
        model(ints(g["input_ids"]), attention_mask=ints(np.ones((3, 7))))
    with pytest.raises(ValueError, match="exactly one"):
        model()
    assert error(logits(model, g["input_ids"]), g["logits"]) < TOLERANCE
