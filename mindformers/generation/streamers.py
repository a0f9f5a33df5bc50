"""Streamers: objects that `generate` hands each token to, and that turn tokens into text as it becomes certain."""
import queue

import numpy as np

from mindformers.generation.utils import to_numpy

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no whole character (yet)


class BaseStreamer:
    """What `generate` calls: `put` with the prompt, `put` with each token, then `end`, or `fail` after an exception."""

    def put(self, value):
        """Take tokens: the prompt [L] or prompts [[...], ...] first, then an int (one row) or a list [R] per step.

        Rows of a batch that have ended get -1.
        """
        raise TypeError(f"{type(self).__name__} must define put(value)")

    def end(self):
        """Take the end of the answer."""
        raise TypeError(f"{type(self).__name__} must define end()")

    def fail(self, error):
        """Take the exception that ended the generation; by default as its end."""
        self.end()


class IncrementalDecoder:
    """Turns the tokens of one row into text piece by piece; the pieces together equal the text decoded at once.

    Tokens are decoded behind the ones before them, because decoders treat the start of a text differently, and bytes
    that are no whole character yet are held back.
    """

    def __init__(self, decode):
        self.decode = decode
        self.context, self.fresh = [], []  # tokens that are printed and kept as context; tokens not fully printed
        self.start = 0  # characters of decode(context)
        self.printed = 0  # characters of decode(context + fresh) that were given out

    def push(self, tokens, is_final=False):
        """Take tokens and return the text that they make certain; `is_final` gives out the rest as it is."""
        self.fresh.extend(tokens)
        text = self.decode(self.context + self.fresh)
        certain = text if is_final else printable(text, len(self.fresh))
        piece = certain[self.printed:]
        self.printed = max(self.printed, len(certain))
        if len(certain) == len(text) and len(text) > self.start:
            self.context, self.fresh = self.fresh, []
            self.start = self.printed = len(self.decode(self.context))
        return piece


def printable(text, pending=0):
    """Return `text` without the incomplete character at its end.

    A character has at most four bytes, so a tail longer than that is broken text and will not change any more.
    """
    certain = text.rstrip(UNFINISHED)
    return certain if len(text) - len(certain) <= 4 or pending <= 4 else text


