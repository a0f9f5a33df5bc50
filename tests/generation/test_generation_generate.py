"""generate(): prompts, limits, batches, returns, failures, and what users pass wrongly."""
import numpy as np
import pytest

from mindformers.generation import BaseStreamer, GenerationConfig, decode_steps
from mindformers.generation.prompts import to_prompts
from mindformers.tools.errors import ConfigError, UnsupportedError
from tests.generation.fake_model import FakeModel, FakeTokenizer, ScriptModel

PROMPTS = [[5, 6, 7], [8, 9], [11, 12, 13, 14, 15], [10]]
WAYS = [dict(), dict(do_sample=True, top_k=0, temperature=1.3), dict(do_sample=True, top_k=9, top_p=0.8, min_p=0.01),
        dict(num_beams=3), dict(num_beams=2, num_return_sequences=2),
        dict(do_sample=True, num_return_sequences=3), dict(repetition_penalty=1.5, frequency_penalty=0.4,
                                                           presence_penalty=0.3, no_repeat_ngram_size=2)]


def tokens(sequences):
    return [sequence.tolist() for sequence in sequences]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_batch_equals_one_by_one(way):
    model = FakeModel()
    seeds = [3, 1, 4, 1]
    batch = model.generate(PROMPTS, max_new_tokens=9, seed=seeds, **way)
    alone = [row for prompt, seed in zip(PROMPTS, seeds)
             for row in model.generate(prompt, max_new_tokens=9, seed=seed, **way)]
    assert tokens(batch) == tokens(alone)
    assert model.open_caches == 0


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_cache_equals_no_cache(way):
    model = FakeModel()
    with_cache = model.generate(PROMPTS, max_new_tokens=9, seed=5, **way)
    run_with = model.tokens_run
    model.tokens_run = 0
    without = model.generate(PROMPTS, max_new_tokens=9, seed=5, use_cache=False, **way)
    assert tokens(with_cache) == tokens(without)
    assert model.tokens_run > 2 * run_with, "the cache saves nothing"


def test_each_token_is_run_once():
    model = FakeModel(eos_token_id=[])
    model.generate([5, 6, 7, 8], max_new_tokens=10)
    assert model.tokens_run == 4 + 9


def test_padding_is_left_out():
    model = FakeModel()
    wanted = tokens(model.generate([[5, 6, 7], [8, 9]], max_new_tokens=6, repetition_penalty=1.5))
    right, left = np.array([[5, 6, 7, 0], [8, 9, 0, 0]]), np.array([[0, 5, 6, 7], [0, 0, 8, 9]], np.int64)
    assert tokens(model.generate(right, max_new_tokens=6, repetition_penalty=1.5)) == wanted
    assert tokens(model.generate(left, max_new_tokens=6, repetition_penalty=1.5)) == wanted
    filler = np.where(left == 0, -100, left)  # under a mask, padding may be anything
    assert tokens(model.generate(filler, attention_mask=left != 0, max_new_tokens=6, repetition_penalty=1.5)) == wanted
    kept = model.generate([[0, 5, 6, 7]], attention_mask=[[1, 1, 1, 1]], max_new_tokens=1)
    assert kept[0][:4].tolist() == [0, 5, 6, 7]


def test_pad_that_is_an_end_token_is_not_stripped_without_a_mask():
    config = GenerationConfig(pad_token_id=2, eos_token_id=2)
    kept = to_prompts([[5, 2, 2], [5, 6, 7]], config=config, vocab_size=50)
    assert tokens(kept) == [[5, 2, 2], [5, 6, 7]]
    masked = to_prompts([[5, 2, 2], [5, 6, 7]], [[1, 0, 0], [1, 1, 1]], config=config, vocab_size=50)
    assert tokens(masked) == [[5], [5, 6, 7]]


def test_empty_prompt_starts_from_the_begin_token():
    model = FakeModel()
    assert model.generate([], max_new_tokens=2)[0][0] == 1
    assert model.generate([[0, 0], [5, 6]], max_new_tokens=2)[0][0] == 1
    with pytest.raises(ValueError, match="prompt 0 is empty.*bos_token_id"):
        FakeModel(bos_token_id=None).generate([], max_new_tokens=2)


