"""Enumerations of the trainer's settings and small helpers that users import from here."""
import os
from enum import Enum

from mindformers.tools.errors import did_you_mean


class BaseEnum(str, Enum):
    """A string enumeration whose error names the valid values."""

    @classmethod
    def _missing_(cls, value):
        names = [member.value for member in cls]
        raise ValueError(f"{value!r} is not a valid {cls.__name__}, please select one of {names}."
                         f"{did_you_mean(value, names)}")


class IntervalStrategy(BaseEnum):
    """When to evaluate."""

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class HubStrategy(BaseEnum):
    """When to push to a hub."""

    END = "end"
    EVERY_SAVE = "every_save"
    CHECKPOINT = "checkpoint"
    ALL_CHECKPOINTS = "all_checkpoints"


class LoggingIntervalStrategy(BaseEnum):
    """When to log."""

    STEPS = "steps"
    EPOCH = "epoch"


class SaveIntervalStrategy(BaseEnum):
    """When to save."""

    NO = "no"
    STEPS = "steps"
    SECONDS = "seconds"


class LrSchedulerType(BaseEnum):
    """Learning rate schedules (names of the registry)."""

    LINEAR = "linear"
    COSINE = "cosine"
    COSINE_WITH_RESTARTS = "cosine_with_restarts"
    POLYNOMIAL = "polynomial"
    CONSTANT_WITH_WARMUP = "constant_with_warmup"


class OptimizerType(BaseEnum):
    """Optimizers (names of the registry)."""

    ADAMWEIGHTDECAY = "AdamWeightDecay"
    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"
    ADAGRAD = "adagrad"
    ADAFACTOR = "adafactor"
    FUSED_ADAMW = "fused_adamw"
    FP32_ADAMW = "fp32_adamw"


class WrapperType(BaseEnum):
    """Step cells (names of the registry)."""

    MFWRAPPER = "mf_wrapper"
    TRAINONESTEP = "wrapper"
    TRAINONESTEPWITHLOSSSCALE = "loss_scale_wrapper"


def set_seed(seed=0):
    """Seed Python, numpy and MindSpore; see `rng.set_seed`."""
    from mindformers.trainer import rng
    rng.set_seed(seed)


def check_keywords_in_name(name, keywords=()):
    """Whether one of `keywords` is part of `name`."""
    return any(keyword in name for keyword in keywords)


def config2dict(config):
    """Return a configuration as plain dicts and lists all the way down."""
    if isinstance(config, dict):
        return {key: config2dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(config2dict(value) for value in config)
    return config


def get_last_checkpoint(checkpoint_dir):
    """Return the path of the newest ``*.ckpt`` or ``*.safetensors`` file in a folder, None when it has none.

    Args:
        checkpoint_dir (str): a folder such as ``output/checkpoint/rank_0``.

    Raises:
        NotADirectoryError: `checkpoint_dir` is no folder.
    """
    if not os.path.isdir(checkpoint_dir):
        raise NotADirectoryError(f"{checkpoint_dir!r} is not a real directory")
    files = [entry for entry in os.scandir(checkpoint_dir)
             if entry.name.endswith((".ckpt", ".safetensors")) and not entry.name.startswith(".")]
    return max(files, key=lambda entry: (entry.stat().st_mtime_ns, entry.name)).path if files else None
