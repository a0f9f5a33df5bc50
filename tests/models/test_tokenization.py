"""The tokenizer interface: options, special tokens, decoding, files, errors."""
import copy
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindformers.models.llama import LlamaTokenizer, LlamaTokenizerFast
from mindformers.models.tokenization_utils import AddedToken, PreTrainedTokenizer, Trie
from mindformers.models.tokenization_utils_base import BatchEncoding
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import UnsupportedError

ROOT = Path(__file__).resolve().parents[1] / "reference" / "tokenizers"
MODEL = str(ROOT / "llama2" / "tokenizer.model")
SLOW, PLAIN = LlamaTokenizer(MODEL), LlamaTokenizer(MODEL, legacy=False)
THIRD = PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3")
TEXTS = ["Hello world", "x", "a longer text that is cut somewhere"]


@pytest.fixture(params=["slow", "fast", "llama3"])
def tokenizer(request):
    """Each kind, fresh, with a pad token."""
    made = {"slow": lambda: LlamaTokenizer(MODEL), "fast": lambda: LlamaTokenizerFast(MODEL),
            "llama3": lambda: PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3")}[request.param]()
    made.pad_token = made.eos_token
    return made


# encoding -----------------------------------------------------------------------------------------------------------

def test_entry_points_agree(tokenizer):
    ids = tokenizer.encode(TEXTS[0])
    assert tokenizer(TEXTS[0]).input_ids == ids == tokenizer.encode_plus(TEXTS[0])["input_ids"]
    assert tokenizer([TEXTS[0]])["input_ids"] == [ids] == tokenizer.batch_encode_plus([TEXTS[0]])["input_ids"]
    bare = tokenizer.encode(TEXTS[0], add_special_tokens=False)
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(TEXTS[0])) == bare
    assert tokenizer.build_inputs_with_special_tokens(bare) == ids
    assert tokenizer.encode(bare) == ids == tokenizer.prepare_for_model(bare).input_ids  # a list of ids is a text too
    assert tokenizer.encode(tokenizer.tokenize(TEXTS[0])) == ids                         # and a list of tokens
    assert tokenizer.batch_encode_plus([bare, bare[:1]], padding=True).input_ids[0] == ids
    assert len(ids) - len(bare) == tokenizer.num_special_tokens_to_add() == 1
    assert tokenizer.convert_ids_to_tokens(ids)[1:] == tokenizer.tokenize(TEXTS[0])
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize(TEXTS[0])) == TEXTS[0]


def test_pairs(tokenizer):
    pair = tokenizer(TEXTS[0], TEXTS[1], return_token_type_ids=True)
    one, two = (tokenizer.encode(text, add_special_tokens=False) for text in TEXTS[:2])
    assert pair.input_ids == tokenizer.build_inputs_with_special_tokens(one, two)
    assert pair.token_type_ids == tokenizer.create_token_type_ids_from_sequences(one, two)
    assert tokenizer([(TEXTS[0], TEXTS[1])]).input_ids == [pair.input_ids]
    assert tokenizer([TEXTS[0]], [TEXTS[1]]).input_ids == [pair.input_ids]
    assert tokenizer.tokenize(TEXTS[0], pair=TEXTS[1], add_special_tokens=True) == \
        tokenizer.convert_ids_to_tokens(pair.input_ids)


def test_special_tokens_mask(tokenizer):
    encoded = tokenizer(TEXTS[0], return_special_tokens_mask=True)
    assert encoded.special_tokens_mask == [1] + [0] * (len(encoded.input_ids) - 1)
    assert tokenizer.get_special_tokens_mask(encoded.input_ids, already_has_special_tokens=True) == \
        encoded.special_tokens_mask == tokenizer.get_special_tokens_mask(encoded.input_ids[1:])


