"""Encoding: text to ids, for every tokenizer; what `__call__` and its relatives do with a backend's `_encode_rows`."""
import inspect

from mindformers.models.batch_encoding import BatchEncoding, TruncationStrategy, to_py_obj
from mindformers.models.tokenization_options import (check_kwargs, check_length, check_side, make_options,
                                                     resolve_padding)
from mindformers.models.tokenization_padding import pad_batch, pad_inputs
from mindformers.tools.logger import logger


class EncodingMixin:
    """`__call__`, `encode`, `pad` and the like. Shape legend: B rows of a batch, T tokens of a row."""

    _said_too_long = False

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
            return_tensors (str | None): "np" int64 arrays or "ms" int32 tensors, shape [B, T]. Default: None, lists.
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
        check_kwargs(kwargs, set(inspect.signature(EncodingMixin.__call__).parameters) - {"self", "kwargs"},
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
            raise ValueError(f"max_length={options.max_length} leaves no room for the {special} special tokens; raise "
                             f"it, or pass add_special_tokens=False")
        if options.return_overflowing_tokens and options.stride >= max(options.max_length - special, 1):
            raise ValueError(f"stride={options.stride} must be less than the {options.max_length - special} tokens a "
                             f"row holds beside special ones")

    def _finish(self, batch, encodings, single, options, prepend_batch_axis=True):
        """Pad a batch, unwrap a single row, and convert; the result of every call."""
        main = self.model_input_names[0]
        lengths = [len(row) for row in batch[main]]
        if options.verbose and max(lengths, default=0) > self.model_max_length and not self._said_too_long:
            self._said_too_long = True  # once a tokenizer: who reads documents whole would see it at every one
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
            ids, pair_ids, overflow = self.truncate_sequences(ids, pair_ids, surplus, options.truncation,
                                                              options.stride)
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
            raise ValueError(f"truncation={strategy.value!r} must drop {num_tokens_to_remove} tokens, but that text "
                             f"has only {len(ids) if first else len(pair_ids)}; raise max_length or use "
                             f"'longest_first'")
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
