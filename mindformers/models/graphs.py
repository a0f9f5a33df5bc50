"""The inference graphs of a decoder: a whole forward pass, and a step on the paged cache.

The forward pass and steps of several tokens are compiled once with dynamic batch and length, so that a new prompt
length costs no recompile. Steps of one token have fixed shapes, which run two to three times faster per op on CPU;
`PagedCache.plan` rounds what they read up to powers of two, so that a growing context recompiles them only then.
"""
import threading

import mindspore as ms
from mindspore import JitConfig, ParameterTuple, Tensor, nn, ops

from mindformers.modules.masks import CausalMask


# one graph at a time: two threads inside MindSpore's runtime wait for each other, one with the interpreter's lock
RUNNING = threading.RLock()


def _dynamic(rank, dtype=ms.int32):
    return Tensor(shape=[None] * rank, dtype=dtype)


class InferenceGraph(nn.Cell):
    """A graph around a model that is there already: its parameters keep their names."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.set_jit_config(JitConfig(jit_level="O0"))  # compiles a quarter faster, and runs as fast on CPU
        self.model = model
        self.backbone = model.model

    def __call__(self, *inputs):
        with RUNNING:
            return super().__call__(*inputs)

    def arguments(self, *arrays):
        """The inputs of a run, Tensors, from numpy arrays."""
        return [Tensor(array) for array in arrays]

    def run(self, *arrays):
        """Run it on the numpy arrays that `arguments` takes; returns numpy."""
        return self(*self.arguments(*arrays)).asnumpy()

    @property
    def compile_phase(self):
        """Name of what is compiled; MindSpore writes it at every call."""
        return self._compile_phase

    @compile_phase.setter
    def compile_phase(self, value):
        # nn.Cell hands it on to every cell below, which nobody reads and which costs more than a step of a small model
        self._compile_phase = value


class ForwardGraph(InferenceGraph):
    """Whole sequences without a cache.

    Inputs: tokens int32 [B, T] (or embeddings float32 [B, T, D]), positions int32 [B, T], keep int32 [B, T].
    Outputs: the head's answer, hidden states, attentions.
    """

    def __init__(self, model, from_embeds, return_all, return_probs):
        super().__init__(model)
        self.mask = CausalMask(self.backbone.groups)
        self.from_embeds, self.return_all, self.return_probs = from_embeds, return_all, return_probs
        first = Tensor(shape=[None, None, model.config.hidden_size], dtype=ms.float32) if from_embeds else _dynamic(2)
        self.set_inputs(first, _dynamic(2), _dynamic(2))

    def construct(self, inputs, positions, keep):
        embeds = inputs if self.from_embeds else self.backbone.embed(inputs)
        rows, states, attentions = self.backbone(embeds, positions, self.mask(keep), self.return_all,
                                                 self.return_probs)
        return self.model.head(rows, keep.shape[0]), states, attentions


class EmbedGraph(InferenceGraph):
    """The embeddings of a step, for kernels that need them in a graph of their own.

    MindSpore copies a parameter that is read on both sides of a write in place: a tied embedding, which the head reads
    again after the writes of the cache. The portable form writes so; and there is no kernel to copy bfloat16.

    Inputs: tokens int32 [B, T]. Outputs: rows float32 [B*T, D].
    """

    def __init__(self, model):
        super().__init__(model)
        self.set_inputs(_dynamic(2))

    def construct(self, tokens):
        return self.backbone.embed(ops.reshape(tokens, (-1,)))


class PastGraph(InferenceGraph):
    """Stores the past of a decoder (`Decoder.cache_past`) in a `CachePool`.

    Inputs: positions int32 [B, P], block_tables int32 [B, blocks], slot_mapping int32 [B*P]. Outputs: nothing of use.
    """

    def __init__(self, model, pool):
        super().__init__(model)
        self.caches = ParameterTuple(pool.arrays)
        self.block_size, self.spare_slot = pool.block_size, pool.spare_slot
        self.set_inputs(_dynamic(2), _dynamic(2), _dynamic(1))

    def construct(self, positions, block_tables, slot_mapping):
        return self.backbone.cache_past(positions, block_tables, slot_mapping, self.block_size, self.spare_slot,
                                        self.caches)


class CachedStepGraph(InferenceGraph):
    """A step on a `CachePool`.

    Args:
        model: whose ``model.model`` is a `Decoder`, with ``step_logits``.
        pool (CachePool): memory that is written in place.
        single (bool): steps of one token, fixed shapes; otherwise of any length, dynamic shapes.
        from_rows (bool): the first input is what `EmbedGraph` gives, not tokens.

    Inputs: tokens int32 [M] or rows float32 [M, D], positions int32 [B, T], last int32 [B] (row of M whose logits are
    wanted), block_tables int32 [B, blocks], slot_mapping int32 [M]. Outputs: logits [B, V] float32.
    """

    def __init__(self, model, pool, single, from_rows):
        super().__init__(model)
        self.single, self.from_rows = single, from_rows
        # MindSpore runs a cell of these phases without asking again whether it fits: `shape_key` tells graphs apart
        self.phase = "increment" if single else "prefill"
        self.caches, self.block_size, self.spare_slot = ParameterTuple(pool.arrays), pool.block_size, pool.spare_slot
        self.blocks, self.rope, self.cache_plan = (self.backbone.blocks(), self.backbone.rope,
                                                   self.backbone.cache_plan)
        self.past_length, self.heads, self.count = (self.backbone.past_length, self.backbone.heads,
                                                    self.backbone.num_layers)
        if not single:
            first = Tensor(shape=[None, model.config.hidden_size], dtype=ms.float32) if from_rows else _dynamic(1)
            self.set_inputs(first, _dynamic(2), _dynamic(1), _dynamic(2), _dynamic(1))

    def arguments(self, tokens, *others):
        """The inputs of a run from tokens int32 [B, T] and the arrays behind them."""
        first = self.model.embedded(tokens) if self.from_rows else Tensor(tokens.reshape(-1))
        return [first, *super().arguments(*others)]

    @staticmethod
    def shape_key(positions, block_tables):
        """Steps of one key share a graph: one for all steps of several tokens, one per fixed shape of single ones."""
        return (positions.shape, block_tables.shape) if positions.shape[1] == 1 else None

    def construct(self, inputs, positions, last, block_tables, slot_mapping):
        x = inputs if self.from_rows else self.backbone.embed(inputs)
        turns = ops.reshape(positions, (-1,))
        if self.past_length > 0:
            turns = turns - self.past_length  # the cache holds the past in front of the first token
        rotation = self.rope.step(turns, self.single)
        plan = self.cache_plan(positions, block_tables, slot_mapping, self.heads, self.block_size, self.spare_slot,
                               self.single)
        for i in range(self.count):
            x = self.blocks[i].cached(x, rotation, plan, self.caches[2 * i], self.caches[2 * i + 1], self.block_size)
        return self.model.step_logits(x if self.single else ops.gather(x, last, 0))
