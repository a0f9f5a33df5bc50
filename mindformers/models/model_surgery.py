"""Changing a finished model: its vocabulary, its embeddings, its attention heads.

Parameters are replaced under their names and the compiled graphs forgotten, so the next call compiles anew. Open caches
and optimizers belong to the old parameters: make them anew too.
"""
from collections.abc import Iterable, Mapping

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from mindformers.checkpoint.arrays import FLOATS, convert, dtype_name
from mindformers.models.head_pruning import plan_pruning, prune, silence
from mindformers.tools import memory
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger


def replace_parameter(cell, field, array):
    """Give `cell` a new parameter with the values of `array` in place of `field`; name and dtype stay."""
    old = getattr(cell, field)
    array = memory.place(convert(np.ascontiguousarray(array), dtype_name(old.dtype), old.name))
    setattr(cell, field, Parameter(Tensor.from_numpy(array), name=old.name, requires_grad=old.requires_grad))


class ModelSurgery:
    """For a PreTrainedModel around a `Decoder`; its next-token head, if any, is a `NextTokenHead`."""

    # -- sizes ----------------------------------------------------------------------------------------------------

    def num_parameters(self, only_trainable=False, exclude_embeddings=False):
        """Number of parameters; the scales of int8 weights are none.

        Args:
            only_trainable (bool): leave out those without gradient. Default: False.
            exclude_embeddings (bool): leave out the token embedding. Default: False.
        """
        skipped = self.get_input_embeddings().embedding_weight.name if exclude_embeddings else None
        return sum(int(np.prod(p.shape)) for p in self.get_parameters()
                   if (p.requires_grad or not only_trainable) and p.name != skipped
                   and not p.name.endswith("weight_scale"))

    def get_memory_footprint(self, return_buffers=True):
        """Bytes of the parameters; with `return_buffers` (default) also of the key and value memory held."""
        pool = getattr(self, "_pool", None)
        cached = pool.nbytes if return_buffers and pool is not None else 0
        return sum(int(np.prod(p.shape)) * p.itemsize for p in self.get_parameters()) + cached

    # -- embeddings -----------------------------------------------------------------------------------------------

    def set_input_embeddings(self, value):
        """Put `value`, a VocabEmbedding [V, D], in the place of the token embedding; a tied head reads it too.

        Raises:
            TypeError: another kind of cell. ConfigError: another shape.
        """
        self._put(self.get_input_embeddings(), value, "embedding_weight")

    def set_output_embeddings(self, new_embeddings):
        """Put `new_embeddings`, a Linear with `weight` [V, D], in the place of the head.

        Raises:
            UnsupportedError: the model has no next-token head.
            ConfigError: a tied head, which is the token embedding; another shape.
            TypeError: another kind of cell.
        """
        head = self.get_output_embeddings()
        if head is None:
            raise UnsupportedError(f"{type(self).__name__} has no next-token head; use a model such as "
                                   "LlamaForCausalLM")
        if head is self.get_input_embeddings():
            raise ConfigError("the head is tied to the token embedding; use set_input_embeddings, or build the model "
                              "with tie_word_embeddings=False")
        self._put(head, new_embeddings, "weight")

    def _put(self, old, new, field):
        """Replace cell `old` by `new`, which takes over the parameter's name."""
        if not isinstance(new, type(old)):
            raise TypeError(f"{type(new).__name__} cannot take the place of a {type(old).__name__}")
        was, now = getattr(old, field), getattr(new, field)
        if was.shape != now.shape:
            raise ConfigError(f"{was.name} has shape {tuple(was.shape)}, but the new one {tuple(now.shape)}; use "
                              "resize_token_embeddings for another vocabulary")
        name = was.name
        owner, place = next((parent, key) for _, parent in self.cells_and_names()
                            for key, child in parent.name_cells().items() if child is old)
        setattr(owner, place, new)
        getattr(new, field).name = name
        forget_compiled(self)

    def resize_token_embeddings(self, new_num_tokens=None, pad_to_multiple_of=None, mean_resizing=True):
        """Make the vocabulary larger or smaller; the rows that stay keep their values. Head and config follow.

        New rows are the mean of the old ones, so that a new token begins as an average one (Hewitt, "Initializing New
        Word Embeddings for Pretrained Language Models", 2021).

        Args:
            new_num_tokens (int | None): tokens from now on; None keeps the number. Default: None.
            pad_to_multiple_of (int | None): rounds the number up. Default: None.
            mean_resizing (bool): False draws new rows from a normal distribution of the config's `init_method_std`,
                seeded by ``mindspore.set_seed``. Default: True.

        Returns:
            The token embedding cell.

        Raises:
            ConfigError: not a positive number, one that cuts off a special token of the config, or a head with adapter.
            UnsupportedError: quantised weights.
        """
        embedding, head = self.get_input_embeddings(), self.get_output_embeddings()
        if not getattr(head, "is_plain", True):
            self.refuse_adapter("another vocabulary")
        old = embedding.embedding_weight.shape[0]
        new = _rounded(old if new_num_tokens is None else new_num_tokens, pad_to_multiple_of)
        if new == old:
            return embedding
        self._check_special_tokens(new)
        fields = [(embedding, "embedding_weight")]
        if head is not None and head is not embedding:
            fields += [(head, field) for field in ("weight", "bias") if getattr(head, field, None) is not None]
        for cell, field in fields:
            _refuse_quantised(getattr(cell, field))
        std = None if mean_resizing else self.config.init_method_std
        for cell, field in fields:
            replace_parameter(cell, field, _resized(getattr(cell, field), new, std))
        embedding.vocab_size = self.config.vocab_size = new
        if head is not None and head is not embedding:
            head.out_channels = new
        forget_compiled(self)
        logger.info("the vocabulary has %d tokens now, %d before", new, old)
        return embedding

    def _check_special_tokens(self, count):
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            value = getattr(self.config, name, None)
            for token in value if isinstance(value, (list, tuple)) else [value]:
                if token is not None and token >= count:
                    raise ConfigError(f"a vocabulary of {count} tokens has no {name} {token}; set model.config.{name} "
                                      "first")

    def tie_weights(self):
        """Make the head read the token embedding when ``config.tie_word_embeddings`` says so; else change nothing."""
        if not getattr(self.config, "tie_word_embeddings", False) or not hasattr(self, "head_place") or self.tied:
            return
        embedding, head = self.get_input_embeddings().embedding_weight, self.head_cell().weight
        if head.shape != embedding.shape:
            raise ConfigError(f"{head.name} of shape {tuple(head.shape)} cannot be tied to {embedding.name} of "
                              f"{tuple(embedding.shape)}")
        self.tied = True
        owner, name = self.head_place()
        delattr(owner, name)
        forget_compiled(self)

    # -- attention heads ------------------------------------------------------------------------------------------

    def prune_heads(self, heads_to_prune):
        """Remove attention heads.

        When every layer is left with the same heads per kv head, their parameters go, the config follows, and the heads
        that stay are numbered anew from 0. Otherwise the model cannot get smaller, as all layers have one shape: the
        heads are silenced, that is their columns of the output projection become zero, which computes the same.

        Args:
            heads_to_prune (dict[int, list[int]]): layer -> query heads, from 0.

        Raises:
            ConfigError: no such dict, a layer or head that does not exist, no head left, or a model with adapters.
            UnsupportedError: quantised weights.
        """
        self.refuse_adapter("pruning")
        attentions = [layer.parts()[1] for layer in self.base_model.blocks()]
        for attention in attentions:
            for cell in (*attention.inputs(), attention.output()):
                _refuse_quantised(cell.weight)
        plan = plan_pruning(_heads_by_layer(heads_to_prune), len(attentions), attentions[0].heads)
        if not plan.removed:
            return
        if plan.heads is None:
            silence(attentions, plan, replace_parameter)
            logger.info("%d heads are silenced; to make the model smaller, prune the same number in every layer",
                        sum(map(len, plan.removed.values())))
        else:
            self.config.num_heads, self.config.n_kv_heads, self.config.head_dim = plan.heads
            prune(self.base_model, plan, replace_parameter)
            self._hide("_pool", None)
        forget_compiled(self)


