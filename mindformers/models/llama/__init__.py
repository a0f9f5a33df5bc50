"""Llama 1, 2, 3, 3.1 and 3.2."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "LlamaConfig": "mindformers.models.llama.llama_config:LlamaConfig",
    "LlamaModel": "mindformers.models.llama.llama:LlamaModel",
    "LlamaForCausalLM": "mindformers.models.llama.llama:LlamaForCausalLM",
    "LlamaForSequenceClassification": "mindformers.models.llama.llama:LlamaForSequenceClassification",
    "LlamaTokenizer": "mindformers.models.llama.llama_tokenizer:LlamaTokenizer",
    "LlamaTokenizerFast": "mindformers.models.llama.llama_tokenizer_fast:LlamaTokenizerFast",
    "LlamaProcessor": "mindformers.models.llama.llama_processor:LlamaProcessor",
})
