"""Build a model configuration from ``model.model_config`` of a YAML."""
from mindformers.models.auto.configuration_auto import config_class_of


def build_model_config(config, default_args=None):
    """Return the config object of ``model_config`` (a dict with `type`); `default_args` win over its keys."""
    if config is None:
        return None
    return config_class_of(config).from_dict({**config, **(default_args or {})})
