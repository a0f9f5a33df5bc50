"""The next-token head of a decoder: a Linear of its own, or the token embedding."""
from mindspore import Tensor, ops
from mindspore.nn.utils import no_init_parameters

from mindformers import kernels
from mindformers.core.loss import CrossEntropyLoss
from mindformers.modules.layers import Linear
from mindformers.tools.errors import UnsupportedError


class NextTokenHead:
    """For a PreTrainedModel whose ``self.model`` is a `Decoder`; calls `init_head` when it is built.

    A subclass answers `head_cell()`, the Linear when the head is not tied, and `head_place()`, the cell that holds it
    and its name there. One that makes other logits overrides `row_logits`, which steps on the cache then call too.
    """

    def init_head(self, config):
        """Note the settings that the head and the loss read."""
        self.tied = bool(config.tie_word_embeddings)
        self.own_logits = type(self).row_logits is not NextTokenHead.row_logits
        self.linear, self.norm_linear = kernels.get("linear"), kernels.get("norm_linear")
        self.loss = CrossEntropyLoss(calculate_per_token_loss=config.calculate_per_token_loss)
        self.ignore_token_id = config.ignore_token_id
        self.pad_token_id = -1 if config.pad_token_id is None else config.pad_token_id

    def quantize(self, quantization="int8"):
        """See `PreTrainedModel.quantize`; a tied head gets an int8 copy of the embedding, which stays as it is."""
        if self.tied:
            table = self.get_input_embeddings()
            with no_init_parameters():
                head = Linear(table.hidden_size, table.vocab_size, False, self.config.param_init_type)
            head.weight.set_data(Tensor.from_numpy(table.embedding_weight.asnumpy()))
            owner, name = self.head_place()
            head.weight.name = "head.weight"
            setattr(owner, name, head)
            self.tied = False
        return super().quantize(quantization)

    def get_output_embeddings(self):
        """The cell that holds the head's weight: the token embedding when it is tied."""
        return self.get_input_embeddings() if self.tied else self.head_cell()

    def head_parts(self):
        """Weight, bias and scale of the head's product, None for what it has not; None when it is more than that.

        Raises:
            UnsupportedError: a `head` of a subclass, which steps on the cache do not call.
        """
        if type(self).head is not NextTokenHead.head and not self.own_logits:
            raise UnsupportedError(f"{type(self).__name__} has a `head` of its own, which steps on the cache do not "
                                   "call; override `row_logits` in its place, or generate with use_cache=False")
        if self.own_logits or type(self).step_logits is not NextTokenHead.step_logits:
            return None
        if self.tied:
            return self.model.embedding_cell().embedding_weight, None, None
        head = self.head_cell()
        return (head.weight, head.bias, head.weight_scale) if head.is_plain else None

    def row_logits(self, rows):
        """rows [M, D] -> [M, V] float32."""
        if self.tied:
            return self.linear(rows, self.model.embedding_cell().embedding_weight)
        return self.head_cell()(rows)

    def step_logits(self, rows):
        """rows [M, D] before the final norm -> [M, V] float32."""
        norm = self.model.final_norm()
        is_plain = getattr(norm, "is_plain", False) and (self.tied or self.head_cell().is_plain)
        if self.own_logits or not is_plain:  # their weights do not say all
            return self.row_logits(norm(rows))
        if self.tied:
            return self.norm_linear(rows, norm.weight, norm.eps, self.model.embedding_cell().embedding_weight, None,
                                    None)
        head = self.head_cell()
        return self.norm_linear(rows, norm.weight, norm.eps, head.weight, head.bias, head.weight_scale)

    def head(self, rows, b):
        """rows [M, D] -> logits [B, T, V]."""
        return ops.reshape(self.row_logits(rows), (b, -1, self.config.vocab_size))
