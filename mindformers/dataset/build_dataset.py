"""Datasets by name."""
from mindformers.dataset.unsupported import refuse
from mindformers.tools.errors import ConfigError
from mindformers.tools.register.register import MindFormerRegister


def build_dataset(config=None, default_args=None, module_type="dataset", class_name=None, **kwargs):
    """Build the dataset that ``config["type"]`` (or `class_name` with `kwargs`) names.

    Args:
        config (dict): ``{"type": "CausalLanguageModelDataset", "dataset_config": {...}}``: a ``*_dataset_task``
            section.
        default_args (dict): further constructor arguments, such as `tokenizer`, `batch_size`, `rank`, `rank_size`; they
            win over `config`.

    Raises:
        ConfigError: no `type`.
        ValueError: no dataset of that name.
        UnsupportedError: one of MindFormers' datasets that is not carried; the message says what works instead.
    """
    refuse(class_name if config is None else config.get("type"))
    if config is None:
        return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
    if not config.get("type"):
        raise ConfigError(f"dataset task must name its type, such as type: CausalLanguageModelDataset; got the keys "
                          f"{sorted(config)}")
    return MindFormerRegister.get_instance_from_cfg({**config, **kwargs}, module_type, default_args)
