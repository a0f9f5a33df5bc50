"""SentencePiece with control tokens above its vocabulary, as ChatGLM2 and ChatGLM3 number them."""
from mindformers.models.glm2.glm_tokenizer_base import GLMTokenizer
from mindformers.models.sentencepiece_model import open_processor
from mindformers.models.special_tokens import as_added_token


class SPTokenizer:
    """A SentencePiece model and control tokens, whose ids follow its last piece.

    Args:
        model_path (str): the tokenizer.model.
        special_tokens (sequence of str): control tokens in the order of their ids.

    Attributes:
        n_words (int): pieces and control tokens.
        bos_id, eos_id, pad_id (int): ids of <s>, </s> and, as padding, <unk>.
        special_tokens (dict): ``{text: id}``; index_special_tokens the other way.
    """

    def __init__(self, model_path, special_tokens=("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")):
        self.sp_model = open_processor(model_path)
        pieces = self.sp_model.get_piece_size()
        self.bos_id, self.eos_id, self.pad_id = self.sp_model.bos_id(), self.sp_model.eos_id(), self.sp_model.unk_id()
        self.special_tokens = {token: pieces + place for place, token in enumerate(special_tokens)}
        self.index_special_tokens = {index: token for token, index in self.special_tokens.items()}
        self.n_words = pieces + len(self.special_tokens)

    def tokenize(self, s):
        """Return the pieces of a text; nothing in it is a control token."""
        return self.sp_model.encode(s, out_type=str)

    def encode(self, s, bos=False, eos=False):
        """Return the ids of a text, with <s> before and </s> after it when asked for.

        Raises:
            TypeError: not a str.
        """
        if not isinstance(s, str):
            raise TypeError(f"encode takes a str, but got {type(s).__name__}: {s!r:.80}")
        return [self.bos_id] * bool(bos) + self.sp_model.encode(s) + [self.eos_id] * bool(eos)

    def decode(self, t):
        """Return the text of ids, control tokens written out."""
        return self.decode_tokens([self.convert_id_to_token(index) for index in t])

    def decode_tokens(self, tokens):
        """Return the text of pieces, control tokens written out."""
        text, run = "", []
        for token in [*tokens, None]:
            if token is not None and token not in self.special_tokens:
                run.append(token)
                continue
            text += (self.sp_model.decode(run) if run else "") + (token or "")
            run = []
        return text

    def convert_token_to_id(self, token):
        """Return the id of a control token or piece; that of <unk> for anything else."""
        index = self.special_tokens.get(token)
        return self.sp_model.piece_to_id(token) if index is None else index

    def convert_id_to_token(self, index):
        """Return the text of an id; "" for <s>, </s>, <unk>, and ids beyond the vocabulary."""
        if index in self.index_special_tokens:
            return self.index_special_tokens[index]
        if not 0 <= index < self.n_words or index in (self.bos_id, self.eos_id, self.pad_id):
            return ""
        return self.sp_model.id_to_piece(index)

    def __getstate__(self):
        return {**self.__dict__, "sp_model": self.sp_model.serialized_model_proto()}

    def __setstate__(self, state):
        import sentencepiece
        self.__dict__.update(state, sp_model=sentencepiece.SentencePieceProcessor(model_proto=state["sp_model"]))


