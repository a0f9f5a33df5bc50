"""What puts adapters into a model; imported on first use."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "PetAdapter": "mindformers.pet.tuners.pet_adapter:PetAdapter",
    "LoraAdapter": "mindformers.pet.tuners.lora_adapter:LoraAdapter",
    "LoraLinear": "mindformers.pet.tuners.lora_linear:LoraLinear",
})
