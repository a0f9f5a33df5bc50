"""Build a processor from the ``processor`` section of a YAML."""
from mindformers.tools.errors import ConfigError
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister


def build_processor(config=None, default_args=None, module_type="processor", class_name=None, base_dir=None, **kwargs):
    """Return the processor of a section, its tokenizer built first.

    Args:
        config (dict | None): ``{"type": "LlamaProcessor", "return_tensors": "ms", "tokenizer": {...}}``. Default: None.
        default_args (dict | None): arguments that win over the section's. Default: None.
        module_type (str): shelf of the registry. Default: "processor".
        class_name (str | None): the class, when there is no `config`; `kwargs` are its arguments. Default: None.
        base_dir (str | None): folder of the YAML, for relative paths of the tokenizer. Default: None.

    Returns:
        The processor, or None when neither `config` nor `class_name` is given.

    Raises:
        ConfigError: a section without `type`.
        ValueError: an unknown type; the message names the nearest.
    """
    if not config:
        return None if class_name is None else MindFormerRegister.get_instance(module_type, class_name, **kwargs)
    from mindformers.models.processing_utils import processor_from_section
    section = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    section.update({**(default_args or {}), **kwargs})
    if "type" not in section:
        raise ConfigError(f"processor needs type (such as LlamaProcessor), but has only {sorted(section)}")
    if section.pop("auto_register", None) is not None:
        MindFormerRegister.auto_register(config["auto_register"], MindFormerModuleType.PROCESSOR)
    kind = section["type"]
    kind = MindFormerRegister.get_cls(module_type, kind) if isinstance(kind, str) else kind
    return processor_from_section(section, kind, base_dir)
