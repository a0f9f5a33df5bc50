"""Parameter-efficient tuning: LoRA adapters on the products of any model; imported on first use."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "PetConfig": "mindformers.pet.pet_config:PetConfig",
    "LoraConfig": "mindformers.pet.pet_config:LoraConfig",
    "PetType": "mindformers.pet.constants:PetType",
    "get_pet_model": "mindformers.pet.pet_model:get_pet_model",
    "is_supported_pet_type": "mindformers.pet.pet_model:is_supported_pet_type",
    "PetAdapter": "mindformers.pet.tuners.pet_adapter:PetAdapter",
    "LoraAdapter": "mindformers.pet.tuners.lora_adapter:LoraAdapter",
    "LoraModel": "mindformers.pet.models.lora:LoraModel",
})