def test_padding_sides_and_lengths(tokenizer):
    lengths = [len(tokenizer.encode(text)) for text in TEXTS]
    for side in ("left", "right"):
        encoded = tokenizer(TEXTS, padding=True, padding_side=side, return_tensors="np")
        assert encoded.input_ids.shape == (3, max(lengths)) and encoded.input_ids.dtype == np.int64
        assert encoded.attention_mask.sum(1).tolist() == lengths
        assert encoded.attention_mask[1][0 if side == "right" else -1] == 1
        padded = encoded.input_ids[encoded.attention_mask == 0]
        assert set(padded.tolist()) == {tokenizer.pad_token_id}
    assert {len(row) for row in tokenizer(TEXTS, padding="max_length", max_length=30)["input_ids"]} == {30}
    assert {len(row) for row in tokenizer(TEXTS, padding=True, pad_to_multiple_of=32)["input_ids"]} == {32}
    assert [len(row) for row in tokenizer(TEXTS)["input_ids"]] == lengths


def test_truncation_sides(tokenizer):
    ids = tokenizer.encode(TEXTS[2], add_special_tokens=False)
    assert tokenizer.encode(TEXTS[2], truncation=True, max_length=5) == tokenizer.encode(ids[:4])
    tokenizer.truncation_side = "left"
    assert tokenizer.encode(TEXTS[2], truncation=True, max_length=5) == tokenizer.encode(ids[-4:])
    assert len(tokenizer.encode(TEXTS[2])) == len(ids) + 1, "truncation of one call must not stay"


def test_max_length_alone_truncates(tokenizer):
    assert len(tokenizer.encode(TEXTS[2], max_length=4)) == 4
    tokenizer.model_max_length = 6
    assert len(tokenizer.encode(TEXTS[2], truncation=True)) == 6
    tokenizer.model_max_length = int(1e30)
    assert tokenizer.encode(TEXTS[2], truncation=True) == tokenizer.encode(TEXTS[2])


def test_pad_takes_rows_dicts_and_arrays(tokenizer):
    rows = [tokenizer(text) for text in TEXTS]
    expected = tokenizer(TEXTS, padding=True)
    assert tokenizer.pad(rows).data == expected.data
    assert tokenizer.pad({"input_ids": [row.input_ids for row in rows]}).input_ids == expected.input_ids
    arrays = [{"input_ids": np.array(row.input_ids)} for row in rows]
    padded = tokenizer.pad(arrays, return_tensors="np")
    assert padded.input_ids.tolist() == expected.input_ids and padded.attention_mask.tolist() == expected.attention_mask
    assert len(tokenizer.pad(rows[1], padding="max_length", max_length=9).input_ids) == 9


def test_labels(tokenizer):
    encoded = tokenizer(TEXTS[0], text_target=TEXTS[1])
    assert encoded["labels"] == tokenizer.encode(TEXTS[1]) and encoded.input_ids == tokenizer.encode(TEXTS[0])
    assert tokenizer(text_target=TEXTS[1]).input_ids == tokenizer.encode(TEXTS[1])


def test_words(tokenizer):
    encoded = tokenizer(["Hello", "world"], is_split_into_words=True)
    assert encoded.input_ids[0] == tokenizer.bos_token_id and len(encoded.input_ids) > 3
    if tokenizer.is_fast:
        assert set(encoded.word_ids()) == {None, 0, 1}


def test_empty_inputs(tokenizer):
    assert tokenizer("").input_ids == [tokenizer.bos_token_id]
    assert tokenizer([]).input_ids == []
    assert tokenizer.decode([]) == ""


def test_mindspore_tensors_are_int32(tokenizer):
    import mindspore
    encoded = tokenizer(TEXTS, padding=True, return_tensors="ms")
    assert encoded.input_ids.dtype == mindspore.int32 and encoded.input_ids.shape == encoded.attention_mask.shape
    assert tokenizer.encode("x", return_tensors="ms").shape[0] == 1
    assert tokenizer.batch_decode(encoded.input_ids, skip_special_tokens=True) == TEXTS


