"""Qwen2 and Qwen2.5 (arXiv:2407.10671, 2412.15115): Llama's cells, of which queries, keys and values have biases."""
from mindformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from qwen2_config import Qwen2Config


class Qwen2ForCausalLM(LlamaForCausalLM):
    """Qwen2 with its next-token head; see LlamaForCausalLM."""

    config_class = Qwen2Config


AutoConfig.register("qwen2", Qwen2Config, exist_ok=True)
AutoModelForCausalLM.register(Qwen2Config, Qwen2ForCausalLM, exist_ok=True)
