"""Build a model from the ``model`` section of a YAML."""
from mindformers.models.auto.auto_factory import as_model_config
from mindformers.tools.errors import ConfigError
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister


def build_model(config, default_args=None):
    """Return the model of ``{"model_config": {...}, "arch": {"type": ...}}`` with random weights.

    Args:
        config (dict): the ``model`` section.
        default_args (dict | None): config fields that win over the section's.

    Raises:
        ConfigError: no ``arch.type``.
    """
    if config is None:
        return None
    arch = (config.get("arch") or {}).get("type")
    if arch is None:
        raise ConfigError("the model section has no arch.type; write for example arch: {type: LlamaForCausalLM}")
    if config["arch"].get("auto_register"):
        MindFormerRegister.auto_register(config["arch"]["auto_register"], MindFormerModuleType.MODELS)
    model_class = arch if isinstance(arch, type) else MindFormerRegister.get_cls(MindFormerModuleType.MODELS, arch)
    model_config = as_model_config({"model": dict(config)}, **(default_args or {}))
    return model_class(model_config)


def build_network(config, default_args=None):
    """The same as `build_model`; MindFormers' newer name."""
    return build_model(config, default_args)
