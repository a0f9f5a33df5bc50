"""PreTrainedTokenizerBase: the interface of every tokenizer, slow and fast.

A backend gives five things - `_encode_rows`, `_decode`, `convert_tokens_to_ids`, `convert_ids_to_tokens`, `get_vocab` -
and everything users call is built on them here.
"""
import contextlib
import copy
import inspect
from collections.abc import Mapping

from tokenizers import AddedToken

from mindformers.hub import PushToHubMixin
from mindformers.hub.upload import check_push_options, uploading
from mindformers.models import tokenization_files as files
from mindformers.models.batch_encoding import (BatchEncoding, CharSpan, ExplicitEnum, PaddingStrategy, TensorType,
                                               TokenSpan, TruncationStrategy, to_py_obj)
from mindformers.models.chat_template import ChatTemplateMixin
from mindformers.models.custom_code import check_auto_class
from mindformers.models.special_tokens import SpecialTokensMixin, as_added_token
from mindformers.models.tokenization_encoding import EncodingMixin
from mindformers.models.tokenization_options import LARGE_LENGTH, UNLIMITED_LENGTH, check_kwargs, check_side
from mindformers.models.tokenization_saving import save_tokenizer
from mindformers.tools.env import get_env
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger

__all__ = ["AddedToken", "BatchEncoding", "CharSpan", "ExplicitEnum", "LARGE_LENGTH", "PaddingStrategy",
           "PreTrainedTokenizerBase", "SpecialTokensMixin", "TensorType", "TokenSpan", "TruncationStrategy",
           "UNLIMITED_LENGTH", "to_py_obj"]

# arguments any tokenizer takes beside its special tokens
_COMMON_INIT = ("model_max_length", "max_len", "padding_side", "truncation_side", "model_input_names",
                "clean_up_tokenization_spaces", "split_special_tokens", "chat_template", "name_or_path",
                "tokenizer_class", "processor_class", "added_tokens_decoder", "spaces_between_special_tokens",
                "auto_map")


