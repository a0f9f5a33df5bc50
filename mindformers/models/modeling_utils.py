"""PreTrainedModel: calling a model, its named outputs, and moving it from and to folders."""
import copy
import inspect
from itertools import zip_longest

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from mindformers.core.context.build_context import prefer_graphs
from mindformers.generation import GenerationMixin
from mindformers.generation.generation_config import GenerationConfig
from mindformers.hub import PushToHubMixin
from mindformers.models import pretrained_io
from mindformers.models.compat_methods import (CompatMethods, dtype_byte_size, load_sharded_checkpoint,  # noqa: F401
                                               save_checkpoint, shard_checkpoint)
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.decoding import DecodingMixin
from mindformers.models.graphs import ForwardGraph
from mindformers.models.hub_sources import card_facts
from mindformers.models.model_surgery import ModelSurgery
from mindformers.models.outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput
from mindformers.modules.masks import MASKED, counted, repeat_rows
from mindformers.modules.quantize import quantize as quantize_cells
from mindformers.pet.adapter_methods import AdapterMixin
from mindformers.tools import mapped_file
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.interrupt import interruptible

prefer_graphs()

_CALL_ARGUMENTS = ("input_ids", "labels", "attention_mask", "position_ids", "inputs_embeds", "return_dict",
                   "output_hidden_states", "output_attentions", "use_cache")
_OF_A_STEP = ("batch_valid_length", "block_tables", "slot_mapping", "batch_index", "zactivate_len", "init_reset",
              "input_position", "prefix_keys_values")
_OF_TOKENS = ("attention_mask", "position_ids")  # whole numbers, [B, T]


