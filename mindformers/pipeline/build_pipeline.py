"""build_pipeline: a pipeline from a configuration."""
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister


def build_pipeline(config=None, default_args=None, module_type="pipeline", class_name=None, **kwargs):
    """Return the pipeline that ``config["type"]`` or `class_name` names ("text_generation"), or None without either.

    Args:
        config (dict): `type` and keyword arguments of the class. Default: None.
        default_args (dict): further keyword arguments, which win. Default: None.
        module_type (str): shelf of the registry. Default: "pipeline".
        class_name (str): used when `config` is None. Default: None.
        kwargs: keyword arguments with `class_name`.
    """
    if config is not None:
        return MindFormerRegister.get_instance_from_cfg(config, module_type, default_args=default_args)
    if class_name is not None:
        return MindFormerRegister.get_instance(module_type or MindFormerModuleType.PIPELINE, class_name, **kwargs)
    return None
