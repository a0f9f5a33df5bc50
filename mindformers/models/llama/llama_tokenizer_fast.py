"""LlamaTokenizerFast: a Llama tokenizer.json (or a SentencePiece model turned into one)."""
import os

from mindformers.models.llama.llama_sentencepiece import to_fast_tokenizer
from mindformers.models.llama.llama_tokenizer import LlamaTokenizer
from mindformers.models.tokenization_files import FAST_FILE, SLOW_FILE
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast, read_tokenizer_file
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["LlamaTokenizerFast"]


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class LlamaTokenizerFast(PreTrainedTokenizerFast):
    """Llama's tokenizer on the `tokenizers` library: Llama 2 (BPE with byte fallback) or Llama 3 (byte-level BPE).

    Args:
        vocab_file (str | None): a tokenizer.model, used when there is no tokenizer.json. Default: None.
        tokenizer_file (str | None): a tokenizer.json. Default: None.
        clean_up_tokenization_spaces (bool): Default: False.
        unk_token, bos_token, eos_token (str | AddedToken): Default: "<unk>", "<s>", "</s>"; a default that the
            vocabulary does not have is left out.
        add_bos_token, add_eos_token (bool | None): put bos / eos around every text. Default: None: what the
            tokenizer.json does; bos only when it does nothing.
        use_default_system_prompt (bool): kept and written back; templates say what they prepend. Default: False.
        legacy (bool): for a tokenizer.model, see LlamaTokenizer. Default: True.
        add_prefix_space (bool): for a tokenizer.model, put the space before a text. Default: True.
        **kwargs: see PreTrainedTokenizerBase.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither file is given, or it cannot be read.
    """

    vocab_files_names = {"vocab_file": SLOW_FILE, "tokenizer_file": FAST_FILE}
    slow_tokenizer_class = LlamaTokenizer
    padding_side = "left"

    def __init__(self, vocab_file=None, tokenizer_file=None, clean_up_tokenization_spaces=False, unk_token="<unk>",
                 bos_token="<s>", eos_token="</s>", add_bos_token=None, add_eos_token=None,
                 use_default_system_prompt=False, legacy=True, add_prefix_space=True, tokenizer_object=None, **kwargs):
        self.vocab_file = None if vocab_file is None else os.fspath(vocab_file)
        self.use_default_system_prompt = use_default_system_prompt
        self.legacy = True if legacy is None else bool(legacy)
        self.add_prefix_space = True if add_prefix_space is None else bool(add_prefix_space)
        if tokenizer_object is None and tokenizer_file is not None:
            tokenizer_object = read_tokenizer_file(tokenizer_file)
        elif tokenizer_object is None and vocab_file is not None:
            tokenizer_object = to_fast_tokenizer(self.vocab_file, self.legacy, self.add_prefix_space)
        if tokenizer_object is not None and tokenizer_object.post_processor is None and add_bos_token is None:
            add_bos_token = _known(tokenizer_object, bos_token, "<s>") is not None
        super().__init__(tokenizer_object=tokenizer_object, unk_token=_known(tokenizer_object, unk_token, "<unk>"),
                         bos_token=_known(tokenizer_object, bos_token, "<s>"),
                         eos_token=_known(tokenizer_object, eos_token, "</s>"), add_bos_token=add_bos_token,
                         add_eos_token=add_eos_token, clean_up_tokenization_spaces=clean_up_tokenization_spaces,
                         **kwargs)

    @property
    def can_save_slow_tokenizer(self):
        """Whether the tokenizer.model is at hand."""
        return self.vocab_file is not None and os.path.isfile(self.vocab_file)


def _known(tokenizer_object, token, default):
    """Return `token`, or None for a default that the vocabulary does not have (Llama 3 has no "<unk>")."""
    missing = tokenizer_object is not None and token == default and tokenizer_object.token_to_id(default) is None
    return None if missing else token
