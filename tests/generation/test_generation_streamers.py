"""Streamers: text of any bytes in any pieces, ends, timeouts, exceptions in the other thread."""
import queue
import threading

import numpy as np
import pytest

from mindformers.generation import BaseStreamer, TextIteratorStreamer, TextStreamer
from mindformers.generation.streamers import IncrementalDecoder
from tests.generation.fake_model import FakeModel, FakeTokenizer, ScriptModel

TOKENIZER = FakeTokenizer()
TEXTS = ["plain words", "héllo 世界 🙂!", "日本語、한국어 اردو", "a\nb\n\n", " leading", "\ufffd really", "👨‍👩‍👧 family"]


class LeadingSpaceTokenizer:
    """Words with the space in front, dropped at the start of a text, as SentencePiece decoders do."""

    words = [" the", " cat", "s", " sat", ".", " é"]

    def decode(self, ids, skip_special_tokens=False):
        return "".join(self.words[i] for i in ids).removeprefix(" ")


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text(text):
    decoder = IncrementalDecoder(lambda ids: TOKENIZER.decode(ids))
    pieces = [decoder.push([token]) for token in TOKENIZER.encode(text)] + [decoder.push([], is_final=True)]
    assert "".join(pieces) == text
    if text == "日本語、한국어 اردو":
        assert pieces[:4] == ["", "", "日", ""] and not any("\ufffd" in piece for piece in pieces)


def test_every_way_to_cut_broken_bytes():
    generator = np.random.default_rng(0)
    for _ in range(200):
        ids = (4 + generator.integers(120, 256, generator.integers(1, 40))).tolist()
        decoder, pieces, rest = IncrementalDecoder(lambda ids: TOKENIZER.decode(ids)), [], list(ids)
        while rest:
            cut = int(generator.integers(1, 5))
            pieces.append(decoder.push(rest[:cut]))
            rest = rest[cut:]
        pieces.append(decoder.push([], is_final=True))
        assert len("".join(pieces)) > 0 and decoder.push([4 + 65], is_final=True) == "A"


def test_long_broken_text_is_given_out_before_the_end():
    decoder = IncrementalDecoder(lambda ids: TOKENIZER.decode(ids))
    pieces = [decoder.push([4 + 0xFF]) for _ in range(20)]
    assert "".join(pieces).count("\ufffd") >= 10


def test_spaces_between_words_survive():
    decoder = IncrementalDecoder(LeadingSpaceTokenizer().decode)
    assert [decoder.push([i]) for i in (0, 1, 2, 3, 5, 4)] == ["the", " cat", "s", " sat", " é", "."]


def test_the_number_of_tokens_decoded_stays_small():
    longest = []
    decoder = IncrementalDecoder(lambda ids: longest.append(len(ids)) or TOKENIZER.decode(ids))
    for token in TOKENIZER.encode("wörter und Zeichen " * 50):
        decoder.push([token])
    assert max(longest) < 10


def run(text, prompt="Q: ", **kwargs):
    model = ScriptModel(text)
    streamer = TextStreamer(TOKENIZER, **kwargs)
    model.generate(TOKENIZER.encode(prompt), max_new_tokens=200, streamer=streamer)
    return model


@pytest.mark.parametrize("text", TEXTS)
def test_text_streamer_prints_the_answer(text, capsys):
    run(text)
    assert capsys.readouterr().out == f"Q: {text}\n"
    run(text, skip_prompt=True)
    assert capsys.readouterr().out == f"{text}\n"
    run(text, skip_prompt=True, skip_special_tokens=False)
    assert capsys.readouterr().out == f"{text}</s>\n"


def test_text_streamer_of_a_batch_rewrites_its_line(capsys):
    model = FakeModel(vocab_size=260, eos_token_id=[])
    out = model.generate([[70, 71], [72]], max_new_tokens=3, streamer=TextStreamer(TOKENIZER))
    texts = [TOKENIZER.decode(row, skip_special_tokens=True) for row in out]
    printed = capsys.readouterr().out
    assert printed.count("\r") == 5 and printed.endswith(f"\r{texts}\n")


