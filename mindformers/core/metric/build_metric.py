"""Build a metric from a configuration section."""
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister


def build_metric(config=None, default_args=None, module_type=MindFormerModuleType.METRIC, class_name=None, **kwargs):
    """Build the metric named by ``config['type']``, or the class `class_name` with `kwargs`; None without a config."""
    if config is None and class_name is None:
        return None
    if config is not None:
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
