"""Llama (arXiv:2302.13971, 2307.09288, 2407.21783): attention, MLP, layer, model, heads, read top-down.

Shape legend: B batch, T tokens of the call, S cached tokens, D hidden, V vocabulary, M = B * T rows. Activations are
token-major rows [M, D], so that one dynamic graph serves prefill and decode.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from mindformers import kernels
from mindformers.core.loss import CrossEntropyLoss
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.models.modeling_utils import PreTrainedModel
from mindformers.modules.attention import SelfAttention
from mindformers.modules.feed_forward import FeedForward
from mindformers.modules.layers import Linear, RMSNorm, VocabEmbedding
from mindformers.modules.masks import TrainMask
from mindformers.modules.rope import RotaryEmbedding


class LlamaDecoderLayer(nn.Cell):
    """Pre-norm attention and MLP with residuals."""

    def __init__(self, config):
        super().__init__()
        dtype, self.eps = config.param_init_type, config.rms_norm_eps
        self.attention = SelfAttention(config.hidden_size, config.num_heads, config.kv_heads, config.head_size,
                                       config.qkv_has_bias, config.attn_proj_has_bias, config.qkv_concat, dtype)
        self.feed_forward = FeedForward(config.hidden_size, config.ffn_size, config.mlp_has_bias, config.qkv_concat,
                                        dtype)
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)

    def construct(self, x, b, t, rotation, mask, return_probs=False):
        """x [M, D] -> [M, D], attention probabilities [B, N, T, T] or None."""
        out, probs = self.attention(self.attention_norm(x), b, t, rotation, mask, return_probs)
        x = x + out
        return x + self.feed_forward(self.ffn_norm(x)), probs

    def cached(self, x, rotation, plan, key_cache, value_cache, block_size):
        """The same on the paged cache; x [M, D] -> [M, D]."""
        x = self.attention.cached(x, self.attention_norm.weight, self.eps, rotation, plan, key_cache, value_cache,
                                  block_size)
        return self.feed_forward.cached(x, self.ffn_norm.weight, self.eps)


class LlamaBackbone(nn.Cell):
    """Embedding, layers and final norm: the part that every head shares."""

    def __init__(self, config):
        super().__init__()
        self.hidden_size, self.num_layers = config.hidden_size, config.num_layers
        self.heads = (config.num_heads, config.kv_heads, config.head_size)
        self.groups = config.num_heads // config.kv_heads
        self.tok_embeddings = VocabEmbedding(config.vocab_size, config.hidden_size,
                                             config.embedding_init_type or config.param_init_type)
        self.layers = nn.CellList([LlamaDecoderLayer(config) for _ in range(config.num_layers)])
        self.norm_out = RMSNorm(config.hidden_size, config.rms_norm_eps, config.param_init_type)
        scaling = config.rope_scaling
        longest = config.max_position_embedding or config.seq_length
        self.rope = RotaryEmbedding(config.head_size, config.rope_base, scaling, longest)
        self.train_mask = TrainMask(self.groups)
        self.cache_plan = kernels.get("cache_plan")

    def construct(self, embeds, positions, mask, return_all=False, return_probs=False):
        """embeds [B, T, D], positions [B, T], mask as in `modules.masks`.

        Returns:
            normed rows [M, D], tuple of hidden states (each layer's input and the normed output), tuple of attentions.
        """
        b, t, d = embeds.shape
        x = ops.reshape(embeds, (-1, d))
        rotation = self.rope(ops.reshape(positions, (-1,)))
        states, attentions = (), ()
        for layer in self.layers:
            if return_all:
                states = states + (ops.reshape(x, embeds.shape),)
            x, probs = layer(x, b, t, rotation, mask, return_probs)
            if return_probs:
                attentions = attentions + (probs,)
        x = self.norm_out(x)
        if return_all:
            states = states + (ops.reshape(x, embeds.shape),)
        return x, states, attentions

    def cached(self, x, positions, block_tables, slot_mapping, block_size, spare_slot, caches, single):
        """Rows [M, D] of the tokens at `positions` [B, T] on the paged cache -> rows [M, D] before the final norm.

        `single` says at compile time that T is 1.
        """
        rotation = self.rope.step(ops.reshape(positions, (-1,)), single)
        plan = self.cache_plan(positions, block_tables, slot_mapping, self.heads, block_size, spare_slot, single)
        for i in range(self.num_layers):
            x = self.layers[i].cached(x, rotation, plan, caches[2 * i], caches[2 * i + 1], block_size)
        return x


class LlamaPreTrainedModel(PreTrainedModel):
    """What the three Llama classes share: configuration class, weight map and the backbone's name."""

    config_class = LlamaConfig
    base_model_prefix = "model"

    @classmethod
    def weight_map(cls):
        """The two-way table between Hugging Face's and MindFormers' parameter names."""
        from mindformers.models.llama.llama_weights import WEIGHT_MAP
        return WEIGHT_MAP

    def get_input_embeddings(self):
        """The token embedding cell."""
        return self.model.tok_embeddings


class LlamaModel(LlamaPreTrainedModel):
    """Llama without a head; answers ``last_hidden_state`` [B, T, D].

    Inputs: see `PreTrainedModel.__call__`.
    """

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaBackbone(config)

    def head(self, rows, b):
        """rows [M, D] -> last hidden state [B, T, D]."""
        return ops.reshape(rows, (b, -1, rows.shape[1]))

    def construct(self, input_ids):
        """input_ids [B, T] -> [B, T, D]; the graph form, causal, without padding."""
        return self.head(self.train_rows(input_ids), input_ids.shape[0])


class LlamaForCausalLM(LlamaPreTrainedModel):
    """Llama with a next-token head; answers ``logits`` [B, T, V] float32.

    Training (`set_train()`): see `construct`. Otherwise: `PreTrainedModel.__call__`; generation: `generate`.
    """

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaBackbone(config)
        self.tied = bool(config.tie_word_embeddings)
        if not self.tied:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, False, config.param_init_type)
        self.linear, self.norm_linear = kernels.get("linear"), kernels.get("norm_linear")
        self.loss = CrossEntropyLoss(calculate_per_token_loss=config.calculate_per_token_loss)
        self.ignore_token_id = config.ignore_token_id
        self.pad_token_id = -1 if config.pad_token_id is None else config.pad_token_id

    def quantize(self, quantization="int8"):
        """See `PreTrainedModel.quantize`; a tied head gets an int8 copy of the embedding, which stays as it is."""
        if self.tied:
            table = self.model.tok_embeddings
            with no_init_parameters():
                head = Linear(table.hidden_size, table.vocab_size, False, self.config.param_init_type)
            head.weight.set_data(Tensor.from_numpy(table.embedding_weight.asnumpy()))
            head.weight.name = "lm_head.weight"
            self.lm_head, self.tied = head, False
        return super().quantize(quantization)

    def get_output_embeddings(self):
        """The cell that holds the head's weight: the token embedding when it is tied."""
        return self.model.tok_embeddings if self.tied else self.lm_head

    def row_logits(self, rows):
        """rows [M, D] -> [M, V] float32."""
        if self.tied:
            return self.linear(rows, self.model.tok_embeddings.embedding_weight)
        return self.lm_head(rows)

    def step_logits(self, rows):
        """rows [M, D] before the final norm -> [M, V] float32."""
        norm = self.model.norm_out
        if self.tied:
            return self.norm_linear(rows, norm.weight, norm.eps, self.model.tok_embeddings.embedding_weight, None, None)
        head = self.lm_head
        return self.norm_linear(rows, norm.weight, norm.eps, head.weight, head.bias, head.weight_scale)

    def head(self, rows, b):
        """rows [M, D] -> logits [B, T, V]."""
        return ops.reshape(self.row_logits(rows), (b, -1, self.config.vocab_size))

    def construct(self, input_ids, labels=None, position_ids=None, attention_mask=None):
        """One training step's loss.

        Args:
            input_ids: int32 [B, T + 1]; tokens 0..T-1 are read.
            labels: int32 [B, T + 1] or None for `input_ids`; targets are labels 1..T.
            position_ids: int32 [B, T] or None for 0..T-1.
            attention_mask: [B, T] or [B, T, T], 1 for what may be seen within the causal mask; None for all.

        Returns:
            mean loss over the positions whose input is no padding and whose target is not `ignore_token_id`
            (MindFormers' rule), or (sum, count) with ``config.calculate_per_token_loss``.
        """
        tokens = input_ids[:, :-1]
        targets = input_ids[:, 1:] if labels is None else labels[:, 1:]
        rows = self.train_rows(tokens, position_ids, attention_mask)
        real = ops.logical_and(tokens != self.pad_token_id, targets != self.ignore_token_id)
        return self.loss(self.row_logits(rows), ops.reshape(targets, (-1,)),
                         ops.reshape(ops.cast(real, ms.float32), (-1,)))


