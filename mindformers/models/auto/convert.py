"""Convert a checkpoint between Hugging Face's and MindFormers' names and formats, without building the model."""
import os
import shutil

from mindformers.checkpoint.formats import open_weights
from mindformers.checkpoint.save import save_weights
from mindformers.checkpoint.source import WeightSource
from mindformers.models.auto.configuration_auto import AutoConfig
from mindformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger

NAMES = ("hf", "mindformers")
_TRAINING = ("adam_m.", "adam_v.", "accu_grads")
_COPIED = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
           "added_tokens.json", "chat_template.jinja", "generation_config.json")


class _ModelArrays(WeightSource):
    """The arrays of another source that the weight map knows: training state stays behind."""

    def __init__(self, source, weight_map):
        super().__init__(source.where, metadata=source.metadata)
        self.source = source
        for name in source.names():
            if weight_map.knows(name):
                self.entries[name] = (source.shape(name), source.dtype(name))

    def read(self, name, rows=None):
        return self.source.read(name, rows)


def convert_checkpoint(src, dst, to="hf", format=None, dtype=None, config=None, max_shard_size="5GB"):
    """Write the weights of `src` into the folder `dst` with the other names.

    Args:
        src (str): folder or file in either naming; `.safetensors`, shards with an index, or `.ckpt`.
        dst (str): folder; made when missing. It also gets the configuration and the tokenizer files.
        to (str): "hf" or "mindformers". Default: "hf".
        format (str | None): "safetensors" or "ckpt"; None: safetensors for "hf", ckpt for "mindformers".
        dtype (str | None): dtype of the floating point weights. Default: as they are.
        config: PretrainedConfig, folder, config.json or YAML. Default: found in the folder of `src`.
        max_shard_size (int | str): largest file. Default: "5GB".

    Returns:
        list of the weight files written.

    Raises:
        ConfigError: an unknown `to`, or `dst` is `src`.
        FileNotFoundError: no weights or no configuration.
        CheckpointMismatchError: names that the family's table lacks.
    """
    if to not in NAMES:
        raise ConfigError(f"to={to!r} must be one of {', '.join(NAMES)}.{did_you_mean(to, NAMES)}")
    folder = src if os.path.isdir(src) else os.path.dirname(os.path.abspath(src))
    if os.path.realpath(folder) == os.path.realpath(dst):
        raise ConfigError(f"the result would overwrite its source: {dst}; name another folder")
    source = open_weights(src)
    config = config if hasattr(config, "to_hf_dict") else AutoConfig.from_pretrained(config or folder)
    weight_map = MODEL_FOR_CAUSAL_LM_MAPPING[type(config).__name__].weight_map()
    arrays = _ModelArrays(source, weight_map)
    left_out = [name for name in source.names() if name not in arrays.entries]
    foreign = [name for name in left_out if not name.startswith(_TRAINING) and "." in name]
    if foreign and len(foreign) == len(source.names()):
        raise ConfigError(f"{src} holds no weights of {type(config).__name__}: {', '.join(foreign[:5])}, ...")
    if left_out:
        logger.info("left out, no weights of the model: %s%s", ", ".join(left_out[:5]),
                    f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
    if dtype is not None:
        config.param_init_type = dtype
    written = save_weights(dst, arrays, names=to, format=format or ("safetensors" if to == "hf" else "ckpt"),
                           max_shard_size=max_shard_size, dtype=dtype, weight_map=weight_map, config=config)
    config.save_pretrained(dst, save_json=to == "hf")
    for name in _COPIED:
        if os.path.isfile(os.path.join(folder, name)):
            shutil.copy2(os.path.join(folder, name), os.path.join(dst, name))
    return [str(path) for path in written]
