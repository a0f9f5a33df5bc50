"""Data loaders by name."""
import inspect

from mindformers.dataset.unsupported import refuse
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.register.register import MindFormerRegister

# How a MindSpore pipeline reads, not what: the order and the split over ranks are the dataset's here.
PIPELINE_ARGUMENTS = {"num_parallel_workers", "python_multiprocessing", "num_shards", "shard_id", "max_rowsize",
                      "cache", "prefetch_size", "numa_enable"}


def build_dataset_loader(config=None, default_args=None, module_type="dataset_loader", class_name=None, **kwargs):
    """Build the data loader that ``config["type"]`` (or `class_name` with `kwargs`) names.

    Args:
        config (dict): ``{"type": name, ...arguments of the class}``.
        default_args (dict): arguments used where `config` does not give them and the class takes them.

    Returns:
        RowSource (or whatever a user's registered class makes).

    Raises:
        ConfigError: no `type`, or an argument the loader does not have, with the nearest one.
        ValueError: no loader of that name.
        UnsupportedError: one of MindFormers' loaders that is not carried; the message says what works instead.
    """
    refuse(class_name if config is None else config.get("type"))
    if config is None:
        return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
    arguments = {**config, **kwargs}
    kind = arguments.pop("type", None)
    if kind is None:
        raise ConfigError(f"data_loader must name its type, such as type: MindDataset; got the keys {sorted(config)}")
    loader = MindFormerRegister.get_cls(module_type, kind) if isinstance(kind, str) else kind
    parameters = inspect.signature(loader).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return loader(**{**(default_args or {}), **arguments})
    for name in PIPELINE_ARGUMENTS - set(parameters):
        arguments.pop(name, None)
    unknown = sorted(set(arguments) - set(parameters))
    if unknown:
        raise ConfigError(f"data_loader {loader.__name__} has no argument {unknown[0]!r}."
                          f"{did_you_mean(unknown[0], parameters)} Its arguments are {', '.join(parameters)}")
    defaults = {name: value for name, value in (default_args or {}).items() if name in parameters}
    return loader(**{**defaults, **arguments})
