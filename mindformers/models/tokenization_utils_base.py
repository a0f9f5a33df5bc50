"""PreTrainedTokenizerBase: the interface of every tokenizer, slow and fast.

A backend gives five things - `_encode_rows`, `_decode`, `convert_tokens_to_ids`, `convert_ids_to_tokens`, `get_vocab` -
and everything users call is built on them here. Shape legend: B rows of a batch, T tokens of a row.
"""
import copy
import inspect
from collections.abc import Mapping

from tokenizers import AddedToken

from mindformers.models import tokenization_files as files
from mindformers.models.batch_encoding import (BatchEncoding, CharSpan, ExplicitEnum, PaddingStrategy, TensorType,
                                               TokenSpan, TruncationStrategy, to_py_obj)
from mindformers.models.chat_template import ChatTemplateMixin
from mindformers.models.special_tokens import SpecialTokensMixin
from mindformers.models.tokenization_options import (LARGE_LENGTH, UNLIMITED_LENGTH, check_kwargs, check_length,
                                                     check_side, make_options, resolve_padding)
from mindformers.models.tokenization_padding import pad_batch, pad_inputs
from mindformers.models.tokenization_saving import save_tokenizer
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger

__all__ = ["AddedToken", "BatchEncoding", "CharSpan", "ExplicitEnum", "LARGE_LENGTH", "PaddingStrategy",
           "PreTrainedTokenizerBase", "SpecialTokensMixin", "TensorType", "TokenSpan", "TruncationStrategy",
           "UNLIMITED_LENGTH", "to_py_obj"]

# arguments any tokenizer takes beside its special tokens
_COMMON_INIT = ("model_max_length", "max_len", "padding_side", "truncation_side", "model_input_names",
                "clean_up_tokenization_spaces", "split_special_tokens", "chat_template", "name_or_path",
                "tokenizer_class", "processor_class", "added_tokens_decoder", "spaces_between_special_tokens", "auto_map")


