"""transformers' Glm (glm-4-9b-chat-hf, GLM-Edge): the cells of `glm2`, with transformers' configuration and names."""
from mindformers.models.glm2.glm2 import ChatGLM2ForConditionalGeneration, ChatGLM2Model
from mindformers.models.glm2.glm_config import GlmConfig
from mindformers.models.glm2.glm_weights import WEIGHT_MAP


class GlmModel(ChatGLM2Model):
    """`ChatGLM2Model` in folders that transformers reads and writes."""

    config_class = GlmConfig

    @classmethod
    def weight_map(cls):
        """The two-way table between transformers' and MindFormers' parameter names."""
        return WEIGHT_MAP


class GlmForCausalLM(ChatGLM2ForConditionalGeneration):
    """`ChatGLM2ForConditionalGeneration` in folders that transformers reads and writes."""

    config_class = GlmConfig

    @classmethod
    def weight_map(cls):
        """The two-way table between transformers' and MindFormers' parameter names."""
        return WEIGHT_MAP
