"""What a tokenizer refuses: options, texts, arguments, damaged files."""
from pathlib import Path

import pytest

from mindformers.generation.generation_config import GenerationConfig
from mindformers.models.auto.tokenization_auto import AutoTokenizer
from mindformers.models.llama import LlamaProcessor, LlamaTokenizer, LlamaTokenizerFast
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import UnsupportedError
from tokenization_helpers import MODEL, ROOT, SLOW, TEXTS

@pytest.mark.parametrize("options, error, message", [
    ({"max_len": 3}, TypeError, "max_length"),
    ({"padding": "longst"}, ValueError, "longest"),
    ({"truncation": "only_frist"}, ValueError, "only_first"),
    ({"max_length": -1}, ValueError, "at least 1, but got -1"),
    ({"max_length": 1.5}, TypeError, "float"),
    ({"max_length": True}, TypeError, "bool"),
    ({"stride": -1}, ValueError, "stride"),
    ({"pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of"),
    ({"padding_side": "middle"}, ValueError, "left"),
    ({"return_tensors": "pt"}, ValueError, "ms, np"),
    ({"padding": "max_length"}, ValueError, "needs a length"),
    ({"truncation": True, "max_length": 6, "padding": True, "pad_to_multiple_of": 4}, ValueError, "multiple of 4"),
    ({"truncation": "only_second", "max_length": 3}, ValueError, "only_second"),
    ({"truncation": True, "max_length": 3, "stride": 2, "return_overflowing_tokens": True}, ValueError, "stride"),
])
def test_bad_options(tokenizer, options, error, message):
    tokenizer.model_max_length = int(1e30)
    with pytest.raises(error, match=message):
        tokenizer(TEXTS[2], **options)


@pytest.mark.parametrize("text", [3, None, [None], ["a", 3], [["a", "b", "c"]], b"bytes"])
def test_bad_texts(tokenizer, text):
    with pytest.raises((TypeError, ValueError), match="text"):
        tokenizer(text)


def test_bad_calls(tokenizer):
    with pytest.raises(ValueError, match="different length"):
        tokenizer(TEXTS, return_tensors="np")
    with pytest.raises(ValueError, match="-100"):
        tokenizer.decode([1, -100])
    with pytest.raises(TypeError, match="float"):
        tokenizer.decode([1.5])
    with pytest.raises(ValueError, match="no room"):
        tokenizer("x", "y", truncation=True, max_length=1)
    with pytest.raises(ValueError, match="add_special_tokens"):
        tokenizer.pad_token = "<nowhere>"
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.pad_token_id = len(tokenizer)
    with pytest.raises(ValueError, match="pad_token"):
        tokenizer.add_special_tokens({"pad_tokn": "x"})
    with pytest.raises(ValueError, match="list of 1 texts"):
        tokenizer(["a"], ["b", "c"])
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="needs a pad token"):
        tokenizer(TEXTS, padding=True)


def test_bad_arguments():
    with pytest.raises(TypeError, match="padding_side"):
        LlamaTokenizer(MODEL, padding_sid="left")
    with pytest.raises(TypeError, match="tokenizer_file"):
        PreTrainedTokenizerFast(tokenizer_fil="x")
    with pytest.raises(ValueError, match="needs tokenizer_file"):
        PreTrainedTokenizerFast()
    with pytest.raises(UnsupportedError, match="fast"):
        SLOW("x", return_offsets_mapping=True)
    with pytest.raises(TypeError, match="save_directory"):
        SLOW.save_pretrained(3)
    with pytest.raises(ValueError, match="no bos_token"):
        PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "llama3" / "tokenizer.json"), add_bos_token=True)


@pytest.mark.parametrize("content, message", [(b"", "empty"), (b"garbage" * 9, "corrupt"),
                                              (b"IQ== 0\nIg== 1\n", "tiktoken")])
def test_corrupt_sentencepiece(tmp_path, content, message):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    for kind in (LlamaTokenizer, LlamaTokenizerFast):
        with pytest.raises(ValueError, match=message) as caught:
            kind(str(path))
        assert str(path) in str(caught.value)


def test_truncated_files(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(Path(MODEL).read_bytes()[:5000])
    with pytest.raises(ValueError, match=str(path)):
        LlamaTokenizer(path)
    path = tmp_path / "tokenizer.json"
    path.write_text((ROOT / "llama3" / "tokenizer.json").read_text()[:3000])
    with pytest.raises(ValueError, match=str(path)):
        PreTrainedTokenizerFast(tokenizer_file=str(path))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        LlamaTokenizerFast(tmp_path / "none.model")


def test_sides_are_checked_when_they_are_set(tokenizer):
    for name in ("padding_side", "truncation_side"):
        before = getattr(tokenizer, name)
        with pytest.raises(ValueError, match=f"{name} must be 'left' or 'right', but got 'middle'"):
            setattr(tokenizer, name, "middle")
        assert getattr(tokenizer, name) == before
        setattr(tokenizer, name, "left")
        assert getattr(tokenizer, name) == "left"
        with pytest.raises(ValueError, match=name):
            type(tokenizer).from_pretrained(tokenizer.name_or_path or MODEL, **{name: "middle"})


def test_two_names_of_the_same_secret():
    folder = str(ROOT / "llama3")
    for read in (PreTrainedTokenizerFast, AutoTokenizer, LlamaProcessor):
        with pytest.raises(ValueError, match="give only token"):
            read.from_pretrained(folder, token="a", use_auth_token="b")
    assert PreTrainedTokenizerFast.from_pretrained(folder, token="a", use_auth_token=None).vocab_size > 0


def test_saving_onto_a_file_is_one_error(tokenizer, tmp_path):
    (tmp_path / "file").write_text("x")
    for thing in (tokenizer, LlamaProcessor(tokenizer=tokenizer), GenerationConfig()):
        for target in ("file", "file/below"):
            with pytest.raises(NotADirectoryError, match="save_directory .* is a file or lies below one"):
                thing.save_pretrained(str(tmp_path / target))
    assert (tmp_path / "file").read_text() == "x"