def forget_compiled(model):
    """Drop everything that was compiled of `model`, for generation, evaluation and training."""
    model.forget_graphs()
    for _, cell in model.cells_and_names():
        cell.compile_cache.clear()


def _rounded(count, multiple):
    for name, value in (("new_num_tokens", count), ("pad_to_multiple_of", 1 if multiple is None else multiple)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ConfigError(f"{name} must be a positive integer, but is {value!r}")
    return int(count if multiple is None else -(-count // multiple) * multiple)


def _heads_by_layer(wanted):
    if not isinstance(wanted, Mapping) or not all(isinstance(heads, Iterable) for heads in wanted.values()):
        raise ConfigError(f"heads_to_prune must map layers to lists of heads, such as {{0: [1, 3]}}, but is {wanted!r}")
    return {layer: list(heads) for layer, heads in wanted.items()}


def _refuse_quantised(parameter):
    if dtype_name(parameter.dtype) not in FLOATS:
        raise UnsupportedError(f"{parameter.name} is {dtype_name(parameter.dtype)}: change the model before it is "
                               "quantised")


def _resized(parameter, count, std):
    """The values [V, ...] of `parameter` with `count` rows; new ones their mean, or normal with deviation `std`."""
    values = convert(parameter.asnumpy(), "float32", parameter.name)
    if count <= len(values):
        return values[:count]
    shape = (count - len(values), *values.shape[1:])
    if std is None:
        more = np.broadcast_to(values.mean(axis=0, dtype=np.float64), shape)
    else:
        more = np.random.default_rng(ms.get_seed()).normal(0.0, std, shape)
    return np.concatenate([values, more.astype(np.float32)])