def test_import_does_not_load_mindspore():
    code = ("import sys; import mindformers.models.auto.tokenization_auto, mindformers.models.auto.processing_auto;"
            "import mindformers.models.llama.llama_tokenizer_fast; assert 'mindspore' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)


# BatchEncoding ------------------------------------------------------------------------------------------------------

def test_batch_encoding_maps_characters_tokens_and_words():
    encoded = THIRD([TEXTS[0], TEXTS[2]], padding=True, pad_to_multiple_of=8) if THIRD.pad_token else THIRD([TEXTS[0]])
    text = TEXTS[0]
    for place in range(len(text)):
        token = encoded.char_to_token(0, place)
        start, end = encoded.token_to_chars(0, token)
        assert start <= place < end
    assert encoded.token_to_chars(0, 0) is None, "bos has no characters"
    assert encoded.word_to_tokens(0, 0).start == 1 and encoded.token_to_word(0, 1) == 0
    assert encoded.tokens()[0] == THIRD.bos_token and encoded.sequence_ids()[:2] == [None, 0]
    assert encoded.char_to_word(0, 0) == 0 and encoded.word_to_chars(0, 0).start == 0
    assert encoded.token_to_sequence(0, 1) == 0 and encoded.n_sequences == 1


def test_batch_encoding_padding_keeps_mappings():
    tokenizer = copy.deepcopy(THIRD)
    tokenizer.pad_token = tokenizer.eos_token
    encoded = tokenizer(["x", TEXTS[0]], padding=True, padding_side="left")
    assert [len(encoded.tokens(row)) for row in (0, 1)] == [len(row) for row in encoded.input_ids]
    place = encoded.char_to_token(0, 0)
    assert encoded.input_ids[0][place] == tokenizer.encode("x")[-1]


def test_batch_encoding_is_a_dict_with_attributes():
    encoded = BatchEncoding({"input_ids": [[1, 2]], "attention_mask": [[1, 1]]})
    assert encoded.input_ids == encoded["input_ids"] and set(encoded.keys()) == {"input_ids", "attention_mask"}
    assert encoded[0:1] == {"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}
    assert dict(**encoded) == encoded.data and pickle.loads(pickle.dumps(encoded)).data == encoded.data
    assert encoded.convert_to_tensors("np")["input_ids"].shape == (1, 2)
    with pytest.raises(AttributeError, match="input_ids"):
        _ = encoded.input_idz
    with pytest.raises(ValueError, match="fast tokenizer"):
        encoded.word_ids()


# special and added tokens -------------------------------------------------------------------------------------------

def test_special_token_properties(tokenizer):
    assert tokenizer.convert_ids_to_tokens(tokenizer.bos_token_id) == tokenizer.bos_token
    assert tokenizer.sep_token is None and tokenizer.sep_token_id is None
    tokenizer.pad_token_id = 5
    assert tokenizer.pad_token == tokenizer.convert_ids_to_tokens(5) and tokenizer.pad_token_id == 5
    tokenizer.pad_token = None
    assert tokenizer.pad_token_id is None
    assert set(tokenizer.all_special_ids) == set(tokenizer.convert_tokens_to_ids(tokenizer.all_special_tokens))


def test_naming_a_plain_token_special_leaves_the_splitting_alone(tokenizer):
    before = tokenizer.encode("wow!! really!")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(before[-1])
    assert tokenizer.encode("wow!! really!") == before


def test_added_tokens_are_found_inside_text(tokenizer):
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<new>", AddedToken("[x]", normalized=False)]) == 2
    assert tokenizer.add_tokens("<new>") == 0 and len(tokenizer) == size + 2
    assert tokenizer.add_special_tokens({"sep_token": "<sep>", "additional_special_tokens": ["<a>", "<b>"]}) == 3
    ids = tokenizer.encode("one[x]two<sep>three<b>", add_special_tokens=False)
    assert [ids.count(size + offset) for offset in range(1, 5)] == [1, 1, 0, 1]
    assert tokenizer.decode(ids) .replace(" ", "") == "one[x]two<sep>three<b>"
    assert "<sep>" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert "[x]" in tokenizer.decode(ids, skip_special_tokens=True)
    assert tokenizer.get_added_vocab()["<new>"] == size == tokenizer.get_vocab()["<new>"]
    assert tokenizer.additional_special_tokens == ["<a>", "<b>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<c>"]}, replace_additional_special_tokens=False)
    assert tokenizer.extra_special_tokens == ["<a>", "<b>", "<c>"]
    plain = tokenizer.encode("<sep>", add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.sep_token_id not in plain and len(plain) > 1


def test_added_token_flags_of_slow_tokenizers():
    tokenizer = LlamaTokenizer(MODEL)
    tokenizer.add_tokens([AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True),
                          AddedToken("cat", single_word=True)])
    assert tokenizer.tokenize("a  <l>b")[-2:] == ["<l>", "▁b"] and "▁▁" not in tokenizer.tokenize("a  <l>b")
    assert tokenizer.tokenize("a<r>   b")[-1] == "▁b"
    assert "cat" in tokenizer.tokenize("a cat!") and "cat" not in tokenizer.tokenize("concatenate")
    assert "cat" in tokenizer.tokenize("concat cat")