class LlamaForSequenceClassification(LlamaPreTrainedModel):
    """Llama that labels a text by its last token that is no padding; answers ``logits`` [B, num_labels] float32."""

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaBackbone(config)
        self.score = Linear(config.hidden_size, config.num_labels, False, config.param_init_type)
        self.pad_token_id = config.pad_token_id
        self.problem_type = config.problem_type or (
            "regression" if config.num_labels == 1 else "single_label_classification")

    def head(self, rows, b):
        """rows [M, D] -> scores of every token [B, T, num_labels]."""
        return ops.reshape(self.score(rows), (b, -1, self.config.num_labels))

    def pool(self, outputs, keep, input_ids):
        """Scores of every token [B, T, L] -> those of the last real token [B, L]."""
        return self.last_token(outputs, keep, input_ids)

    def construct(self, input_ids, labels):
        """Loss of one training step.

        Args:
            input_ids: int32 [B, T], right padded with `pad_token_id`.
            labels: int32 [B] classes; float32 [B] or [B, L] values or 0/1 marks, by the problem type.

        Returns:
            scalar loss: squared error (regression), cross-entropy (single label), binary cross-entropy (multi label).
        """
        b, t = input_ids.shape
        steps = ops.broadcast_to(ops.arange(0, t, 1, dtype=ms.int32), (b, t))
        if self.pad_token_id is None:
            last = steps[:, -1]
        else:
            last = ops.ReduceMax()(ops.select(input_ids != self.pad_token_id, steps, ops.zeros_like(steps)), 1)
        rows = ops.gather(self.train_rows(input_ids), ops.arange(0, b, 1, dtype=ms.int32) * t + last, 0)
        return self.label_loss(self.score(rows), labels)

    def label_loss(self, scores, labels):
        """scores [B, L] float32, labels as in `construct` -> scalar."""
        if self.problem_type == "regression":
            return ops.mean(ops.square(ops.reshape(scores, labels.shape) - ops.cast(labels, ms.float32)))
        if self.problem_type == "multi_label_classification":
            return ops.binary_cross_entropy_with_logits(scores, ops.cast(labels, ms.float32), ops.ones_like(scores),
                                                        ops.ones_like(scores))
        return ops.cross_entropy(scores, ops.cast(ops.reshape(labels, (-1,)), ms.int32))

    def loss_of(self, answer, labels):
        """Loss of an evaluation call, as a scalar Tensor."""
        whole = self.problem_type == "single_label_classification"
        return self.label_loss(answer, Tensor(np.asarray(labels, np.int32 if whole else np.float32)))