def test_rows_that_ended_add_nothing(capsys):
    streamer = TextStreamer(TOKENIZER)
    streamer.put([[69], [70]])
    streamer.put([71, -1])
    streamer.put(np.array([72, -1]))
    streamer.end()
    assert capsys.readouterr().out.endswith("\r['ACD', 'B']\n")


def test_streamer_takes_what_mindformers_gives(capsys):
    streamer = TextStreamer(TOKENIZER)
    for value in (np.array([69, 70]), 71, np.int64(72), [73], np.array([[74]])):
        streamer.put(value)
    streamer.end()
    assert capsys.readouterr().out == "ABCDEF\n"
    assert streamer.get_printable_text("ab\ufffd") == "ab"
    for faulty in ("text", 1.5, None, np.zeros((1, 1, 1), int)):
        with pytest.raises(ValueError):
            streamer.put(faulty)
    with pytest.raises(ValueError, match="needs tokenizer="):
        TextStreamer()


def test_streamers_and_beams_do_not_mix():
    with pytest.raises(ValueError, match="num_beams"):
        FakeModel().generate([5], num_beams=2, streamer=TextStreamer(TOKENIZER))


def in_thread(function, *args, **kwargs):
    errors = []

    def target():
        try:
            function(*args, **kwargs)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    return thread, errors


def test_iterator_streamer_ends_and_can_be_used_again():
    model, streamer = ScriptModel("héllo 世界"), TextIteratorStreamer(TOKENIZER, skip_prompt=True, timeout=20)
    for _ in range(2):
        thread, _ = in_thread(model.generate, TOKENIZER.encode("Q"), max_new_tokens=99, streamer=streamer)
        pieces = list(streamer)
        thread.join()
        assert "".join(pieces) == "héllo 世界" and len(pieces) > 3 and all(pieces)


def test_iterator_streamer_raises_in_the_reader():
    model, streamer = FakeModel(vocab_size=260, fail_at=3, eos_token_id=[]), TextIteratorStreamer(TOKENIZER, timeout=20)
    thread, errors = in_thread(model.generate, [70], max_new_tokens=9, streamer=streamer)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(streamer)
    thread.join()
    assert len(errors) == 1 and model.open_caches == 0


def test_iterator_streamer_hears_of_faulty_arguments():
    streamer = TextIteratorStreamer(TOKENIZER, timeout=5)
    with pytest.raises(ValueError):
        FakeModel(vocab_size=260).generate([999], streamer=streamer)
    with pytest.raises(ValueError, match="vocabulary"):
        next(streamer)


def test_iterator_streamer_times_out_and_clears():
    streamer = TextIteratorStreamer(TOKENIZER, timeout=0.01)
    with pytest.raises(queue.Empty, match="0.01 s"):
        next(streamer)
    streamer.put([69])
    streamer.clear()
    streamer.put([70])
    streamer.end()
    assert list(streamer) == ["B"]


def test_iterator_streamer_of_a_batch_gives_one_piece_per_row():
    streamer = TextIteratorStreamer(TOKENIZER, timeout=5)
    streamer.put([[69], [70]])
    streamer.put([71, -1])
    streamer.end()
    assert list(streamer) == [["A", "B"], ["C", ""]]


def test_base_streamer_names_what_is_missing():
    with pytest.raises(TypeError, match="put"):
        BaseStreamer().put(3)


def byte_level():
    """A byte-level tokenizer as GPT-2's and Llama 3's, without merges but for the most frequent pairs."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def byte_fallback():
    """A tokenizer in Llama 2's style: words with a mark in front, bytes for the rest, the first space dropped."""
    tokenizers = pytest.importorskip("tokenizers")
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz", "é", "世"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({name: i for i, name in enumerate(names)}, [],
                                                           unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Prepend("▁"),
                                                            tokenizers.normalizers.Replace(" ", "▁")])
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_real_tokenizers_join_to_the_text(make, text):
    tokenizer = make()
    ids = tokenizer.encode(text).ids
    decoder = IncrementalDecoder(tokenizer.decode)
    pieces = [decoder.push([token]) for token in ids] + [decoder.push([], is_final=True)]
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert sum(map(bool, pieces)) > len(ids) / 6, "the text comes in too few pieces"
