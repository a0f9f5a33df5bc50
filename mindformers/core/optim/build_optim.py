"""Build an optimizer from a configuration section."""
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister


def build_optim(config=None, default_args=None, module_type=MindFormerModuleType.OPTIMIZER, class_name=None, **kwargs):
    """Build the optimizer ``config['type']``, or the class `class_name` with `kwargs`; None without a config."""
    if config is None and class_name is None:
        return None
    if config is not None:
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
