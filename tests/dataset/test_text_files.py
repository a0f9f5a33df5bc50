"""Text files and records to packed rows: content, cache, and every wrong input."""
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mindformers.dataset.causal_language_model_dataset import CausalLanguageModelDataset
from mindformers.dataset.dataloader import text_files
from mindformers.dataset.dataloader.text_files import TextFilesDataLoader, TrainingDataLoader
from mindformers.dataset.text_encoder import TextEncoder, build_text_encoder
from mindformers.tools.errors import ConfigError, UnsupportedError

DOCUMENTS = ["def f():\n    return 1\n", "é 漢字 </s> is text here\n", "x = 10  # <s>\n" * 9]


@pytest.fixture(name="folder")
def _folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, document in enumerate(DOCUMENTS):
        (folder / f"{index}.txt").write_bytes(document.replace("\n", "\r\n").encode())
    return folder


def stream_of(rows):
    """The targets of all rows, in order, after the first token."""
    labels = np.concatenate([rows[index]["labels"][1:] for index in range(len(rows))])
    return [int(rows[0]["input_ids"][0]), *labels[labels != -100].tolist()]


def test_documents_come_back_whole(folder, tmp_path, encoder):
    rows = TextFilesDataLoader(folder, tokenizer=encoder, seq_length=16, cache_dir=tmp_path / "cache")
    stream = stream_of(rows)
    ends = [index + 1 for index, token in enumerate(stream) if token == encoder.eos_token_id]
    parts = np.split(stream, ends)[:-1]
    assert [encoder.decode(part[1:-1]) for part in parts] == DOCUMENTS
    assert all(part[0] == encoder.bos_token_id for part in parts)
    assert rows[0]["input_ids"].shape == (17,) and rows[0]["input_ids"].dtype == np.int32


@settings(max_examples=30, deadline=None)
@given(text=st.text(min_size=1))
def test_any_text_is_encoded_without_loss(encoder, text):
    assert encoder.decode(encoder.encode([text])[0]) == text


@pytest.mark.parametrize("file_format", ["jsonl", "json", "csv", "tsv"])
def test_record_files_give_the_same_tokens_as_text_files(folder, tmp_path, encoder, file_format):
    path = tmp_path / f"docs.{file_format}"
    if file_format == "jsonl":
        path.write_text("\n\n".join(json.dumps({"id": 1, "body": text}) for text in DOCUMENTS), encoding="utf-8")
    elif file_format == "json":
        path.write_text(json.dumps([{"body": text} for text in DOCUMENTS]), encoding="utf-8")
    else:
        import csv
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if file_format == "csv" else "\t")
            writer.writerows([["body"], *([text] for text in DOCUMENTS)])
    cache = tmp_path / "cache"
    records = TextFilesDataLoader(path, tokenizer=encoder, seq_length=16, text_col="body", cache_dir=cache)
    texts = TextFilesDataLoader(folder, tokenizer=encoder, seq_length=16, cache_dir=cache)
    assert stream_of(records) == stream_of(texts)


def test_second_run_reads_the_cache_and_a_changed_file_does_not(folder, tmp_path, encoder, monkeypatch):
    options = {"tokenizer": encoder, "seq_length": 16, "cache_dir": tmp_path / "cache"}
    before = stream_of(TextFilesDataLoader(folder, **options))
    calls = []
    real = text_files.tokenize_documents
    monkeypatch.setattr(text_files, "tokenize_documents", lambda *args: calls.append(1) or real(*args))
    assert stream_of(TextFilesDataLoader(folder, **options)) == before and not calls
    (folder / "0.txt").write_text("changed\n")
    assert stream_of(TextFilesDataLoader(folder, **options)) != before and calls == [1]
    TextFilesDataLoader(folder, **{**options, "tokenizer": TextEncoder(encoder.tokenizer, bos_token_id=0)})
    assert calls == [1, 1]