class FakeTensor:
    def __init__(self, array):
        self.array = array

    def asnumpy(self):
        return self.array


def test_kinds_of_input_and_output():
    model = FakeModel()
    wanted = [5, 6, *model.generate([5, 6], max_new_tokens=3)[0][2:].tolist()]
    for prompt in ((5, 6), np.array([5, 6], np.int64), np.array([[5, 6]], np.uint8), FakeTensor(np.array([[5, 6]])),
                   [np.int64(5), np.int64(6)], [np.array([5, 6])], [FakeTensor(np.array([5, 6]))]):
        out = model.generate(prompt, max_new_tokens=3)
        assert isinstance(out, list) and out[0].dtype == np.int32 and out[0].tolist() == wanted


@pytest.mark.parametrize("prompt, error, words", [
    ("text", TypeError, "text"), (["a", "b"], TypeError, "text"), ([1.5, 2.0], TypeError, "integers"),
    ([[5, 50]], ValueError, "token id 50, outside the vocabulary"), ([-3], ValueError, "token id -3"),
    (np.zeros((1, 2, 3), int), ValueError, r"shape \[1, 2, 3\]"), (None, ValueError, "required"),
    (np.array([True, False]), TypeError, "integers"),
    ({"input_ids": [5]}, TypeError, r"generate\(\*\*inputs\)")])
def test_faulty_prompts(prompt, error, words):
    with pytest.raises(error, match=words):
        FakeModel().generate(prompt, max_new_tokens=2)


@pytest.mark.parametrize("mask, words", [([[1, 1]], "rows of length 2"), ([[1, 0, 1]], "gap"), ([1, 1], "length")])
def test_faulty_masks(mask, words):
    with pytest.raises(ValueError, match=words):
        FakeModel().generate([[5, 6, 7]], attention_mask=mask, max_new_tokens=2)


def test_lengths():
    model = FakeModel(eos_token_id=[], seq_length=16)
    assert [len(row) for row in model.generate(PROMPTS, max_new_tokens=4)] == [7, 6, 9, 5]
    assert [len(row) for row in model.generate(PROMPTS, max_length=8)] == [8] * 4
    assert [len(row) for row in model.generate(PROMPTS, max_new_tokens=100)] == [16] * 4
    assert [len(row) for row in model.generate(PROMPTS)] == [16] * 4  # the model's own max_decode_length is 32
    assert len(model.generate([5], max_length=9, max_new_tokens=3)[0]) == 4
    base = GenerationConfig(max_new_tokens=3)
    assert len(model.generate([5], base, max_length=9)[0]) == 9, "the call wins over the config"
    assert base.max_new_tokens == 3


@pytest.mark.parametrize("length, settings, words", [
    (17, dict(max_new_tokens=1), "17 tokens is longer than the model's context .seq_length=16"),
    (16, dict(max_new_tokens=1), "16 tokens fills"),
    (8, dict(max_length=8), "max_length set is smaller than the length in the input_ids.*8 tokens"),
    (8, dict(max_length=12, min_new_tokens=5), "stops at 12"),
    (3, dict(max_new_tokens=50, min_new_tokens=20), "stops at 16"),
])
def test_lengths_that_do_not_fit(length, settings, words):
    with pytest.raises(ValueError, match=words):
        FakeModel(seq_length=16).generate([5] * length, **settings)


def test_end_tokens_and_minimum():
    model = FakeModel(eos_token_id=[2, 45])
    assert model.generate([5, 6, 7], max_new_tokens=20)[0][-1] == 45
    longer = model.generate([5, 6, 7], max_new_tokens=20, min_new_tokens=8)[0]
    assert len(longer) > 11 and not {2, 45} & set(longer[:11].tolist())
    assert 45 not in model.generate([5, 6, 7], max_new_tokens=5, eos_token_id=[])[0][-1:]
    out = model.generate([[5, 6, 7], [8, 9]], max_new_tokens=2, return_dict_in_generate=True)
    assert out.finish_reasons == ["eos", "length"]


