"""From sections of a configuration to the parts of a run: tokenizer, dataset, network, schedule, optimizer, step."""
import inspect

from mindformers.models.build_model import build_model
from mindformers.models.build_tokenizer import build_tokenizer
from mindformers.models.hub_sources import local
from mindformers.pet.pet_model import get_pet_model
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.register import MindFormerModuleType as Kind
from mindformers.tools.register import MindFormerRegister
from mindformers.tools.register.readiness import TOKENIZER_FILES
from mindformers.tools.utils import resolve_path
from mindformers.trainer.optimizer_grouped_parameters import get_optimizer_grouped_parameters
from mindformers.trainer.run_plan import schedule_args


def from_config(section, kind, name, **injected):
    """Build the class that `section` (a dict with `type`) names, on shelf `kind` of the registry.

    Args:
        section (dict): `type` and keyword arguments; left as it was.
        kind (str): shelf of the registry.
        name (str): key of the section, for messages.
        **injected: runtime values; each is passed when the class has a parameter of that name, and wins over the
            section's.

    Raises:
        ConfigError: no section, no `type`, or arguments the class does not take.
    """
    if not section or not section.get("type"):
        raise ConfigError(f"the configuration has no {name}.type; known: "
                          f"{', '.join(MindFormerRegister.names(kind)) or 'none'}")
    built = section["type"]
    built = MindFormerRegister.get_cls(kind, built) if isinstance(built, str) else built
    args = {key: value for key, value in section.items() if key not in ("type", "auto_register")}
    args.update({key: value for key, value in injected.items() if accepts(built, key)})
    try:
        inspect.signature(built).bind(**args)
    except TypeError as error:
        raise ConfigError(f"{name} ({built.__name__}): {error}") from None
    return built(**args)


def accepts(function, argument):
    """Whether `function` (or the constructor of a class) has a parameter named `argument`."""
    return argument in inspect.signature(function).parameters


def tokenizer(config):
    """Return the tokenizer of `processor.tokenizer`, or None when the configuration has none.

    A section that names no file takes those in the folder of the weights.
    """
    section = (config.get("processor") or {}).get("tokenizer")
    if not section:
        return None
    weights, base_dir, folder = config.get("load_checkpoint"), config.get("config_dir"), None
    if weights and not any(section.get(name) for name in TOKENIZER_FILES):
        path = resolve_path(weights, base_dir)
        folder = local(weights, "tokenizer") if not path.exists() else path if path.is_dir() else path.parent
    return build_tokenizer(section, base_dir=base_dir, folder=folder)


def dataset(config, section, batch_size, get_tokenizer=None):
    """Build the dataset of `<section>_task` and `<section>`, which is "train_dataset" or "eval_dataset".

    Args:
        batch_size (int): rows this process reads per step; replaces the section's own.
        get_tokenizer (Callable): returns the tokenizer of the job; asked only when the data is text without a
            tokenizer of its own. Default: None.

    Raises:
        ConfigError: the sections are missing.
    """
    task, data = config.get(f"{section}_task"), config.get(section)
    if not task or not task.get("type"):
        raise ConfigError(f"the configuration has no {section}_task.type (for example CausalLanguageModelDataset)")
    data = dict(data or task.get("dataset_config") or {})
    if not data.get("data_loader"):
        raise ConfigError(f"the configuration has no {section}.data_loader")
    data["batch_size"] = batch_size
    if section == "train_dataset" and data.get("seed") is None:
        data["seed"] = config.get("seed") or 0
    if section == "eval_dataset" and data.get("drop_remainder") is None:
        data["drop_remainder"] = False  # every row counts
    if get_tokenizer is not None and _lacks_tokenizer(data):
        data["tokenizer"] = get_tokenizer()
    return from_config({"type": task["type"]}, Kind.DATASET, f"{section}_task", dataset_config=data)


def _lacks_tokenizer(data):
    """Whether the rows are made from text, and neither dataset nor data_loader names a tokenizer."""
    loader = data["data_loader"]
    if not isinstance(loader, dict) or data.get("tokenizer") is not None or loader.get("tokenizer") is not None:
        return False
    kind = loader.get("type")
    return isinstance(kind, str) and accepts(MindFormerRegister.get_cls(Kind.DATASET_LOADER, kind), "tokenizer")


