"""What `Trainer(...)` may be given, checked: task, model names, configuration, model, data."""
import os

from mindspore import nn

from mindformers.models.config_sources import known_names
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register import MindFormerConfig
from mindformers.tools.register.schema import check_config
from mindformers.tools.utils import configs_dir, get_real_rank
from mindformers.trainer.config_args import ConfigArguments
from mindformers.trainer.tasks import TASKS, refuse_task
from mindformers.trainer.training_args import TrainingArguments

_KINDS = ("pretrain", "finetune", "run", "predict", "eval")
DEFAULT_MODEL = "llama_tiny"


def check_task(task):
    """Refuse tasks that are not carried and tasks that do not exist.

    Raises:
        UnsupportedError: a task of MindFormers that is not carried here.
        ValueError: an unknown task.
    """
    refuse_task(task)
    if task not in TASKS:
        raise ValueError(f"The value of task must be in {sorted(TASKS)}, but got {task!r}.{did_you_mean(task, TASKS)}")


def check_model_name(task, model_name):
    """Refuse a model name without a shipped configuration.

    Raises:
        ValueError: `model_name` is not known.
    """
    names = known_names()
    if model_name not in names:
        raise ValueError(f"model {model_name!r} is not support in task {task!r}, the support model names are {names}."
                         f"{did_you_mean(model_name, names)}")


def task_config(task, model_name=None):
    """Return the shipped configuration (MindFormerConfig) of a model: its training YAML when there is one.

    Args:
        task (str): "text_generation".
        model_name (str): a known name. Default: None ("llama_tiny").

    Raises:
        ValueError: unknown task or model name.
    """
    check_task(task)
    model_name = DEFAULT_MODEL if model_name in (None, "common") else model_name
    check_model_name(task, model_name)
    files = {path.stem: path for path in configs_dir().rglob("*.yaml")}
    path = next(files[f"{kind}_{model_name}"] for kind in _KINDS if f"{kind}_{model_name}" in files)
    return MindFormerConfig(str(path))


def check_given(args, task, model, model_name, is_network):
    """Check that what is given is enough to know what to run.

    Args:
        is_network (bool): whether `model` is a network object.

    Raises:
        ValueError: nothing is given, or TrainingArguments without a network and a task.
    """
    check_task(task)
    if task != "general" or is_network:
        return
    if isinstance(args, TrainingArguments):
        raise ValueError("with TrainingArguments and no task, `model` must be a network (a Cell or PreTrainedModel); "
                         "or give task='text_generation'")
    if args is None:
        raise ValueError("Neither `task`, `model`, `model_name`, nor `args` are configured.")


def check_objects(tokenizer, optimizer, collator):
    """Refuse objects that cannot be what they were given as.

    Raises:
        ValueError: a tokenizer that does not encode and decode, an optimizer that is none, a collator that is not
            callable.
    """
    if tokenizer is not None and not (callable(tokenizer) and hasattr(tokenizer, "decode")):
        raise ValueError(f"tokenizer must be a tokenizer object, but got {type(tokenizer).__name__}; load one with "
                         "AutoTokenizer.from_pretrained")
    if optimizer is not None and not isinstance(optimizer, nn.Optimizer):
        raise ValueError(f"optimizers must be a mindspore.nn.Optimizer, but got {type(optimizer).__name__}")
    if collator is not None and not callable(collator):
        raise ValueError(f"data_collator must be callable, but got {type(collator).__name__}")


def check_optimizer(optimizer, network):
    """Refuse an optimizer of another network.

    Raises:
        ConfigError: it updates parameters that the network has not.
    """
    own = {id(parameter) for parameter in network.get_parameters()}
    foreign = [parameter.name for parameter in optimizer.parameters if id(parameter) not in own]
    if foreign:
        raise ConfigError(f"the optimizer updates {len(foreign)} parameters that are not those of the network, such as "
                          f"{foreign[0]}; build it from network.trainable_params(), and give that network too")


def load_config(args, task, model_name):
    """Return the checked MindFormerConfig of `args`.

    Args:
        args (str | MindFormerConfig | TrainingArguments | ConfigArguments | None): None takes the task's own.

    Raises:
        ValueError: a path that does not exist or is no YAML; ConfigError (a ValueError) lists all faults of a file.
        TypeError: another type.
    """
    base = task_config(task, model_name) if task != "general" else None
    if args is None:
        config, source = base or MindFormerConfig(), f"the configuration of {model_name or task}"
    elif isinstance(args, (str, os.PathLike)):
        config, source = _load_yaml(os.path.realpath(args)), str(args)
    elif isinstance(args, TrainingArguments):
        config, source = args.convert_args_to_mindformers_config(base), "TrainingArguments"
    elif isinstance(args, ConfigArguments):
        config, source = MindFormerConfig(**{**(base or {}), **args}), "ConfigArguments"
    elif isinstance(args, dict):
        config, source = args, "the configuration"
    else:
        raise TypeError(f"args must be the path of a YAML, a MindFormerConfig or TrainingArguments, but got "
                        f"{type(args).__name__}")
    checked = check_config(config, source, complete=False)
    if checked.ignored and get_real_rank() == 0 and not isinstance(args, dict):
        logger.info("%d keys have no effect here: %s", len(checked.ignored),
                    "; ".join(f"{key} ({reason})" for key, reason in checked.ignored))
    return checked.config


def _load_yaml(path):
    if not os.path.exists(path):
        raise ConfigError(f"config path must be exist, but get {path}")
    if not path.endswith((".yaml", ".yml")):
        raise ConfigError(f"config file must be end with .yaml or .yml, but get {path}")
    return MindFormerConfig(path)


def dataset_object(dataset, config, section, batch_size, collator=None):
    """Return the dataset that the user's `train_dataset` or `eval_dataset` means.

    A path becomes the data_loader's dataset_dir (None is returned: the task's trainer builds it); a dataset is returned
    as it is; any other iterable or callable becomes a GeneralDataset with the settings of the section.

    Args:
        dataset (str | Dataset | Iterable | None): what was given.
        config (MindFormerConfig): the configuration.
        section (str): "train_dataset" or "eval_dataset".
        batch_size (int): rows this process reads per step.
        collator (Callable): ``list of rows -> batch dict``. Default: None.

    Raises:
        ValueError: the path does not exist.
    """
    if dataset is None:
        return None
    if isinstance(dataset, (str, os.PathLike)):
        if not os.path.exists(dataset):
            raise ValueError(f"{section} path must be exist, but get {str(dataset)!r}")
        config.set_value(f"{section}.data_loader.dataset_dir", os.path.realpath(dataset))
        return None
    if hasattr(dataset, "loader") or hasattr(dataset, "create_dict_iterator"):
        return dataset
    from mindformers.dataset.general_dataset import GeneralDataset
    settings = {key: value for key, value in (config.get(section) or {}).items() if key != "data_loader"}
    return GeneralDataset({**settings, "batch_size": batch_size}, dataset, collator)
