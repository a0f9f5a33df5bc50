"""Gradient checkpointing: a model cut into its embedding, its layers and its loss, each a graph of its own.

Of the forward pass only what goes into a layer is kept; backward, a layer runs again for its gradients (Chen et al.,
"Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174). The parts are separate graphs because MindSpore on
CPU keeps the scratch memory of transposes and broadcasts with each op of a graph for as long as the graph lives. For
the same reason layers that are alike share one graph, a copy of the first layer that is lent the others' weights.
"""
import copy
from typing import NamedTuple

from mindspore import nn, ops

from mindformers.modules.decoder import Decoder
from mindformers.tools.errors import UnsupportedError


class Embedding(nn.Cell):
    """The inputs of the model -> rows [M, D] of the first layer."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, *inputs):
        tokens, _, _ = self.model.training_inputs(*inputs)
        return ops.reshape(self.model.model.embed(tokens), (-1, self.model.model.hidden_size))


class Layer(nn.Cell):
    """rows [M, D] and the inputs of the model -> rows [M, D] behind `block`, layer `index` of the model or its copy."""

    def __init__(self, model, block, index):
        super().__init__(auto_prefix=False)
        self.model, self.block, self.index = model, block, index

    def construct(self, rows, *inputs):
        tokens, position_ids, attention_mask = self.model.training_inputs(*inputs)
        b, t = tokens.shape
        positions, mask = self.model.train_view(tokens, position_ids, attention_mask)
        return self.model.model.layer_rows(self.block, self.index, rows, b, t, positions, mask)


class Loss(nn.Cell):
    """rows [M, D] behind the last layer and the inputs of the model -> what the model returns in training."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, rows, *inputs):
        return self.model.training_loss(self.model.model.final_norm()(rows), *inputs)


class Segment(NamedTuple):
    """A part of a model.

    Attributes:
        cell (nn.Cell): see above.
        parameters (list[Parameter]): the model's, that it reads.
        stands_for (list[Parameter]): the cell's, which must be lent the values of `parameters` before it runs; the same
            list when they are the model's own.
    """

    cell: nn.Cell
    parameters: list
    stands_for: list


def segments(model):
    """Return the Segments of a model in order: Embedding, each Layer, Loss.

    What belongs neither to a layer nor to the embedding, such as a prefix that all layers read, is listed with each
    segment that may read it.

    Args:
        model (PreTrainedModel): its ``model`` is a `modules.decoder.Decoder`; it has `training_inputs` and
            `training_loss`.

    Raises:
        UnsupportedError: dropout in a layer or a prefix, which would draw other elements when a layer runs again; a
            decoder with a `construct` of its own.
    """
    decoder = model.model
    if type(decoder).construct is not Decoder.construct:
        raise UnsupportedError(f"gradient checkpointing: {type(decoder).__name__} has a `construct` of its own, which "
                               "the parts of a model do not call; leave checkpointing out")
    blocks = decoder.blocks()
    for name, cell in decoder.cells_and_names():
        if isinstance(cell, nn.Dropout) and cell.p > 0:
            raise UnsupportedError(f"gradient checkpointing: {name} drops {cell.p:g} of its elements, and others when "
                                   "a layer runs again; set its dropout (lora_dropout: 0.0, prefix_dropout: 0.0) or "
                                   "leave checkpointing out")
    own = [list(block.get_parameters()) for block in blocks]
    table = list(decoder.embedding_cell().get_parameters())
    inner = {id(parameter) for parameters in own for parameter in parameters}
    rest = [parameter for parameter in model.get_parameters() if id(parameter) not in inner]
    if not getattr(model, "tied", False):
        rest = [parameter for parameter in rest if not any(parameter is other for other in table)]
    layers, shared = [], {}
    for index, (block, parameters) in enumerate(zip(blocks, own)):
        if decoder.past_length:  # each layer has a past of its own
            everything = parameters + rest
            layers.append(Segment(Layer(model, block, index), everything, everything))
            continue
        kind = repr((_settings(block), [(p.name.split(".")[-2:], p.shape, p.dtype, p.requires_grad)
                                        for p in parameters]))
        if kind not in shared:
            twin = copy.deepcopy(block)
            for parameter in twin.get_parameters():  # of two with one name, MindSpore renames all that a graph reads
                parameter.name = f"checkpointed.{parameter.name}"
            shared[kind] = Layer(model, twin, index), list(twin.get_parameters())
        layers.append(Segment(shared[kind][0], parameters, shared[kind][1]))
    return [Segment(Embedding(model), table, table), *layers, Segment(Loss(model), rest, rest)]


_OF_EVERY_CELL = frozenset(vars(nn.Cell()))


def _settings(block):
    """Class and plain attributes of each cell of a layer: what else than parameters may tell layers apart."""
    return [(type(cell), sorted((name, value) for name, value in vars(cell).items()
                                if name not in _OF_EVERY_CELL and isinstance(value, (bool, int, float, str, tuple))))
            for _, cell in block.cells_and_names()]
