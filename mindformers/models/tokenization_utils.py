"""PreTrainedTokenizer: a tokenizer whose splitting is done in Python (SentencePiece, tiktoken, a user's own)."""
import re
import unicodedata

from mindformers.models.batch_encoding import BatchEncoding
from mindformers.models.special_tokens import as_added_token
from mindformers.models.tokenization_utils_base import AddedToken, PreTrainedTokenizerBase
from mindformers.tools.errors import UnsupportedError

__all__ = ["AddedToken", "BatchEncoding", "PreTrainedTokenizer", "Trie"]


class Trie:
    """Splits a text at given words: the leftmost word first, and of several there the longest."""

    def __init__(self, words=()):
        self._words = set()
        self._pattern = None
        for word in words:
            self.add(word)

    def add(self, word):
        """Add a word; the empty word is ignored."""
        if word:
            self._words.add(word)
            self._pattern = None

    def split(self, text):
        """Return the pieces of `text` in order, words and what is between them, empty pieces left out.

        >>> Trie(["[CLS]", "extra_id_1", "extra_id_100"]).split("[CLS] This is a extra_id_100")
        ['[CLS]', ' This is a ', 'extra_id_100']
        """
        if self.pattern is None:
            return [text] if text else []
        return [piece for piece in self.pattern.split(text) if piece]

    @property
    def pattern(self):
        """The compiled regular expression of the words, one group; None when there are none."""
        if self._pattern is None and self._words:
            longest_first = sorted(self._words, key=lambda word: (-len(word), word))
            self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        return self._pattern


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    """Base of slow tokenizers.

    A subclass loads its vocabulary, then calls ``super().__init__(**kwargs)``, and defines `vocab_size`, `get_vocab()`,
    `_tokenize(text) -> list[str]`, `_convert_token_to_id(token)`, `_convert_id_to_token(index)`, and where needed
    `convert_tokens_to_string(tokens)`, `save_vocabulary(folder, prefix)` and `build_inputs_with_special_tokens`.
    Added tokens (special or not) are found whole inside a text before `_tokenize` sees the rest.

    Args:
        **kwargs: see PreTrainedTokenizerBase.
    """

    def __init__(self, **kwargs):
        self._added_tokens_decoder = {}
        self._added_tokens_encoder = {}
        self._splitters = {}
        super().__init__(**kwargs)
        for index, token in sorted((int(k), v) for k, v in (kwargs.get("added_tokens_decoder") or {}).items()):
            self._hold_added(index, as_added_token(token, special=False))
        self._add_tokens(self.all_special_tokens_extended, special_tokens=True)

    # vocabulary -----------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self):
        """Size of the vocabulary without added tokens."""
        raise UnsupportedError(f"{type(self).__name__} does not define vocab_size")

    def get_vocab(self):
        """Return ``{token: id}``, added tokens included."""
        raise UnsupportedError(f"{type(self).__name__} does not define get_vocab()")

    def _tokenize(self, text, **kwargs):
        raise UnsupportedError(f"{type(self).__name__} does not define _tokenize(text)")

    def _convert_token_to_id(self, token):
        raise UnsupportedError(f"{type(self).__name__} does not define _convert_token_to_id(token)")

    def _convert_id_to_token(self, index):
        raise UnsupportedError(f"{type(self).__name__} does not define _convert_id_to_token(index)")

    def __len__(self):
        last = max(self._added_tokens_decoder, default=-1)
        return max(self.vocab_size, last + 1)

    @property
    def added_tokens_encoder(self):
        """``{text: id}`` of the added tokens, by id."""
        return {token.content: index for index, token in sorted(self._added_tokens_decoder.items())}

    @property
    def added_tokens_decoder(self):
        """``{id: AddedToken}``, by id; also those special tokens that the vocabulary holds itself."""
        return dict(sorted(self._added_tokens_decoder.items()))

    @added_tokens_decoder.setter
    def added_tokens_decoder(self, value):
        for index, token in value.items():
            if not isinstance(index, int):
                raise TypeError(f"the keys of added_tokens_decoder must be ints, but got {index!r}")
            self._hold_added(index, as_added_token(token, special=False))

    def get_added_vocab(self):
        """Return ``{text: id}`` of the added tokens."""
        return self.added_tokens_encoder

    def _hold_added(self, index, token):
        before = self._added_tokens_decoder.get(index)
        if before is not None:
            self._added_tokens_encoder.pop(before.content, None)
        self._added_tokens_decoder[index] = token
        self._added_tokens_encoder[token.content] = index
        self._splitters.clear()

    def _add_tokens(self, new_tokens, special_tokens=False):
        """Give each token an id (its own in the vocabulary, else the next one); returns how many are new."""
        added = 0
        vocab = self.get_vocab() if new_tokens else {}
        following = len(self) if new_tokens else 0
        for token in new_tokens:
            token = as_added_token(token, special=special_tokens)
            if not token.content:
                raise ValueError("an added token must not be empty")
            if special_tokens:
                token.special = True
            index = self._added_tokens_encoder.get(token.content, vocab.get(token.content))
            if index is None:
                index, following, added = following, following + 1, added + 1
            elif self._added_tokens_decoder.get(index) == token:
                continue
            self._hold_added(index, token)
        return added

    # text -> tokens -> ids ------------------------------------------------------------------------------------------

    def tokenize(self, text, pair=None, add_special_tokens=False, split_special_tokens=None, **kwargs):
        """Return the tokens (str) of a text.

        Args:
            text (str): the text.
            pair (str | None): a second text, whose tokens follow. Default: None.
            add_special_tokens (bool): add bos, eos and the like. Default: False.
            split_special_tokens (bool | None): treat special tokens as plain text. Default: the tokenizer's.

        Raises:
            TypeError: not a str.
        """
        for value in (text,) if pair is None else (text, pair):
            if not isinstance(value, str):
                raise TypeError(f"tokenize takes a str, but got {type(value).__name__}: {value!r:.80}")
        if add_special_tokens:
            pair_ids = None if pair is None else self._as_ids(pair)
            return self.convert_ids_to_tokens(self.build_inputs_with_special_tokens(self._as_ids(text), pair_ids))
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        text, kwargs = self.prepare_for_tokenization(text, **kwargs)
        tokens = []
        for piece, is_added in self._split_added(text, split):
            tokens += [piece] if is_added else self._tokenize(piece)
        return tokens if pair is None else tokens + self.tokenize(pair, split_special_tokens=split, **kwargs)

    def prepare_for_tokenization(self, text, is_split_into_words=False, **kwargs):
        """Hook for subclasses: return the text to split and the kwargs left; here the text as it is."""
        return text, kwargs

    def _split_added(self, text, split_special_tokens):
        """Split a text at its added tokens: pairs ``(piece, whether it is one)``; lstrip, rstrip, single_word hold."""
        if split_special_tokens not in self._splitters:
            self._splitters[split_special_tokens] = Trie(
                token.content for token in self._added_tokens_decoder.values()
                if not (split_special_tokens and token.special)).pattern
        pattern = self._splitters[split_special_tokens]
        pieces, start, position = [], 0, 0
        while pattern is not None and (match := pattern.search(text, position)):
            token = self._added_tokens_decoder[self._added_tokens_encoder[match.group()]]
            beside = text[max(match.start() - 1, 0):match.start()] + text[match.end():match.end() + 1]
            if token.single_word and any(map(_is_word_character, beside)):
                position = match.start() + 1
                continue
            before = text[start:match.start()]
            pieces += [(before.rstrip() if token.lstrip else before, False), (token.content, True)]
            start = match.end()
            if token.rstrip:
                start = len(text) - len(text[start:].lstrip())
            position = start
        pieces.append((text[start:], False))
        return [(piece, is_added) for piece, is_added in pieces if piece]

    def convert_tokens_to_ids(self, tokens):
        """Return the id of a token, or the ids of a list of tokens; unknown tokens give the unk id (or None)."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            index = self._added_tokens_encoder.get(tokens)
            return self._convert_token_to_id(tokens) if index is None else index
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids, skip_special_tokens=False):
        """Return the token of an id, or the tokens of a list of ids; None for an id beyond the vocabulary."""
        if isinstance(ids, int):
            token = self._added_tokens_decoder.get(ids)
            if token is not None:
                return token.content
            return self._convert_id_to_token(ids) if 0 <= ids < self.vocab_size else None
        special = set(self.all_special_ids) if skip_special_tokens else ()
        return [self.convert_ids_to_tokens(int(index)) for index in ids if int(index) not in special]

    def convert_tokens_to_string(self, tokens):
        """Return the text of tokens; here they are joined by spaces."""
        return " ".join(tokens)

    def _encode_rows(self, rows, options):
        """Encode rows ``(text, pair or None)``; returns ``(dict name -> list of rows, None)``, not padded."""
        if options.return_offsets_mapping:
            raise UnsupportedError(f"return_offsets_mapping needs a fast tokenizer, which {type(self).__name__} is "
                                   f"not: use LlamaTokenizerFast or PreTrainedTokenizerFast")
        prepared = [self._prepare_row(self._text_ids(text, options),
                                      None if pair is None else self._text_ids(pair, options), options)
                    for text, pair in rows]
        return {key: [row[key] for row in prepared] for key in prepared[0]}, None

    def _text_ids(self, text, options):
        words = text if options.is_split_into_words else [text]
        arguments = {"is_split_into_words": True} if options.is_split_into_words else {}
        return [index for word in words for index in self.convert_tokens_to_ids(
            self.tokenize(word, split_special_tokens=options.split_special_tokens, **arguments))]

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        tokens = self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)
        tokens = [token for token in tokens if token is not None]
        texts, run = [], []
        for token in tokens:
            if token not in self._added_tokens_encoder:
                run.append(token)
                continue
            texts += [self.convert_tokens_to_string(run)] if run else []
            texts.append(token)
            run = []
        texts += [self.convert_tokens_to_string(run)] if run else []
        return (" " if spaces_between_special_tokens in (None, True) else "").join(texts)


def _is_word_character(character):
    return character == "_" or unicodedata.category(character)[0] in "LN"