def test_special_tokens_come_from_the_model_unless_given():
    model = FakeModel(eos_token_id=45)
    assert len(model.generate([5, 6, 7], GenerationConfig(max_new_tokens=9))[0]) == 4
    assert len(model.generate([5, 6, 7], GenerationConfig(max_new_tokens=9, eos_token_id=[]))[0]) == 12


def test_stop_strings():
    model, tokenizer = ScriptModel("one two\nthree 世界 four"), FakeTokenizer()
    prompt = tokenizer.encode("say two:")  # the string in the prompt does not count
    for stop, wanted in (("two", "one two"), (["zzz", "\nth"], "one two\nth"), ("世", "one two\nthree 世")):
        out = model.generate(prompt, max_new_tokens=60, stop_strings=stop, tokenizer=tokenizer)
        assert tokenizer.decode(out[0][len(prompt):]) == wanted
    with pytest.raises(ValueError, match="tokenizer="):
        model.generate(prompt, max_new_tokens=60, stop_strings="two")


def test_stop_strings_end_beams_and_rows_alone():
    model, tokenizer = ScriptModel("ab stop cd"), FakeTokenizer()
    prompt = tokenizer.encode("p")
    out = model.generate(prompt, max_new_tokens=20, num_beams=2, stop_strings="stop", tokenizer=tokenizer)
    assert tokenizer.decode(out[0][1:]) == "ab stop"


def test_criteria_and_time():
    model = FakeModel(eos_token_id=[])
    out = model.generate([5], max_new_tokens=20, stopping_criteria=lambda ids, scores: ids.shape[1] >= 6,
                         return_dict_in_generate=True)
    assert len(out.sequences[0]) == 6 and out.finish_reasons == ["criteria"]
    out = model.generate([5], max_new_tokens=20, max_time=1e-9, return_dict_in_generate=True)
    assert len(out.sequences[0]) == 2 and out.finish_reasons == ["time"]
    with pytest.raises(TypeError, match="callable"):
        model.generate([5], max_new_tokens=2, stopping_criteria=[3])


def test_bad_words_and_suppressed_tokens_do_not_appear():
    model = FakeModel(eos_token_id=[])
    free = model.generate([5, 6, 7], max_new_tokens=20)[0][3:].tolist()
    banned = free[:2]
    out = model.generate([5, 6, 7], max_new_tokens=20, bad_words_ids=[banned], suppress_tokens=free[3])[0].tolist()
    pairs = list(zip(out[3:], out[4:]))
    assert tuple(banned) not in pairs and free[3] not in out[3:] and out[3] == free[0]


def test_processors_as_callables():
    model = FakeModel(eos_token_id=[])
    seen = []

    def only_even(ids, scores):
        seen.append((ids.copy(), scores.shape))
        scores[:, 1::2] = -np.inf  # in place, as many people write it
        return scores

    out = model.generate([[5, 6], [8]], max_new_tokens=3, logits_processor=only_even, return_dict_in_generate=True,
                         output_logits=True, output_scores=True)
    assert all(token % 2 == 0 for row, start in zip(out.sequences, (2, 1)) for token in row[start:])
    assert [ids.tolist() for ids, _ in seen[:2]] == [[[5, 6]], [[8]]] and seen[0][1] == (1, 50)
    assert np.isfinite(out.logits[0]).all() and np.isinf(out.scores[0][:, 1::2]).all()
    for faulty, error in ((lambda i, s: None, TypeError), (lambda i, s: s[:, :3], ValueError), (3, TypeError),
                          (lambda i, s: s * np.nan, ValueError)):
        with pytest.raises(error, match="logits.processor"):
            model.generate([5], max_new_tokens=2, logits_processor=faulty)


def test_a_processor_beside_its_setting_is_refused():
    from mindformers.generation import RepetitionPenaltyLogitsProcessor
    with pytest.raises(ValueError, match="RepetitionPenaltyLogitsProcessor"):
        FakeModel().generate([5], max_new_tokens=2, repetition_penalty=1.2,
                             logits_processor=[RepetitionPenaltyLogitsProcessor(1.3)])


