"""The tokenizer interface: options, special tokens, decoding."""
import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindformers.models.llama import LlamaTokenizer
from mindformers.models.tokenization_utils import AddedToken, Trie
from mindformers.models.tokenization_utils_base import BatchEncoding
from tokenization_helpers import MODEL, PLAIN, SLOW, TEXTS, THIRD

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
