"""The rules of the schema that span several keys: what a run mode needs, model, parallel, datasets, learning rate."""
import copy
import inspect

from mindformers.tools.env import get_env_int
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.register.catalog import CATALOG
from mindformers.tools.register.components import check_type, constructor_keys
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.register.schema_engine import check_section
from mindformers.tools.register.sections import DATASET

NEEDED = {
    "train": ("trainer", "model", "train_dataset", "train_dataset_task"),
    "finetune": ("trainer", "model", "train_dataset", "train_dataset_task"),
    "eval": ("trainer", "model", "eval_dataset", "eval_dataset_task"),
    "predict": ("trainer", "model"),
}
IGNORED_CALLBACKS = {"ObsMonitor": "nothing is uploaded; results stay in output_dir"}
MODEL_REFUSED = {
    "quantization_config": "quantised weights are not carried; use weights in float32, float16 or bfloat16",
}


def apply(report, complete):
    """Apply every rule; `complete` also asks for the sections that the run mode needs."""
    if complete:
        _required(report)
    for name in ("train_dataset", "eval_dataset"):
        _dataset(report, name)
    _callbacks(report)
    _learning_rate(report)
    _optimizer(report)
    _scale_sense(report)
    _runner(report)
    _parallel(report)
    _model(report)


def _required(report):
    config = report.config
    mode = config.get("run_mode")
    if mode is None:
        report.fault(("run_mode",), f"is missing; choose one of {', '.join(NEEDED)}")
        return
    needed = list(NEEDED.get(mode, ()))
    if config.get("do_eval") is True and mode in ("train", "finetune"):
        needed += ["eval_dataset", "eval_dataset_task"]
    for name in needed:
        task = config.get(f"{name}_task")
        if not config.get(name) and not (isinstance(task, dict) and task.get("dataset_config")):
            report.fault((name,), f"this section is missing; run_mode {mode} needs it")
    for path in (("model", "arch", "type"), ("model", "model_config", "type"), ("trainer", "type")):
        section = config.get_value(path[:-1])
        if config.get(path[0]) and not (isinstance(section, dict) and section.get(path[-1])):
            report.fault(path, "is missing")
    for name in ("train_dataset", "eval_dataset"):
        section = config.get(name)
        if name in needed and isinstance(section, dict) and section and not section.get("data_loader"):
            report.fault((name, "data_loader"), "is missing")


def _dataset(report, name):
    """`<name>_task.dataset_config` is a copy of `<name>` (YAML alias); what stands in both counts once."""
    config = report.config
    task = config.get(f"{name}_task")
    if isinstance(task, dict) and isinstance(task.get("dataset_config"), dict):
        inner = task.pop("dataset_config")
        if not config.get(name):
            check_section(report, inner, DATASET, (f"{name}_task", "dataset_config"))
            config[name] = inner
        else:
            for key in inner:
                if key not in config[name]:
                    report.ignore((f"{name}_task", "dataset_config", key), f"{name} is used; write the key there")
    section = config.get(name)
    batch = config.get_value(("runner_config", "batch_size"))
    if isinstance(section, dict) and isinstance(section.get("batch_size"), int) and section["batch_size"] != batch:
        report.ignore((name, "batch_size"), f"runner_config.batch_size ({batch}) is used")
        section.batch_size = batch


def _callbacks(report):
    """Take out callbacks that have nothing to do here."""
    for name in ("callbacks", "eval_callbacks"):
        kept = []
        for index, section in enumerate(report.config.get(name) or []):
            kind = section.get("type") if isinstance(section, dict) else None
            if kind in IGNORED_CALLBACKS:
                path = (name, index)
                report.faults = [fault for fault in report.faults if fault.path[:2] != path]
                report.ignore(path + ("type",), f"{kind}: {IGNORED_CALLBACKS[kind]}")
            else:
                kept.append(section)
        if report.config.get(name):
            report.config[name] = kept