@pytest.mark.parametrize("damage", ["cut", "flip", "remove", "manifest"])
def test_damaged_cache_is_refused(folder, tmp_path, encoder, damage):
    options = {"tokenizer": encoder, "seq_length": 16, "cache_dir": tmp_path / "cache"}
    TextFilesDataLoader(folder, **options)
    (path,) = (tmp_path / "cache").glob("*/tokens.npy")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-4])
    elif damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "remove":
        path.unlink()
    else:
        (path.parent / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged|missing") as error:
        TextFilesDataLoader(folder, **options)
    assert "delete the folder" in str(error.value)


def test_a_crash_while_writing_leaves_no_cache(folder, tmp_path, encoder, monkeypatch):
    options = {"tokenizer": encoder, "seq_length": 16, "cache_dir": tmp_path / "cache"}

    def full_disk(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            TextFilesDataLoader(folder, **options)
    assert not list((tmp_path / "cache").glob("*/*.npy")) and not list((tmp_path / "cache").glob("*/manifest.json"))
    assert len(TextFilesDataLoader(folder, **options))


def test_training_data_loader_takes_and_skips(folder, tmp_path, encoder, monkeypatch):
    monkeypatch.setenv("LOCAL_DEFAULT_PATH", str(tmp_path / "out"))
    full = TrainingDataLoader(str(folder), ["input_ids", "labels"], encoder, max_length=9)
    part = TrainingDataLoader(str(folder), ["input_ids", "labels"], encoder, max_length=9, samples_num=3, skip_num=2)
    assert len(part) == 3
    assert np.array_equal(part[1]["input_ids"], full[3]["input_ids"])
    with pytest.raises(UnsupportedError, match="is_align"):
        TrainingDataLoader(str(folder), tokenizer=encoder, is_align=False)
    assert os.path.isdir(tmp_path / "out" / "dataset_cache")


def test_read_function_gives_the_documents(tmp_path, encoder):
    (tmp_path / "a.xyz").write_text("one|two")
    rows = TextFilesDataLoader(tmp_path / "a.xyz", tokenizer=encoder, seq_length=4, cache_dir=tmp_path / "cache",
                               read_function=split_at_bars)
    stream = stream_of(rows)
    assert stream.count(encoder.bos_token_id) == 2 and encoder.decode(stream) == "<s>one</s><s>two</s>"


def split_at_bars(path):
    """A user's reader."""
    return path and open(path, encoding="utf-8").read().split("|")


def test_wrong_inputs_name_the_place(tmp_path, encoder):
    def load(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        defaults = {"tokenizer": encoder, "seq_length": 4, "cache_dir": tmp_path / "cache"}
        return TextFilesDataLoader(path, **{**defaults, **options})

    with pytest.raises(ConfigError, match=r"bad\.jsonl:3: not valid JSON"):
        load("bad.jsonl", '{"text": "a"}\n\n{"text": \n')
    with pytest.raises(ConfigError, match=r"list\.jsonl:1: expected a JSON object, but got list"):
        load("list.jsonl", "[1]\n")
    with pytest.raises(ConfigError, match=r"nocol\.jsonl:1: no text column 'text'; the columns are \['body'\]; set "
                                          r"text_col"):
        load("nocol.jsonl", '{"body": "a"}\n')
    with pytest.raises(ConfigError, match=r"num\.jsonl:1: column 'text' must be text, but is int"):
        load("num.jsonl", '{"text": 1}\n')
    with pytest.raises(ConfigError, match=r"lines\.json:2: not valid JSON.*file_format: jsonl"):
        load("lines.json", '{"text": "a"}\n{"text": "b"}')
    with pytest.raises(ConfigError, match="latin.txt is not UTF-8"):
        load("latin.txt", b"caf\xe9")
    with pytest.raises(ConfigError, match="no text"):
        load("empty.txt", "")
    with pytest.raises(UnsupportedError, match="jsonl"):
        load("rows.parquet", "x")
    with pytest.raises(ConfigError, match="max_length"):
        load("a.txt", "abc", max_length=4)
    with pytest.raises(ConfigError, match="column"):
        load("a.txt", "abc", column_names=["input_ids", "attention_mask"])
    with pytest.raises(ConfigError, match="text needs a tokenizer"):
        load("a.txt", "abc", tokenizer=None)


def test_missing_paths(tmp_path, encoder):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TextFilesDataLoader(tmp_path / "nowhere", tokenizer=encoder)
    with pytest.raises(FileNotFoundError, match="has no .jsonl files"):
        TextFilesDataLoader(tmp_path, tokenizer=encoder, file_format="jsonl")
    with pytest.raises(FileNotFoundError, match="a.txt"):
        TextFilesDataLoader(dataset_files=[str(tmp_path / "a.txt")], tokenizer=encoder)
    with pytest.raises(ValueError, match="dataset_dir or dataset_files"):
        TextFilesDataLoader(tokenizer=encoder)
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        build_text_encoder(str(tmp_path))


def test_tokenizer_larger_than_the_model(folder, tmp_path, tokenizer_file):
    loader = {"type": "TextFilesDataLoader", "dataset_dir": str(folder), "tokenizer": tokenizer_file, "seq_length": 8,
              "cache_dir": str(tmp_path / "cache")}
    dataset = CausalLanguageModelDataset(data_loader=loader, batch_size=2)
    dataset.check(seq_length=8, vocab_size=300)
    with pytest.raises(ConfigError, match="up to 299, the model a vocab_size of 280"):
        dataset.check(vocab_size=280)
    with pytest.raises(ConfigError, match=r"9 tokens, shorter than the model's seq_length \+ 1 = 17"):
        dataset.check(seq_length=16)
    with pytest.raises(ConfigError, match=r"9 tokens, longer than the model's seq_length \+ 1 = 5"):
        dataset.check(seq_length=4)


def test_special_tokens_in_a_text_stay_text_with_every_kind_of_tokenizer(tokenizer_file, encoder):
    from mindformers.models.llama.llama_tokenizer_fast import LlamaTokenizerFast
    wrapped = TextEncoder(LlamaTokenizerFast(tokenizer_file=tokenizer_file, pad_token="<pad>"))
    assert wrapped.encode(DOCUMENTS) == encoder.encode(DOCUMENTS)
    assert 2 not in sum(wrapped.encode(DOCUMENTS), [])
    assert (wrapped.bos_token_id, wrapped.eos_token_id, wrapped.pad_token_id, wrapped.vocab_size) == (1, 2, 3, 300)
    assert wrapped.decode(wrapped.encode([DOCUMENTS[1]])[0]) == DOCUMENTS[1]
    assert wrapped.fingerprint() != TextEncoder(wrapped.tokenizer, eos_token_id=0).fingerprint()