class SentencePieceGLMTokenizer(GLMTokenizer):
    """Base of ChatGLM2Tokenizer and ChatGLM3Tokenizer.

    Args:
        vocab_file (str): the tokenizer.model.
        encode_special_tokens (bool | None): find control tokens ("<|user|>") in the texts of a call; "sop" and "eop"
            only behind a mask token. A chat never does that with what people say. Default: None, when
            tokenizer_config.json lists them as added tokens (so that ``tokenizer(rendered_template)`` works).
        special: bos_token, eos_token, pad_token, unk_token, mask_token, as texts of the vocabulary or as the names
            "<sop>", "<eop>", "<eos>", "<pad>", "<unk>".
    """

    specials = ()

    def __init__(self, vocab_file, encode_special_tokens=None, **kwargs):
        self.vocab_file = str(vocab_file)
        self.tokenizer = SPTokenizer(self.vocab_file, self.specials)
        listed = kwargs.get("added_tokens_decoder") or {}
        self._listed_controls = {int(index): as_added_token(token) for index, token in listed.items()
                                 if int(index) in self.tokenizer.index_special_tokens}
        self.encode_special_tokens = bool(self._listed_controls) if encode_special_tokens is None \
            else bool(encode_special_tokens)
        super().__init__(**{key: self._resolved(value) if key.endswith("_token") else value
                            for key, value in kwargs.items()})

    def _resolved(self, token):
        """A token of the vocabulary for the names YAMLs use; an end of text is always that of SentencePiece."""
        sp_model, held = self.tokenizer.sp_model, self.tokenizer
        names = {"<sop>": "sop", "<eop>": sp_model.id_to_piece(held.eos_id), "</s>": sp_model.id_to_piece(held.eos_id),
                 "<eos>": sp_model.id_to_piece(held.eos_id), "<bos>": sp_model.id_to_piece(held.bos_id),
                 "<pad>": sp_model.id_to_piece(held.pad_id), "<unk>": sp_model.id_to_piece(held.pad_id)}
        text = getattr(token, "content", token)
        return names.get(text, token) if isinstance(text, str) else token

    # vocabulary -----------------------------------------------------------------------------------------------------

    @property
    def control_tokens(self):
        """``{text: id}``: [MASK], [gMASK], [sMASK], sop, eop, and the roles where the model has them."""
        return self.tokenizer.special_tokens

    @property
    def vocab_size(self):
        """Pieces of the SentencePiece model and control tokens."""
        return self.tokenizer.n_words

    def vocabulary_bytes(self):
        """Return the SentencePiece model out of memory, bytes."""
        return self.tokenizer.sp_model.serialized_model_proto()

    def get_vocab(self):
        """Return ``{token: id}``, control and added tokens included."""
        sp_model = self.tokenizer.sp_model
        pieces = {sp_model.id_to_piece(index): index for index in range(sp_model.get_piece_size())}
        return pieces | self.control_tokens | self.added_tokens_encoder

    @property
    def all_special_ids(self):
        """Ids that decode leaves out with ``skip_special_tokens=True``: special and control tokens."""
        return list(dict.fromkeys([*super().all_special_ids, *self.control_tokens.values()]))

    @property
    def added_tokens_decoder(self):
        """``{id: AddedToken}``, by id; with the control tokens that a folder listed."""
        return dict(sorted({**self._added_tokens_decoder, **self._listed_controls}.items()))

    def _hold_added(self, index, token):
        # control tokens are found by `_split_added`, not as added tokens: "sop" is part of ordinary words
        control = self.tokenizer.index_special_tokens.get(index)
        if control is None:
            super()._hold_added(index, token)
        elif token.content != control:
            raise ValueError(f"{self.vocab_file} has {control!r} at id {index}, but added_tokens_decoder says "
                             f"{token.content!r}: they belong to different models")

    # text -> ids ----------------------------------------------------------------------------------------------------

    def plain_ids(self, text):
        """Return the ids of a text in which nothing is a control token."""
        return self.tokenizer.encode(text)

    def _split_added(self, text, split_special_tokens):
        found = super()._split_added(text, split_special_tokens)
        if split_special_tokens or not self.encode_special_tokens:
            return found
        pattern, pieces = self._control_pattern(), []
        for piece, is_added in found:
            pieces += [(piece, True)] if is_added else \
                [(part, index % 2 == 1) for index, part in enumerate(pattern.split(piece)) if part]
        return pieces

    def _tokenize(self, text, **kwargs):
        return self.tokenizer.tokenize(text)

    def _convert_token_to_id(self, token):
        return self.tokenizer.convert_token_to_id(token)

    def _convert_id_to_token(self, index):
        control = self.tokenizer.index_special_tokens.get(index)
        return self.tokenizer.sp_model.id_to_piece(index) if control is None else control

    # ids -> text ----------------------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens):
        """Return the text of pieces, control tokens written out."""
        return self.tokenizer.decode_tokens(tokens)

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        return super()._decode(ids, skip_special_tokens, bool(spaces_between_special_tokens))
