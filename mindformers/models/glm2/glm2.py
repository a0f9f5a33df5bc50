"""ChatGLM2, ChatGLM3 (arXiv:2406.12793) and GLM-4-9B: backbone, model, head, read top-down.

The architecture is that of the modeling_chatglm.py published with THUDM/chatglm2-6b, chatglm3-6b and glm-4-9b. Shape
legend: B batch, T tokens of the call, D hidden, V vocabulary, M = B * T rows.
"""
import os
import re

import mindspore as ms
from mindspore import ops

from mindformers.checkpoint import load
from mindformers.checkpoint.save import save_weights
from mindformers.models.glm2.glm2_chat import GLMChatMixin
from mindformers.models.glm2.glm2_config import ChatGLM2Config
from mindformers.models.glm2.glm2_modules import PrefixEncoder
from mindformers.models.glm2.glm2_transformer import ChatGLM2Transformer
from mindformers.models.head_pruning import plan_pruning
from mindformers.models.modeling_utils import PreTrainedModel
from mindformers.models.next_token import NextTokenHead
from mindformers.modules.decoder import Decoder
from mindformers.modules.layers import Linear, VocabEmbedding
from mindformers.modules.rope import RotaryEmbedding
from mindformers.tools.errors import ConfigError, UnsupportedError


class ChatGLM2Backbone(Decoder):
    """Embedding, layers, final norm, and the prefix when there is one; holds the head as the checkpoints name it.

    The first half of each head (`partial_rotary_factor`) rotates in interleaved pairs.

    Args:
        config (ChatGLM2Config): sizes and settings.
        with_head (bool): make `output_layer`. Default: False.
    """

    def __init__(self, config, with_head=False):
        rope = RotaryEmbedding(config.head_size, config.rope_base, config.rope_scaling, interleaved=True,
                               rotary_dim=config.rotary_size)
        super().__init__(config.hidden_size, config.num_layers,
                         (config.num_attention_heads, config.kv_heads, config.head_size), rope,
                         config.pre_seq_len or 0)
        self.embedding = VocabEmbedding(config.vocab_size, config.hidden_size,
                                        config.embedding_init_type or config.param_init_type)
        self.encoder = ChatGLM2Transformer(config)
        if with_head:
            self.output_layer = Linear(config.hidden_size, config.vocab_size, False, config.param_init_type)
        if self.past_length:
            for parameter in self.get_parameters():
                parameter.requires_grad = False
            self.prefix_encoder = PrefixEncoder(config)

    def embedding_cell(self):
        """The token embedding."""
        return self.embedding

    def blocks(self):
        """The layers."""
        return self.encoder.layers

    def final_norm(self):
        """The norm behind the layers."""
        return self.encoder.final_layernorm

    def past(self, b):
        """Keys and values [B, K, P, H] of the prefix for each layer."""
        parts, pairs = self.prefix_encoder(), ()
        for i in range(self.num_layers):
            keys = ops.tile(ops.expand_dims(parts[2 * i], 0), (b, 1, 1, 1))
            values = ops.tile(ops.expand_dims(parts[2 * i + 1], 0), (b, 1, 1, 1))
            pairs = pairs + ((keys, values),)
        return pairs

    def prune_past(self, kept_kv, replace_parameter):
        """Keep of the prefix the kv heads `kept_kv` (a list per layer, all as long) alone."""
        self.prefix_encoder.keep_heads(kept_kv, replace_parameter)


class GLM2PreTrainedModel(PreTrainedModel):
    """What the classes share: configuration class, weight map and the backbone's name."""

    config_class = ChatGLM2Config
    base_model_prefix = "transformer"
    new_parameters = (r"(transformer\.)?prefix_encoder\..*",)

    def set_backbone(self, backbone):
        """Hold `backbone` as `transformer`, which the parameters are named after; other code asks for `model`."""
        self.transformer = backbone
        self._hide("model", backbone)

    @classmethod
    def weight_map(cls):
        """The two-way table between Hugging Face's and MindFormers' parameter names."""
        from mindformers.models.glm2.glm2_weights import WEIGHT_MAP
        return WEIGHT_MAP

    def save_prefix(self, save_directory):
        """Write the trained prefix alone, as the published P-tuning scripts do; returns the paths.

        Raises:
            ConfigError: the model has none, or the folder holds a whole model, whose weights it would replace.
        """
        if os.path.isfile(os.path.join(save_directory, "config.json")):
            raise ConfigError(f"{str(save_directory)!r} holds a model; give the prefix a folder of its own")
        arrays = {p.name: p for p in self._prefix_parameters()}
        return save_weights(save_directory, arrays, weight_map=self.weight_map(), config=self.config)

    def load_prefix(self, folder):
        """Load a prefix that `save_prefix` or the published P-tuning scripts wrote; returns a LoadReport.

        Raises:
            ConfigError: the model has none.
            CheckpointMismatchError: it is of another length or kind.
        """
        own = {p.name for p in self._prefix_parameters()}
        others = [re.escape(p.name) for p in self.get_parameters() if p.name not in own]
        return load(self, folder, self.weight_map(), self.config, allow_missing=others)

    def _prefix_parameters(self):
        if not self.transformer.past_length:
            raise ConfigError(f"this {type(self).__name__} has no prefix; build it with pre_seq_len=...")
        return list(self.transformer.prefix_encoder.get_parameters())

    def get_input_embeddings(self):
        """The token embedding cell."""
        return self.transformer.embedding

    def prune_heads(self, heads_to_prune):
        """Remove attention heads, and of a prefix the keys and values that none reads; see `ModelSurgery.prune_heads`.

        Raises:
            UnsupportedError: a kv head goes whose keys and values a prefix_projection makes.
        """
        backbone = self.transformer
        if backbone.past_length and self.config.prefix_projection:
            plan = plan_pruning(heads_to_prune, backbone.num_layers, backbone.heads)
            if plan.heads is not None and plan.heads[1] < plan.before[1]:
                raise UnsupportedError(f"heads_to_prune={heads_to_prune} leaves {plan.heads[1]} of {plan.before[1]} kv "
                                       "heads, but the MLP of prefix_projection=True makes the prefix of all at once; "
                                       "leave a query head of each kv head")
        super().prune_heads(heads_to_prune)


