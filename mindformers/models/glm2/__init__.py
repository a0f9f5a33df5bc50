"""ChatGLM2, ChatGLM3 and GLM-4, in the files of their authors and in those of transformers."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "ChatGLM2Config": "mindformers.models.glm2.glm2_config:ChatGLM2Config",
    "GlmConfig": "mindformers.models.glm2.glm_config:GlmConfig",
    "ChatGLM2Model": "mindformers.models.glm2.glm2:ChatGLM2Model",
    "ChatGLM2ForConditionalGeneration": "mindformers.models.glm2.glm2:ChatGLM2ForConditionalGeneration",
    "ChatGLM2WithPtuning2": "mindformers.models.glm2.glm2:ChatGLM2WithPtuning2",
    "GlmModel": "mindformers.models.glm2.glm:GlmModel",
    "GlmForCausalLM": "mindformers.models.glm2.glm:GlmForCausalLM",
    "ChatGLM2Tokenizer": "mindformers.models.glm2.glm2_tokenizer:ChatGLM2Tokenizer",
    "ChatGLM3Tokenizer": "mindformers.models.glm2.glm3_tokenizer:ChatGLM3Tokenizer",
    "ChatGLM4Tokenizer": "mindformers.models.glm2.glm4_tokenizer:ChatGLM4Tokenizer",
    "GLMProcessor": "mindformers.models.glm2.glm_processor:GLMProcessor",
})
