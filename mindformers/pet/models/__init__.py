"""Models with adapters; imported on first use."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"LoraModel": "mindformers.pet.models.lora:LoraModel"})
