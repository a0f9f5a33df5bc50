"""Build callbacks from configuration sections."""
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister


def build_callback(config=None, default_args=None, module_type=MindFormerModuleType.CALLBACK, class_name=None,
                   **kwargs):
    """Build one callback (a dict with `type`) or a list of them; None without a config.

    `default_args` may be a dict for all, or a list with one dict (or None) per section.
    """
    if config is None and class_name is None:
        return None
    if config is None:
        return MindFormerRegister.get_instance(module_type, class_name, **kwargs)
    if not isinstance(config, (list, tuple)):
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    defaults = default_args if isinstance(default_args, (list, tuple)) else [default_args] * len(config)
    return [MindFormerRegister.get_instance_from_cfg(section, module_type, default_args=own)
            for section, own in zip(config, defaults)]