def test_outputs_on_request():
    model = FakeModel(eos_token_id=[])
    out = model.generate([[5, 6], [8]], max_new_tokens=4, return_dict_in_generate=True, output_scores=True,
                         output_logits=True, repetition_penalty=1.5)
    assert len(out.scores) == len(out["logits"]) == 4 and out.scores[0].shape == (2, 50)
    np.testing.assert_array_equal(out.logits[0][0], model.logits_of([5, 6]))
    assert int(out.scores[2][0].argmax()) == out.sequences[0][4]
    plain = model.generate([5], max_new_tokens=4, return_dict_in_generate=True)
    assert plain.scores is None and plain.logits is None and "sequences" in plain
    with pytest.raises(AttributeError, match="no entry"):
        plain.hidden_states
    beams = model.generate([5], max_new_tokens=4, num_beams=3, return_dict_in_generate=True, output_scores=True)
    path, total = beams.beam_indices[0], 0.0
    for step, (row, token) in enumerate(zip(path, beams.sequences[0][1:])):
        total += beams.scores[step][row][token]
    assert total / len(path) == pytest.approx(float(beams.sequences_scores[0]), abs=1e-5)


@pytest.mark.parametrize("kwargs, error, words", [
    (dict(max_new_token=5), ConfigError, "Did you mean 'max_new_tokens'"),
    (dict(atention_mask=[[1]]), ConfigError, "Did you mean 'attention_mask'"),
    (dict(num_beam_groups=2), UnsupportedError, "num_beam_groups"),
    (dict(parallel_decoding=True), UnsupportedError, "parallel_decoding"),
    (dict(generation_config={"top_k": 1}), TypeError, "from_dict"),
    (dict(eos_token_id=99), ValueError, "99, outside the vocabulary"),
    (dict(seed=[1, 2], do_sample=True), ValueError, "2 values for 1 prompts"),
    (dict(seed=-1, do_sample=True), ValueError, "seed"),
    (dict(streamer=3), TypeError, r"must have put\(\) and end\(\)"),
])
def test_faulty_arguments(kwargs, error, words):
    with pytest.raises(error, match=words):
        FakeModel().generate([5], **kwargs)


def test_parallel_decoding_of_the_model_config_is_refused():
    with pytest.raises(UnsupportedError, match="parallel_decoding_params"):
        FakeModel(parallel_decoding_params={"parallel_decoding": "la"}).generate([5])


def test_a_model_that_samples_by_habit_searches_beams_plainly():
    quiet, sampler = FakeModel(), FakeModel(do_sample=True, top_k=5)
    wanted = tokens(quiet.generate([5, 6], max_new_tokens=8, num_beams=3))
    assert tokens(sampler.generate([5, 6], max_new_tokens=8, num_beams=3)) == wanted
    drawn = {tuple(sampler.generate([5, 6], max_new_tokens=8, num_beams=3, do_sample=True, seed=i)[0].tolist())
             for i in range(6)}
    assert len(drawn) > 1


@pytest.mark.parametrize("way", [dict(), dict(num_beams=2), dict(use_cache=False)], ids=str)
def test_failure_leaves_the_model_usable(way):
    wanted = tokens(FakeModel(eos_token_id=[]).generate([5, 6], max_new_tokens=5, **way))
    model = FakeModel(eos_token_id=[], fail_at=2)
    model.training = True
    with pytest.raises(RuntimeError, match="the device is gone"):
        model.generate([5, 6], max_new_tokens=5, **way)
    assert model.open_caches == 0 and model.training is True
    assert tokens(model.generate([5, 6], max_new_tokens=5, **way)) == wanted


def test_interrupt_in_a_streamer_closes_the_cache():
    class Impatient(BaseStreamer):
        ended = False

        def put(self, value):
            if isinstance(value, int):
                raise KeyboardInterrupt

        def end(self):
            self.ended = True

    model, streamer = FakeModel(), Impatient()
    with pytest.raises(KeyboardInterrupt):
        model.generate([5], max_new_tokens=5, streamer=streamer)
    assert model.open_caches == 0 and streamer.ended


def test_nan_logits_are_an_error_unless_removed():
    for way in (dict(), dict(do_sample=True), dict(num_beams=2)):
        with pytest.raises(ValueError, match="NaN for row 0"):
            FakeModel(nan_at=1, eos_token_id=[]).generate([5], max_new_tokens=5, **way)
        out = FakeModel(nan_at=1, eos_token_id=[]).generate([5], max_new_tokens=5, remove_invalid_values=True, **way)
        assert len(out[0]) == 6