def test_trie_takes_the_leftmost_longest():
    trie = Trie(["[CLS]", "extra_id_1", "extra_id_100"])
    assert trie.split("[CLS] This is a extra_id_100") == ["[CLS]", " This is a ", "extra_id_100"]
    assert Trie().split("x") == ["x"] and Trie(["a"]).split("") == []


def test_named_extra_tokens(tmp_path):
    tokenizer = LlamaTokenizer(MODEL, extra_special_tokens={"image_token": "<image>"})
    assert tokenizer.image_token == "<image>" and tokenizer.image_token_id == tokenizer.vocab_size
    tokenizer.save_pretrained(tmp_path)
    assert LlamaTokenizer.from_pretrained(tmp_path).image_token_id == tokenizer.vocab_size
    with pytest.raises(AttributeError, match="image_token"):
        _ = tokenizer.imag_token


def test_bos_and_eos_switches(tokenizer):
    assert (tokenizer.add_bos_token, tokenizer.add_eos_token) == (True, False)
    tokenizer.add_bos_token, tokenizer.add_eos_token = False, True
    ids = tokenizer.encode("Hello")
    assert ids[-1] == tokenizer.eos_token_id and tokenizer.bos_token_id not in ids
    assert tokenizer.encode("Hello", "x").count(tokenizer.eos_token_id) == 2


# decoding -----------------------------------------------------------------------------------------------------------

def test_decode_takes_ints_arrays_and_batches(tokenizer):
    ids = tokenizer.encode(TEXTS[0])
    assert tokenizer.decode(np.array(ids), skip_special_tokens=True) == TEXTS[0]
    assert tokenizer.decode([ids, ids], skip_special_tokens=True) == [TEXTS[0]] * 2
    assert tokenizer.batch_decode(tokenizer(TEXTS), skip_special_tokens=True) == TEXTS
    assert isinstance(tokenizer.decode(ids[1]), str)
    assert tokenizer.decode([*ids, len(tokenizer) + 7]) == tokenizer.decode(ids), "an id beyond the vocabulary"


def test_clean_up_spaces():
    ids = THIRD.encode("I 'm here , now .")
    assert THIRD.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == "I'm here, now."


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_round_trip_of_any_text(text):
    shown = text.replace("▁", " ")
    for tokenizer, expected in ((SLOW, shown), (PLAIN, shown), (THIRD, text)):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "Hello", " ", "  x", "\n", "é", "😀"])).map("".join))
def test_round_trip_with_special_tokens_inside(text):
    for tokenizer in (SLOW, PLAIN):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


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


# errors -------------------------------------------------------------------------------------------------------------

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
