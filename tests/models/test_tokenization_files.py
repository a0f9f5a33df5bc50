"""Tokenizers in folders, copied, trained, shared by threads; and a user's own."""
import copy
import json
import pickle
import threading
from pathlib import Path

import pytest

from mindformers.models.llama import LlamaTokenizer, LlamaTokenizerFast
from mindformers.models.tokenization_utils import AddedToken, PreTrainedTokenizer
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import UnsupportedError
from tokenization_helpers import MODEL, ROOT, SLOW, TEXTS, THIRD

# files --------------------------------------------------------------------------------------------------------------

def test_save_and_load(tokenizer, tmp_path):
    tokenizer.add_tokens(["<new>"])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<a>", lstrip=True, normalized=False)]})
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.padding_side, tokenizer.model_max_length = "left", 77
    written = tokenizer.save_pretrained(tmp_path)
    assert all(Path(path).is_file() for path in written)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"} <= names
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab() and loaded.special_tokens_map == tokenizer.special_tokens_map
    assert loaded.added_tokens_decoder == tokenizer.added_tokens_decoder
    assert (loaded.padding_side, loaded.model_max_length, loaded.chat_template) == ("left", 77, tokenizer.chat_template)
    text = "Hello <new>  <a> <s> é"
    assert loaded.encode(text) == tokenizer.encode(text)
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    for name in names:
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_save_leaves_no_stale_files(tokenizer, tmp_path):
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path)
    assert type(tokenizer).from_pretrained(tmp_path).chat_template == {"default": "a", "tool_use": "b"}
    clean = type(tokenizer).from_pretrained(ROOT / "llama3") if tokenizer.vocab_size < 600 else type(tokenizer)(MODEL)
    clean.chat_template = None
    clean.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert len(loaded) == len(clean) and loaded.chat_template is None


def test_yaml_of_mindformers(tmp_path):
    written = SLOW.save_pretrained(tmp_path, save_name="my", file_format="yaml")
    assert str(tmp_path / "my.yaml") in written
    (tmp_path / "tokenizer_config.json").unlink()
    assert LlamaTokenizer.from_pretrained(tmp_path).encode("Hello") == SLOW.encode("Hello")
    assert LlamaTokenizer.from_pretrained(tmp_path / "my.yaml").encode("Hello") == SLOW.encode("Hello")


def test_default_folder_of_saving(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_SAVE_FOLDER", str(tmp_path / "saved"))
    SLOW.save_pretrained()
    assert (tmp_path / "saved" / "tokenizer.model").read_bytes() == Path(MODEL).read_bytes()


def test_layout_of_old_transformers(tmp_path):
    """No added_tokens_decoder: special_tokens_map.json and added_tokens.json say it."""
    (tmp_path / "tokenizer.model").write_bytes(Path(MODEL).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", "eos_token": {
        "__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": True, "rstrip": False,
        "single_word": False}, "unheard_of": {"kept": 1}}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]", "lstrip": False},
                                                                  "additional_special_tokens": ["<extra>"]}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<extra>": SLOW.vocab_size + 1, "[PAD]": SLOW.vocab_size}))
    for kind in (LlamaTokenizer, LlamaTokenizerFast):
        loaded = kind.from_pretrained(tmp_path)
        assert (loaded.pad_token_id, loaded.additional_special_tokens_ids) == (SLOW.vocab_size, [SLOW.vocab_size + 1])
        assert loaded.encode("a<extra>b").count(SLOW.vocab_size + 1) == 1
        loaded.save_pretrained(tmp_path / kind.__name__)
        saved = json.loads((tmp_path / kind.__name__ / "tokenizer_config.json").read_text())
        assert saved["unheard_of"] == {"kept": 1}


def test_template_layouts(tmp_path):
    SLOW.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": [{"name": "default", "template": "A"},
                                                            {"name": "rag", "template": "B"}]}))
    assert LlamaTokenizer.from_pretrained(tmp_path).chat_template == {"default": "A", "rag": "B"}
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "C"}))
    assert LlamaTokenizer.from_pretrained(tmp_path).chat_template == "C"
    (tmp_path / "chat_template.jinja").write_text("D")
    assert LlamaTokenizer.from_pretrained(tmp_path).chat_template == "D"


