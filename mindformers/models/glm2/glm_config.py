"""GlmConfig: config.json of transformers' GlmForCausalLM (glm-4-9b-chat-hf, GLM-Edge) on ChatGLM2Config's fields."""
from mindformers.models.config_keys import rope_factor, take_rope_settings
from mindformers.models.glm2 import glm2_rules as rules
from mindformers.models.glm2.glm2_config import ChatGLM2Config
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean

# transformers' defaults: those of glm-4-9b-chat
DEFAULTS = {"padded_vocab_size": 151552, "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 40,
            "num_attention_heads": 32, "multi_query_group_num": 2, "kv_channels": 128, "seq_length": 131072,
            "layernorm_epsilon": 1.5625e-7, "pad_token_id": 151329, "eos_token_id": [151329, 151336, 151338],
            "param_init_type": "float32", "compute_dtype": "float32", "labels_shifted": False}
# the only values of transformers' other fields that are carried
_ONLY = {"hidden_act": "silu", "pretraining_tp": 1}
_ROPE_TYPES = ("default", "linear")


class GlmConfig(ChatGLM2Config):
    """Configuration of the same architecture as transformers writes it (model_type "glm").

    Args: those of `ChatGLM2Config` in any spelling, with transformers' defaults; also `rope_parameters` or
        `rope_scaling` (dict: rope_type "default" or "linear" with `factor`, rope_theta, partial_rotary_factor),
        `hidden_act` ("silu"). Labels of a training step are shifted inside, as transformers does (`labels_shifted`).

    Raises:
        ConfigError, UnsupportedError: see `ChatGLM2Config`; another rope_type or activation.
    """

    model_type = "glm"

    def __init__(self, **kwargs):
        super().__init__(**{**DEFAULTS, **self.translate(kwargs)})

    @classmethod
    def model_types(cls):
        return ("glm",)

    @classmethod
    def translate(cls, values):
        """Return `values` in our field names, without transformers' fields of one value."""
        out = super().translate({key: value for key, value in values.items() if key != "use_cache"})
        for key, only in _ONLY.items():
            value = out.pop(key, only)
            if value not in (None, only):
                raise UnsupportedError(f"GlmConfig: {key}={value!r} is not carried; only {only!r} is")
        return out

    @classmethod
    def take_rope(cls, values):
        """Replace ``rope_parameters`` / ``rope_scaling`` in `values` by our fields."""
        _read_rope(values)

    @classmethod
    def read_dialect(cls, config_dict):
        rules.refuse_other_models(config_dict)
        values = cls.translate(config_dict)
        values.setdefault("do_sample", False)
        if values.get("param_init_type"):
            values.setdefault("compute_dtype", values["param_init_type"])
        return values

    def to_hf_dict(self):
        """Return the config.json for transformers 4 and 5, plus our own keys that are not the defaults.

        Raises:
            UnsupportedError: a setting that transformers' Glm cannot express.
        """
        if self.add_bias_linear or self.pre_seq_len:
            raise UnsupportedError("transformers' Glm has neither biases on all products (add_bias_linear) nor a "
                                   "prefix (pre_seq_len); save with names='mindformers'")
        rope = {"rope_type": "default", **(self.rope_scaling or {}), "rope_theta": self.rope_base,
                "partial_rotary_factor": self.partial_rotary_factor}
        return self._with_own_keys({
            "architectures": self.architectures or [self.default_architecture()],
            "model_type": self.file_model_type("glm"),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "attention_bias": self.add_qkv_bias,
            "max_position_embeddings": self.seq_length,
            "initializer_range": self.init_method_std,
            "rms_norm_eps": self.layernorm_epsilon,
            "use_cache": True,
            "tie_word_embeddings": self.tie_word_embeddings,
            "rope_theta": self.rope_base,
            "rope_scaling": self.rope_scaling,
            "partial_rotary_factor": self.partial_rotary_factor,
            "rope_parameters": rope,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "torch_dtype": self.param_init_type,
            "dtype": self.param_init_type,
        })

    @classmethod
    def default_architecture(cls):
        return "GlmForCausalLM"


def _read_rope(values):
    """Replace ``rope_parameters`` / ``rope_scaling`` in `values` by our fields."""
    taken = take_rope_settings(values, "GlmConfig")
    if taken is None:
        return
    kind, given = taken
    if kind not in _ROPE_TYPES:
        raise UnsupportedError(f"GlmConfig: rope_type {kind!r} is not carried for a rotation of a part of each head; "
                               f"{' and '.join(_ROPE_TYPES)} are.{did_you_mean(kind, _ROPE_TYPES)}")
    if kind == "linear":
        values.update(rope_ratio=rope_factor(given, kind, "GlmConfig"), interpolate_positions=True)
    for name in ("rope_theta", "partial_rotary_factor"):
        if given.get(name) is not None and values.setdefault(name, given[name]) != given[name]:
            raise ConfigError(f"GlmConfig: {name}={values[name]!r} contradicts rope_parameters.{name}={given[name]!r}")
