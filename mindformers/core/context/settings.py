"""What `context` and `parallel` sections may say, normalised; no MindSpore."""
from dataclasses import dataclass, field

from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean

MODES = {0: 0, 1: 1, "GRAPH_MODE": 0, "PYNATIVE_MODE": 1}
DEVICES = ("CPU", "GPU", "Ascend")
PARALLEL_MODES = {0: "data_parallel", 1: "semi_auto_parallel", 2: "auto_parallel", 3: "hybrid_parallel",
                  "DATA_PARALLEL": "data_parallel", "SEMI_AUTO_PARALLEL": "semi_auto_parallel",
                  "AUTO_PARALLEL": "auto_parallel", "HYBRID_PARALLEL": "hybrid_parallel",
                  "STAND_ALONE": "stand_alone"}
# keys of the suite itself: kept and answered by get_context, not MindSpore's
SUITE_KEYS = {"run_mode": None, "train_precision_sync": False, "infer_precision_sync": False,
              "postprocess_use_numpy": True}
_RUN_MODES = ("train", "finetune", "eval", "predict", None)


def choice(name, value, table):
    """Return ``table[value]`` (strings in any case).

    Raises:
        ConfigError: `value` is not in the table; the message lists what is.
    """
    key = value.upper() if isinstance(value, str) else value
    if isinstance(key, bool) or key not in table:
        known = ", ".join(str(item) for item in table)
        raise ConfigError(f"context.{name} must be one of {known}, but got {value!r}.{did_you_mean(value, table)}")
    return table[key]


@dataclass
class ContextSettings:
    """A checked context.

    Args:
        mode (int): 0 graph, 1 eager (PYNATIVE). device_target (str): CPU, GPU or Ascend. device_id (int): Default: 0.
        use_parallel (bool): join the job's other processes. parallel_mode (str): data_parallel, ... or stand_alone.
        seed (int): None leaves the generators alone; 0 is a seed like any other.
        options (dict): the other keys of the `context` section, for MindSpore.
        suite (dict): the suite's own keys (`SUITE_KEYS`).
    """

    mode: int = 0
    device_target: str = "CPU"
    device_id: int = 0
    use_parallel: bool = False
    parallel_mode: str = "stand_alone"
    seed: object = None
    options: dict = field(default_factory=dict)
    suite: dict = field(default_factory=dict)


def read_settings(config):
    """Return ContextSettings for a configuration (dict-like); `config` is left as it was.

    Raises:
        ConfigError: a value that is not known. UnsupportedError: a parallel mode the device does not run.
    """
    section = {key: value for key, value in (config.get("context") or {}).items() if value is not None}
    parallel = config.get("parallel") or {}
    device = section.pop("device_target", "CPU")
    device = choice("device_target", device, {name.upper(): name for name in DEVICES})
    use_parallel = bool(config.get("use_parallel"))
    mode = choice("mode", section.pop("mode", 0), MODES)
    parallel_mode = "stand_alone"
    if use_parallel:
        wanted = parallel.get("parallel_mode")
        parallel_mode = choice("parallel_mode", "DATA_PARALLEL" if wanted is None else wanted, PARALLEL_MODES)
    if device == "CPU" and parallel_mode not in ("stand_alone", "data_parallel"):
        raise UnsupportedError(f"parallel_mode {parallel_mode} does not run on CPU; set parallel.parallel_mode: 0 "
                               "(data parallel)")
    suite = {key: config.get(key, default) if config.get(key) is not None else default
             for key, default in SUITE_KEYS.items()}
    if suite["run_mode"] not in _RUN_MODES:
        raise ConfigError(f"run_mode must be one of {', '.join(map(str, _RUN_MODES[:-1]))}, but got "
                          f"{suite['run_mode']!r}.{did_you_mean(suite['run_mode'], _RUN_MODES[:-1])}")
    _check_jit(section)
    return ContextSettings(mode, device, section.pop("device_id", 0), use_parallel, parallel_mode, config.get("seed"),
                           section, suite)


def _check_jit(section):
    jit = section.get("jit_config") or {}
    level = section.get("jit_level") or jit.get("jit_level")
    boost = section.get("infer_boost") or jit.get("infer_boost")
    if level == "O2" and boost == "on":
        raise ConfigError("jit_level O2 with infer_boost on does not run; use jit_level O0")
