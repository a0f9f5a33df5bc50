"""A step from token ids to logits by calls into our C++ library alone: no graph is compiled or run for it.

MindSpore's runtime takes 1 to 3 ms of a step whatever the model's size: up to a quarter of it for a small model.
"""
import mindspore as ms
import numpy as np

from mindformers.kernels import library
from mindformers.kernels.library import Operand
from mindformers.kernels.places import Places

# of the enumeration in csrc/dtype.h, and its name
_DTYPES = {ms.float32: (0, "float32"), ms.float16: (1, "float16"), ms.bfloat16: (2, "bfloat16"), ms.int8: (4, "int8")}


class DecoderStep:
    """Embedding, the layers of a pre-norm decoder on a paged cache, and the head.

    Weights are read where they lie. They stay alive with the step, and it follows where one moves (`set_data`).

    Args:
        embedding (Parameter): [V, D].
        layout (tuple): number of layers, products of queries, keys and values (1 or 3), of gate and up (1 or 2), then 0
            or 1 for biases of queries, keys and values, of the output projection, of the other three, and for scales.
        layers (list[Parameter]): of each layer the weight of the norm, products of `norm_qkv`, output projection, key
            cache, value cache, weight of the norm, products of `norm_gate_up`, down projection. A product is its
            weight, then its bias if it has one, then its scale if it has one.
        head (tuple): weight of the final norm, weight, bias or None, scale or None.
        eps (tuple): of the norms in the layers, and of the final one.
        rope: has `step_frequencies`, `factor`, `interleaved` and `dynamic`, see `modules.rope`.
        heads (tuple): query heads N, kv heads K, head width H. scale (float): factor of the scores.
        block_size (int): of the cache. past_length (int): tokens in the cache in front of position 0.
    """

    def __init__(self, embedding, layout, layers, head, eps, rope, heads, scale, block_size, past_length):
        norm, weight, bias, weight_scale = head
        self._weights = _Weights([embedding, *(x for x in head if x is not None), *layers])
        self._in_front = len(self._weights) - len(layers)  # rows of the table that are not the layers'
        self._width, self._vocab_size, self._past_length = embedding.shape[1], weight.shape[0], past_length
        self._has_bias, self._has_scale = bias is not None, weight_scale is not None
        self._rope = rope
        self._factor = np.array([rope.factor], np.float32)
        self._layers_meta = np.array((*heads, block_size, scale, rope.interleaved, 0.0, eps[0], *layout), np.float32)
        self._head_meta = np.array((eps[1], 1.0, self._has_bias, self._has_scale, 0.0), np.float32)
        self._prepared = None

    def run(self, tokens, positions, last, block_tables, slot_mapping):
        """Run one step; inputs are C-contiguous.

        Args:
            tokens: int32 [B, T]. positions: int32 [B, T]. last: int32 [B], the row of B * T whose logits are wanted.
            block_tables: int32 [B, blocks]; an array that was given before must be as it was.
            slot_mapping: int32 [B * T], -1 for padding.

        Returns:
            np.float32 [B, V].

        Raises:
            RuntimeError: an index outside its array; the text names it.
        """
        shapes = (tokens.shape, block_tables.shape)
        if self._weights.moved() or self._prepared is None or self._prepared.shapes != shapes:
            self._prepared = _Prepared(self, shapes)
        step = self._prepared
        step.tokens[...], step.positions[...], step.slots[...] = tokens, positions, slot_mapping
        if step.block_tables is not block_tables:
            step.tables[...], step.block_tables = block_tables, block_tables
        np.subtract(positions.reshape(-1), self._past_length, out=step.turns)
        if self._rope.dynamic:
            step.frequencies[...] = self._rope.step_frequencies(step.turns)
        for call in step.calls:
            call()
        if step.ends is not step.rows:
            np.take(step.rows, last, 0, out=step.ends)
        logits = np.empty((len(last), self._vocab_size), np.float32)
        step.head(logits)
        return logits


class _Prepared:
    """Buffers and calls for steps of one shape."""

    def __init__(self, step, shapes):
        # pylint: disable=protected-access  # the other half of DecoderStep
        (b, t), m = shapes[0], shapes[0][0] * shapes[0][1]
        self.shapes, self.block_tables = shapes, None
        self.tokens, self.positions = np.empty((b, t), np.int32), np.empty((b, t), np.int32)
        self.slots, self.turns, self.tables = (np.zeros(shape, np.int32) for shape in (m, m, shapes[1]))
        self.frequencies = step._rope.step_frequencies(self.turns).copy()
        embedded, self.rows = np.empty((m, step._width), np.float32), np.empty((m, step._width), np.float32)
        self.ends = self.rows if t == 1 else np.empty((b, step._width), np.float32)
        angles = np.empty((m, 2 * len(self.frequencies)), np.float32)
        embedding, norm, *head = step._weights.operands[:step._in_front]
        table = step._weights.table[step._in_front:]
        absent = step._factor  # any array: the meta data says that it is not looked at
        bias = head[1] if step._has_bias else absent
        scale = head[-1] if step._has_scale else absent
        self.calls = [
            library.Call("mf_embedding", self.tokens, embedding, embedded),
            library.Call("mf_rope_table", self.turns, self.frequencies, step._factor, angles),
            library.Call("mf_decoder_layers", embedded, step._layers_meta, angles, self.tables, self.slots,
                         self.positions, table, self.rows)]
        self._head = library.Call("mf_linear", self.ends, step._head_meta, norm, head[0], bias, scale, absent,
                                  np.empty((b, step._vocab_size), np.float32))

    def head(self, logits):
        """Write the logits float32 [B, V] of `ends`."""
        self._head.place(-1, logits)
        self._head()


class _Weights(Places):
    """Parameters of 1 or 2 dimensions as the library takes them.

    Attributes:
        table: int64 [parameters, 5]: address, dtype, dimensions and sizes of each.
        operands (list[Operand]): the same for `library.Call`.
    """

    table, operands = None, ()

    def __len__(self):
        return len(self.parameters)

    def moved(self):
        """As `Places.moved`."""
        if not super().moved():
            return False
        self.operands = [Operand(address, _DTYPES[parameter.dtype][1], parameter.shape)
                         for address, parameter in zip(self.addresses, self.parameters)]
        self.table = np.array([(address, _DTYPES[parameter.dtype][0], parameter.ndim, *parameter.shape, 0)[:5]
                               for address, parameter in zip(self.addresses, self.parameters)], np.int64)
        return True
