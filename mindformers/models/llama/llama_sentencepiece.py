"""SentencePiece models of the Llama family turned into a `tokenizers.Tokenizer`."""
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from mindformers.models.sentencepiece_model import SPACE, read_proto
from mindformers.tools.errors import UnsupportedError

_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # SentencePiece.Type


def to_fast_tokenizer(path, legacy=True, add_prefix_space=True):
    """Return a `tokenizers.Tokenizer` that encodes as the SentencePiece model does.

    BPE models get their merges from the pieces: every way to cut a piece in two known pieces is a merge, and better
    scored pieces merge first, which is SentencePiece's own order.

    Args:
        path (str): the .model file.
        legacy (bool): a space goes before every stretch of text between special tokens, else only before the text.
            Default: True.
        add_prefix_space (bool): that space is put at all. Default: True.

    Raises:
        FileNotFoundError, ValueError: as `open_processor`.
        UnsupportedError: a word or character model, or one with a normalizer of its own.
    """
    proto = read_proto(path)
    trainer, spec = proto.trainer_spec, proto.normalizer_spec
    if spec.precompiled_charsmap or spec.remove_extra_whitespaces or not spec.escape_whitespaces:
        raise UnsupportedError(f"{path} normalizes its text ({spec.name or 'unnamed'}), which is not carried over to "
                               f"tokenizer.json: use LlamaTokenizer (use_fast=False)")
    if trainer.model_type == _BPE:
        scores = {piece.piece: piece.score for piece in proto.pieces if piece.type not in (_CONTROL, _UNKNOWN, _BYTE)}
        model = BPE({piece.piece: index for index, piece in enumerate(proto.pieces)}, _merges(proto, scores),
                    unk_token=trainer.unk_piece, fuse_unk=True, byte_fallback=trainer.byte_fallback)
    elif trainer.model_type == _UNIGRAM:
        model = Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=trainer.unk_id,
                        byte_fallback=trainer.byte_fallback)
    else:
        raise UnsupportedError(f"{path} is a word or character model, which has no fast form: use LlamaTokenizer")
    fast = Tokenizer(model)
    if legacy:
        steps = [normalizers.Prepend(SPACE)] if add_prefix_space else []
        fast.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    else:
        scheme = "first" if add_prefix_space else "never"
        fast.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if add_prefix_space else []
    fast.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    fast.add_tokens([AddedToken(piece.piece, special=piece.type != _USER_DEFINED, normalized=False)
                     for piece in proto.pieces if piece.type in (_CONTROL, _UNKNOWN, _USER_DEFINED)])
    return fast


def _merges(proto, scores):
    """Merges of a BPE vocabulary, best first."""
    ids = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    found = []
    for piece, score in scores.items():
        cuts = [(piece[:place], piece[place:]) for place in range(1, len(piece))]
        known = [cut for cut in cuts if cut[0] in scores and cut[1] in scores]
        found += [(-score, ids[left], ids[right], left, right) for left, right in known]
    # sorted by score alone, ties in vocabulary order of the pieces: SentencePiece scores are unique in practice
    return [(left, right) for _, _, _, left, right in sorted(found, key=lambda merge: merge[:3])]