class TextStreamer(BaseStreamer):
    """Print an answer while it is generated.

    One row is printed as it grows. A batch is printed as one line that is rewritten, ``\\r['...', '...']``.

    Args:
        tokenizer: has ``decode(ids, **decode_kwargs)``.
        skip_prompt (bool): leave out the prompt (the first value put). Default: False.
        skip_special_tokens (bool): leave out special tokens. Default: True.
        decode_kwargs: passed to ``tokenizer.decode``.

    Raises:
        ValueError: no tokenizer.
    """

    def __init__(self, tokenizer=None, skip_prompt=False, skip_special_tokens=True, **decode_kwargs):
        if tokenizer is None or not hasattr(tokenizer, "decode"):
            raise ValueError(f"{type(self).__name__} needs tokenizer=, an object with decode(ids), but got "
                             f"{tokenizer!r}")
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = {"skip_special_tokens": skip_special_tokens, **decode_kwargs}
        self._reset()

    def _reset(self):
        self._first = True
        self._decoders = None
        self._texts = None

    def put(self, value):
        """Take an int, tokens [L], or rows [R, L] / one token per row [R] after a first value with rows.

        Raises:
            ValueError: anything else.
        """
        rows = self._rows(value)
        if self._decoders is None:
            self._batch = _depth(value) == 2 and len(rows) > 1
            self._decoders = [IncrementalDecoder(self._decode) for _ in rows]
            self._texts = [""] * len(rows)
        if len(rows) != len(self._decoders):
            raise ValueError(f"{type(self).__name__} began with {len(self._decoders)} rows, but got {len(rows)}")
        is_prompt, self._first = self._first, False
        if is_prompt and self.skip_prompt:
            return
        self._emit([decoder.push([token for token in row if token >= 0]) for decoder, row in zip(self._decoders, rows)])

    def end(self):
        """Give out what was held back, finish the line, and be ready for the next answer."""
        decoders, batch = self._decoders or [IncrementalDecoder(self._decode)], self._decoders and self._batch
        pieces = [decoder.push([], is_final=True) for decoder in decoders]
        if batch:
            self._texts = [text + piece for text, piece in zip(self._texts, pieces)]
        final = self._texts if batch else pieces[0]
        self._reset()
        self.on_finalized_text(self._batch_text(final, pieces) if batch else final, stream_end=True)

    def get_printable_text(self, text):
        """Return the part of `text` that later tokens cannot change: all but an incomplete character at its end."""
        return printable(text)

    def on_finalized_text(self, text, stream_end=False):
        """Take the next piece of text; `stream_end` marks the last. Overwrite it to send text elsewhere."""
        print(text, flush=True, end="\n" if stream_end else "")

    def _emit(self, pieces):
        if not self._batch:
            if pieces[0]:
                self.on_finalized_text(pieces[0])
            return
        self._texts = [text + piece for text, piece in zip(self._texts, pieces)]
        self.on_finalized_text(self._batch_text(self._texts, pieces))

    def _batch_text(self, texts, pieces):
        return f"\r{list(texts)}"

    def _decode(self, tokens):
        return self.tokenizer.decode(tokens, **self.decode_kwargs) if tokens else ""

    def _rows(self, value):
        depth = _depth(value)
        if depth == 0:
            return [[int(value)]]
        if depth == 1:
            tokens = [int(token) for token in to_numpy(value)]
            batch = self._decoders is not None and self._batch
            return [[token] for token in tokens] if batch else [tokens]
        if depth == 2:
            return [[int(token) for token in to_numpy(row)] for row in value]
        raise ValueError(f"{type(self).__name__} takes a token, a list of tokens or a list of rows, but got "
                         f"{depth} dimensions")


def _depth(value):
    """Return the number of dimensions of an int, array, or (ragged) list; ValueError for anything else."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return 0
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    if isinstance(value, np.ndarray) or hasattr(value, "asnumpy"):
        return to_numpy(value).ndim
    raise ValueError(f"a streamer takes token ids, but got {value!r} ({type(value).__name__})")


class TextIteratorStreamer(TextStreamer):
    """Hand an answer to another thread: run `generate` in one, iterate over this object in the other.

    Yields pieces of text (for a batch, lists with one piece per row) and ends when the answer ends. An exception of
    `generate` is raised in the reader as well.

    Args:
        tokenizer, skip_prompt, decode_kwargs: as in TextStreamer.
        timeout (float): seconds to wait for a piece, then `queue.Empty` is raised; None waits. Default: None.
    """

    def __init__(self, tokenizer=None, skip_prompt=False, timeout=None, **decode_kwargs):
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue = queue.Queue()
        self.timeout = timeout

    def on_finalized_text(self, text, stream_end=False):
        """Queue `text`, and the end of the answer after it."""
        if text and (isinstance(text, str) or any(text)):
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(_End(None))

    def fail(self, error):
        """Queue what is there, then the exception for the reader."""
        self._reset()
        self.text_queue.put(_End(error))

    def clear(self):
        """Forget what was queued."""
        self.text_queue = queue.Queue()
        self._reset()

    def __iter__(self):
        return self

    def __next__(self):
        try:
            value = self.text_queue.get(timeout=self.timeout)
        except queue.Empty:
            raise queue.Empty(f"no text within {self.timeout} s") from None
        if not isinstance(value, _End):
            return value
        if value.error is None:
            raise StopIteration
        raise value.error

    def _batch_text(self, texts, pieces):
        return list(pieces)


class _End:
    """Marks the end of an answer in the queue, with the exception that caused it or None."""

    def __init__(self, error):
        self.error = error