@pytest.mark.parametrize("way", [dict(), dict(do_sample=True), dict(num_beams=2)], ids=str)
def test_nothing_left_to_choose_is_an_error(way):
    with pytest.raises(ValueError, match="forbidden"):
        FakeModel().generate([5], max_new_tokens=5, suppress_tokens=list(range(50)), **way)


def test_decode_steps_is_a_generator_of_steps():
    model = FakeModel(eos_token_id=[45])
    steps = decode_steps(model, [[5, 6, 7], [8, 9]], GenerationConfig(max_new_tokens=3, eos_token_id=45))
    assert model.calls == 0, "nothing runs before the first step is asked for"
    first = next(steps)
    assert first.index == 0 and first.tokens.tolist() == [45, model.logits_of([8, 9]).argmax()]
    assert first.finished.tolist() == [True, False] and first.reasons == ["eos", ""] and first.parents is None
    second = next(steps)
    assert second.tokens[0] == -1 and second.tokens[1] >= 0
    assert model.open_caches == 1
    steps.close()
    assert model.open_caches == 0
    with pytest.raises(ValueError, match="vocabulary"):
        decode_steps(model, [99], GenerationConfig())


def test_step_methods_of_mindformers():
    model = FakeModel(eos_token_id=45)
    rows, lengths = np.array([[5, 6, 7, 0], [8, 9, 0, 0]], np.int32), [3, 2]
    logits, positions = model.forward(rows, lengths)
    np.testing.assert_array_equal(logits[1], model.logits_of([8, 9]))
    assert positions.tolist() == [2, 5]
    target, finished = model.infer(rows, lengths, GenerationConfig(max_length=20))
    assert target == [int(row.argmax()) for row in logits] and finished == [True, False]
    target, finished = model.infer(rows, lengths, GenerationConfig(max_length=20), is_finished=[True, False])
    assert target[0] == -1 and finished[0] is True
    drawn = [model.infer(rows, lengths, GenerationConfig(do_sample=True, seed=3))[0] for _ in range(2)]
    assert drawn[0] == drawn[1]
    flat = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(model.process_logits(flat, [1, 5]), flat.reshape(6, 4)[[1, 5]])
    assert [type(p).__name__ for p in model.get_logits_processor(
        GenerationConfig(repetition_penalty=2.0, min_length=3, eos_token_id=2), 1)] == [
            "RepetitionPenaltyLogitsProcessor", "MinLengthLogitsProcessor"]
    assert [type(p).__name__ for p in model.get_logits_warper(GenerationConfig(temperature=0.5, top_p=0.5))] == [
        "TemperatureLogitsWarper", "TopKLogitsWarper", "TopPLogitsWarper"]
    with pytest.raises(UnsupportedError, match="block_tables"):
        model.forward(rows, lengths, block_tables=np.zeros((2, 1)))
    with pytest.raises(UnsupportedError, match="forward_step"):
        model.add_flags_custom(True)
    with pytest.raises(ValueError, match="lengths"):
        model.forward(rows, [3, 9])


def test_chat():
    model, tokenizer = ScriptModel("Hello!"), FakeTokenizer()
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    answer, after = model.chat(tokenizer, "hi", history, instruction="Be kind.", max_new_tokens=20, do_sample=False)
    assert answer == "Hello!" and len(history) == 2
    assert [turn["role"] for turn in after] == ["system", "user", "assistant", "user", "assistant"]
    assert after[0]["content"] == "Be kind." and after[-1]["content"] == "Hello!"
    again, longer = model.chat(tokenizer, "more", after, instruction="Be kind.", max_new_tokens=20, do_sample=False)
    assert len(longer) == 7 and again == "Hello!"
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat_template"):
        model.chat(tokenizer, "hi")
    with pytest.raises(TypeError, match="query"):
        model.chat(tokenizer, ["hi"])
    with pytest.raises(TypeError, match="role and content"):
        model.chat(tokenizer, "hi", history=["x"])