class PreTrainedTokenizerBase(SpecialTokensMixin, ChatTemplateMixin):
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
        special = {key: kwargs.pop(key) for key in list(kwargs) if key in self.SPECIAL_TOKENS_ATTRIBUTES}
        special["extra_special_tokens"] = kwargs.pop("extra_special_tokens", None)
        self.name_or_path = kwargs.pop("name_or_path", "")
        limit = kwargs.pop("model_max_length", None) or kwargs.pop("max_len", None)
        self.model_max_length = UNLIMITED_LENGTH if limit is None else int(limit)
        self.padding_side = check_side(kwargs.pop("padding_side", None) or self.padding_side, "padding_side")
        self.truncation_side = check_side(kwargs.pop("truncation_side", None) or self.truncation_side,
                                          "truncation_side")
        self.model_input_names = list(kwargs.pop("model_input_names", None) or self.model_input_names)
        self.clean_up_tokenization_spaces = bool(kwargs.pop("clean_up_tokenization_spaces", False))
        self.split_special_tokens = bool(kwargs.pop("split_special_tokens", False))
        self.spaces_between_special_tokens = kwargs.pop("spaces_between_special_tokens", None)
        self.chat_template = files.template_from_config(kwargs.pop("chat_template", None))
        self._processor_class = kwargs.pop("processor_class", None)
        kept = (*files.LOADED_KEYS.get(), *_COMMON_INIT, "verbose")
        check_kwargs(kwargs, {*kept, *self.SPECIAL_TOKENS_ATTRIBUTES, *self.init_argument_names()},
                     f"{type(self).__name__}()")
        SpecialTokensMixin.__init__(self, verbose=kwargs.pop("verbose", False), **special)

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
                raise ValueError("with already_has_special_tokens=True the ids come as one list: token_ids_1 must be None")
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

    # encoding -------------------------------------------------------------------------------------------------------

    def __call__(self, text=None, text_pair=None, text_target=None, text_pair_target=None, add_special_tokens=True,
                 padding=False, truncation=None, max_length=None, stride=0, is_split_into_words=False,
                 pad_to_multiple_of=None, padding_side=None, return_tensors=None, return_token_type_ids=None,
                 return_attention_mask=None, return_overflowing_tokens=False, return_special_tokens_mask=False,
                 return_offsets_mapping=False, return_length=False, verbose=True, **kwargs):
        """Encode one text, a pair, or a batch of either.

        Args:
            text (str | list[str] | list[list[str]]): a text or a batch; with `is_split_into_words` lists of words.
            text_pair (same | None): second texts. Default: None.
            text_target, text_pair_target (same | None): texts whose ids come back as "labels". Default: None.
            add_special_tokens (bool): add bos, eos and the like. Default: True.
            padding (bool | str): True or "longest", "max_length", False or "do_not_pad". Default: False.
            truncation (bool | str | None): True or "longest_first", "only_first", "only_second", False. Default: None.
            max_length (int | None): bound in tokens, special ones included. Default: `model_max_length`.
            stride (int): tokens overlapping rows share, with `return_overflowing_tokens`. Default: 0.
            is_split_into_words (bool): texts come as lists of words. Default: False.
            pad_to_multiple_of (int | None): round the padded length up. Default: None.
            padding_side (str | None): "left" or "right" for this call. Default: the tokenizer's.
            return_tensors (str | None): "np" int64 arrays or "ms" int32 tensors, shape [B, T]; None lists. Default: None.
            return_token_type_ids, return_attention_mask (bool | None): Default: as `model_input_names` says.
            return_overflowing_tokens (bool): what was cut: more rows (fast) or a list (slow). Default: False.
            return_special_tokens_mask (bool): add 1/0 by special token. Default: False.
            return_offsets_mapping (bool): add (start, end) characters of each token, fast only. Default: False.
            return_length (bool): add "length" of each row before padding. Default: False.
            verbose (bool): log a row that is longer than `model_max_length`. Default: True.
            **kwargs: `split_special_tokens`.

        Returns:
            BatchEncoding with "input_ids" and what was asked for.

        Raises:
            TypeError: a text that is no text, or an unknown argument; the message names the nearest.
            ValueError: an option that cannot be honoured.
        """
        if text is None and text_target is None:
            raise ValueError("pass text, text_target, or both")
        options = self._options(padding=padding, truncation=truncation, max_length=max_length, stride=stride,
                                pad_to_multiple_of=pad_to_multiple_of, padding_side=padding_side,
                                return_tensors=return_tensors, return_token_type_ids=return_token_type_ids,
                                return_attention_mask=return_attention_mask, add_special_tokens=add_special_tokens,
                                is_split_into_words=is_split_into_words, verbose=verbose, return_length=return_length,
                                return_overflowing_tokens=return_overflowing_tokens,
                                return_special_tokens_mask=return_special_tokens_mask,
                                return_offsets_mapping=return_offsets_mapping, **kwargs)
        encoded = None if text is None else self._encode(text, text_pair, options)
        if text_target is None:
            return encoded
        target = self._encode(text_target, text_pair_target, options)
        if encoded is None:
            return target
        encoded["labels"] = target["input_ids"]
        return encoded

    def _options(self, split_special_tokens=None, **kwargs):
        check_kwargs(kwargs, set(inspect.signature(PreTrainedTokenizerBase.__call__).parameters) - {"self", "kwargs"},
                     f"{type(self).__name__}.__call__")
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        return make_options(self, split_special_tokens=split, **kwargs)

    def _encode(self, text, text_pair, options):
        rows, single = _as_rows(text, text_pair, options.is_split_into_words)
        return self._encode_checked(rows, single, options)

    def _encode_checked(self, rows, single, options):
        """Encode rows ``(text, pair or None)``, pad them, and shape the answer."""
        self._check_truncation(options, pair=any(pair is not None for _, pair in rows))
        if not rows:
            batch, encodings = {name: [] for name in self.model_input_names}, None
        else:
            batch, encodings = self._encode_rows(rows, options)
        return self._finish(batch, encodings, single and len(batch[self.model_input_names[0]]) == 1, options)

    def _check_truncation(self, options, pair):
        if options.truncation is TruncationStrategy.DO_NOT_TRUNCATE:
            return
        special = self.num_special_tokens_to_add(pair) if options.add_special_tokens else 0
        if options.max_length < special:
            raise ValueError(f"max_length={options.max_length} leaves no room for the {special} special tokens; raise it, "
                             f"or pass add_special_tokens=False")
        if options.return_overflowing_tokens and options.stride >= max(options.max_length - special, 1):
            raise ValueError(f"stride={options.stride} must be less than the {options.max_length - special} tokens a row "
                             f"holds beside special ones")

    def _finish(self, batch, encodings, single, options, prepend_batch_axis=True):
        """Pad a batch, unwrap a single row, and convert; the result of every call."""
        main = self.model_input_names[0]
        lengths = [len(row) for row in batch[main]]
        if options.verbose and max(lengths, default=0) > self.model_max_length:
            logger.warning("a row of %d tokens is longer than the %d the model takes; pass truncation=True to cut it",
                           max(lengths), self.model_max_length)
        side = options.padding_side or self.padding_side
        pad_batch(batch, self, options.padding, options.max_length, options.pad_to_multiple_of, side,
                  options.return_attention_mask)
        for encoding, row in zip(encodings or (), batch[main]):
            if len(row) > len(encoding.ids):
                encoding.pad(len(row), direction=side, pad_id=self.pad_token_id, pad_token=self.pad_token)
        if options.return_length:
            batch["length"] = lengths
        if single:
            batch = {key: value[0] for key, value in batch.items()}
        return BatchEncoding(batch, encodings, options.return_tensors, single and prepend_batch_axis)

    def encode(self, text, text_pair=None, add_special_tokens=True, padding=False, truncation=None, max_length=None,
               stride=0, padding_side=None, return_tensors=None, **kwargs):
        """Return the ids of one text: list of int, or an array of shape [1, T] with `return_tensors`.

        `text` may also be a list of tokens (str) or of ids (int). Arguments as in `__call__`.
        """
        return self.encode_plus(text, text_pair, add_special_tokens=add_special_tokens, padding=padding,
                                truncation=truncation, max_length=max_length, stride=stride, padding_side=padding_side,
                                return_tensors=return_tensors, **kwargs)["input_ids"]

    def encode_plus(self, text, text_pair=None, **kwargs):
        """Encode one text, or one list of tokens or ids; arguments and result as in `__call__`."""
        if not isinstance(text, str) and not kwargs.get("is_split_into_words"):
            kwargs.pop("is_split_into_words", None)
            return self.prepare_for_model(self._as_ids(text), None if text_pair is None else self._as_ids(text_pair),
                                          prepend_batch_axis=True, **kwargs)
        options = self._options(**kwargs)
        rows, _ = _as_rows(text, text_pair, options.is_split_into_words)
        return self._encode_checked(rows, True, options)

    def batch_encode_plus(self, batch_text_or_text_pairs, **kwargs):
        """Encode a list of texts, of pairs ``(text, text_pair)``, or of lists of ids; arguments as in `__call__`."""
        if not isinstance(batch_text_or_text_pairs, (list, tuple)):
            raise TypeError(f"a batch must be a list, but got {type(batch_text_or_text_pairs).__name__}")
        rows = list(batch_text_or_text_pairs)
        if rows and all(isinstance(row, (list, tuple)) and row and isinstance(row[0], int) for row in rows):
            prepared = [self.prepare_for_model(row, **{**kwargs, "padding": False, "return_tensors": None})
                        for row in rows]
            options = self._options(**kwargs)
            return self.pad(prepared, options.padding, options.max_length, options.pad_to_multiple_of,
                            options.padding_side, options.return_attention_mask, options.return_tensors)
        return self(rows, **kwargs)

    def _as_ids(self, text):
        if isinstance(text, str):
            return self.convert_tokens_to_ids(self.tokenize(text))
        if isinstance(text, (list, tuple)) and all(isinstance(item, str) for item in text):
            return self.convert_tokens_to_ids(list(text))
        ids = to_py_obj(text)
        if isinstance(ids, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
            return ids
        raise TypeError(f"text must be a str, a list of tokens (str) or a list of ids (int), but got {text!r:.120}")

    def prepare_for_model(self, ids, pair_ids=None, prepend_batch_axis=False, **kwargs):
        """Return ids (and a pair's ids) with special tokens, cut and padded; arguments and result as in `__call__`."""
        options = self._options(**kwargs)
        self._check_truncation(options, pair_ids is not None)
        row = self._prepare_row(list(ids), None if pair_ids is None else list(pair_ids), options)
        batch = {key: [value] for key, value in row.items()}
        return self._finish(batch, None, True, options, prepend_batch_axis)

    def _prepare_row(self, ids, pair_ids, options):
        """Return one row as a dict of lists: cut, special tokens added, the masks that were asked for."""
        special = self.num_special_tokens_to_add(pair_ids is not None) if options.add_special_tokens else 0
        surplus = len(ids) + len(pair_ids or ()) + special - (options.max_length or 0)
        overflow = []
        cuts = options.truncation is not TruncationStrategy.DO_NOT_TRUNCATE and surplus > 0
        if cuts:
            ids, pair_ids, overflow = self.truncate_sequences(ids, pair_ids, surplus, options.truncation, options.stride)
        row = {}
        if options.return_overflowing_tokens:
            row["overflowing_tokens"] = overflow
            row["num_truncated_tokens"] = max(surplus, 0) if cuts else 0
        if options.add_special_tokens:
            row["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids)
            types = self.create_token_type_ids_from_sequences(ids, pair_ids)
            mask = self.get_special_tokens_mask(ids, pair_ids)
        else:
            row["input_ids"] = ids + (pair_ids or [])
            types = [0] * len(ids) + [1] * len(pair_ids or ())
            mask = [0] * len(types)
        if options.return_token_type_ids:
            row["token_type_ids"] = types
        if options.return_special_tokens_mask:
            row["special_tokens_mask"] = mask
        return row

    def truncate_sequences(self, ids, pair_ids=None, num_tokens_to_remove=0, truncation_strategy="longest_first",
                           stride=0):
        """Return ``(ids, pair_ids, overflowing ids)`` with `num_tokens_to_remove` fewer tokens.

        Raises:
            ValueError: the text that may be cut is shorter than what must go.
        """
        if num_tokens_to_remove <= 0:
            return ids, pair_ids, []
        strategy = TruncationStrategy(truncation_strategy)
        if strategy is TruncationStrategy.LONGEST_FIRST and pair_ids is not None:
            first, second = _longest_first(len(ids), len(pair_ids), num_tokens_to_remove)
        else:
            second = num_tokens_to_remove if strategy is TruncationStrategy.ONLY_SECOND else 0
            first = num_tokens_to_remove - second
        if second and pair_ids is None:
            raise ValueError("truncation='only_second' needs a text_pair")
        if first > len(ids) or second > len(pair_ids or ()):
            raise ValueError(f"truncation={strategy.value!r} must drop {num_tokens_to_remove} tokens, but that text has "
                             f"only {len(ids) if first else len(pair_ids)}; raise max_length or use 'longest_first'")
        ids, overflow = self._cut(ids, first, stride)
        if pair_ids is not None:
            pair_ids, pair_overflow = self._cut(pair_ids, second, stride)
            overflow = overflow + pair_overflow
        return ids, pair_ids, overflow

    def _cut(self, ids, count, stride):
        """Return ids without `count` of them on the truncation side, and what was cut (with `stride` more)."""
        if not count:
            return ids, []
        window = min(len(ids), count + stride)
        if self.truncation_side == "left":
            return ids[count:], ids[:window]
        return ids[:-count], ids[-window:]

    def pad(self, encoded_inputs, padding=True, max_length=None, pad_to_multiple_of=None, padding_side=None,
            return_attention_mask=None, return_tensors=None):
        """Pad encoded rows to one length.

        Args:
            encoded_inputs (BatchEncoding | dict | list of them): values are lists or arrays, one row or a batch.
            padding, max_length, pad_to_multiple_of, padding_side, return_attention_mask, return_tensors: as in
                `__call__`; `padding` defaults to True.

        Returns:
            BatchEncoding.

        Raises:
            ValueError: no pad token, or rows without "input_ids".
        """
        max_length = check_length(max_length, "max_length")
        strategy, length = resolve_padding(padding, max_length, self.model_max_length, True)
        if return_attention_mask is None:
            return_attention_mask = "attention_mask" in self.model_input_names
        side = self.padding_side if padding_side is None else check_side(padding_side, "padding_side")
        multiple = check_length(pad_to_multiple_of, "pad_to_multiple_of")
        return pad_inputs(self, encoded_inputs, strategy, length, multiple, side, return_attention_mask, return_tensors)

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
        """Build the tokenizer from a folder, a YAML, a vocabulary file, or a known name.

        Args:
            name_or_path (str | PathLike): folder with tokenizer.json / tokenizer.model (and tokenizer_config.json, ...),
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
            push_to_hub (bool): refused here. Default: False.

        Returns:
            tuple[str]: paths of the files written.

        Raises:
            TypeError: `save_directory` or `save_name` is no string, or an unknown argument.
        """
        check_kwargs(kwargs, (), "save_pretrained")
        if push_to_hub:
            raise UnsupportedError("push_to_hub of a tokenizer is not carried: save it, then upload the folder")
        if file_format not in (None, "yaml", "json"):
            raise ValueError(f"file_format must be 'yaml', 'json' or None, but got {file_format!r}")
        return save_tokenizer(self, save_directory, save_name, file_format, filename_prefix, legacy_format)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write the vocabulary files into a folder and return their paths; a subclass with files overrides it."""
        raise UnsupportedError(f"{type(self).__name__} does not define save_vocabulary(save_directory, filename_prefix)")

    def save_vocabulary_files(self, save_directory, filename_prefix=None, legacy_format=None):
        """Write the vocabulary of `save_pretrained`, list of paths; `legacy_format` is for tokenizers with two forms."""
        return list(self.save_vocabulary(save_directory, filename_prefix))

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoTokenizer"):
        """Note that `save_pretrained` of a user's class belongs to `auto_class`."""
        cls._auto_class = auto_class if isinstance(auto_class, str) else auto_class.__name__

    @classmethod
    def get_support_list(cls):
        """Names `from_pretrained` of this class knows, from configs/."""
        return files.names_of_class(cls.__name__)

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of %s is: %s", cls.__name__, cls.get_support_list())


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


def _longest_first(first, second, surplus):
    """How many tokens each of two texts loses when the longer one always loses the next; ties take the second."""
    low, high = min(first, second), max(first, second)
    level = min(high - low, surplus)
    rest = surplus - level
    cuts = {"long": level + rest // 2, "short": rest // 2}
    if first > second:
        # after levelling both are equal; the second goes first
        return cuts["long"], cuts["short"] + rest % 2
    return cuts["short"], cuts["long"] + rest % 2


def _is_text(value, split):
    if split:
        return isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)
    return isinstance(value, str)


def _as_rows(text, text_pair, split):
    """Return ``([(text, pair or None), ...], single)``.

    Raises:
        TypeError: something that is no text; the message names the row.
        ValueError: a pair list of another length.
    """
    kind = "list of str (words)" if split else "str"
    if _is_text(text, split):
        if text_pair is not None and not _is_text(text_pair, split):
            raise TypeError(f"text_pair must be a {kind} like text, but got {type(text_pair).__name__}")
        return [(text, text_pair)], True
    if not isinstance(text, (list, tuple)):
        raise TypeError(f"text must be a {kind} or a list of them, but got {type(text).__name__}: {text!r:.80}")
    rows = []
    if text_pair is not None and (not isinstance(text_pair, (list, tuple)) or len(text_pair) != len(text)):
        raise ValueError(f"text_pair must be a list of {len(text)} texts like text, but got {text_pair!r:.80}")
    for index, row in enumerate(text):
        pair = None if text_pair is None else text_pair[index]
        if not _is_text(row, split) and pair is None and isinstance(row, (list, tuple)) and len(row) == 2:
            row, pair = row
        for value in (row,) if pair is None else (row, pair):
            if not _is_text(value, split):
                raise TypeError(f"row {index} of text must be a {kind}, but got {type(value).__name__}: {value!r:.80}")
        rows.append((row, pair))
    return rows, False
