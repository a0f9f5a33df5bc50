"""Training, evaluating and predicting with language models."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "CausalLanguageModelingTrainer":
        "mindformers.trainer.causal_language_modeling.causal_language_modeling:CausalLanguageModelingTrainer",
})
