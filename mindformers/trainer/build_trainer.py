"""Trainers by name."""
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.trainer.tasks import refuse_trainer


def build_trainer(config=None, default_args=None, module_type=MindFormerModuleType.TRAINER, class_name=None, **kwargs):
    """Build the trainer that ``config["type"]`` (or `class_name`, with `kwargs`) names; None without both.

    Args:
        config (dict): ``{"type": "CausalLanguageModelingTrainer", "model_name": ...}``. Default: None.
        default_args (dict): constructor arguments that win over `config`. Default: None.

    Raises:
        UnsupportedError: a task trainer of MindFormers that is not carried here.
        ValueError: an unknown name.
    """
    if config is None and class_name is None:
        return None
    name = (config or {}).get("type", class_name)
    refuse_trainer(name)
    if config is not None:
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    return MindFormerRegister.get_instance(module_type, class_name, **kwargs)


def register_mf_trainer():
    """Do nothing: the registry finds the trainers by their names when they are asked for."""