class PreTrainedTokenizerBase(EncodingMixin, ChatTemplateMixin, SpecialTokensMixin, PushToHubMixin):
    """Text to token ids and back.

    Args:
        model_max_length (int): the longest row the model takes; the bound of ``truncation=True``. Default: unlimited.
        padding_side (str): "left" or "right". Default: "right".
        truncation_side (str): side that loses tokens. Default: "right".
        model_input_names (list[str]): names a call returns. Default: input_ids, attention_mask.
        clean_up_tokenization_spaces (bool): drop the space before punctuation when decoding. Default: False.
        split_special_tokens (bool): treat special tokens inside a text as plain text. Default: False.
        chat_template (str | dict | None): Jinja template, or several by name. Default: None.
        added_tokens_decoder (dict | None): id -> token, as in tokenizer_config.json. Default: None.
        **kwargs: special tokens, see SpecialTokensMixin.

    Raises:
        TypeError: an unknown argument; the message names the nearest.
    """

    vocab_files_names = {}
    FILE_LIST = []
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "right"
    truncation_side = "right"
    slow_tokenizer_class = None

    _auto_class = None
    _support_list = ()

    def __init__(self, **kwargs):
        self.init_inputs = ()
        self.init_kwargs = copy.deepcopy(kwargs)
        self.check_arguments(kwargs)
        special = {key: kwargs.pop(key) for key in list(kwargs)
                   if key in (*self.SPECIAL_TOKENS_ATTRIBUTES, "extra_special_tokens")}
        special = _with_flags(special, kwargs.get("added_tokens_decoder") or {})
        self.name_or_path = kwargs.pop("name_or_path", "")
        limit = kwargs.pop("model_max_length", None) or kwargs.pop("max_len", None)
        self.model_max_length = UNLIMITED_LENGTH if limit is None else int(limit)
        self.padding_side = kwargs.pop("padding_side", None) or self.padding_side
        self.truncation_side = kwargs.pop("truncation_side", None) or self.truncation_side
        self.model_input_names = list(kwargs.pop("model_input_names", None) or self.model_input_names)
        self.clean_up_tokenization_spaces = bool(kwargs.pop("clean_up_tokenization_spaces", False))
        self.split_special_tokens = bool(kwargs.pop("split_special_tokens", False))
        self.spaces_between_special_tokens = kwargs.pop("spaces_between_special_tokens", None)
        self.chat_template = files.template_from_config(kwargs.pop("chat_template", None))
        self._processor_class = kwargs.pop("processor_class", None)
        SpecialTokensMixin.__init__(self, verbose=kwargs.pop("verbose", False), **special)

    def __setattr__(self, name, value):
        super().__setattr__(name, check_side(value, name) if name in ("padding_side", "truncation_side") else value)

    @classmethod
    def check_arguments(cls, kwargs):
        """Raise TypeError, naming the nearest, for a name in `kwargs` that no constructor takes and no file gave."""
        check_kwargs(kwargs, {*files.LOADED_KEYS.get(), *_COMMON_INIT, "verbose", *cls.SPECIAL_TOKENS_ATTRIBUTES,
                              "extra_special_tokens", *cls.init_argument_names()}, f"{cls.__name__}()")

    @classmethod
    def init_argument_names(cls):
        """Names the constructors of this class and its parents spell out."""
        names = set()
        for klass in cls.__mro__:
            if "__init__" in klass.__dict__:
                parameters = inspect.signature(klass.__init__).parameters.values()
                names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        return names - {"self", "verbose"}

    # what a backend gives -------------------------------------------------------------------------------------------

    @property
    def is_fast(self):
        """Whether the `tokenizers` library does the work."""
        return False

    def __len__(self):
        return len(self.get_vocab())

    def __repr__(self):
        limit = self.model_max_length if self.model_max_length < LARGE_LENGTH else "unlimited"
        return (f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
                f"len={len(self)}, model_max_length={limit}, is_fast={self.is_fast}, "
                f"padding_side={self.padding_side!r}, truncation_side={self.truncation_side!r}, "
                f"special_tokens={self.special_tokens_map})")

    def num_special_tokens_to_add(self, pair=False):
        """How many special tokens a call adds to a text, or to a pair."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Return the ids of a text (and its pair) with the special tokens around them; here none are added."""
        return [*token_ids_0, *(token_ids_1 or [])]

    def create_token_type_ids_from_sequences(self, token_ids_0, token_ids_1=None):
        """Return 0 for the tokens of the text and 1 for those of the pair, special tokens with their text."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        if token_ids_1 is None:
            return [0] * first
        return [0] * first + [1] * (len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)) - first)

    def get_special_tokens_mask(self, token_ids_0, token_ids_1=None, already_has_special_tokens=False):
        """Return 1 for special tokens and 0 for the others, for ids that have them already or get them now."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("with already_has_special_tokens=True the ids come as one list: token_ids_1 must be "
                                 "None")
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        # -1 stands for the tokens of the text, whatever they are
        marked = self.build_inputs_with_special_tokens([-1] * len(token_ids_0),
                                                       None if token_ids_1 is None else [-1] * len(token_ids_1))
        return [int(index != -1) for index in marked]

    @property
    def max_len_single_sentence(self):
        """Tokens of a text that fit `model_max_length` beside the special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self):
        """Tokens of a pair that fit `model_max_length` beside the special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    # decoding -------------------------------------------------------------------------------------------------------

    def decode(self, token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=None, **kwargs):
        """Return the text of token ids.

        Args:
            token_ids (int | list[int] | array | Tensor): one row; a nested list gives a list of texts.
            skip_special_tokens (bool): leave special tokens out. Default: False.
            clean_up_tokenization_spaces (bool | None): drop spaces before punctuation. Default: the tokenizer's.
            **kwargs: `spaces_between_special_tokens` of slow tokenizers.

        Raises:
            TypeError: something that is no int among the ids.
            ValueError: a negative id (such as the -100 of labels).
        """
        check_kwargs(kwargs, ("spaces_between_special_tokens", "use_source_tokenizer"), "decode")
        ids = to_py_obj(token_ids)
        if isinstance(ids, Mapping):
            ids = ids["input_ids"]
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return self.batch_decode(ids, skip_special_tokens, clean_up_tokenization_spaces, **kwargs)
        spaces = kwargs.get("spaces_between_special_tokens", self.spaces_between_special_tokens)
        text = self._decode(check_ids(ids), skip_special_tokens, spaces)
        clean = self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None \
            else clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(self, sequences, skip_special_tokens=False, clean_up_tokenization_spaces=None, **kwargs):
        """Return the texts of several rows; arguments as in `decode`."""
        if isinstance(sequences, Mapping):
            sequences = sequences["input_ids"]
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces, **kwargs) for row in sequences]

    @staticmethod
    def clean_up_tokenization(out_string):
        """Return the text without the space before . ? ! , and English contractions."""
        for mark in (".", "?", "!", ","):
            out_string = out_string.replace(f" {mark}", mark)
        for old, new in ((" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")):
            out_string = out_string.replace(old, new)
        return out_string

    # folders --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path=None, *args, **kwargs):
        """Build the tokenizer from a folder, a YAML, a vocabulary file, a known name, or a repository of a hub.

        Args:
            name_or_path (str | PathLike): folder with tokenizer.json / tokenizer.model (and tokenizer_config.json),
                YAML with a processor.tokenizer section, path of one vocabulary file, or a name of configs/.
            *args: for the constructor.
            **kwargs: override what the folder says (`padding_side="left"`, `pad_token="</s>"`, ...); `subfolder`,
                `cache_dir`, `revision`, `token`, `local_files_only`, ... belong to loading.

        Raises:
            TypeError: not a path, or an unknown argument.
            FileNotFoundError: no such folder or name, or no vocabulary in it; the message lists what was looked for.
            ValueError: a file that cannot be read; the message names it.
        """
        if name_or_path is None:
            name_or_path = kwargs.pop("pretrained_model_name_or_path", None)
        return files.load_tokenizer(cls, name_or_path, args, kwargs)

    def save_pretrained(self, save_directory=None, save_name="mindspore_model", file_format=None, save_json=True,
                        filename_prefix=None, legacy_format=None, push_to_hub=False, **kwargs):
        """Write the tokenizer so that `from_pretrained` - and transformers - read it back.

        Files: tokenizer_config.json, special_tokens_map.json, added_tokens.json (when there are any),
        chat_template.jinja, and the vocabulary (tokenizer.json, tokenizer.model).

        Args:
            save_directory (str | PathLike | None): Default: the folder of CHECKPOINT_SAVE_FOLDER.
            save_name (str): stem of the YAML. Default: "mindspore_model".
            file_format (str | None): "yaml" writes ``<save_name>.yaml`` (processor.tokenizer) too. Default: None.
            save_json (bool): kept for compatibility; the JSON files are always written. Default: True.
            filename_prefix (str | None): goes before each file name. Default: None.
            legacy_format (bool | None): False leaves out the vocabulary of the slow tokenizer. Default: None.
            push_to_hub (bool): upload what was written, in one commit. Default: False.
            **kwargs: where to, see `hub.upload.PUSH_OPTIONS`; `repo_id` defaults to the folder's name.

        Returns:
            tuple[str]: paths of the files written.

        Raises:
            TypeError: `save_directory` or `save_name` is no string, or an unknown argument.
        """
        check_push_options(kwargs)
        if file_format not in (None, "yaml", "json"):
            raise ValueError(f"file_format must be 'yaml', 'json' or None, but got {file_format!r}")
        folder = get_env("CHECKPOINT_SAVE_FOLDER") if save_directory is None else save_directory
        with uploading(self, folder, kwargs) if push_to_hub else contextlib.nullcontext():
            return save_tokenizer(self, save_directory, save_name, file_format, filename_prefix, legacy_format)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write the vocabulary files into a folder and return their paths; a subclass with files overrides it."""
        raise UnsupportedError(f"{type(self).__name__} does not define save_vocabulary(save_directory, "
                               f"filename_prefix)")

    def save_vocabulary_files(self, save_directory, filename_prefix=None, legacy_format=None):
        """Write the vocabulary of `save_pretrained`, list of paths; `legacy_format` is for those with two forms."""
        return list(self.save_vocabulary(save_directory, filename_prefix))

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoTokenizer"):
        """Let `save_pretrained` copy the code of this class into the folder; tokenizer_config.json names it.

        Raises:
            ValueError: another auto class than AutoTokenizer.
        """
        cls._auto_class = check_auto_class(auto_class, "AutoTokenizer")

    @classmethod
    def get_support_list(cls):
        """Names `from_pretrained` of this class knows, from configs/."""
        return files.names_of_class(cls.__name__)

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of %s is: %s", cls.__name__, cls.get_support_list())


def _with_flags(special, decoder):
    """Return special tokens with those given as texts replaced by the AddedToken of that text in `decoder`."""
    held = {token.content: token for token in (as_added_token(value, special=False) for value in decoder.values())}

    def flagged(value):
        if isinstance(value, (list, tuple)):
            return [flagged(one) for one in value]
        return held.get(value, value) if isinstance(value, str) else value

    return {key: flagged(value) for key, value in special.items()}


def check_ids(ids):
    """Return ids as a list of ints.

    Raises:
        TypeError: something that is no int.
        ValueError: a negative id.
    """
    ids = [ids] if isinstance(ids, int) else ids
    if not isinstance(ids, list):
        raise TypeError(f"token ids must be an int, a list of ints or an array, but got {type(ids).__name__}")
    for index in ids:
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"token ids must be ints, but got {type(index).__name__}: {index!r}")
        if index < 0:
            raise ValueError(f"token id {index} is negative; drop the ignored positions of labels before decoding")
    return ids
