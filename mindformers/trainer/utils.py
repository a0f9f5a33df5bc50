"""Enumerations of the trainer's settings and small helpers that users import from here."""
import os

from mindformers.tools.errors import UnsupportedError, did_you_mean
from mindformers.tools.utils import ExplicitEnum

_LOAD, _RESUME = "mindformers.checkpoint.load", "mindformers.checkpoint.find_resume"
_SCHEMA = "mindformers.tools.register.schema.check_config"
_INSTEAD = {
    "load_ckpt": _LOAD, "load_distributed_checkpoint": _LOAD, "transform_and_load_checkpoint": _LOAD,
    "check_path_include_total_ckpt": "mindformers.checkpoint.open_weights", "load_slora_ckpt": _LOAD,
    "check_rank_folders": _RESUME, "check_ckpt_file_exist": _RESUME, "load_resume_context_from_checkpoint": _RESUME,
    "check_runner_config": "mindformers.trainer.run_plan", "build_model": "mindformers.models.build_model",
    "check_train_data_loader_type": _SCHEMA, "check_eval_data_loader_type": _SCHEMA,
    "check_optimizer_and_lr_type": _SCHEMA, "check_wrapper_config": _SCHEMA,
}


class BaseEnum(ExplicitEnum):
    """A string enumeration whose error names the valid values."""


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


def __getattr__(name):
    """Name what does the work of MindFormers' internal helpers that are not carried."""
    if name in _INSTEAD:
        raise UnsupportedError(f"mindformers.trainer.utils.{name} is not carried; use {_INSTEAD[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{did_you_mean(name, [*globals(), *_INSTEAD])}")


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
