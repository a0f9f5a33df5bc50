"""get_pet_model: a model with adapters, of which only the adapters train."""
from mindformers.pet.constants import SUPPORTED
from mindformers.pet.pet_config import as_pet_config
from mindformers.pet.tuners.lora_adapter import LoraAdapter
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger


def is_supported_pet_type(pet_type):
    """Whether adapters of this kind are carried."""
    return getattr(pet_type, "value", pet_type) in [kind.value for kind in SUPPORTED]


def get_pet_model(base_model, config):
    """Put adapters into a model, freeze everything else, and return the model.

    The model stays what it is: it generates, trains, and is saved as before, with the adapters in effect. See
    `AdapterMixin` for merging, saving and loading them.

    Args:
        base_model (PreTrainedModel): changed in place.
        config (PetConfig | dict): "pet_type" and its settings, see `LoraConfig`.

    Raises:
        ConfigError: faulty settings, or settings that fit no product of the model.
        UnsupportedError: a pet_type that is not carried.
    """
    if not hasattr(base_model, "cells_and_names"):
        raise ConfigError(f"get_pet_model takes a model, but got {type(base_model).__name__}")
    settings = as_pet_config(config)
    trained_before = {parameter.name: parameter.requires_grad for parameter in base_model.get_parameters()}
    names = LoraAdapter.add(base_model, settings)
    LoraAdapter.freeze_pretrained_model(base_model, settings.pet_type, settings.freeze_include, settings.freeze_exclude)
    if hasattr(base_model, "attach_adapter"):
        base_model.attach_adapter(settings, trained_before)
    trained = sum(parameter.size for parameter in base_model.trainable_params())
    total = sum(parameter.size for parameter in base_model.get_parameters())
    logger.info("LoRA on %d products: %s of %s parameters train (%.3g %%)", len(names), f"{trained:,}", f"{total:,}",
                100 * trained / total)
    if settings.adapter_path:
        base_model.load_adapter(settings.adapter_path)
    return base_model
