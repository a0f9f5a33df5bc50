"""pipeline(): inputs, batches, seeds, names, and what is refused."""
import importlib

import pytest

from mindformers.pipeline import Pipeline, PipelineRegistry, TextGenerationPipeline, build_pipeline, pipeline
from mindformers.pipeline.registry_constant import PIPELINE_REGISTRY, SUPPORTED_TASKS
from mindformers.tools.errors import ConfigError, UnsupportedError
from tests.generation.fake_model import FakeModel, FakeTokenizer, ScriptModel

TEXTS = ["abc", "x", "some longer text", "é", "abc"]


def make(**kwargs):
    return pipeline("text_generation", model=FakeModel(vocab_size=260, seq_length=128, eos_token_id=[]),
                    tokenizer=FakeTokenizer(), max_new_tokens=6, **kwargs)


def test_one_text():
    answer = pipeline(model=ScriptModel(" world"), tokenizer=FakeTokenizer(), max_new_tokens=30)("hello")
    assert answer == [{"text_generation_text": ["hello world"]}]


def test_options_of_a_call():
    ask = pipeline("text-generation", model=ScriptModel(" world"), tokenizer=FakeTokenizer(), max_new_tokens=30)
    assert ask("hello", return_full_text=False)[0]["text_generation_text"] == [" world"]
    assert ask("hello", skip_special_tokens=False)[0]["text_generation_text"] == ["<s>hello world</s>"]
    assert ask("hello", skip_special_tokens=False, add_special_tokens=False, max_new_tokens=3)[0][
        "text_generation_text"] == ["hello wo"]
    assert len(ask("hello", do_sample=True, num_return_sequences=3)[0]["text_generation_text"]) == 3


@pytest.mark.parametrize("settings", [dict(), dict(do_sample=True, seed=3), dict(num_beams=2)], ids=str)
def test_batch_size_does_not_change_answers(settings):
    answers = [make(**settings)(TEXTS, batch_size=size) for size in (1, 2, 5, 100)]
    assert answers[0] == answers[1] == answers[2] == answers[3] and len(answers[0]) == 5
    assert [answer["text_generation_text"][0][:len(text)] for answer, text in zip(answers[0], TEXTS)] == TEXTS
    if settings.get("do_sample"):
        assert answers[0][0] != answers[0][4], "equal texts draw from streams of their own"
        assert make(**settings)(TEXTS[0])[0] == answers[0][0]


def test_batches_are_really_run_together():
    ask = make(batch_size=5)
    ask(TEXTS)
    together = ask.model.calls
    ask(TEXTS, batch_size=1)
    assert together == 6 and ask.model.calls == together + 5 * 6


def test_iterators_are_read_as_needed():
    read = []

    def texts():
        for text in TEXTS:
            read.append(text)
            yield text

    answers = make()(texts(), batch_size=2)
    first = next(answers)
    assert read == TEXTS[:2] and first["text_generation_text"][0].startswith("abc")
    assert [first, *answers] == make()(TEXTS)


def test_streamer(capsys):
    from mindformers.generation import TextStreamer
    ask = pipeline("text_generation", model=ScriptModel(" world"), tokenizer=FakeTokenizer(), max_new_tokens=30)
    ask("hello", streamer=TextStreamer(FakeTokenizer()))
    assert capsys.readouterr().out == "hello world\n"


def test_failure_leaves_the_pipeline_usable():
    ask = make()
    wanted = ask("abc")
    ask.model.fail_at = ask.model.calls + 2
    with pytest.raises(RuntimeError, match="the device is gone"):
        ask("abc")
    assert ask("abc") == wanted and ask.model.open_caches == 0


