"""Registry and configuration."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "MindFormerConfig": "mindformers.tools.register.config:MindFormerConfig",
    "DictConfig": "mindformers.tools.register.config:DictConfig",
    "ActionDict": "mindformers.tools.register.config:ActionDict",
    "MindFormerRegister": "mindformers.tools.register.register:MindFormerRegister",
    "MindFormerModuleType": "mindformers.tools.register.register:MindFormerModuleType",
})
