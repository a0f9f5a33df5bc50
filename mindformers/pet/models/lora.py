"""LoraModel: MindFormers' name for a model with LoRA adapters."""
from mindformers.pet.pet_model import get_pet_model


class LoraModel:
    """``LoraModel(config, base_model)`` is ``get_pet_model(base_model, config)``: the base model, with adapters."""

    def __new__(cls, config, base_model):
        return get_pet_model(base_model, config)
