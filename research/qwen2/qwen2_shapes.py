"""Names and shapes of Qwen2's parameters are those of a Llama with biases on queries, keys and values."""
from mindformers.models.llama.llama_shapes import parameter_shapes  # noqa: F401