def test_copies_and_pickles(tokenizer):
    tokenizer.add_tokens(["<new>"])
    for clone in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert clone.encode("a<new>b") == tokenizer.encode("a<new>b")
        clone.add_tokens(["<other>"])
        assert len(clone) == len(tokenizer) + 1


def test_slow_tokenizer_without_its_file_still_saves(tmp_path):
    path = tmp_path / "gone.model"
    path.write_bytes(Path(MODEL).read_bytes())
    tokenizer = LlamaTokenizer(path)
    path.unlink()
    tokenizer.save_pretrained(tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).encode("Hello") == SLOW.encode("Hello")


def test_threads_do_not_share_truncation():
    results = {}

    def work(length):
        results[length] = {len(THIRD.encode(TEXTS[2] * 3, truncation=True, max_length=length)) for _ in range(100)}

    threads = [threading.Thread(target=work, args=(length,)) for length in (5, 9, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {5: {5}, 9: {9}, 13: {13}}


def test_train_new_vocabulary(tmp_path):
    texts = ["the cat sat on the mat", "the dog sat on the log"] * 20
    trained = THIRD.train_new_from_iterator(texts, vocab_size=290, new_special_tokens=["<new>"], show_progress=False,
                                            special_tokens_map={"<|eot_id|>": "<end>"})
    assert 262 < len(trained) <= 290 and type(trained) is PreTrainedTokenizerFast
    assert trained.bos_token == "<|begin_of_text|>" and trained.eos_token == "<end>"
    ids = trained.encode("the cat<end><new>")
    assert ids[0] == trained.bos_token_id and ids[-2:] == trained.convert_tokens_to_ids(["<end>", "<new>"])
    assert len(trained.tokenize("the cat")) < len(THIRD.tokenize("the cat")) and trained.decode(ids[1:]) == \
        "the cat<end><new>"
    trained.save_pretrained(tmp_path)
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path).encode("the cat<new>") == trained.encode("the cat<new>")
    assert THIRD.encode("the cat<end>")[0] != trained.bos_token_id, "the old one stays as it was"
    with pytest.raises(UnsupportedError, match="SentencePieceTrainer"):
        LlamaTokenizerFast(MODEL).train_new_from_iterator(texts, 300)


# a user's own -------------------------------------------------------------------------------------------------------

class Characters(PreTrainedTokenizer):
    """Every character is a token; unknown ones are "?"."""

    vocab_files_names = {}

    def __init__(self, alphabet="?abc ", unk_token="?", **kwargs):
        self.alphabet = alphabet
        super().__init__(alphabet=alphabet, unk_token=unk_token, **kwargs)

    @property
    def vocab_size(self):
        return len(self.alphabet)

    def get_vocab(self):
        return {character: index for index, character in enumerate(self.alphabet)} | self.added_tokens_encoder

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return max(self.alphabet.find(token), 0)

    def _convert_id_to_token(self, index):
        return self.alphabet[index]

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        return ()


def test_a_users_slow_tokenizer(tmp_path):
    tokenizer = Characters(pad_token="<pad>", padding_side="left")
    assert tokenizer("ab<pad>z").input_ids == [1, 2, 5, 0] and len(tokenizer) == 6
    assert tokenizer(["a", "abc"], padding=True).input_ids == [[5, 5, 1], [1, 2, 3]]
    assert tokenizer.decode([1, 2, 5, 3]) == "ab <pad> c"
    assert tokenizer.decode([1, 2, 5, 3], spaces_between_special_tokens=False) == "ab<pad>c"
    assert tokenizer("a b", text_pair="c").input_ids == [1, 4, 2, 3]
    cut = tokenizer("abcabc", truncation=True, max_length=4, stride=1, return_overflowing_tokens=True)
    assert (cut.input_ids, cut.overflowing_tokens, cut.num_truncated_tokens) == ([1, 2, 3, 1], [1, 2, 3], 2)
    tokenizer.save_pretrained(tmp_path)
    assert Characters.from_pretrained(tmp_path, alphabet="?cba ")("ab").input_ids == [3, 2]
    with pytest.raises(UnsupportedError, match="get_vocab"):
        PreTrainedTokenizer(pad_token="x")
