"""The layers of a decoder on one cache: a single call where the kernels in force have one, else one after the other."""
import numpy as np
from mindspore import Tensor, nn, ops

_NO_TABLE = Tensor(np.zeros((1, 5), np.int64))


class LayerStack(nn.Cell):
    """Runs the layers of a `Decoder` that is there already; its parameters keep their names.

    Built when a step is compiled, not with the model: a layer may be quantised or given an adapter in between. Layers
    whose products are more than their weight, or not all alike, run one after the other.

    Args:
        decoder (Decoder): whose layers run.
        caches (ParameterTuple): k0 v0 k1 v1 ..., written in place.
        block_size, spare_slot (int): of the cache.
        single (bool): steps of one token a row.

    Inputs: x rows [M, D], positions int32 [B, T], block_tables int32 [B, blocks], slot_mapping int32 [M], what `table`
    gives; M = B * T. Outputs: rows [M, D] before the final norm.
    """

    def __init__(self, decoder, caches, block_size, spare_slot, single):
        super().__init__(auto_prefix=False)
        self.blocks, self.rope, self.past_length = decoder.blocks(), decoder.rope, decoder.past_length
        self.heads, self.count = decoder.heads, decoder.num_layers
        self.caches, self.block_size, self.spare_slot, self.single = caches, block_size, spare_slot, single
        self.cache_plan, self.decoder_layers = decoder.cache_plan, decoder.decoder_layers
        self.layout, inputs = None, []
        if self.decoder_layers is not None:
            self.layout, inputs = _flatten(self.blocks, caches)
        if self.layout is not None:
            norm, attention, _, _ = self.blocks[0].parts()
            self.eps, self.scale = norm.eps, attention.scale
        # a plain attribute: what the table lists is no parameter of this cell
        object.__setattr__(self, "_table", decoder.address_table(inputs) if self.layout is not None else None)

    def table(self):
        """The last input of a run, int64 [tensors, 5]; to be asked for before each."""
        return _NO_TABLE if self._table is None else self._table.tensor()

    def construct(self, x, positions, block_tables, slot_mapping, table):
        turns = ops.reshape(positions, (-1,))
        if self.past_length > 0:
            turns = turns - self.past_length  # the cache holds the past in front of the first token
        rotation = self.rope.step(turns, self.single)
        plan = self.cache_plan(positions, block_tables, slot_mapping, self.heads, self.block_size, self.spare_slot,
                               self.single)
        if self.layout is not None:
            return self.decoder_layers(x, table, self.layout, rotation, plan, self.heads, self.block_size,
                                       self.scale, self.eps)
        for i in range(self.count):
            x = self.blocks[i].cached(x, rotation, plan, self.caches[2 * i], self.caches[2 * i + 1], self.block_size)
        return x


def _flatten(blocks, caches):
    """Layout and inputs of the layers as `decoder_layers` of `kernels` takes them; None and [] when they do not fit."""
    layouts, inputs = set(), []
    for i, block in enumerate(blocks):
        norm, attention, mlp_norm, mlp = block.parts()
        products = (attention.inputs(), (attention.output(),), mlp.inputs(), (mlp.output(),))
        linears = [linear for product in products for linear in product]
        if not all(linear.is_plain for linear in linears):
            return None, []
        scaled = {linear.weight_scale is not None for linear in linears}
        biases = [{linear.bias is not None for linear in product} for product in products[:2]]
        biases.append({linear.bias is not None for product in products[2:] for linear in product})
        if any(len(kinds) > 1 for kinds in (scaled, *biases)):
            return None, []
        layouts.add((len(blocks), len(products[0]), len(products[2]), *(int(kinds.pop()) for kinds in biases),
                     int(scaled.pop()), norm.eps, mlp_norm.eps, attention.scale))
        inputs += [norm.weight, *_parameters(*products[0], *products[1]), caches[2 * i], caches[2 * i + 1],
                   mlp_norm.weight, *_parameters(*products[2], *products[3])]
    if len(layouts) != 1:
        return None, []
    *layout, eps, mlp_eps, _ = layouts.pop()
    return (tuple(layout), inputs) if eps == mlp_eps else (None, [])


def _parameters(*linears):
    """Weight, bias if any, scale if any of each."""
    return [value for linear in linears for value in (linear.weight, linear.bias, linear.weight_scale)
            if value is not None]