@pytest.mark.parametrize("kwargs, error, words", [
    (dict(task="text_generaton", model="x"), KeyError, "Did you mean 'text_generation'"),
    (dict(task="question_answering", model="x"), UnsupportedError, "Tasks with one:.*text_generation"),
    (dict(task="text_generation"), RuntimeError, "needs model="),
    (dict(), RuntimeError, "needs model="),
    (dict(task="text_generation", model=FakeModel(), backend="mindie"), ValueError, "'mindie' is not supported"),
    (dict(task="text_generation", model=FakeModel(), framework="pt"), ValueError, "framework"),
    (dict(task="text_generation", model=FakeModel()), ValueError, "needs a tokenizer"),
    (dict(task="text_generation", model=object(), tokenizer=FakeTokenizer()), ValueError, "generate"),
    (dict(task="text_generation", model=FakeModel(), image_processor=object()), UnsupportedError, "image_processor"),
    (dict(task="text_generation", model=FakeModel(), tokenizer=FakeTokenizer(), max_new_token=3), ConfigError,
     "Did you mean 'max_new_tokens'"),
    (dict(task="text_generation", model=FakeModel(), tokenizer=FakeTokenizer(), top_p=3), ValueError, "top_p"),
    (dict(task="text_generation", model=FakeModel(), tokenizer=FakeTokenizer(), batch_size=0), ValueError,
     "at least 1"),
    (dict(task="text_generation", model=FakeModel(), tokenizer=FakeTokenizer(), batch_size="2"), TypeError, "an int"),
    (dict(task="text_generation", model=FakeModel(), tokenizer=FakeTokenizer(), model_kwargs={"a": 1}), ValueError,
     "model_kwargs"),
])
def test_faulty_calls(kwargs, error, words):
    with pytest.raises(error, match=words):
        pipeline(**kwargs)


def test_faulty_inputs():
    for faulty in (3, ["a", 3], None, [["a"]]):
        with pytest.raises(TypeError, match="takes texts"):
            make()(faulty)
    with pytest.raises(ConfigError, match="streamer"):
        make()("abc", streame=None)
    with pytest.raises(ValueError, match="seq_length=128"):
        make()("a" * 500)
    assert make()([]) == []


def test_names_that_are_not_carried_say_so():
    package = importlib.import_module("mindformers.pipeline")
    with pytest.raises(UnsupportedError, match="MultiModalToTextPipeline.*TextGenerationPipeline"):
        getattr(package, "MultiModalToTextPipeline")
    with pytest.raises(AttributeError, match="TextGenerationPipeline"):
        getattr(package, "TextGeneratinPipeline")
    assert callable(package.pipeline)


def test_tasks_of_ones_own():
    class Shout(TextGenerationPipeline):
        """Answers in capitals."""

        def postprocess(self, model_outputs, **kwargs):
            return [{"text": answer["text_generation_text"][0].upper()}
                    for answer in super().postprocess(model_outputs, **kwargs)]

    PIPELINE_REGISTRY.register_pipeline("shout", Shout, task_type="text")
    try:
        ask = pipeline("shout", model=ScriptModel(" you"), tokenizer=FakeTokenizer(), max_new_tokens=9)
        assert ask("hey") == [{"text": "HEY YOU"}] and "shout" in PIPELINE_REGISTRY.get_supported_tasks()
        with pytest.raises(ValueError, match="without model classes"):
            pipeline("shout", model="some_name", tokenizer=FakeTokenizer())
    finally:
        del SUPPORTED_TASKS["shout"]


def test_registry_and_builder(capsys):
    registry = PipelineRegistry({"a": {"impl": Pipeline, "ms": ()}}, {"b": "a"})
    assert registry.check_task("b")[0] == "a" and registry.get_supported_tasks() == ["a", "b"]
    assert registry.to_dict() == {"a": {"impl": Pipeline, "ms": ()}}
    config = {"type": "text_generation", "model": ScriptModel("!"), "tokenizer": FakeTokenizer()}
    assert isinstance(build_pipeline(config), TextGenerationPipeline)
    assert build_pipeline() is None
    TextGenerationPipeline.show_support_list()
    assert "text_generation" in capsys.readouterr().out


def test_pipeline_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Pipeline(FakeModel())
