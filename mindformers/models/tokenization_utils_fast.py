"""PreTrainedTokenizerFast: a tokenizer.json run by the `tokenizers` library."""
import os
import shutil
import threading

from tokenizers import Tokenizer, processors

from mindformers.models.batch_encoding import TruncationStrategy
from mindformers.models.special_tokens import NAMED_SPECIAL_TOKENS, as_added_token
from mindformers.models.tokenization_files import FAST_FILE, LOADED_KEYS, SLOW_FILE
from mindformers.models.tokenization_training import train_backend
from mindformers.models.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase
from mindformers.tools.errors import DamagedFileError

__all__ = ["AddedToken", "PreTrainedTokenizerFast"]


def read_tokenizer_file(path):
    """Return the `tokenizers.Tokenizer` of a tokenizer.json.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not parse; the message names the file and the place.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"tokenizer_file {path} does not exist")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as fault:  # the library raises nothing narrower
        raise DamagedFileError(f"{path} cannot be read as a tokenizer.json (cut off or corrupt?): {fault}") from fault


def _refuse_lone_surrogates(rows, fault):
    """Raise ValueError for rows ``(text, pair)`` with half characters: bytes that were not UTF-8 when read."""
    for text in (part for row in rows for part in row if isinstance(part, str)):
        half = next((char for char in text if "\ud800" <= char <= "\udfff"), None)
        if half is not None:
            raise ValueError(f"the text cannot be encoded: {half!r} at place {text.index(half)} is no character; it "
                             "comes from bytes that are not UTF-8, so read them with their own encoding") from fault


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    """A tokenizer defined by a tokenizer.json.

    Args:
        tokenizer_object (tokenizers.Tokenizer | None): the backend; it is copied. Default: None.
        tokenizer_file (str | None): path of a tokenizer.json. Default: None.
        add_bos_token, add_eos_token (bool | None): put bos / eos around every text. Default: None, what the
            tokenizer.json does.
        **kwargs: see PreTrainedTokenizerBase.

    Raises:
        ValueError: neither object nor file, or a file that cannot be read.
    """

    vocab_files_names = {"tokenizer_file": FAST_FILE}

    def __init__(self, *args, tokenizer_object=None, tokenizer_file=None, add_bos_token=None, add_eos_token=None,
                 **kwargs):
        if args:
            raise TypeError(f"{type(self).__name__} takes keyword arguments: tokenizer_file=... or "
                            f"tokenizer_object=...")
        self._lock = threading.Lock()
        if tokenizer_object is not None:
            self._tokenizer = Tokenizer.from_str(tokenizer_object.to_str())
        elif tokenizer_file is not None:
            self._tokenizer = read_tokenizer_file(tokenizer_file)
        else:
            self.check_arguments(kwargs)
            raise ValueError(f"{type(self).__name__} needs tokenizer_file (a tokenizer.json) or tokenizer_object")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        super().__init__(**kwargs)
        self._add_missing(kwargs.get("added_tokens_decoder") or {})
        given = {"add_bos_token": add_bos_token, "add_eos_token": add_eos_token}
        self._set_around(**{key: value for key, value in given.items() if value is not None})

    def _add_missing(self, decoder):
        """Add the tokens a folder lists and the special tokens, where the tokenizer.json lacks them."""
        held = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        listed = [as_added_token(token, special=False) for _, token in sorted((int(k), v) for k, v in decoder.items())]
        self._add_tokens([token for token in listed if token.content not in held])
        held |= {token.content for token in listed}
        self._add_tokens([token for token in self.all_special_tokens_extended if token.content not in held],
                         special_tokens=True)

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()

    # vocabulary -----------------------------------------------------------------------------------------------------

    @property
    def is_fast(self):
        """True."""
        return True

    @property
    def can_save_slow_tokenizer(self):
        """Whether the SentencePiece model it was made from is at hand."""
        return False

    @property
    def backend_tokenizer(self):
        """The `tokenizers.Tokenizer`."""
        return self._tokenizer

    @property
    def decoder(self):
        """The decoder of the backend."""
        return self._tokenizer.decoder

    @property
    def vocab_size(self):
        """Size of the vocabulary without added tokens."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self):
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def get_vocab(self):
        """Return ``{token: id}``, added tokens included."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self):
        """``get_vocab()``."""
        return self.get_vocab()

    @property
    def added_tokens_decoder(self):
        """``{id: AddedToken}``, by id."""
        return dict(sorted(self._tokenizer.get_added_tokens_decoder().items()))

    @property
    def added_tokens_encoder(self):
        """``{text: id}`` of the added tokens, by id."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self):
        """Return ``{text: id}`` of the added tokens."""
        return self.added_tokens_encoder

    def _add_tokens(self, new_tokens, special_tokens=False):
        before = len(self)
        for token in new_tokens:
            if not token.content:
                raise ValueError("an added token must not be empty")
            if special_tokens:
                token.special = True
        self._tokenizer.add_tokens(list(new_tokens))
        return len(self) - before

    def convert_tokens_to_ids(self, tokens):
        """Return the id of a token, or the ids of a list of tokens; unknown tokens give the unk id (or None)."""
        if tokens is None:
            return None
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self._tokenizer.token_to_id(tokens)
        if index is None and self.unk_token is not None:
            index = self._tokenizer.token_to_id(self.unk_token)
        return index

    def convert_ids_to_tokens(self, ids, skip_special_tokens=False):
        """Return the token of an id, or the tokens of a list of ids; None for an id beyond the vocabulary."""
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        special = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._tokenizer.id_to_token(int(index)) for index in ids if int(index) not in special]

    def convert_tokens_to_string(self, tokens):
        """Return the text of tokens."""
        return " ".join(tokens) if self.decoder is None else self.decoder.decode(tokens)

    # special tokens around a text -----------------------------------------------------------------------------------

    @property
    def add_bos_token(self):
        """Whether bos is put before every text; setting it rebuilds the post-processor."""
        return self._is_around("bos_token", 0)

    @add_bos_token.setter
    def add_bos_token(self, value):
        self._set_around(add_bos_token=value)

    @property
    def add_eos_token(self):
        """Whether eos is put after every text; setting it rebuilds the post-processor."""
        return self._is_around("eos_token", -1)

    @add_eos_token.setter
    def add_eos_token(self, value):
        self._set_around(add_eos_token=value)

    def _is_around(self, name, end):
        if f"add_{name}" in self.init_kwargs:
            return self.init_kwargs[f"add_{name}"]
        part, ids = self._layout(pair=False)[end]  # what the tokenizer.json does
        return part is None and getattr(self, f"{name}_id") in ids

    def _set_around(self, **given):
        """Set `add_bos_token` and / or `add_eos_token`; the other stays as it is."""
        for key, value in given.items():
            if value and getattr(self, key.removeprefix("add_")) is None:
                raise ValueError(f"{key}=True, but this tokenizer has no {key.removeprefix('add_')}")
        if given:
            now = {"add_bos_token": self.add_bos_token, "add_eos_token": self.add_eos_token}
            self.init_kwargs.update({**now, **{key: bool(value) for key, value in given.items()}})
            self.update_post_processor()

    def update_post_processor(self):
        """Rebuild the part of the backend that puts bos and eos around texts; call it after changing either token."""
        add_bos = self.add_bos_token and self.bos_token is not None
        add_eos = self.add_eos_token and self.eos_token is not None
        used = [(self.bos_token, self.bos_token_id)] if add_bos else []
        used += [(self.eos_token, self.eos_token_id)] if add_eos else []

        def around(text, kind):
            before = [f"{self.bos_token}:{kind}"] if add_bos else []
            after = [f"{self.eos_token}:{kind}"] if add_eos else []
            return [*before, f"{text}:{kind}", *after]

        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=around("$A", 0), pair=around("$A", 0) + around("$B", 1), special_tokens=used)

    def num_special_tokens_to_add(self, pair=False):
        """How many special tokens a call adds to a text, or to a pair."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        """Return the ids of a text (and its pair) with the special tokens the post-processor puts around them."""
        return [index for part, ids in self._layout(token_ids_1 is not None)
                for index in (ids if part is None else (token_ids_0, token_ids_1)[part])]

    def create_token_type_ids_from_sequences(self, token_ids_0, token_ids_1=None):
        """Return the token types the post-processor gives."""
        counts = (len(token_ids_0), len(token_ids_1 or ()))
        return [kind for part, kinds in self._layout(token_ids_1 is not None, types=True)
                for kind in (kinds if part is None else kinds[:1] * counts[part])]

    def _layout(self, pair, types=False):
        """Runs ``(None, special values)`` and ``(0 or 1, values)`` of an encoded text or pair: what comes where."""
        with self._lock:
            self._tokenizer.no_truncation()
            encoding = self._tokenizer.encode("a", "a" if pair else None)
        runs = []
        for part, value in zip(encoding.sequence_ids, encoding.type_ids if types else encoding.ids, strict=True):
            if not runs or runs[-1][0] != part:
                runs.append((part, []))
            runs[-1][1].append(value)
        return runs

    # encoding and decoding ------------------------------------------------------------------------------------------

    def tokenize(self, text, pair=None, add_special_tokens=False, split_special_tokens=None):
        """Return the tokens (str) of a text, or of a pair.

        Raises:
            TypeError: not a str.
        """
        return self(text, pair, add_special_tokens=add_special_tokens, verbose=False,
                    split_special_tokens=split_special_tokens).tokens()

    def _encode_rows(self, rows, options):
        """Encode rows ``(text, pair or None)``; returns ``(dict name -> list of rows, encodings)``, not padded."""
        inputs = [text if pair is None else (text, pair) for text, pair in rows]
        with self._lock:  # truncation is a state of the backend
            self._set_truncation(options)
            self._tokenizer.encode_special_tokens = bool(options.split_special_tokens)
            try:
                whole = self._tokenizer.encode_batch(inputs, is_pretokenized=options.is_split_into_words,
                                                     add_special_tokens=options.add_special_tokens)
            except Exception as fault:  # the library raises nothing narrower
                _refuse_lone_surrogates(rows, fault)
                raise ValueError(f"the text cannot be encoded: {fault} (truncation={options.truncation.value!r}, "
                                 f"max_length={options.max_length})") from fault
            finally:
                self._tokenizer.no_truncation()
        encodings, origin = [], []
        for index, encoding in enumerate(whole):
            parts = [encoding, *(encoding.overflowing if options.return_overflowing_tokens else ())]
            encodings += parts
            origin += [index] * len(parts)
        batch = {"input_ids": [encoding.ids for encoding in encodings]}
        if options.return_token_type_ids:
            batch["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        if options.return_special_tokens_mask:
            batch["special_tokens_mask"] = [encoding.special_tokens_mask for encoding in encodings]
        if options.return_offsets_mapping:
            batch["offset_mapping"] = [encoding.offsets for encoding in encodings]
        if options.return_overflowing_tokens:
            batch["overflow_to_sample_mapping"] = origin
        return batch, encodings

    def _set_truncation(self, options):
        if options.truncation is TruncationStrategy.DO_NOT_TRUNCATE:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(options.max_length, stride=options.stride,
                                              strategy=options.truncation.value, direction=self.truncation_side)

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        if skip_special_tokens:
            special = set(self.all_special_ids)
            ids = [index for index in ids if index not in special]
        known = len(self)
        return self._tokenizer.decode([index for index in ids if index < known], skip_special_tokens)

    def train_new_from_iterator(self, text_iterator, vocab_size, length=None, new_special_tokens=None,
                                special_tokens_map=None, **kwargs):
        """Return a tokenizer of the same kind, with a vocabulary trained on texts; see `train_backend`.

        Raises:
            UnsupportedError: a vocabulary with byte fallback.
        """
        backend = train_backend(self._tokenizer, text_iterator, vocab_size, length, new_special_tokens,
                                special_tokens_map, **kwargs)
        renamed = special_tokens_map or {}
        named = {key: None if token is None else renamed.get(token.content, token.content)
                 for key, token in self._special_tokens.items() if key in NAMED_SPECIAL_TOKENS}
        more = [renamed.get(token, token) for token in self.additional_special_tokens]
        dropped = {"added_tokens_decoder", "extra_special_tokens", *named}
        kept = {key: value for key, value in self.init_kwargs.items() if key not in dropped}
        token = LOADED_KEYS.set(frozenset(kept))
        try:
            more += [str(added) for added in new_special_tokens or ()]
            return type(self)(**{**kept, **named, "additional_special_tokens": more, "tokenizer_object": backend,
                                 "chat_template": self.chat_template})
        finally:
            LOADED_KEYS.reset(token)

    # files ----------------------------------------------------------------------------------------------------------

    def save_vocabulary(self, save_directory, filename_prefix=None):
        """Write tokenizer.json into a folder, and the SentencePiece model it was made from; returns the paths."""
        return tuple(self.save_vocabulary_files(save_directory, filename_prefix))

    def save_vocabulary_files(self, save_directory, filename_prefix=None, legacy_format=None):
        """Write tokenizer.json and, unless `legacy_format` is False, the SentencePiece model it was made from."""
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        path = os.path.join(save_directory, prefix + FAST_FILE)
        with self._lock:
            self._tokenizer.encode_special_tokens = False
            self._tokenizer.save(path)
        if not self.can_save_slow_tokenizer or legacy_format is False:
            return [path]
        slow = os.path.join(save_directory, prefix + SLOW_FILE)
        if os.path.abspath(self.vocab_file) != os.path.abspath(slow):
            shutil.copyfile(self.vocab_file, slow)
        return [path, slow]
