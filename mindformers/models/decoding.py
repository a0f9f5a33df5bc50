"""What generation asks of a decoder: `make_cache`, `forward_step`, `next_logits`; see DESIGN in docs/concepts."""
import threading
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from mindformers import kernels
from mindformers.core.dtype import to_ms_dtype
from mindformers.models.graphs import RUNNING, CachedStepGraph, EmbedGraph, PastGraph
from mindformers.modules.decoder_step import decoder_step, refuse_forgetful_steps
from mindformers.modules.kv_cache import CachePool, PagedCache
from mindformers.tools import mapped_file
from mindformers.tools.errors import ConfigError

_FIRST_POOL = 32 * 2 ** 20  # bytes; a pool of this size costs nothing to speak of and spares growing
_FIRST_USE = threading.Lock()  # threads that generate on one model share its pool
_PREFILL_CHUNK = 512  # tokens; bounds the memory of the attention scores of a long prompt


class _Steps(NamedTuple):
    """What runs the steps of a model over the arrays of a pool."""

    arrays: list
    whole: object  # from `decoder_step`, or None
    graphs: dict  # shape key -> graph


class DecodingMixin:
    """The decoding protocol for a model whose ``self.model`` is a `modules.decoder.Decoder`."""

    _pool = None
    _cache_dtype = "float32"  # dtype of the cache, whether embeddings need a graph of their own
    _embeds_apart = True  # and whole block tables are read, as the kernels that the cells took when they
    _reads_whole_tables = True  # were built want it: see `choose_cache`
    _steps = None
    _embed_graph = None

    def choose_cache(self):
        """Note what the kernels in force ask of the cache; called when the cells are built."""
        self._hide("_cache_dtype", kernels.cache_dtype(self.config.param_init_type))
        self._hide("_embeds_apart", kernels.copies_shared_parameters())
        self._hide("_reads_whole_tables", kernels.reads_whole_tables())

    def make_cache(self, batch_size, max_length):
        """Return a `PagedCache` for `batch_size` sequences of at most `max_length` tokens; close it after use.

        The past of the decoder, if it has one, is in its rows already, and counts in their `lengths`.
        """
        with _FIRST_USE:
            if self._pool is None:
                self._hide("_pool", self._make_pool())
        past = self.model.past_length
        cache = PagedCache(self._pool, batch_size, max_length + past)
        if past:
            try:
                self._store_past(cache, past)
            except BaseException:
                cache.close()
                raise
        return cache

    def _store_past(self, cache, length):
        counts = np.full(len(cache.lengths), length, np.int32)
        with cache.pool.lock:
            positions, slots, tables = cache.plan(counts, length)
            self._run(self._step_for(cache.pool, "past"), positions, tables, slots)
            cache.advance(counts)

    def _make_pool(self):
        backbone, config = self.model, self.config
        dtype = to_ms_dtype(self._cache_dtype)
        _, kv_heads, head_dim = backbone.heads
        pool = CachePool(backbone.num_layers, kv_heads, head_dim, config.block_size, dtype=dtype,
                         reads_whole_tables=self._reads_whole_tables)
        pool.smallest = min(config.seq_length, max(pool.smallest, _FIRST_POOL // pool.bytes_per_token))
        return pool

    def forward_step(self, tokens, lengths, cache):
        """Append tokens to the cache and return the logits behind each row's last one.

        Args:
            tokens (np.ndarray): int32 [B, T], right padded.
            lengths (np.ndarray): int32 [B], how many of the T are real; 0 leaves a row as it is.
            cache (PagedCache): from `make_cache`.

        Returns:
            np.float32 [B, V]; rows of length 0 are undefined.

        Raises:
            ConfigError: ids outside the vocabulary, shapes that do not fit, or a row that outgrows the cache.
            RuntimeError: a kernel refused what it was given; the model can be used again.
        """
        tokens = np.atleast_2d(np.asarray(tokens, np.int32))
        lengths = np.asarray(lengths, np.int32).reshape(-1)
        tokens = self._checked(tokens, lengths)
        longest = max(1, int(lengths.max()))
        with cache.pool.lock:
            if longest <= _PREFILL_CHUNK:
                return self._run_step(tokens[:, :longest], lengths, cache)
            logits = None
            for start in range(0, longest, _PREFILL_CHUNK):
                counts = np.clip(lengths - start, 0, _PREFILL_CHUNK).astype(np.int32)
                out = self._run_step(tokens[:, start:start + int(counts.max())], counts, cache)
                logits = out if logits is None else np.where(counts[:, None] > 0, out, logits)
        return logits

    def _run_step(self, tokens, counts, cache):
        width = tokens.shape[1]
        positions, slots, tables = cache.plan(counts, width)
        last = np.arange(0, tokens.size, width, dtype=np.int32)
        if width > 1:
            last += np.maximum(counts - 1, 0)
        step = self._step_for(cache.pool, CachedStepGraph.shape_key(positions, tables))
        out = self._run(step, tokens, positions, last, tables, slots)
        cache.advance(counts)
        return out

    def _run(self, step, *inputs):
        """Run a step of this model on numpy arrays. Returns numpy."""
        try:
            with RUNNING, mapped_file.settling():
                return step.run(*inputs)
        except RuntimeError as error:
            self.forget_graphs()  # MindSpore runs no graph again that has failed once
            explained = kernels.explain(error)
            if explained is error:
                raise
            raise explained from error

    def embedded(self, tokens):
        """Rows float32 [B*T, D] of int32 tokens [B, T], by a graph of their own."""
        if self._embed_graph is None:
            self._hide("_embed_graph", EmbedGraph(self))
        return self._embed_graph(Tensor(tokens))

    def _step_for(self, pool, shape_key):
        """What runs steps over the pool's present memory: for "past" the graph that stores it, else the kernels' own
        step or, where there is none, the graph of `shape_key`. A pool that grew gets new ones."""
        if self._steps is None or self._steps.arrays is not pool.arrays:
            refuse_forgetful_steps(self.model)
            self._hide("_steps", _Steps(pool.arrays, decoder_step(self.model, self.head_parts(), pool), {}))
        if self._steps.whole is not None and shape_key != "past":
            return self._steps.whole
        graphs = self._steps.graphs
        if shape_key not in graphs:
            graphs[shape_key] = PastGraph(self, pool) if shape_key == "past" else CachedStepGraph(
                self, pool, single=shape_key is not None, from_rows=self._embeds_apart)
        return graphs[shape_key]

    def next_logits(self, tokens, lengths):
        """The same as `forward_step` on an empty cache, without a cache; np.float32 [B, V]."""
        tokens = np.atleast_2d(np.asarray(tokens, np.int32))
        lengths = np.asarray(lengths, np.int32).reshape(-1)
        tokens = self._checked(tokens, lengths)
        keep = (np.arange(tokens.shape[1])[None] < lengths[:, None]).astype(np.int32)
        logits = self.forward_all(tokens, keep)[0].asnumpy()
        return logits[np.arange(len(lengths)), np.maximum(lengths - 1, 0)]

    def _checked(self, tokens, lengths):
        """The tokens with 0 in place of padding, which may be anything."""
        width = tokens.shape[1]
        shortest = int(lengths.min()) if len(lengths) == len(tokens) else -1
        if shortest < 0 or lengths.max() > width:
            raise ConfigError(f"lengths {lengths.tolist()} do not fit tokens of shape {tokens.shape}")
        if shortest < width:
            tokens = np.where(np.arange(width) < lengths[:, None], tokens, np.int32(0))
        least, most = (int(tokens.min()), int(tokens.max())) if tokens.size else (0, 0)
        if least < 0 or most >= self.config.vocab_size:
            bad = most if most >= self.config.vocab_size else least
            raise ConfigError(f"token id {bad} is outside the vocabulary of {self.config.vocab_size}")
        return tokens
