"""Llama (arXiv:2302.13971, 2307.09288, 2407.21783): attention, MLP, layer, model, heads, read top-down.

Shape legend: B batch, T tokens of the call, S cached tokens, D hidden, V vocabulary, M = B * T rows. Activations are
token-major rows [M, D], so that one dynamic graph serves prefill and decode.
"""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.models.modeling_utils import PreTrainedModel
from mindformers.models.next_token import NextTokenHead
from mindformers.modules.attention import SelfAttention
from mindformers.modules.decoder import Decoder, DecoderLayer
from mindformers.modules.feed_forward import FeedForward
from mindformers.modules.layers import Linear, RMSNorm, VocabEmbedding
from mindformers.modules.masks import counted
from mindformers.modules.rope import RotaryEmbedding


class LlamaDecoderLayer(DecoderLayer):
    """Pre-norm attention and MLP with residuals; a subclass may name other classes for its parts."""

    attention_class, feed_forward_class = SelfAttention, FeedForward

    def __init__(self, config):
        super().__init__()
        dtype = config.param_init_type
        self.attention = self.attention_class(config.hidden_size, config.num_heads, config.kv_heads, config.head_size,
                                              config.qkv_has_bias, config.attn_proj_has_bias, config.qkv_concat, dtype)
        self.feed_forward = self.feed_forward_class(config.hidden_size, config.ffn_size, config.mlp_has_bias,
                                                    config.qkv_concat, dtype)
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype)

    def parts(self):
        """Norm, attention, norm, MLP."""
        return self.attention_norm, self.attention, self.ffn_norm, self.feed_forward


class LlamaBackbone(Decoder):
    """Embedding, layers and final norm: the part that every head shares; a subclass may name other layers."""

    layer_class = LlamaDecoderLayer

    def __init__(self, config):
        rope = RotaryEmbedding(config.head_size, config.rope_base, config.rope_scaling,
                               config.max_position_embedding or config.seq_length)
        super().__init__(config.hidden_size, config.num_layers,
                         (config.num_heads, config.kv_heads, config.head_size), rope)
        self.tok_embeddings = VocabEmbedding(config.vocab_size, config.hidden_size,
                                             config.embedding_init_type or config.param_init_type)
        self.layers = nn.CellList([self.layer_class(config) for _ in range(config.num_layers)])
        self.norm_out = RMSNorm(config.hidden_size, config.rms_norm_eps, config.param_init_type)

    def embedding_cell(self):
        """The token embedding."""
        return self.tok_embeddings

    def blocks(self):
        """The layers."""
        return self.layers

    def final_norm(self):
        """The norm behind the layers."""
        return self.norm_out


class LlamaPreTrainedModel(PreTrainedModel):
    """What the three Llama classes share: classes of configuration and backbone, weight map, the backbone's name."""

    config_class = LlamaConfig
    backbone_class = LlamaBackbone
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
        self.model = self.backbone_class(config)

    def head(self, rows, b):
        """rows [M, D] -> last hidden state [B, T, D]."""
        return ops.reshape(rows, (b, -1, rows.shape[1]))

    def construct(self, input_ids):
        """input_ids [B, T] -> [B, T, D]; the graph form, causal, without padding."""
        return self.head(self.train_rows(input_ids), input_ids.shape[0])


class LlamaForCausalLM(NextTokenHead, LlamaPreTrainedModel):
    """Llama with a next-token head; answers ``logits`` [B, T, V] float32.

    Training (`set_train()`): see `construct`. Otherwise: `PreTrainedModel.__call__`; generation: `generate`.
    """

    def __init__(self, config):
        super().__init__(config)
        self.model = self.backbone_class(config)
        self.init_head(config)
        if not self.tied:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, False, config.param_init_type)

    def head_cell(self):
        """The head's Linear; there is none when it is tied."""
        return self.lm_head

    def head_place(self):
        """The cell that holds it, and its name there."""
        return self, "lm_head"

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
        tokens, position_ids, attention_mask = self.training_inputs(input_ids, labels, position_ids, attention_mask)
        return self.training_loss(self.train_rows(tokens, position_ids, attention_mask), input_ids, labels)

    def training_inputs(self, input_ids, labels=None, position_ids=None, attention_mask=None):
        """What `train_rows` takes of the inputs of `construct`."""
        return input_ids[:, :-1], position_ids, attention_mask

    def training_loss(self, rows, input_ids, labels=None, position_ids=None, attention_mask=None):
        """What `construct` returns, of the rows that `train_rows` gave."""
        tokens = input_ids[:, :-1]
        targets = input_ids[:, 1:] if labels is None else labels[:, 1:]
        real = ops.logical_and(tokens != self.pad_token_id, targets != self.ignore_token_id)
        return self.loss(self.row_logits(rows), ops.reshape(targets, (-1,)),
                         ops.reshape(ops.cast(real, ms.float32), (-1,)))


class LlamaForSequenceClassification(LlamaPreTrainedModel):
    """Llama that labels a text by its last token that is no padding; answers ``logits`` [B, num_labels] float32."""

    new_parameters = ("score.weight",)

    def __init__(self, config):
        super().__init__(config)
        self.model = self.backbone_class(config)
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
        return self.training_loss(self.train_rows(input_ids), input_ids, labels)

    def training_inputs(self, input_ids, labels):
        """What `train_rows` takes of the inputs of `construct`."""
        return input_ids, None, None

    def training_loss(self, rows, input_ids, labels):
        """What `construct` returns, of the rows that `train_rows` gave."""
        b, t = input_ids.shape
        steps = ops.broadcast_to(counted(t), (b, t))
        if self.pad_token_id is None:
            last = steps[:, -1]
        else:
            last = ops.ReduceMax()(ops.select(input_ids != self.pad_token_id, steps, ops.zeros_like(steps)), 1)
        rows = ops.gather(rows, counted(b) * t + last, 0)
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
