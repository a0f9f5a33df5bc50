"""Small vocabularies for the GLM tokenizer tests: a SentencePiece model and a file of tiktoken ranks."""
import base64
import io
from functools import lru_cache

import sentencepiece

TEXT = ["hello world, what is the weather in Beijing today? get_weather city tools function name parameters",
        "你好 世界 今天 天气 怎么样 北京 问 答 Round philosophy sophisticated"]
# tokens of more than one byte, best first; "user" is made of two others
MERGED = [b"he", b"ll", b"hell", b"hello", b" w", b"or", b"us", b"er", b"user", b" user", b"\n\n",
          "你".encode()[:2], "你".encode(), b"13"]


@lru_cache
def sentencepiece_model():
    """Bytes of a BPE model with byte fallback, as the published ones are."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 40), model_writer=out, vocab_size=420, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2)
    return out.getvalue()


def ranks():
    """``{bytes: rank}``: all single bytes, then `MERGED`."""
    return {token: rank for rank, token in enumerate([*(bytes([value]) for value in range(256)), *MERGED])}


def write_sentencepiece(folder):
    """Write tokenizer.model of SentencePiece into a folder; returns its path."""
    path = folder / "tokenizer.model"
    path.write_bytes(sentencepiece_model())
    return path


def write_ranks(folder):
    """Write tokenizer.model of tiktoken ranks into a folder; returns its path."""
    path = folder / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks().items()))
    return path
