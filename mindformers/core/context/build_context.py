"""Apply a context to MindSpore: once per process, replaced only where that is possible."""
import mindspore as ms
import numpy as np
from mindspore import communication

from mindformers.core.context.settings import SUITE_KEYS, ContextSettings, read_settings
from mindformers.tools.env import get_env, set_env
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger

# settings of a context section that mean something on CPU as well; the others steer accelerators
_EVERYWHERE = ("save_graphs", "save_graphs_path", "runtime_num_threads")
# set for bit-exact Ascend runs, before the first operator
_TRAIN_SYNC = {"HCCL_DETERMINISTIC": "true", "ASCEND_LAUNCH_BLOCKING": "1", "TE_PARALLEL_COMPILER": "1"}
_INFER_SYNC = {"CUSTOM_MATMUL_SHUFFLE": "off", "LCCL_DETERMINISTIC": "1"}


class Context:
    """The context in force.

    Attributes:
        config: the configuration it was built from. settings (ContextSettings): what was read from it.
        rank (int), device_num (int): this process and the number of processes.
    """

    def __init__(self):
        self.config, self.settings = None, None
        self.rank, self.device_num = 0, 1
        self.suite = dict(SUITE_KEYS)

    def apply(self, config, settings):
        """Make `settings` the context in force.

        Raises:
            ConfigError: another device than the one this process runs on, or leaving a job once joined.
        """
        old = self.settings
        if old is not None and settings.device_target != old.device_target:
            raise ConfigError(f"this process runs on {old.device_target} already; {settings.device_target} needs a "
                              "process of its own")
        if old is not None and old.use_parallel and not settings.use_parallel:
            raise ConfigError("this process belongs to a parallel job and cannot leave it; use_parallel must stay True")
        if old is not None and old != settings:
            logger.info("the context is replaced: %s", ", ".join(
                f"{name} {getattr(old, name)!r} -> {value!r}" for name, value in vars(settings).items()
                if getattr(old, name) != value))
        if old is None or old.device_target != settings.device_target or old.device_id != settings.device_id:
            _set_device(settings)
        ms.set_context(mode=settings.mode)
        _apply_options(settings, {} if old is None else old.options)
        if settings.use_parallel and (old is None or not old.use_parallel):
            self.rank, self.device_num = _join(settings)
        if settings.seed is not None:
            ms.set_seed(settings.seed)
            np.random.seed(settings.seed)
        self.config, self.settings, self.suite = config, settings, dict(settings.suite)


_CONTEXT = Context()


def prefer_graphs():
    """Choose GRAPH_MODE unless a configuration has chosen; called when models are first imported.

    MindSpore starts in PYNATIVE, which costs several times as much per step. A script that wants it without a
    configuration sets it after that import.
    """
    if _CONTEXT.settings is None:
        ms.set_context(mode=ms.GRAPH_MODE)


def build_context(config):
    """Set up MindSpore for a configuration and return the Context.

    A second call with another configuration replaces what can be replaced and says so; what cannot (the device, the
    job) is an error.

    Args:
        config (dict | MindFormerConfig | TrainingArguments): reads context, parallel, use_parallel, seed, run_mode,
            train_precision_sync, infer_precision_sync. Not changed.

    Raises:
        ConfigError: a value that is not known or cannot be changed any more. UnsupportedError: see `read_settings`.
        RuntimeError: the job's processes did not find each other.
    """
    convert = getattr(config, "convert_args_to_mindformers_config", None)  # None of a MindFormerConfig: a missing key
    if callable(convert):
        config = convert()
    _CONTEXT.apply(config, read_settings(config))
    return _CONTEXT


def init_context(use_parallel=False, context_config=None, parallel_config=None):
    """Set up MindSpore from sections and return (rank, number of processes).

    Args:
        use_parallel (bool): join the job. Default: False.
        context_config (dict): the `context` section. Default: None, graph mode on CPU.
        parallel_config (dict): the `parallel` section (parallel_mode, ...). Default: None, data parallel.
    """
    context = build_context({"use_parallel": use_parallel, "context": dict(context_config or {}),
                             "parallel": dict(parallel_config or {})})
    return context.rank, context.device_num


def set_context(run_mode=None, **kwargs):
    """Change single settings: the suite's own keys, or those of MindSpore's context.

    Args:
        run_mode (str): train, finetune, eval or predict. Default: None, unchanged.
        **kwargs: `mode`, keys of `SUITE_KEYS`, or arguments of `mindspore.set_context`.

    Raises:
        ConfigError: a value that is not known.
    """
    own = {key: kwargs.pop(key) for key in list(kwargs) if key in SUITE_KEYS}
    if run_mode is not None:
        own["run_mode"] = run_mode
    section = {key: kwargs.pop(key) for key in ("mode",) if key in kwargs}
    checked = read_settings({**own, "context": section})
    _CONTEXT.suite.update({key: checked.suite[key] for key in own})
    if section:
        kwargs["mode"] = checked.mode
        if _CONTEXT.settings is not None:
            _CONTEXT.settings.mode = checked.mode
    if kwargs:
        ms.set_context(**kwargs)


def get_context(attr_key):
    """Return a setting by name: the suite's own keys, `rank`, `device_num`, or MindSpore's."""
    if attr_key in SUITE_KEYS:
        return _CONTEXT.suite[attr_key]
    if attr_key in ("rank", "device_num"):
        return getattr(_CONTEXT, attr_key)
    return ms.get_context(attr_key)


def _set_device(settings):
    if settings.device_target == "CPU":
        if ms.get_context("device_target") != "CPU":  # may not be said again once an operator has run
            ms.set_device("CPU")
        return
    if settings.use_parallel:  # each process has a device of its own; the launcher says which
        ms.set_device(settings.device_target)
    else:
        ms.set_device(settings.device_target, settings.device_id)


def _apply_options(settings: ContextSettings, old):
    options = {key: value for key, value in settings.options.items() if old.get(key) != value}
    options.pop("save_graphs_path", None)
    if settings.options.get("save_graphs") and "save_graphs_path" in settings.options:
        options["save_graphs_path"] = settings.options["save_graphs_path"]  # MindSpore makes the folder at once
    if "max_call_depth" in options:
        ms.set_recursion_limit(options.pop("max_call_depth"))
    if str(options.pop("deterministic", "OFF")).upper() == "ON" and old.get("deterministic") is None:
        ms.set_deterministic(True)
    if settings.device_target == "CPU":
        options = {key: value for key, value in options.items() if key in _EVERYWHERE}
    elif settings.device_target == "Ascend":
        for wanted, variables in (("train_precision_sync", _TRAIN_SYNC), ("infer_precision_sync", _INFER_SYNC)):
            for name, value in variables.items() if settings.suite[wanted] else ():
                set_env(name, value)
    if options:
        ms.set_context(**options)


def _join(settings):
    """Find the other processes of the job; return (rank, number of processes)."""
    if not get_env("MS_ROLE"):
        raise RuntimeError("use_parallel: True, but this process was not started by msrun. Notice: if you are trying "
                           "to run with a single device, please set use_parallel=False; for several, start with "
                           "scripts/msrun_launcher.sh")
    try:
        communication.init()
    except Exception as error:
        raise RuntimeError(f"the processes of the job did not find each other: {error}. Notice: if you are trying to "
                           "run with a single device, please set use_parallel=False") from error
    rank, size = communication.get_rank(), communication.get_group_size()
    ms.set_auto_parallel_context(parallel_mode=settings.parallel_mode, gradients_mean=False)
    logger.info("rank %d of %d joined, %s", rank, size, settings.parallel_mode)
    return rank, size
