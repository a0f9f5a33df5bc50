"""The arithmetic of a run: batch sizes, steps, epochs (pure functions; nothing is read or built here)."""
from dataclasses import dataclass

from mindformers.tools.errors import ConfigError, UnsupportedError

PARALLEL_MODES = {0: "data_parallel", 1: "semi_auto_parallel", 2: "auto_parallel", 3: "hybrid_parallel"}


@dataclass(frozen=True)
class BatchSizes:
    """How many rows move per optimizer step.

    Attributes:
        micro (int): rows of one forward pass on one process.
        accumulation (int): forward passes per optimizer step.
        per_process (int): rows one process reads per step (the dataset's batch size).
        global_ (int): rows all processes read per step.
    """

    micro: int
    accumulation: int
    per_process: int
    global_: int


def parallel_mode_name(value):
    """Return the canonical name of `parallel.parallel_mode` (0-3, a name in any case, or None: 1, the default)."""
    if value is None:
        value = 1
    name = PARALLEL_MODES.get(value, str(value).lower())
    if name not in (*PARALLEL_MODES.values(), "stand_alone"):
        raise ConfigError(f"parallel.parallel_mode {value!r} must be one of {PARALLEL_MODES} or 'stand_alone'")
    return name


def positive_int(name, value, default=1):
    """Return `value` (or `default` for None) when it is an int >= 1, else raise ConfigError naming it."""
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")
    return value


def batch_sizes(runner, mode, rank_size, parallel=None, full_batch=True, interleave=1):
    """Return the `BatchSizes` of a run.

    Args:
        runner (dict): runner_config; reads batch_size and gradient_accumulation_steps.
        mode (str): "stand_alone", "data_parallel", "semi_auto_parallel", "auto_parallel" or "hybrid_parallel".
        rank_size (int): number of processes.
        parallel (dict): parallel_config; reads data_parallel, pipeline_stage and micro_batch_num.
        full_batch (bool): parallel.full_batch (automatic modes only). Default: True.
        interleave (int): micro_batch_interleave_num (automatic modes only). Default: 1.

    Raises:
        ConfigError: a value is not a positive integer, or accumulation meets pipeline stages.
    """
    parallel = parallel or {}
    micro = positive_int("runner_config.batch_size", runner.get("batch_size"))
    steps = positive_int("runner_config.gradient_accumulation_steps", runner.get("gradient_accumulation_steps"))
    if mode not in ("semi_auto_parallel", "auto_parallel"):
        per_process = micro * steps
        return BatchSizes(micro, steps, per_process, per_process * rank_size)
    stages = positive_int("parallel_config.pipeline_stage", parallel.get("pipeline_stage"))
    if stages > 1 and steps > 1:
        raise ConfigError(f"runner_config.gradient_accumulation_steps={steps} with parallel_config.pipeline_stage="
                          f"{stages}: a pipeline accumulates over parallel_config.micro_batch_num; set that instead")
    factor = positive_int("parallel_config.micro_batch_num", parallel.get("micro_batch_num")) if stages > 1 else steps
    rows = micro * interleave * factor
    if full_batch:
        rows *= positive_int("parallel_config.data_parallel", parallel.get("data_parallel"))
        return BatchSizes(micro, steps, rows, rows)
    return BatchSizes(micro, steps, rows, rows * rank_size)


def check_runnable(mode, parallel, device_target):
    """Refuse what the training loop cannot honour: sharded models.

    Raises:
        UnsupportedError: an automatic parallel mode, or a split other than data parallel.
    """
    if mode in ("semi_auto_parallel", "auto_parallel", "hybrid_parallel"):
        raise UnsupportedError(f"parallel.parallel_mode: {mode} does not train here on {device_target}; "
                               "set parallel.parallel_mode: 0 (data_parallel)")
    for key in ("model_parallel", "pipeline_stage", "context_parallel", "expert_parallel"):
        if ((parallel or {}).get(key) or 1) != 1:
            raise UnsupportedError(f"parallel_config.{key}: {parallel[key]} needs a sharded model, which does not "
                                   f"train in mode {mode}; set parallel_config.{key}: 1")


def check_sink_size(runner):
    """Check runner_config.sink_size: -1 (one epoch) or positive.

    Raises:
        ConfigError: another value.
    """
    size = runner.get("sink_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or (size <= 0 and size != -1)):
        raise ConfigError(f"runner_config.sink_size must be -1 or a positive integer, got {size!r}")


def planned_steps(runner, steps_per_epoch):
    """Return ``(total, last)``: all steps of the epochs, and the step to stop after.

    `stop_step` > 0 ends the run early; it does not change the total, so the learning rate is that of the whole run.

    Raises:
        ConfigError: epochs or stop_step is out of range, or the dataset has not one full batch.
    """
    epochs = positive_int("runner_config.epochs", runner.get("epochs"))
    stop = runner.get("stop_step") or 0
    if not isinstance(stop, int) or isinstance(stop, bool) or stop < 0:
        raise ConfigError(f"runner_config.stop_step must be an integer >= 0, got {stop!r}")
    total = epochs * steps_per_epoch
    return total, min(total, stop) if stop else total


def schedule_args(lr_schedule, total_steps, steps_per_epoch):
    """Return a copy of the lr_schedule section with `total_steps` and the warm-up in steps.

    `total_steps: -1` (or absent) becomes `total_steps`; `warmup_ratio` becomes int(total * ratio) steps and wins over
    `warmup_epochs`, which becomes epochs * `steps_per_epoch`; both win over `warmup_steps`.

    Raises:
        ConfigError: warmup_ratio outside [0, 1], or a negative warmup_epochs.
    """
    args = dict(lr_schedule)
    if args.get("total_steps") in (None, -1):
        args["total_steps"] = total_steps
    ratio, epochs = args.pop("warmup_ratio", None), args.pop("warmup_epochs", None)
    if ratio is not None:
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
            raise ConfigError(f"lr_schedule.warmup_ratio must be between 0 and 1, got {ratio!r}")
        args["warmup_steps"] = int(args["total_steps"] * ratio)
    elif epochs is not None:
        if isinstance(epochs, bool) or not isinstance(epochs, (int, float)) or epochs < 0:
            raise ConfigError(f"lr_schedule.warmup_epochs must be a number >= 0, got {epochs!r}")
        args["warmup_steps"] = int(epochs * steps_per_epoch)
    return args
