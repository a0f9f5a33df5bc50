"""ChatGLM2, ChatGLM3 and GLM-4."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "ChatGLM2Tokenizer": "mindformers.models.glm2.glm2_tokenizer:ChatGLM2Tokenizer",
    "ChatGLM3Tokenizer": "mindformers.models.glm2.glm3_tokenizer:ChatGLM3Tokenizer",
    "ChatGLM4Tokenizer": "mindformers.models.glm2.glm4_tokenizer:ChatGLM4Tokenizer",
    "GLMProcessor": "mindformers.models.glm2.glm_processor:GLMProcessor",
})
