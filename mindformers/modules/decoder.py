"""What every decoder has in common: layers of attention and MLP, run over whole sequences or on the paged cache.

A family names the parts; nothing here does. Shape legend: B batch, T tokens of the call, D hidden, M = B * T rows,
K kv heads, H head width, P length of a past.
"""
from mindspore import nn, ops

from mindformers import kernels
from mindformers.modules.masks import TrainMask


class DecoderLayer(nn.Cell):
    """Pre-norm attention and MLP with residuals.

    A subclass answers `parts()`: the norm before attention, the `Attention`, the norm before the MLP, the `SwiGLU`.
    """

    def construct(self, x, b, t, rotation, mask, return_probs=False, past=None):
        """x [M, D] -> [M, D], attention probabilities [B, N, T, P + T] or None; `past` as in `Attention`."""
        norm, attention, mlp_norm, mlp = self.parts()
        out, probs = attention(norm(x), b, t, rotation, mask, return_probs, past)
        x = x + out
        return x + mlp(mlp_norm(x)), probs

    def cached(self, x, rotation, plan, key_cache, value_cache, block_size):
        """The same on the paged cache; x [M, D] -> [M, D]."""
        norm, attention, mlp_norm, mlp = self.parts()
        x = attention.cached(x, norm.weight, norm.eps, rotation, plan, key_cache, value_cache, block_size)
        return mlp.cached(x, mlp_norm.weight, mlp_norm.eps)


class Decoder(nn.Cell):
    """Embedding, layers and final norm: the part that every head shares.

    A subclass answers `embedding_cell()`, the VocabEmbedding; `blocks()`, the CellList of its DecoderLayers; and
    `final_norm()`, the RMSNorm behind them. With `past_length` above 0 it also answers `past(b)`: for each layer keys
    and values [B, K, P, H] that every token sees, in front of the first and not rotated.

    Args:
        hidden_size (int): width D.
        num_layers (int): layers.
        heads (tuple): query heads N, kv heads K, head width H.
        rope (RotaryEmbedding): rotation of queries and keys.
        past_length (int): P. Default: 0.
    """

    def __init__(self, hidden_size, num_layers, heads, rope, past_length=0):
        super().__init__()
        self.hidden_size, self.num_layers, self.past_length = hidden_size, num_layers, past_length
        self.heads, self.groups = heads, heads[0] // heads[1]
        self.rope = rope
        self.train_mask = TrainMask(self.groups)
        self.cache_plan, self.decoder_step = kernels.get("cache_plan"), kernels.get("decoder_step")
        self.pack_qkv, self.paged_attention = kernels.get("pack_qkv"), kernels.get("paged_attention")

    def embed(self, tokens):
        """Rows of the embedding for int32 tokens of any shape; float32 [..., D]."""
        return self.embedding_cell()(tokens)

    def construct(self, embeds, positions, mask, return_all=False, return_probs=False):
        """embeds [B, T, D], positions [B, T], mask as in `modules.masks`.

        Returns:
            normed rows [M, D], tuple of hidden states (each layer's input and the normed output), tuple of attentions.
        """
        b, t, d = embeds.shape
        x = ops.reshape(embeds, (-1, d))
        rotation = self.rope(ops.reshape(positions, (-1,)))
        blocks, states, attentions = self.blocks(), (), ()
        past, mask = self.with_past(b, mask)
        for i in range(self.num_layers):
            if return_all:
                states = states + (ops.reshape(x, embeds.shape),)
            x, probs = blocks[i](x, b, t, rotation, mask, return_probs, past[i] if self.past_length > 0 else None)
            if return_probs:
                attentions = attentions + (probs,)
        x = self.final_norm()(x)
        if return_all:
            states = states + (ops.reshape(x, embeds.shape),)
        return x, states, attentions

    def with_past(self, b, mask):
        """The past of each layer, () without one, and the mask that lets every token see it."""
        if self.past_length > 0:
            seen = ops.zeros_like(mask[:, :, :, :1])
            return self.past(b), ops.concat((ops.tile(seen, (1, 1, 1, self.past_length)), mask), -1)
        return (), mask

    def layer_rows(self, block, index, x, b, t, positions, mask):
        """Rows x [M, D] behind `block` alone, the layer `index`; the other arguments as `construct` has them."""
        rotation = self.rope(ops.reshape(positions, (-1,)))
        past, mask = self.with_past(b, mask)
        return block(x, b, t, rotation, mask, False, past[index] if self.past_length > 0 else None)[0]

    def cache_past(self, positions, block_tables, slot_mapping, block_size, spare_slot, caches):
        """Store the past at `positions` [B, P] of an empty cache; `caches` are k0 v0 k1 v1 ..., written in place.

        A step of attention stores what it is given: keys rotated to position 0 are as they were. Its answer is of no
        use, but must be used, or the graph leaves the step out.
        """
        n, k, h = self.heads
        rotation = self.rope.step(ops.zeros_like(ops.reshape(positions, (-1,))), False)
        plan = self.cache_plan(positions, block_tables, slot_mapping, self.heads, block_size, spare_slot, False)
        past, done = self.past(positions.shape[0]), 0.0
        for i in range(self.num_layers):
            keys = ops.reshape(ops.transpose(past[i][0], (0, 2, 1, 3)), (-1, k * h))
            values = ops.reshape(ops.transpose(past[i][1], (0, 2, 1, 3)), (-1, k * h))
            queries = ops.tile(ops.zeros_like(keys), (1, n // k))
            qkv = self.pack_qkv(ops.concat((queries, keys, values), -1))
            out = self.paged_attention(qkv, rotation, plan, caches[2 * i], caches[2 * i + 1], self.heads, block_size,
                                       1.0)
            done = done + ops.sum(out)
        return done