class ChatGLM2Model(GLM2PreTrainedModel):
    """ChatGLM2 without a head; answers ``last_hidden_state`` [B, T, D].

    Inputs: see `PreTrainedModel.__call__`.
    """

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.set_backbone(ChatGLM2Backbone(config))

    def head(self, rows, b):
        """rows [M, D] -> last hidden state [B, T, D]."""
        return ops.reshape(rows, (b, -1, rows.shape[1]))

    def construct(self, input_ids):
        """input_ids [B, T] -> [B, T, D]; the graph form, causal, without padding."""
        return self.head(self.train_rows(input_ids), input_ids.shape[0])


class ChatGLM2ForConditionalGeneration(GLMChatMixin, NextTokenHead, GLM2PreTrainedModel):
    """ChatGLM2, ChatGLM3 or GLM-4 with its next-token head; answers ``logits`` [B, T, V] float32.

    Training (`set_train()`): see `construct`. Otherwise: `PreTrainedModel.__call__`, whose labels are Hugging Face's
    (shifted inside); generation: `generate`. With ``pre_seq_len`` only the prefix is trained.
    """

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.init_head(config)
        self.labels_shifted = config.labels_shifted
        self.set_backbone(ChatGLM2Backbone(config, with_head=not self.tied))

    def head_cell(self):
        """The head's Linear; there is none when it is tied."""
        return self.transformer.output_layer

    def head_place(self):
        """The cell that holds it, and its name there."""
        return self.transformer, "output_layer"

    def construct(self, input_ids, labels=None, position_ids=None, attention_mask=None):
        """One training step's loss: the mean over the targets that are not `ignore_token_id`.

        Args:
            input_ids: int32 [B, T]; without labels [B, T + 1].
            labels: int32 [B, T]. With ``config.labels_shifted`` label i is the target of token i, as MindFormers' GLM
                datasets make them; otherwise it is token i's own label and the target of token i - 1, as in
                transformers. Default: None, the next token of `input_ids` where it is no padding.
            position_ids: int32 [B, T] or None for 0..T-1.
            attention_mask: [B, T] or [B, T, T], 1 for what may be seen within the causal mask; None for all.

        Returns:
            scalar, or (sum, count) with ``config.calculate_per_token_loss``.
        """
        tokens, position_ids, attention_mask = self.training_inputs(input_ids, labels, position_ids, attention_mask)
        return self.training_loss(self.train_rows(tokens, position_ids, attention_mask), input_ids, labels)

    def training_inputs(self, input_ids, labels=None, position_ids=None, attention_mask=None):
        """What `train_rows` takes of the inputs of `construct`."""
        tokens = input_ids if labels is not None and self.labels_shifted else input_ids[:, :-1]
        return tokens, position_ids, attention_mask

    def training_loss(self, rows, input_ids, labels=None, position_ids=None, attention_mask=None):
        """What `construct` returns, of the rows that `train_rows` gave."""
        if labels is None:
            tokens, targets = input_ids[:, :-1], input_ids[:, 1:]
            real = ops.logical_and(tokens != self.pad_token_id, targets != self.ignore_token_id)
        else:
            targets = labels if self.labels_shifted else labels[:, 1:]
            real = targets != self.ignore_token_id
        return self.loss(self.row_logits(rows), ops.reshape(targets, (-1,)),
                         ops.reshape(ops.cast(real, ms.float32), (-1,)))


class ChatGLM2WithPtuning2(ChatGLM2ForConditionalGeneration):
    """`ChatGLM2ForConditionalGeneration` with a prefix; the name that MindFormers' YAMLs have for it.

    Args:
        config (ChatGLM2Config): made with ``pet_config: {pet_type: ptuning2, pre_seq_len: 128, prefix_projection:
            False, dropout_prob: 0.1}`` or with its own fields.

    Raises:
        ConfigError: neither pet_config.pre_seq_len nor pre_seq_len.
    """

    def __init__(self, config, **kwargs):
        if not config.pre_seq_len:
            raise ConfigError("ChatGLM2WithPtuning2 needs the length of the prefix; write for example model_config: "
                              "{pet_config: {pet_type: ptuning2, pre_seq_len: 128}}")
        super().__init__(config, **kwargs)
