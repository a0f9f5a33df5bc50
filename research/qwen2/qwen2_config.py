"""Qwen2Config: LlamaConfig with what Qwen2's config.json says in another way, or leaves unsaid."""
from mindformers import LlamaConfig
from mindformers.tools.errors import UnsupportedError

# what transformers' Qwen2Config assumes when config.json is silent, where that is not Llama's
_DEFAULTS = {"intermediate_size": 22016, "max_position_embedding": 32768, "vocab_size": 151936}


class Qwen2Config(LlamaConfig):
    """Configuration of Qwen2 and Qwen2.5 (arXiv:2407.10671): biases on queries, keys and values alone.

    Args: those of LlamaConfig in any spelling.

    Raises:
        ConfigError: see LlamaConfig. UnsupportedError: sliding windows; see also LlamaConfig.
    """

    model_type = "qwen2"

    def __init__(self, qkv_has_bias=True, use_sliding_window=False, sliding_window=None, max_window_layers=None,
                 layer_types=None, **kwargs):
        if use_sliding_window or any(kind != "full_attention" for kind in layer_types or ()):
            raise UnsupportedError("Qwen2Config: attention within a sliding window (use_sliding_window: true) is not "
                                   "carried; published Qwen2 and Qwen2.5 models leave it off")
        self.use_sliding_window = False
        self.sliding_window, self.max_window_layers = sliding_window, max_window_layers
        self.layer_types = layer_types
        super().__init__(qkv_has_bias=qkv_has_bias, **kwargs)

    @classmethod
    def read_dialect(cls, config_dict):
        """As LlamaConfig, with Qwen2's defaults for a config.json."""
        values = super().read_dialect(config_dict)
        if "num_hidden_layers" in config_dict:
            for field, default in _DEFAULTS.items():
                if not {field, *(name for name, ours in cls.attribute_map.items() if ours == field)} & set(config_dict):
                    values[field] = default
        return values

    def hf_biases(self):
        """Qwen2's config.json has no word for them: they are always there."""
        if not self.qkv_has_bias or self.attn_proj_has_bias or self.mlp_has_bias:
            raise UnsupportedError("Hugging Face's Qwen2 has biases on q, k and v, and on nothing else, but "
                                   f"qkv_has_bias={self.qkv_has_bias}, attn_proj_has_bias={self.attn_proj_has_bias}, "
                                   f"mlp_has_bias={self.mlp_has_bias}; save with names='mindformers'")
        return {}
