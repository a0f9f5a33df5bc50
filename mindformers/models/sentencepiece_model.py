"""SentencePiece models: opened and read with clear errors."""
import os

import sentencepiece

from mindformers.models.tokenization_files import is_tiktoken_file
from mindformers.tools.errors import DamagedFileError

SPACE = "▁"


def open_processor(path, add_dummy_prefix=None, **options):
    """Return the SentencePieceProcessor of a .model file.

    Args:
        path (str): the file.
        add_dummy_prefix (bool | None): put a space before every text. Default: None, what the model says.
        **options: for SentencePieceProcessor (`enable_sampling`, `nbest_size`, `alpha`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: no SentencePiece model; the message names the file.
    """
    if add_dummy_prefix is None:
        _check_file(path)
        return _read(path, model_file=str(path), **options)
    proto = read_proto(path)
    proto.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    return _read(path, model_proto=proto.SerializeToString(), **options)


def _check_file(path):
    if not os.path.isfile(path):
        raise FileNotFoundError(f"vocab_file {path} does not exist")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is empty: it is no SentencePiece model")
    if is_tiktoken_file(path):
        raise ValueError(f"{path} is a tiktoken file, not a SentencePiece model: of GLM-4 it is read by "
                         f"ChatGLM4Tokenizer; for Llama 3 use the tokenizer.json of the model in Hugging Face format")


def _read(path, **arguments):
    try:
        return sentencepiece.SentencePieceProcessor(**arguments)
    except (RuntimeError, OSError) as fault:
        raise _damaged(path, fault) from fault


def _damaged(path, fault):
    return DamagedFileError(f"{path} cannot be read as a SentencePiece model (cut off or corrupt?): {fault}")


def read_proto(path):
    """Return the ModelProto of a .model file; needs the `protobuf` package, which MindSpore brings.

    Raises:
        FileNotFoundError, ValueError: as `open_processor`.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2
    _check_file(path)
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        with open(path, "rb") as stream:
            proto.ParseFromString(stream.read())
    except DecodeError as fault:
        raise _damaged(path, fault) from fault
    if not proto.pieces:
        raise ValueError(f"{path} is a SentencePiece model without pieces")
    return proto