def network(config, **overrides):
    """Build the cell of `model.arch.type` from `model.model_config`; weights are random until something is loaded.

    With `pet_config` it has adapters, and only those train.

    Args:
        **overrides: fields of the model's configuration, used where the section is silent.

    Raises:
        ConfigError: the configuration has no model.
    """
    model = config.get("model")
    if not model or not model.get("model_config"):
        raise ConfigError("the configuration has no model.model_config (for example type: LlamaConfig)")
    given = model["model_config"]
    net = build_model(model, {key: value for key, value in overrides.items() if given.get(key) is None})
    pet = given.get("pet_config")
    if not pet or pet.get("pet_type") == "ptuning2":  # which a model has itself
        return net
    return get_pet_model(net, {key: value for key, value in pet.items() if key != "adapter_path"})


def learning_rate(config, total_steps, steps_per_epoch, scale=1.0):
    """Return the schedule of `lr_schedule`, or the number `optimizer.learning_rate` when there is none.

    Args:
        total_steps (int): what `total_steps: -1` stands for.
        steps_per_epoch (int): what one of `warmup_epochs` stands for.
        scale (float): factor on the base learning rate (lr_scale). Default: 1.0.
    """
    optimizer_section = config.get("optimizer") or {}
    section = config.get("lr_schedule") or optimizer_section.get("learning_rate")
    if not isinstance(section, dict):
        return (5e-5 if section is None else section) * scale
    section = schedule_args(section, total_steps, steps_per_epoch)
    kind = section.get("type")
    if isinstance(kind, str) and not accepts(MindFormerRegister.get_cls(Kind.LR, kind), "total_steps"):
        del section["total_steps"]
    rate_key = "base_lr" if "base_lr" in section else "learning_rate"
    rate = section.get(rate_key)
    if rate is None:
        rate = optimizer_section.get("learning_rate")
    section[rate_key] = (5e-5 if rate is None else rate) * scale
    return from_config(section, Kind.LR, "lr_schedule")


def optimizer(config, net, rate, layer_scale=False):
    """Build the optimizer of `optimizer`, its parameters in groups with and without weight decay.

    Args:
        net (nn.Cell): the network whose trainable parameters are updated.
        rate (float | LearningRateSchedule): the learning rate.
        layer_scale (bool): see `get_optimizer_grouped_parameters`. Default: False.
    """
    section = dict(config.get("optimizer") or {"type": "AdamW"})
    weight_decay = section.get("weight_decay") or 0.0
    groups = get_optimizer_grouped_parameters(net, weight_decay, layer_scale=layer_scale)
    return from_config(section, Kind.OPTIMIZER, "optimizer", params=groups, learning_rate=rate,
                       weight_decay=weight_decay)


def scale_sense(config):
    """Return `runner_wrapper.scale_sense`: a number (default 1.0), or the update cell its `type` names."""
    section = (config.get("runner_wrapper") or {}).get("scale_sense")
    if isinstance(section, dict):
        return from_config(section, Kind.WRAPPER, "runner_wrapper.scale_sense")
    if isinstance(section, str):
        return from_config({"type": section, "loss_scale_value": 65536, "scale_factor": 2, "scale_window": 1000},
                           Kind.WRAPPER, "runner_wrapper.scale_sense")
    return 1.0 if section is None else section


def recompute(config, network):
    """Turn on gradient checkpointing when recompute_config.recompute asks for it (True, or layers of any stage).

    Raises:
        UnsupportedError: a network that cannot.
    """
    wanted = (config.get("recompute_config") or {}).get("recompute")
    if not (any(wanted) if isinstance(wanted, (list, tuple)) else wanted):
        return
    if not hasattr(network, "gradient_checkpointing_enable"):
        raise UnsupportedError(f"recompute_config.recompute: {type(network).__name__} cannot run its layers again; "
                               "leave it False")
    network.gradient_checkpointing_enable()


def max_grad_norm(config):
    """Return the bound of the global gradient norm, or None when runner_wrapper.use_clip_grad is off (the default)."""
    section = config.get("runner_wrapper") or {}
    if not section.get("use_clip_grad"):
        return None
    bound = section.get("max_grad_norm")
    return 1.0 if bound is None else bound


def callbacks(sections, name, **injected):
    """Build the callbacks of a list of sections; runtime values reach those that take them.

    Each section may hold a mindspore Callback object instead of a dict; it is passed through.
    """
    built = []
    for number, section in enumerate(sections or []):
        if isinstance(section, dict):
            section = from_config(section, Kind.CALLBACK, f"{name}[{number}]", **injected)
        built.append(section)
    return built