class PreTrainedModel(ModelSurgery, CompatMethods, nn.Cell, DecodingMixin, GenerationMixin, PushToHubMixin,
                      AdapterMixin):
    """Base of every model.

    A subclass has a backbone cell ``self.model`` (see `models.graphs` for what it must do) and a method
    ``head(rows, b)``.

    Args:
        config (PretrainedConfig): sizes and settings; stays as ``self.config``.

    Raises:
        ValueError: `config` is no PretrainedConfig.
    """

    config_class = None
    base_model_prefix = ""
    main_input_name = "input_ids"
    is_parallelizable = False
    new_parameters = ()  # those that a checkpoint may lack, as they are made for fine-tuning; regular expressions
    _auto_class = None
    quantization = None

    def __init__(self, config, *inputs, **kwargs):
        if not isinstance(config, PretrainedConfig):
            raise ValueError(f"{type(self).__name__} takes a PretrainedConfig, but got {type(config).__name__}; "
                             f"use {type(self).__name__}.from_pretrained for a name or folder")
        super().__init__(*inputs, **kwargs)
        self.config = config
        self.name_or_path = config.name_or_path
        self._hide("generation_config", GenerationConfig.from_model_config(config))
        self.choose_cache()
        self.forget_graphs()

    def forget_graphs(self):
        """Drop what was compiled: the parameters or cells of the model have been replaced."""
        self._hide("_forward_graphs", {})
        self._hide("_steps", None)
        self._hide("_embed_graph", None)

    def __getstate__(self):
        """What a copy starts with: no caches, and nothing compiled."""
        base, attributes = super().__getstate__()
        return base, {**attributes, "_forward_graphs": {}, "_pool": None, "_steps": None, "_embed_graph": None}

    def _hide(self, name, value):
        """Set an attribute that is not part of the cell: caches and graphs built around this model."""
        object.__setattr__(self, name, value)

    @property
    def framework(self):
        """Always "ms"."""
        return "ms"

    @property
    def base_model(self):
        """The backbone cell."""
        return getattr(self, self.base_model_prefix, self)

    @classmethod
    def weight_map(cls):
        """The WeightMap of the family, or None when parameter names need no translation."""
        return None

    def set_train(self, mode=True):
        """Choose training or evaluation; returns the model. Training writes weights in place, so they are settled."""
        if mode:
            mapped_file.finish()
        return super().set_train(mode)

    def train(self, mode=True):
        """`set_train` under PyTorch's name; returns the model."""
        return self.set_train(mode)

    def eval(self):
        """``set_train(False)`` under PyTorch's name; returns the model."""
        return self.set_train(False)

    def can_generate(self):
        """Whether `generate` works: the model has a next-token head."""
        return hasattr(self, "row_logits")

    # -- inside graphs --------------------------------------------------------------------------------------------

    def train_rows(self, tokens, position_ids=None, attention_mask=None):
        """Rows [M, D] of a training step: tokens int32 [B, T], causal.

        position_ids int32 [B, T] default to 0..T-1; attention_mask, [B, T] or [B, T, T] with 1 for what may be seen,
        narrows the causal mask.
        """
        position_ids, mask = self.train_view(tokens, position_ids, attention_mask)
        return self.model(self.model.embed(tokens), position_ids, mask)[0]

    def train_view(self, tokens, position_ids=None, attention_mask=None):
        """Positions [B, T] and the additive mask of a training step; arguments as of `train_rows`."""
        b, t = tokens.shape
        if position_ids is None:
            position_ids = ops.broadcast_to(counted(t), (b, t))
        mask = self.model.train_mask(tokens)
        if attention_mask is not None:
            rows = t if attention_mask.ndim == 3 else 1
            hidden = 1.0 - ops.cast(ops.reshape(attention_mask, (b, 1, rows, t)), ms.float32)
            hidden = ops.broadcast_to(hidden, (b, 1, t, t))
            mask = ops.maximum(mask + repeat_rows(hidden * MASKED, self.model.groups), MASKED)
        return position_ids, mask

    # -- calling --------------------------------------------------------------------------------------------------

    def __call__(self, *args, **kwargs):
        """In training (`set_train()`), run `construct`, see `train_call`; otherwise answer with named outputs.

        Args (not training):
            input_ids: int [B, T]; lists, numpy arrays or Tensors.
            labels: int [B, T] next-token targets, shifted inside, -100 ignored (causal LM); or classes / values [B].
            attention_mask: [B, T], 1 for real tokens, 0 for padding on either side. Default: all ones.
            position_ids: int [B, T]. Default: counted from each row's first real token.
            inputs_embeds: float [B, T, D] in place of input_ids.
            return_dict (bool): a `ModelOutput`, or with False ``(logits, tokens, mask)`` as MindFormers answers.
                Default: True.
            output_hidden_states, output_attentions (bool): add them to the output. Default: False.

        Raises:
            TypeError: an argument that does not exist; the message names the nearest.
            ConfigError: ids outside the vocabulary or shapes that do not fit.
            UnsupportedError: training of int8 weights, see `refuse_quantised_training`; what MindFormers passes in
                a step of generation.
        """
        if self.training:
            return self.train_call(args, kwargs)
        arguments = dict(zip(_CALL_ARGUMENTS, args))
        for name in kwargs:
            if name in _OF_A_STEP:
                raise UnsupportedError(f"{name} belongs to MindFormers' incremental inference; here `generate` keeps "
                                       "the cache, or model.make_cache and model.forward_step for a loop of your own")
            if name not in _CALL_ARGUMENTS:
                raise TypeError(f"{type(self).__name__} takes no argument {name!r}."
                                f"{did_you_mean(name, _CALL_ARGUMENTS)}")
        return self._answer(**arguments, **kwargs)

    def _answer(self, input_ids=None, labels=None, attention_mask=None, position_ids=None, inputs_embeds=None,
                return_dict=True, output_hidden_states=False, output_attentions=False, use_cache=None):
        if (input_ids is None) == (inputs_embeds is None):
            raise ConfigError("give exactly one of input_ids and inputs_embeds")
        inputs = self._embeds(inputs_embeds) if input_ids is None else self._ids(input_ids)
        keep = np.ones(inputs.shape[:2], np.int32) if attention_mask is None else np.atleast_2d(
            _as_array(attention_mask, np.int32))
        if keep.shape != inputs.shape[:2]:
            raise ConfigError(f"attention_mask of shape {keep.shape} does not fit inputs of {inputs.shape[:2]}; "
                              "it must be [batch, tokens]")
        positions = None if position_ids is None else np.atleast_2d(_as_array(position_ids, np.int32))
        if positions is not None and positions.shape not in (keep.shape, (1, keep.shape[1])):
            raise ConfigError(f"position_ids of shape {positions.shape} do not fit inputs of {keep.shape}; they must "
                              "be [batch, tokens]")
        answer, states, attentions = self.forward_all(inputs, keep, positions, output_hidden_states,
                                                      output_attentions)
        answer = self.pool(answer, keep, inputs)
        loss = None if labels is None else self.loss_of(answer, labels)
        if not return_dict:
            return answer, Tensor(inputs), Tensor(keep)
        return self.named_output(loss, answer, states or None, attentions or None)

    def _ids(self, input_ids):
        """Token ids int32 [B, T] of a list (also of one row), array or Tensor."""
        ids = np.atleast_2d(_as_array(input_ids, np.int32))
        if ids.ndim != 2 or not ids.size:
            raise ConfigError(f"input_ids of shape {ids.shape} hold no batch of tokens; they must be [batch, tokens], "
                              "at least one of each")
        return self._checked(ids, np.full(len(ids), ids.shape[1], np.int32))

    def _embeds(self, inputs_embeds):
        """Embeddings float32 [B, T, D] of a list, array or Tensor."""
        rows, width = _as_array(inputs_embeds, np.float32), self.config.hidden_size
        if rows.ndim != 3 or rows.shape[2] != width or not rows.size:
            raise ConfigError(f"inputs_embeds of shape {rows.shape} do not fit the model; they must be [batch, tokens, "
                              f"{width}], at least one of each")
        return rows

    def train_call(self, args, kwargs):
        """Run `construct` on `args` and `kwargs`; lists and numpy arrays become Tensors.

        MindSpore compiles for Tensors only: an array would end the process.
        """
        self.refuse_quantised_training()
        names = list(inspect.signature(self.construct).parameters)
        args = [self._training_input(name, value) for value, name in zip_longest(args, names[:len(args)])]
        return super().__call__(*args, **{name: self._training_input(name, value) for name, value in kwargs.items()})

    def _training_input(self, name, value):
        """A list or array as the Tensor that argument `name` of `construct` takes; anything else as it is."""
        if not isinstance(value, (str, list, tuple, np.ndarray)):
            return value
        if name == self.main_input_name:
            return Tensor(self._ids(value))
        if name in _OF_TOKENS or name == "labels" and self.can_generate():
            return Tensor(np.atleast_2d(_as_array(value, np.int32)))
        array = _as_array(value, None)  # such as classes, or the values of a regression
        return Tensor(array.astype(np.float32 if array.dtype.kind == "f" else np.int32))

    def refuse_quantised_training(self):
        """Raise UnsupportedError for int8 weights, unless what trains is beside them: adapters or a prefix."""
        if self.quantization is not None and not self.has_adapter and not self.model.past_length:
            raise UnsupportedError(f"a model quantised to {self.quantization!r} is not trained; load it without "
                                   "quantization=, or add adapters with get_pet_model")

    def forward_all(self, inputs, keep, positions=None, return_all=False, return_probs=False):
        """Run whole sequences; numpy in, Tensors out: the head's answer [B, T, ...], hidden states, attentions."""
        if positions is None:
            first = np.argmax(keep > 0, axis=1)
            positions = np.maximum(np.arange(keep.shape[1])[None] - first[:, None], 0)
        positions = np.ascontiguousarray(np.broadcast_to(positions, keep.shape).astype(np.int32))
        key = (inputs.ndim == 3, bool(return_all), bool(return_probs))
        if key not in self._forward_graphs:
            self._forward_graphs[key] = ForwardGraph(self, *key)
        with interruptible():
            return self._forward_graphs[key](Tensor(inputs), Tensor(positions), Tensor(keep.astype(np.int32)))

    def pool(self, outputs, keep, input_ids):
        """From the head's answer for each token to the model's answer; the same here."""
        return outputs

    def named_output(self, loss, answer, states, attentions):
        """Pack the answer into the output class of the model's kind."""
        if self.can_generate():
            return CausalLMOutput(loss, answer, states, attentions)
        if hasattr(self, "score"):
            return SequenceClassifierOutput(loss, answer, states, attentions)
        return BaseModelOutput(answer, states, attentions)

    def loss_of(self, answer, labels):
        """Loss of an evaluation call, as a scalar Tensor."""
        if not self.can_generate():
            raise UnsupportedError(f"{type(self).__name__} has no loss; labels are for models with a head")
        labels = np.atleast_2d(_as_array(labels, np.int32))
        if labels.shape != answer.shape[:2]:
            raise ConfigError(f"labels of shape {labels.shape} do not fit logits of {tuple(answer.shape)}")
        targets = labels[:, 1:].reshape(-1)
        logits = answer.asnumpy()[:, :-1].reshape(len(targets), -1)
        picked = targets != self.config.ignore_token_id
        if not picked.any():
            return Tensor(np.float32("nan"))
        logits, targets = logits[picked].astype(np.float64), targets[picked]
        if targets.min() < 0 or targets.max() >= logits.shape[-1]:
            raise ConfigError(f"labels hold {int(targets[(targets < 0) | (targets >= logits.shape[-1])][0])}, outside "
                              f"the vocabulary [0, {logits.shape[-1]}); use {self.config.ignore_token_id} for targets "
                              "to leave out")
        top = logits.max(-1, keepdims=True)
        logsum = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        return Tensor(np.float32((logsum - logits[np.arange(len(targets)), targets]).mean()))

    # -- embeddings and sizes -------------------------------------------------------------------------------------

    def get_input_embeddings(self):
        """The token embedding cell; subclasses say where it is."""
        raise UnsupportedError(f"{type(self).__name__} does not say where its token embedding is")

    def get_output_embeddings(self):
        """The cell that holds the head's weight, None without a head."""
        return None

    def quantize(self, quantization="int8"):
        """Make the weights of the products int8, in place, for generation; returns the model.

        Args:
            quantization (str): "int8" (a scale per output channel) or "int8:G" (one per group of G inputs).

        Raises:
            ConfigError: another value, or a group size that does not divide the inputs of a product.
        """
        quantize_cells(self, quantization)
        self._hide("quantization", quantization)
        self.forget_graphs()
        return self

    # -- folders --------------------------------------------------------------------------------------------------

    @classmethod
    def _from_config(cls, config, **kwargs):
        """Build with random weights, around a copy of `config`."""
        return cls(copy.deepcopy(config), **kwargs)

    @classmethod
    def build_empty(cls, config, *args, **kwargs):
        """Build without filling the parameters: for weights that are about to be loaded."""
        with no_init_parameters():
            return cls(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_dir, *model_args, **kwargs):
        """Build the model of a folder, YAML, known name or repository, with its weights; see `pretrained_io.load`."""
        return pretrained_io.load(cls, pretrained_model_name_or_dir, *model_args, **kwargs)

    def save_pretrained(self, save_directory, **kwargs):
        """Write weights and configuration into a folder; see `models.pretrained_io.save`.

        Of a model with adapters only those are written (`save_adapter`), for which options of weights mean nothing;
        `merge_and_unload` first writes a whole model.
        """
        pretrained_io.check_folder(save_directory)
        if self.has_adapter:
            return self.save_adapter(save_directory)
        return pretrained_io.save(self, save_directory, **kwargs)

    def _save_for_hub(self, folder, **weights):
        self.save_pretrained(folder, **weights)

    def _card_facts(self):
        return card_facts(self)

    def _card_tags(self):
        return self.model_tags

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoModel"):
        """Let `save_pretrained` copy the code of this class into the folder; config.json names it for `auto_class`.

        Raises:
            ValueError: no auto class.
        """
        from mindformers.models import auto
        if not hasattr(auto, str(auto_class)):
            raise ValueError(f"{auto_class!r} is not a valid auto class")
        cls._auto_class = auto_class

    @classmethod
    def get_support_list(cls):
        """Names that `from_pretrained` knows for this class."""
        return cls.config_class.get_support_list() if cls.config_class else []

    def last_token(self, outputs, keep, input_ids):
        """outputs [B, T, L] of the last token that is no padding [B, L]: by mask, then by `pad_token_id`."""
        pad = self.config.pad_token_id
        real = keep > 0
        if real.all() and pad is not None and input_ids.ndim == 2:
            real = input_ids != pad
        last = np.where(real.any(1), keep.shape[1] - 1 - np.argmax(real[:, ::-1], axis=1), 0)
        return Tensor(outputs.asnumpy()[np.arange(len(last)), last])


def _as_array(value, dtype):
    """A list, numpy array or Tensor as a numpy array of `dtype` (None: its own); ragged lists are an error."""
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    try:
        array = np.asarray(value)
        if array.dtype.kind in "US":
            raise TypeError("inputs must be token ids, but are text; encode it with the tokenizer first")
        if dtype == np.int32 and array.dtype.kind == "f" and (array != np.trunc(array)).any():
            raise TypeError(f"inputs must be whole numbers, but hold {array[array != np.trunc(array)][0]}")
        return np.ascontiguousarray(array, dtype=dtype)
    except ValueError:
        raise ConfigError("inputs must be rectangular; pad the rows to the same length, for example with "
                          "tokenizer(..., padding=True)") from None