def _learning_rate(report):
    schedule, optimizer = report.config.get("lr_schedule"), report.config.get("optimizer")
    if isinstance(schedule, dict):
        winner = next((key for key in ("warmup_ratio", "warmup_epochs") if schedule.get(key) is not None), None)
        for key in ("warmup_epochs", "warmup_steps"):
            if winner not in (None, key) and schedule.get(key):
                report.ignore(("lr_schedule", key), f"{winner} is given and wins")
        own_rate = schedule.get("learning_rate") is not None or schedule.get("base_lr") is not None
        if isinstance(optimizer, dict) and optimizer.get("learning_rate") is not None and own_rate:
            report.ignore(("optimizer", "learning_rate"), "lr_schedule gives the learning rate")
        if schedule.get("total_steps") == 0:
            report.fault(("lr_schedule", "total_steps"), "must be -1 (the whole run) or positive, but got 0")


def _optimizer(report):
    """Betas are a pair or two keys; the optimizer gets the form its constructor takes."""
    section = report.config.get("optimizer")
    if not isinstance(section, dict):
        return
    betas = section.get("betas")
    pair = [section.get("beta1"), section.get("beta2")]
    if betas is not None and pair != [None, None]:
        report.fault(("optimizer", "betas"), "is given twice: as betas and as beta1/beta2")
        return
    if betas is not None and not (isinstance(betas, (list, tuple)) and len(betas) == 2 and all(
            isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas)):
        report.fault(("optimizer", "betas"), f"must be two numbers in [0, 1), but got {betas!r}")
        return
    known = constructor_keys("optimizer", section.get("type")) or set()
    if betas is not None and "betas" not in known and "beta1" in known:
        section["beta1"], section["beta2"] = section.pop("betas")
    elif pair != [None, None] and "beta1" not in known and "betas" in known:
        section["betas"] = [0.9 if pair[0] is None else pair[0], 0.999 if pair[1] is None else pair[1]]
        section.pop("beta1", None)
        section.pop("beta2", None)


def _scale_sense(report):
    """A text is the name of a loss scale class."""
    name = report.config.get_value("runner_wrapper.scale_sense")
    if isinstance(name, str) and name != "None":
        check_type(report, {"type": name}, "wrapper", ("runner_wrapper", "scale_sense"))


def _runner(report):
    runner = report.config.get("runner_config")
    if not isinstance(runner, dict):
        return
    if runner.get("sink_mode") and runner.get("sink_size") == 0:
        report.fault(("runner_config", "sink_size"), "must be -1 (an epoch) or positive, but got 0")
    if report.device == "CPU":
        runner["sink_mode"] = False


def _parallel(report):
    """Data parallelism is what runs: other splits are refused, or inert without use_parallel."""
    config = report.config
    split = config.get("parallel_config")
    split = split if isinstance(split, dict) else {}
    in_use = config.get("use_parallel") is True
    for key in ("data_parallel", "model_parallel", "context_parallel", "pipeline_stage", "expert_parallel"):
        value = split.get(key)
        if not isinstance(value, int) or value <= 1:
            continue
        if not in_use:
            report.ignore(("parallel_config", key), "use_parallel is False")
            split[key] = 1
        elif key == "expert_parallel":
            report.ignore(("parallel_config", key), "the model has no experts")
            split[key] = 1
        elif key != "data_parallel":
            report.fault(("parallel_config", key), f"{value} needs a model sharded over devices, which is not carried "
                         "(semi-automatic parallelism does not run on CPU); set it to 1 and use data_parallel")
    if in_use:
        _data_parallel(report, split)
    if isinstance(config.get("parallel"), dict):
        config.parallel.parallel_mode = 0


