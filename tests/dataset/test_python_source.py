"""The corpus made of Python sources: what is read, how it is cut, and that preparing it twice gives the same bytes."""
import json
import threading

import numpy as np
import pytest

from mindformers.dataset.dataloader import python_source
from mindformers.dataset.dataloader.python_source import (PythonSourceDataLoader, find_source_files, is_table,
                                                          prepare_python_source, split_documents, split_leading_spaces)
from mindformers.dataset.text_encoder import TextEncoder
from mindformers.tools.errors import ConfigError


@pytest.fixture(name="root")
def _root(tmp_path):
    """A small source tree, with everything that is to be left out."""
    root = tmp_path / "lib"
    for index in range(40):
        (root / "pkg").mkdir(parents=True, exist_ok=True)
        (root / "pkg" / f"m{index}.py").write_bytes(f'"""Module {index}."""\r\n\r\ndef f{index}(x):\r\n    return '
                                                    f'x\r\n'.encode())
    for name in ("test/test_a.py", "pkg/tests/b.py", "site-packages/c.py", "encodings/d.py", "_sysconfigdata_x.py",
                 "e.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")
    (root / "table.py").write_text("T = {\n" + "".join(f"    0x{i:02x}: 'u{i}',\n" for i in range(50)) + "}\n")
    return root


def test_find_source_files_leaves_out_tests_tables_and_third_parties(root):
    assert find_source_files(str(root)) == sorted(f"pkg/m{index}.py" for index in range(40))
    assert not is_table("import os\nprint('a')\nx = 1\n")


def test_split_documents_starts_at_top_level_and_loses_nothing():
    body = "    x = 1\n" * 250
    text = (f'"""Doc."""\n\ndef a():\n{body}\n@dec\ndef b():\n{body}\nclass C:\n    def inner(self):\n    {body}\n'
            "async def d(): ...\n")
    parts = split_documents(text)
    assert "".join(parts) == text
    assert [part.split("\n")[0] for part in parts] == ['"""Doc."""', "@dec", "class C:", "async def d(): ..."]
    assert split_documents("x = 1\n") == ["x = 1\n"]


def test_splitting_spaces_keeps_the_text(encoder):
    ids = np.asarray(encoder.encode(["def add(first, second):\n    return first + second\n" * 50])[0])
    split = split_leading_spaces(ids, encoder, 0.3)
    assert len(split) > len(ids)
    assert encoder.decode(split) == encoder.decode(ids)
    assert np.array_equal(split_leading_spaces(ids, encoder, 0.0), ids)


def test_prepared_twice_is_the_same_and_found_again(root, tmp_path, monkeypatch):
    folders = [str(tmp_path / name) for name in ("one", "two")]
    facts = [prepare_python_source(folder, 280, root=str(root)) for folder in folders]
    assert facts[0] == facts[1]
    assert facts[0]["splits"]["train"]["files"] + facts[0]["splits"]["val"]["files"] == 40
    for name in facts[0]["files"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    monkeypatch.setattr(python_source, "find_source_files", lambda *_: pytest.fail("prepared again"))
    assert prepare_python_source(folders[0], 280, root=str(root)) == facts[0]
    with pytest.raises(ConfigError, match="other settings.*vocab_size"):
        prepare_python_source(folders[0], 400)
    (tmp_path / "two" / "train.npy").write_bytes(b"")
    with pytest.raises(ConfigError, match="damaged"):
        prepare_python_source(folders[1], 280)


def test_rows_decode_to_the_sources_and_splits_share_no_file(root, tmp_path, monkeypatch):
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    texts = {}
    for split in ("train", "val"):
        rows = PythonSourceDataLoader(str(tmp_path / "data"), split, seq_length=16, vocab_size=280, shuffle=True)
        from tokenizers import Tokenizer
        encoder = TextEncoder(Tokenizer.from_file(str(tmp_path / "data" / "tokenizer.json")))
        documents = encoder.decode(rows.tokens).split("</s>")[:-1]
        assert all(document.startswith("<s>") and "\r" not in document for document in documents)
        texts[split] = {document.removeprefix("<s>") for document in documents}
    assert not texts["train"] & texts["val"] and len(texts["train"] | texts["val"]) == 40
    assert texts["val"] == {(root / name).read_text() for name in rows.manifest["validation_files"]}
    with pytest.raises(ConfigError, match="split must be"):
        PythonSourceDataLoader(str(tmp_path / "data"), "test", vocab_size=280)


def test_a_given_tokenizer_is_used_and_not_written(root, tmp_path, encoder, monkeypatch):
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    rows = PythonSourceDataLoader(str(tmp_path / "data"), seq_length=16, tokenizer=encoder)
    assert rows.vocab_size == 300 and not (tmp_path / "data" / "tokenizer.json").exists()
    with pytest.raises(ConfigError, match="other settings.*tokenizer"):
        PythonSourceDataLoader(str(tmp_path / "data"), seq_length=16, vocab_size=300)


def test_a_corpus_too_small_for_the_vocabulary(root, tmp_path):
    with pytest.raises(ConfigError, match="give a tokenizer of .* tokens, not the 5000"):
        prepare_python_source(str(tmp_path / "data"), 5000, root=str(root))
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_the_tokenizer_starts_prompts_with_bos_and_keeps_indentation_whole(tokenizer):
    encoding = tokenizer.encode("def f(x):\n    return x")
    assert encoding.ids[0] == 1 and "\u0120" * 4 in encoding.tokens
    assert json.loads(tokenizer.to_str())["model"]["vocab"]["<pad>"] == 3
    digits = tokenizer.encode("x = 1234", add_special_tokens=False).tokens
    assert max(sum(letter.isdigit() for letter in token) for token in digits) == 1


def test_processes_that_start_together_prepare_once(root, tmp_path, monkeypatch):
    calls = []
    real = python_source._prepare
    monkeypatch.setattr(python_source, "_prepare", lambda *args: calls.append(1) or real(*args))
    results = []

    def prepare():
        results.append(prepare_python_source(str(tmp_path / "data"), 280, root=str(root)))

    threads = [threading.Thread(target=prepare) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1] and results[0] == results[1] == results[2]
