"""Build a learning rate schedule from a configuration section."""
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister


def build_lr(config=None, default_args=None, module_type=MindFormerModuleType.LR, class_name=None, **kwargs):
    """Build the schedule ``config['type']``, or the class `class_name` with `kwargs`; None without a config."""
    if config is None and class_name is None:
        return None
    if config is not None:
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