def _data_parallel(report, split):
    mode = report.config.get_value(("parallel", "parallel_mode"))
    path = ("parallel", "parallel_mode")
    if str(mode).lower() in ("1", "semi_auto_parallel"):
        report.ignore(path, "runs as data parallel: without model_parallel and pipeline_stage the result is the same")
    elif str(mode).lower() in ("2", "3", "auto_parallel", "hybrid_parallel"):
        report.fault(path, f"{mode!r} is not carried; set it to 0 (data parallel)")
    elif str(mode).lower() == "stand_alone":
        report.fault(path, "'stand_alone' contradicts use_parallel: True")
    ranks, wanted = get_env_int("RANK_SIZE"), split.get("data_parallel") or 1
    if ranks > 1 and wanted not in (1, ranks):
        report.fault(("parallel_config", "data_parallel"), f"{wanted} does not match the {ranks} processes of this job")


def _model(report):
    """Check arch and model_config against the classes they name; the config class imports no MindSpore."""
    config = report.config
    arch, section = (config.get_value(("model", key)) for key in ("arch", "model_config"))
    if isinstance(arch, dict) and arch.get("type"):
        check_type(report, arch, "models", ("model", "arch"))
    if not isinstance(section, dict) or not section.get("type"):
        return
    path = ("model", "model_config")
    for key, value in section.items():
        if value == "None" and key != "extend_method":
            section[key] = None
    refused = [key for key in MODEL_REFUSED if section.get(key)]
    for key in refused:
        report.fault(path + (key,), f"is not carried: {MODEL_REFUSED[key]}")
    for key in ("top_k", "do_sample"):
        if config.get(key) is not None and config.get("run_mode") == "predict":
            section[key] = config[key]
    faults_before = len(report.faults)
    _pet_config(report, section, path + ("pet_config",), (arch or {}).get("type"))
    if len(report.faults) > faults_before:
        refused.append("pet_config")  # said once
    faults_before = len(report.faults)
    check_type(report, section, "config", path)
    if section.get("auto_register") or len(report.faults) > faults_before:
        return
    if section["type"] in CATALOG["config"] or section["type"] in MindFormerRegister.names("config"):
        _model_config(report, section, path, refused)


def _pet_config(report, section, path, arch):
    """Check the adapters of a model; a model that has the tuning itself (ptuning2 of GLM) checks its own."""
    values = section.get("pet_config")
    if values is None or (isinstance(values, dict) and values.get("pet_type") == "ptuning2"
                          and arch == "ChatGLM2WithPtuning2"):
        return
    if not isinstance(values, dict):
        report.fault(path, f"must be a section with pet_type, but is {values!r}")
        return
    values = {key: item.to_dict() if isinstance(item, MindFormerConfig) else item for key, item in values.items()}
    try:
        settings = MindFormerRegister.get_cls("pet", "pet_config")(values)
    except (ConfigError, UnsupportedError) as error:
        report.fault(path, str(error))
        return
    if not settings["target_modules"]:
        report.fault(path + ("target_modules",), "is missing; write for example '.*wq|.*wk|.*wv|.*wo'")


def _model_config(report, section, path, refused):
    cls = MindFormerRegister.get_cls("config", section["type"])
    values = {key: copy.deepcopy(value) for key, value in section.items() if key not in ("type", "auto_register")}
    allowed = cls.allowed_keys() | {"checkpoint_name_or_path", "auto_map"}
    unknown = [key for key in values if key not in allowed]
    for key in unknown:
        report.fault(path + (key,), f"unknown key of {section['type']}.{did_you_mean(key, allowed)}")
    for key in set(values) & set(getattr(cls, "ignored_keys", {})):
        if _differs_from_default(cls, key, values[key]):
            report.ignore(path + (key,), cls.ignored_keys[key])
    values = {key: value for key, value in values.items() if key not in unknown and key not in refused}
    try:
        cls(**{key: item.to_dict() if isinstance(item, MindFormerConfig) else item for key, item in values.items()})
    except (ConfigError, UnsupportedError, ValueError, TypeError, KeyError) as error:
        report.fault(path, str(error))


def _differs_from_default(cls, key, value):
    parameter = inspect.signature(cls.__init__).parameters.get(key)
    return parameter is None or parameter.default != value

