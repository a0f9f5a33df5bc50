"""A model in numpy that keeps the decode protocol: next-token logits from tables, a cache of token lists.

``logits(tokens) = A[last] + B[one before last] + C[len % 7]``: a wrong row order, position or padding shows.
"""
import types

import numpy as np

from mindformers.generation.text_generator import GenerationMixin


def make_tables(vocab_size=50, seed=0, scale=1.5):
    """Return (A [V, V], B [V, V], C [7, V]), float32."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return tuple((scale * generator.standard_normal((rows, vocab_size))).astype(np.float32)
                 for rows in (vocab_size, vocab_size, 7))


class FakeCache:
    """Holds the tokens of each row; counts what is open so that a leak shows."""

    def __init__(self, model, batch_size, max_length):
        self.model, self.batch_size, self.max_length = model, batch_size, max_length
        self.rows, self.closed = [[] for _ in range(batch_size)], False
        model.open_caches += 1

    @property
    def lengths(self):
        return np.array([len(row) for row in self.rows], np.int32)

    def reorder(self, parents):
        assert len(parents) <= self.batch_size
        self.rows = [list(self.rows[int(parent)]) for parent in parents]
        self.model.reorders += 1

    def close(self):
        if not self.closed:
            self.closed = True
            self.model.open_caches -= 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class FakeModel(GenerationMixin):
    """See the module. `fail_at` raises an exception at that forward call; `nan_at` returns NaN there."""

    def __init__(self, vocab_size=50, seq_length=64, tables=None, eos_token_id=2, pad_token_id=0, bos_token_id=1,
                 fail_at=None, nan_at=None, **config):
        self.config = types.SimpleNamespace(vocab_size=vocab_size, seq_length=seq_length, eos_token_id=eos_token_id,
                                            pad_token_id=pad_token_id, bos_token_id=bos_token_id, max_decode_length=32,
                                            **config)
        self.tables = tables or make_tables(vocab_size)
        self.open_caches = self.reorders = self.calls = self.tokens_run = 0
        self.fail_at, self.nan_at = fail_at, nan_at
        self.training = False

    def set_train(self, mode=True):
        self.training = mode

    def make_cache(self, batch_size, max_length):
        return FakeCache(self, batch_size, max_length)

    def logits_of(self, tokens):
        last, before, place = self.tables
        logits = last[tokens[-1]] + place[len(tokens) % 7]
        return logits + before[tokens[-2]] if len(tokens) > 1 else logits

    def forward_step(self, tokens, lengths, cache):
        self.check(tokens, lengths)
        assert not cache.closed and not self.training
        assert len(cache.rows) == len(tokens)
        for row, new, length in zip(cache.rows, tokens, lengths):
            row.extend(new[:length].tolist())
            assert len(row) <= cache.max_length
        return self.count(np.stack([self.logits_of(row) if length else np.full(self.config.vocab_size, np.nan)
                                    for row, length in zip(cache.rows, lengths)]), int(np.sum(lengths)))

    def next_logits(self, tokens, lengths):
        self.check(tokens, lengths)
        return self.count(np.stack([self.logits_of(row[:length].tolist()) for row, length in zip(tokens, lengths)]),
                          int(np.sum(lengths)))

    def check(self, tokens, lengths):
        assert tokens.dtype == np.int32 and lengths.dtype == np.int32
        assert tokens.ndim == 2 and lengths.shape == (len(tokens),) and tokens.shape[1] == max(1, lengths.max())
        if self.calls == self.fail_at:
            self.fail_at = None
            raise RuntimeError("the device is gone")

    def count(self, logits, tokens):
        self.calls += 1
        self.tokens_run += tokens
        if self.calls - 1 == self.nan_at:
            logits[0, 3] = np.nan
        return logits.astype(np.float32)


class FakeTokenizer:
    """Ids 0 <pad>, 1 <s>, 2 </s>, 3 <unk>; id 4 + b is byte b of UTF-8, with `vocab_size` 260."""

    specials = {0: "<pad>", 1: "<s>", 2: "</s>", 3: "<unk>"}
    vocab_size, pad_token_id, bos_token_id, eos_token_id = 260, 0, 1, 2
    chat_template = "roles"

    def __len__(self):
        return self.vocab_size

    def encode(self, text, add_special_tokens=False):
        return [1] * add_special_tokens + [4 + byte for byte in text.encode("utf-8")]

    def __call__(self, text, add_special_tokens=False, **_):
        texts = [text] if isinstance(text, str) else text
        ids = [self.encode(item, add_special_tokens) for item in texts]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def decode(self, ids, skip_special_tokens=False, **_):
        ids = [ids] if isinstance(ids, (int, np.integer)) else ids
        parts = [bytes([int(i) - 4]) if i > 3 else b"" if skip_special_tokens else self.specials[int(i)].encode()
                 for i in ids]
        return b"".join(parts).decode("utf-8", errors="replace")

    def apply_chat_template(self, messages, tokenize=True, add_generation_prompt=False, **_):
        text = "".join(f"[{turn['role']}]{turn['content']}\n" for turn in messages)
        text += "[assistant]" * add_generation_prompt
        return self.encode(text) if tokenize else text


class ScriptModel(FakeModel):
    """Answers `text` (then the end token) after any prompt, with byte tokens of FakeTokenizer."""

    def __init__(self, text, **kwargs):
        super().__init__(vocab_size=260, seq_length=512, tables=make_tables(260), **kwargs)
        self.script = FakeTokenizer().encode(text) + [2]
        self.config.prompt_length = None

    def generate(self, input_ids, *args, **kwargs):
        first = np.asarray(input_ids[0] if np.ndim(input_ids[0]) else input_ids)
        self.config.prompt_length = len(first)
        return super().generate(input_ids, *args, **kwargs)

    def logits_of(self, tokens):
        logits = np.zeros(260, np.float32)
        place = len(tokens) - self.config.prompt_length
        logits[self.script[place] if place < len(self.script) else 2] = 20.0
        return logits
