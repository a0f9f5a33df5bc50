"""Methods and functions that code written for MindFormers or transformers calls on models, each working or refused."""
import os
import re
from collections.abc import Iterable

import mindspore as ms
import numpy as np

from mindformers.checkpoint import DictSource, load
from mindformers.checkpoint.ckpt_file import write_ckpt
from mindformers.checkpoint.save import parse_size, plan_shards
from mindformers.checkpoint.source import CellSource
from mindformers.models.checkpointing import segments
from mindformers.models.hub_sources import weights_of
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write

WEIGHTS_NAME = "mindspore_model.ckpt"


class CompatMethods:
    """For a PreTrainedModel: names of weights, lists, and hooks of other ways to run a model."""

    supports_gradient_checkpointing = True
    is_gradient_checkpointing = False
    model_tags = ()

    def post_init(self):
        """Called at the end of a constructor by code written for MindFormers; nothing is left to do here."""

    # -- names of weights -----------------------------------------------------------------------------------------

    @classmethod
    def convert_name(cls, weight_name):
        """Return our name of the Hugging Face array `weight_name`; one that the table lacks comes back as it is."""
        table = cls.weight_map()
        names = table.our_names(weight_name) if table is not None else []
        return names[0] if names else weight_name

    @classmethod
    def convert_weight_dict(cls, source_dict, model_config=None, **kwargs):
        """Return ``{our name: numpy array}`` of a dict with Hugging Face's names.

        Args:
            source_dict (dict): name -> numpy array or Tensor.
            model_config (PretrainedConfig): decides packed (`qkv_concat`) and tied parameters. Default: None, separate
                and not tied.

        Raises:
            CheckpointMismatchError: names that the table lacks, parts that are absent.
            UnsupportedError: an argument of another release.
        """
        _refuse_arguments("convert_weight_dict", kwargs)
        table = cls.weight_map()
        view = DictSource(source_dict) if table is None else table.to_mindformers(source_dict, model_config)
        return {name: view.read(name) for name in view.names()}

    @classmethod
    def convert_map_dict(cls, source_dict, model_config=None, **kwargs):
        """Return ``{our name: file}`` of an index ``{Hugging Face name: file}``.

        Arrays that are no parameters are left out; a packed parameter is in the file of its first part. Arguments as in
        `convert_weight_dict`.
        """
        _refuse_arguments("convert_map_dict", kwargs)
        table, found = cls.weight_map(), {}
        for name, file in source_dict.items():
            for ours in [name] if table is None else table.our_names(name, model_config):
                found.setdefault(ours, file)
        return found

    def fuse_weight_from_ckpt(self, ckpt_dict):
        """Return `ckpt_dict`; a subclass whose weights are stored in parts joins them here."""
        return ckpt_dict

    def load_checkpoint(self, config):
        """Load the weights that ``config.checkpoint_name_or_path`` names, strictly; nothing is downloaded.

        Raises:
            ValueError: a name without weights here; a path that does not exist.
            CheckpointMismatchError: weights that do not fit.
        """
        path = config.checkpoint_name_or_path
        if not path:
            logger.info("checkpoint_name_or_path is empty: the weights stay as they are")
            return
        if not os.path.exists(path):
            try:
                path = weights_of(path, download=False)
            except FileNotFoundError as error:
                raise ValueError(f"checkpoint_name_or_path: {error}") from None
        load(self, path, type(self).weight_map(), self.config)

    @staticmethod
    def remove_type(config):
        """Drop the attribute `type`, which a YAML has beside the fields, from a config."""
        config.remove_type()

    # -- lists ----------------------------------------------------------------------------------------------------

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of %s is: %s", cls.__name__, cls.get_support_list())

    def add_model_tags(self, tags):
        """Add `tags` (str or list of str) to `model_tags`, each once.

        Raises:
            ConfigError: something else.
        """
        if not isinstance(tags, Iterable) or not all(isinstance(tag, str) for tag in tags):
            raise ConfigError(f"tags must be a str or a list of them, but is {tags!r}")
        tags = [tags] if isinstance(tags, str) else list(tags)
        self._hide("model_tags", tuple(dict.fromkeys([*self.model_tags, *tags])))

    # -- parts ----------------------------------------------------------------------------------------------------

    def to_embeddings(self, tokens):
        """Embed tokens (int [B, T]: list, array or Tensor); returns float32 [B, T, D]."""
        tokens = np.atleast_2d(np.asarray(tokens.asnumpy() if hasattr(tokens, "asnumpy") else tokens, np.int32))
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.config.vocab_size:
            raise ConfigError(f"token ids must be 0 to {self.config.vocab_size - 1}, but are {tokens.min()} to "
                              f"{tokens.max()}")
        return self.embedded(tokens).reshape((*tokens.shape, -1))

    def kvcache(self, layer_idx):
        """Return the key and the value memory (Parameters) of a layer, which all caches of this model share.

        Raises:
            ValueError: no such layer.
        """
        count = self.config.num_layers
        if not isinstance(layer_idx, int) or not 0 <= layer_idx < count:
            raise ValueError(f"layer {layer_idx!r} does not exist; the model has layers 0 to {count - 1}")
        with self.make_cache(1, 1) as cache:
            arrays = cache.pool.arrays
        return arrays[2 * layer_idx], arrays[2 * layer_idx + 1]

    # -- other ways to run ----------------------------------------------------------------------------------------

    def set_dynamic_inputs(self, **kwargs):
        """Do nothing: shapes are always dynamic here.

        Raises:
            UnsupportedError: `have_prefix_keys_values`, unless the model has a prefix (`pre_seq_len`).
        """
        if kwargs.get("have_prefix_keys_values") and not self.model.past_length:
            raise UnsupportedError("set_dynamic_inputs(have_prefix_keys_values=True): this model has no prefix; "
                                   "ChatGLM2 gets one from pre_seq_len")

    def prepare_inputs_for_predict_layout(self, input_ids, **kwargs):
        """Refused: a layout is of sharded models."""
        raise UnsupportedError("prepare_inputs_for_predict_layout: models are not sharded here, so there is no layout "
                               "to predict; call the model, or generate")

    def enable_input_require_grads(self):
        """Do nothing: gradients reach adapters behind a frozen embedding without it, with checkpointing and without."""

    def disable_input_require_grads(self):
        """Do nothing: see `enable_input_require_grads`."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None):
        """Keep only what goes into each layer in training, and run each layer again for its gradients.

        Loss and gradients stay what they are; memory falls and a step takes about a third longer (docs/guides/
        training.md has what was measured). `Trainer` and `TrainStep` honour it; call it before they are made.

        Args:
            gradient_checkpointing_kwargs (dict | None): PyTorch's "use_reentrant" and "preserve_rng_state" choose
                between ways that give the same here. Default: None.

        Raises:
            ConfigError: no dict. UnsupportedError: the model does not train in segments; another setting.
        """
        if not isinstance(gradient_checkpointing_kwargs, (dict, type(None))):
            raise ConfigError("gradient_checkpointing_kwargs must be a dict or None, but is "
                              f"{gradient_checkpointing_kwargs!r}; leave it out")
        if not hasattr(self, "training_loss"):
            raise UnsupportedError(f"{type(self).__name__} has no loss to train by, so nothing to checkpoint; use a "
                                   "model with a head")
        for key in gradient_checkpointing_kwargs or {}:
            if key not in ("use_reentrant", "preserve_rng_state", "determinism_check"):
                raise UnsupportedError(f"gradient_checkpointing_kwargs has no {key!r} here; leave it out")
        self._hide("is_gradient_checkpointing", True)

    def gradient_checkpointing_disable(self):
        """Keep all activations again, as is the default; call it before a `Trainer` or `TrainStep` is made."""
        self._hide("is_gradient_checkpointing", False)

    def training_segments(self):
        """The parts that training runs one by one with gradient checkpointing, see `models.checkpointing`."""
        self.refuse_quantised_training()
        return segments(self)


def _refuse_arguments(name, kwargs):
    for key, value in kwargs.items():
        if value:
            raise UnsupportedError(f"{name}() does not take {key}; give model_config, whose qkv_concat decides")


# ---- functions of mindformers.models.modeling_utils ----

def dtype_byte_size(dtype):
    """Return the bytes of one element of a MindSpore or numpy dtype (or its name); 1/8 for bool.

    Raises:
        ValueError: no such dtype.
    """
    text = str(getattr(dtype, "__name__", dtype)).lower()
    if text.rsplit(".", maxsplit=1)[-1].rstrip("_") == "bool":
        return 1 / 8
    bits = re.search(r"[a-z](\d+)(?:_\w+)?$", text)
    if bits is None:
        raise ValueError(f"{dtype} is not a valid dtype")
    return int(bits.group(1)) // 8


def shard_checkpoint(state_dict, max_shard_size="10GB", weights_name=WEIGHTS_NAME):
    """Share weights among files.

    Args:
        state_dict (dict): name -> array or Parameter.
        max_shard_size (int | str): bytes of a file, such as "5GB"; a larger tensor has one of its own.
        weights_name (str): name of a single file; several have ``-00001-of-00002`` before the suffix.

    Returns:
        ({file: {name: value}}, index); the index is None for one file, else {"metadata", "weight_map"}.
    """
    source = DictSource(state_dict)
    shards = plan_shards(source, parse_size(max_shard_size))
    if len(shards) == 1:
        return {weights_name: dict(state_dict)}, None
    stem, suffix = os.path.splitext(weights_name)
    files = {f"{stem}-{number:05d}-of-{len(shards):05d}{suffix}": {name: state_dict[name] for name in names}
             for number, names in enumerate(shards, 1)}
    total = sum(source.nbytes(name) for name in source.names())
    return files, {"metadata": {"total_size": total},
                   "weight_map": {name: file for file, part in files.items() for name in part}}


def load_sharded_checkpoint(model, folder, strict=True):
    """Load the weights of `folder` (files with an index, or one file) into `model`; returns a LoadReport.

    Args:
        strict (bool): False lets names be missing or unexpected. Default: True.

    Raises:
        CheckpointMismatchError: weights that do not fit.
    """
    table = type(model).weight_map() if hasattr(type(model), "weight_map") else None
    anything = () if strict else (".*",)
    return load(model, folder, table, getattr(model, "config", None), allow_missing=anything, allow_unexpected=anything)


def save_checkpoint(save_obj, save_directory):
    """Write a cell or a dict of arrays as one `.ckpt`; a folder gets `mindspore_model.ckpt`. Returns the path."""
    source = CellSource(save_obj) if isinstance(save_obj, ms.nn.Cell) else DictSource(save_obj)
    path = os.path.join(save_directory, WEIGHTS_NAME) if os.path.isdir(save_directory) else str(save_directory)
    with atomic_write(path) as temporary:
        write_ckpt(temporary, source, target=path)
    return path
