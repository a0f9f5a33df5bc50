"""Tokenizers against Hugging Face transformers: see tests/reference/make_tokenizer_goldens.py."""
import importlib.util
import json
import random
from pathlib import Path

import pytest
import sentencepiece

from mindformers.models.auto.tokenization_auto import AutoTokenizer
from mindformers.models.llama import LlamaTokenizer, LlamaTokenizerFast

ROOT = Path(__file__).resolve().parents[1] / "reference" / "tokenizers"
MODEL = str(ROOT / "llama2" / "tokenizer.model")
GOLDEN = {major: json.loads((ROOT / f"goldens_{major}.json").read_text()) for major in (4, 5)}
NAMES = ["llama2_slow_legacy", "llama2_slow_plain", "llama2_fast_legacy", "llama2_fast_plain", "llama3_fast"]


def build(name):
    """The tokenizer of a golden name, with the two tokens the goldens add."""
    if name == "llama3_fast":
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "llama3")
    else:
        _, speed, mode = name.split("_")
        kind = LlamaTokenizer if speed == "slow" else LlamaTokenizerFast
        tokenizer = kind(MODEL, legacy=mode == "legacy")
    tokenizer.add_tokens(["<added>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    return tokenizer


def golden_rows(name, major=4):
    """(text, ids, decoded, decoded without special tokens)."""
    return [(text, *row) for text, row in zip(GOLDEN[major]["texts"], GOLDEN[major][name], strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_transformers(name):
    tokenizer = build(name)
    for text, ids, _, _ in golden_rows(name):
        assert tokenizer.encode(text) == ids, repr(text)


def test_ids_of_llama3_equal_transformers_5():
    tokenizer = build("llama3_fast")
    for text, ids, decoded, plain in golden_rows("llama3_fast", 5):
        assert (tokenizer.encode(text), tokenizer.decode(ids)) == (ids, decoded)
        assert tokenizer.decode(ids, skip_special_tokens=True) == plain


@pytest.mark.parametrize("name", ["llama2_fast_legacy", "llama2_fast_plain", "llama3_fast"])
def test_decoding_equals_transformers(name):
    # versions of the tokenizers library differ on the space before a plain added token of a legacy vocabulary
    rows = [row for row in golden_rows(name) if name != "llama2_fast_legacy" or "<added>" not in row[0]]
    tokenizer = build(name)
    for text, ids, decoded, plain in rows:
        assert tokenizer.decode(ids) == decoded, repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=True) == plain, repr(text)


@pytest.mark.parametrize("name", ["llama2_slow_legacy", "llama2_slow_plain"])
def test_slow_decoding_equals_transformers_without_added_tokens(name):
    tokenizer, seen = build(name), 0
    for text, ids, _, plain in golden_rows(name):
        inside = any(token in text for token in tokenizer.added_tokens_encoder)
        if not inside and not text.startswith((" ", "▁")):
            assert tokenizer.decode(ids, skip_special_tokens=True) == plain, repr(text)
            seen += 1
    assert seen >= 30


@pytest.mark.parametrize("name", ["llama2_slow_legacy", "llama2_slow_plain"])
def test_slow_decoding_gives_the_text_back(name):
    """Where transformers adds or drops spaces beside added tokens and at the start, ours gives every text back."""
    tokenizer = build(name)
    differ = 0
    for text, _, decoded, _ in golden_rows(name):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text.replace("▁", " ")
        differ += decoded.removeprefix("<s>").removeprefix(" ") != text.replace("▁", " ")
    assert differ > 0


def test_negative_control_legacy_matters():
    """The goldens tell the two treatments of spaces apart, and the prefix from none."""
    for wrong, right in (("llama2_slow_plain", "llama2_slow_legacy"), ("llama2_fast_legacy", "llama2_fast_plain")):
        tokenizer = build(wrong)
        assert sum(tokenizer.encode(text) != ids for text, ids, _, _ in golden_rows(right)) >= 10
    bare = LlamaTokenizer(MODEL, legacy=False, add_prefix_space=False)
    assert bare.encode("Hello") != build("llama2_slow_plain").encode("Hello")


@pytest.mark.parametrize("major, name", [(4, "llama2_slow_legacy"), (4, "llama3_fast"), (5, "llama3_fast")])
def test_calls_equal_transformers(major, name):
    """Padding, truncation, pairs, masks, words, offsets, overflow."""
    tokenizer = build(name)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    for options, expected in GOLDEN[major]["calls"][name]:
        found = json.loads(json.dumps(dict(tokenizer(**options))))
        assert found == expected, options


@pytest.mark.parametrize("major", [4, 5])
def test_chats_equal_transformers(major):
    tokenizer = build("llama3_fast")
    for style, name, more, text, ids in GOLDEN[major]["chats"]:
        template = (ROOT / f"{style}.jinja").read_text(encoding="utf-8")
        messages = GOLDEN[major]["messages"][name]
        assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **more) == text
        assert tokenizer.apply_chat_template(messages, chat_template=template, **more) == ids


def random_texts(count, seed):
    """Texts of ASCII, Latin, CJK, emoji, whitespace and special tokens."""
    rng = random.Random(seed)
    pool = ["<s>", "</s>", "<unk>", "\n", "\t", "  ", " "]
    pools = [lambda: chr(rng.randint(32, 126)), lambda: chr(rng.randint(0xa0, 0x24f)), lambda: rng.choice(pool),
             lambda: chr(rng.randint(0x4e00, 0x4f00)), lambda: chr(rng.randint(0x1f300, 0x1f64f)), lambda: " the"]
    return ["".join(rng.choice(pools)() for _ in range(rng.randint(0, 40))) for _ in range(count)]


def test_real_vocabulary_of_32k_pieces():
    """The SentencePiece models inside the mistral-common package, when it is installed (it is not imported)."""
    package = importlib.util.find_spec("mistral_common")
    if package is None:
        pytest.skip("mistral-common is not installed")
    path = str(Path(package.submodule_search_locations[0]) / "data" / "tokenizer.model.v1")
    slow, fast = LlamaTokenizer(path), LlamaTokenizerFast(path)
    oracle = sentencepiece.SentencePieceProcessor(model_file=path)
    assert slow.vocab_size == fast.vocab_size == 32000
    plain = [text for text in random_texts(400, 1) if not any(token in text for token in ("<s>", "</s>", "<unk>"))]
    assert len(plain) > 20
    for text in plain:
        assert slow.encode(text, add_special_tokens=False) == oracle.encode(text) == fast(text).input_ids[1:]
        assert slow.decode(slow.encode(text), skip_special_tokens=True) == text.replace("▁", " ")
    for text in random_texts(300, 2):
        assert slow.encode(text) == fast.encode(text), repr(text)
        assert slow.decode(slow.encode(text, add_special_tokens=False)) == text
