"""LlamaTokenizer: SentencePiece, as Llama 1 and 2 were trained with."""
import os

from mindformers.models.sentencepiece_model import SPACE, open_processor
from mindformers.models.tokenization_files import SLOW_FILE, save_vocabulary_file
from mindformers.models.tokenization_utils import PreTrainedTokenizer
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["LlamaTokenizer"]


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class LlamaTokenizer(PreTrainedTokenizer):
    """Llama's tokenizer on a SentencePiece model.

    Args:
        vocab_file (str): the tokenizer.model.
        unk_token, bos_token, eos_token (str | AddedToken): Default: "<unk>", "<s>", "</s>".
        pad_token (str | AddedToken | None): Default: "<unk>" (a folder that says null has none).
        sp_model_kwargs (dict | None): options of SentencePieceProcessor. Default: None.
        add_bos_token (bool): put bos before every text. Default: True.
        add_eos_token (bool): put eos after every text. Default: False.
        clean_up_tokenization_spaces (bool): Default: False.
        legacy (bool): True encodes every stretch of text between special tokens as a text of its own, with
            SentencePiece's space before it; False puts that space only before the whole text. Default: True.
        add_prefix_space (bool): with ``legacy=False``, whether the text gets that space at all. Default: True.
        use_default_system_prompt (bool): kept and written back; templates say what they prepend. Default: False.
        **kwargs: see PreTrainedTokenizerBase.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no SentencePiece model.
    """

    vocab_files_names = {"vocab_file": SLOW_FILE}
    FILE_LIST = [SLOW_FILE, "tokenizer_config.json"]

    def __init__(self, vocab_file, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>",
                 sp_model_kwargs=None, add_bos_token=True, add_eos_token=False, clean_up_tokenization_spaces=False,
                 legacy=True, add_prefix_space=True, use_default_system_prompt=False, **kwargs):
        self.vocab_file = os.fspath(vocab_file)
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self.legacy = True if legacy is None else bool(legacy)
        self.add_prefix_space = True if add_prefix_space is None else bool(add_prefix_space)
        self.add_bos_token, self.add_eos_token = bool(add_bos_token), bool(add_eos_token)
        self.use_default_system_prompt = use_default_system_prompt
        self.sp_model = self._open()
        super().__init__(unk_token=unk_token, bos_token=bos_token, eos_token=eos_token, pad_token=pad_token,
                         clean_up_tokenization_spaces=clean_up_tokenization_spaces, **kwargs)

    def _open(self):
        return open_processor(self.vocab_file, None if self.legacy else False, **self.sp_model_kwargs)

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "sp_model"} | {
            "_proto": self.sp_model.serialized_model_proto()}

    def __setstate__(self, state):
        proto = state.pop("_proto")
        self.__dict__.update(state)
        self.sp_model = type(self)._processor(proto, self.sp_model_kwargs)

    @staticmethod
    def _processor(proto, options):
        import sentencepiece
        return sentencepiece.SentencePieceProcessor(model_proto=proto, **options)

    @property
    def vocab_size(self):
        """Number of pieces of the SentencePiece model."""
        return self.sp_model.get_piece_size()

    @property
    def unk_token_length(self):
        """Number of pieces of the text "<unk>"."""
        return len(self.sp_model.encode(str(self.unk_token)))

    def get_vocab(self):
        """Return ``{piece: id}``, added tokens included."""
        return {self.sp_model.id_to_piece(index): index for index in range(self.vocab_size)} | self.added_tokens_encoder

    # text -> pieces -------------------------------------------------------------------------------------------------

    def prepare_for_tokenization(self, text, is_split_into_words=False, **kwargs):
        """Put the space before the text when ``legacy=False`` (SentencePiece does it otherwise)."""
        if not self.legacy and text:
            text = text.replace(SPACE, " ")
            text = SPACE + text if self.add_prefix_space else text
        return text, kwargs

    def tokenize(self, text, pair=None, add_special_tokens=False, split_special_tokens=None, **kwargs):
        """Return the pieces of a text; arguments as in PreTrainedTokenizer."""
        tokens = super().tokenize(text, pair, add_special_tokens, split_special_tokens, **kwargs)
        # the space before a text that starts with a special token stands alone: the model never saw that
        if not self.legacy and tokens[:1] == [SPACE] and tokens[1:2] and tokens[1] in self.all_special_tokens:
            return tokens[1:]
        return tokens

    def _tokenize(self, text, **kwargs):
        """Pieces of a stretch of text without added tokens.

        Without the dummy prefix SentencePiece may drop leading spaces; a guard before the text keeps them.
        """
        if self.legacy or not text.startswith((SPACE, " ")):
            return self.sp_model.encode(text, out_type=str)
        guarded = self.sp_model.encode(str(self.unk_token) + text, out_type=str)
        return guarded[self.unk_token_length:] if len(guarded) >= self.unk_token_length else guarded

    def _convert_token_to_id(self, token):
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index):
        return self.sp_model.id_to_piece(index)

    # pieces -> text -------------------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens):
        """Return the text of pieces and added tokens, the inverse of `tokenize`.

        The space that `tokenize` puts before a text (``legacy=True``: before every stretch between added tokens) is
        taken away again.
        """
        text, run = "", []
        for token in [*tokens, None]:
            if token is not None and token not in self._added_tokens_encoder:
                run.append(token)
                continue
            text += self.sp_model.decode(run) if run else ""
            text += token or ""
            run = []
        starts_plain = bool(tokens) and tokens[0] not in self._added_tokens_encoder
        if not self.legacy and self.add_prefix_space and starts_plain:
            text = text.removeprefix(" ")
        return text

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        if spaces_between_special_tokens:
            return super()._decode(ids, skip_special_tokens, spaces_between_special_tokens)
        tokens = self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)
        return self.convert_tokens_to_string([token for token in tokens if token is not None])

    # special tokens around a text -----------------------------------------------------------------------------------

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Return ``[bos] text [eos]`` or ``[bos] text [eos] [bos] pair [eos]``, each as add_bos / add_eos say."""
        bos = [self.bos_token_id] if self.add_bos_token else []
        eos = [self.eos_token_id] if self.add_eos_token else []
        ids = bos + list(token_ids_0) + eos
        return ids if token_ids_1 is None else ids + bos + list(token_ids_1) + eos

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write tokenizer.model into a folder; returns its path in a tuple.

        Raises:
            NotADirectoryError: no such folder.
        """
        return save_vocabulary_file(self.vocab_file, self.sp_model.serialized_model_proto, save_directory,
                                    filename_prefix)
