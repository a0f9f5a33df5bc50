"""ChatGLM2Config: one object for MindFormers' YAML names and the config.json of ChatGLM2, ChatGLM3 and GLM-4."""
import copy

from mindformers.core.parallel_config import TransformerOpParallelConfig
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.glm2 import glm2_rules as rules
from mindformers.tools.errors import ConfigError

# other spellings -> our field: MindFormers' general ones, transformers'
OTHER_NAMES = {
    "vocab_size": "padded_vocab_size",
    "num_hidden_layers": "num_layers",
    "num_heads": "num_attention_heads",
    "n_kv_heads": "multi_query_group_num",
    "num_key_value_heads": "multi_query_group_num",
    "intermediate_size": "ffn_hidden_size",
    "head_dim": "kv_channels",
    "rms_norm_eps": "layernorm_epsilon",
    "max_position_embeddings": "seq_length",
    "attention_bias": "add_qkv_bias",
    "torch_dtype": "param_init_type",
    "dtype": "param_init_type",
    "initializer_range": "init_method_std",
    "rotary_percent": "partial_rotary_factor",
}
# what the published configuration class assumes when config.json is silent, where that differs from MindFormers
HF_DEFAULTS = {"add_qkv_bias": False, "multi_query_attention": False, "multi_query_group_num": 1, "eos_token_id": None,
               "pad_token_id": None, "param_init_type": "float32", "do_sample": False, "use_past": True}
# fields that the published config.json has under the same name
_HF_FIELDS = """add_bias_linear add_qkv_bias apply_query_key_layer_scaling apply_residual_connection_post_layernorm
    attention_dropout attention_softmax_in_fp32 bias_dropout_fusion bos_token_id eos_token_id ffn_hidden_size
    fp32_residual_connection hidden_dropout hidden_size layernorm_epsilon multi_query_attention num_attention_heads
    num_layers original_rope pad_token_id padded_vocab_size post_layer_norm pre_seq_len prefix_projection
    quantization_bit rmsnorm rope_ratio seq_length tie_word_embeddings""".split()


class ChatGLM2Config(PretrainedConfig):
    """Configuration of ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B.

    Field names and defaults are MindFormers'; the spellings of `OTHER_NAMES` read and write the same values. Dtypes are
    strings.

    Args (beyond the self-explaining sizes):
        padded_vocab_size (int): tokens of the embedding; `vocab_size` is the same value.
        ffn_hidden_size (int): inner width of the MLP.
        kv_channels (int | None): width of a head; None means hidden_size / num_attention_heads.
        multi_query_group_num (int | None): kv heads; None means num_attention_heads.
        seq_length (int): longest training row and longest context of generation. Default: 2048.
        rope_theta (float), rope_ratio (float): their product is the base of the rotation, as in ChatGLM3-32k and GLM-4.
            Default: 10000.0 and 1.
        interpolate_positions (bool): rope_ratio divides the positions instead, as in ChatGLM2-6B-32k. Default: False.
        partial_rotary_factor (float): the part of each head that rotates. Default: 0.5.
        add_qkv_bias, add_bias_linear (bool): biases of q, k, v; of all products. Default: True and False.
        qkv_concat, mlp_concat (bool): one parameter `query_key_value` (`dense_h_to_4h`), else `wq`, `wk`, `wv`
            (`dense_left`, `dense_right`). Default: True.
        pre_seq_len (int | None): length of a trained prefix (P-tuning v2); all else is then frozen. Default: None.
        prefix_projection (bool): the prefix comes out of a two-layer MLP. Default: False.
        prefix_dropout (float): dropout of the prefix in training. Default: 0.1, as published.
        pet_config (dict | None): of type ptuning2, MindFormers' words for the three above: {pet_type: ptuning2,
            pre_seq_len, prefix_projection, dropout_prob}; of type lora, kept for the trainer. Default: None.
        labels_shifted (bool): labels of a training step stand at their own positions as MindFormers' GLM datasets make
            them, so that logits of position i meet label i; False: label i + 1, as in transformers. Default: True.
        param_init_type (str): dtype of the parameters. compute_dtype (str): wish for products.
        embedding_init_type (str | None): dtype of the embedding; None: param_init_type.
        calculate_per_token_loss (bool): a training step returns (sum, count) instead of the mean.

    Raises:
        ConfigError: sizes that do not divide, an unknown dtype.
        UnsupportedError: what no published checkpoint has (`glm2_rules.REFUSED`), scaling of the rotation in other
            words than `rope_ratio`, mixture of experts, quantised weights.
    """

    model_type = "glm2"
    attribute_map = OTHER_NAMES
    ignored_keys = rules.IGNORED

    def __init__(self, batch_size=1, num_layers=28, padded_vocab_size=65024, hidden_size=4096, ffn_hidden_size=13696,
                 kv_channels=128, num_attention_heads=32, seq_length=2048, hidden_dropout=0.0, attention_dropout=0.0,
                 layernorm_epsilon=1e-5, rope_ratio=1, rmsnorm=True, apply_residual_connection_post_layernorm=False,
                 post_layer_norm=True, add_bias_linear=False, add_qkv_bias=True, bias_dropout_fusion=True,
                 multi_query_attention=True, multi_query_group_num=2, apply_query_key_layer_scaling=True,
                 attention_softmax_in_fp32=True, fp32_residual_connection=False, quantization_bit=0, pre_seq_len=None,
                 prefix_projection=False, param_init_type="float16", compute_dtype="float16",
                 layernorm_compute_type="float32", rotary_dtype=None, use_past=False, use_flash_attention=False,
                 block_size=16, num_blocks=128, is_dynamic=False, eos_token_id=2, pad_token_id=0, gmask_token_id=None,
                 bos_token_id=None, repetition_penalty=1.0, checkpoint_name_or_path=None, parallel_config=None,
                 offset=0, pp_interleave_num=1, qkv_concat=True, mlp_concat=True, original_rope=True,
                 rope_theta=10000.0, interpolate_positions=False, partial_rotary_factor=0.5, prefix_dropout=0.1,
                 labels_shifted=True, tie_word_embeddings=False, embedding_init_type=None, ignore_token_id=-100,
                 init_method_std=0.02, calculate_per_token_loss=False, **kwargs):
        own = {key: value for key, value in locals().items() if key not in ("self", "kwargs", "__class__")}
        kwargs = self.translate({**kwargs, "pre_seq_len": own["pre_seq_len"]})  # a pet_config may contradict it
        own.update({key: kwargs.pop(key) for key in list(kwargs) if key in own})
        if own["pre_seq_len"] in ("None", 0):  # as MindFormers' YAMLs write it
            own["pre_seq_len"] = None
        own["parallel_config"] = _parallel_config(own["parallel_config"])
        kwargs["checkpoint_name_or_path"] = own.pop("checkpoint_name_or_path")
        for key, value in own.items():
            setattr(self, key, copy.deepcopy(value))
        super().__init__(**kwargs)
        rules.check(self)

    # -- dialects -------------------------------------------------------------------------------------------------

    @classmethod
    def translate(cls, values):
        """Return `values` in our field names; two spellings of one field that disagree are an error."""
        out = {}
        for name, value in values.items():
            field = OTHER_NAMES.get(name, name)
            if field in ("param_init_type", "compute_dtype") and value is not None:
                value = str(value).replace("torch.", "")
            if field in out and out[field] != value:
                raise ConfigError(f"{name}={value!r} contradicts another spelling of {field}={out[field]!r}")
            out[field] = value
        cls.take_rope(out)
        rules.take_prefix(out, cls.__name__)
        return out

    @classmethod
    def take_rope(cls, values):
        """Take transformers' dict of the rotation's settings out of `values`."""
        rules.refuse_rope(values, cls.__name__)

    @classmethod
    def model_types(cls):
        return ("glm2", "chatglm", "glm3", "glm4")

    @classmethod
    def allowed_keys(cls):
        return super().allowed_keys() | rules.EXTRA_KEYS

    @classmethod
    def read_dialect(cls, config_dict):
        """Translate, and apply the published class' defaults when the dict is a Hugging Face config.json."""
        rules.refuse_other_models(config_dict)
        values = cls.translate(config_dict)
        if config_dict.get("model_type") == "chatglm" or "torch_dtype" in config_dict:
            for field, default in HF_DEFAULTS.items():
                values.setdefault(field, default)
            values["param_init_type"] = values["param_init_type"] or "float32"
            values.setdefault("compute_dtype", values["param_init_type"])
            # the modeling code of THUDM/chatglm2-6b-32k divides positions; that of chatglm3-6b-32k and glm-4-9b
            # multiplies the base. Nothing else in the files tells them apart.
            if values.get("rope_ratio", 1) != 1 and "chatglm2" in str(config_dict.get("_name_or_path", "")).lower():
                values.setdefault("interpolate_positions", True)
        return values

    def to_hf_dict(self):
        """Return the config.json of the published repositories, plus our own keys that are not their defaults."""
        data = {
            "architectures": self.architectures or [self.default_architecture()],
            "model_type": self.file_model_type("chatglm"),
            **{name: getattr(self, name) for name in _HF_FIELDS},
            "kv_channels": self.head_size,
            "multi_query_group_num": self.kv_heads,
            "vocab_size": self.vocab_size,
            "torch_dtype": self.param_init_type,
            "use_cache": True,
        }
        return self._with_own_keys(data)

    def _with_own_keys(self, data):
        """`data` and those of our fields that reading it back would not give."""
        covered = {*data, *(OTHER_NAMES.get(name, name) for name in data), *rules.IGNORED}
        reread = type(self).from_dict(data).to_dict()
        own = {key: value for key, value in self.to_dict().items()
               if key not in covered and (key not in reread or reread[key] != value)}
        return {**data, **own}

    @classmethod
    def default_architecture(cls):
        return "ChatGLM2ForConditionalGeneration"

    # -- derived sizes --------------------------------------------------------------------------------------------

    @property
    def kv_heads(self):
        """Number of kv heads."""
        return self.multi_query_group_num or self.num_attention_heads

    @property
    def head_size(self):
        """Width of one head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads

    @property
    def rotary_size(self):
        """How many of a head's elements rotate."""
        return int(self.head_size * self.partial_rotary_factor)

    @property
    def rope_base(self):
        """Base of the rotation."""
        return float(self.rope_theta) * (1.0 if self.interpolate_positions else float(self.rope_ratio))

    @property
    def rope_scaling(self):
        """Interpolation of positions in the words of `modules.rope`, or None."""
        if self.interpolate_positions and self.rope_ratio != 1:
            return {"rope_type": "linear", "factor": float(self.rope_ratio)}
        return None

    @property
    def qkv_has_bias(self):
        """Whether queries, keys and values have biases."""
        return bool(self.add_qkv_bias or self.add_bias_linear)

    def num_parameters(self):
        """Number of parameters of the model with its head, prefix included, counted from the sizes."""
        d, f, v = self.hidden_size, self.ffn_hidden_size, self.padded_vocab_size
        q, kv = self.num_attention_heads * self.head_size, self.kv_heads * self.head_size
        layer = d * (q + 2 * kv) + q * d + 3 * d * f + 2 * d
        layer += (q + 2 * kv) * self.qkv_has_bias + (2 * d + 2 * f) * self.add_bias_linear
        return self.num_layers * layer + d + v * d * (1 if self.tie_word_embeddings else 2) + self._prefix_parameters()

    def _prefix_parameters(self):
        width, d = self.prefix_width, self.hidden_size
        if not self.pre_seq_len:
            return 0
        return self.pre_seq_len * width + (2 * width * d + width + d if self.prefix_projection else 0)

    @property
    def prefix_width(self):
        """Numbers of one token of the prefix: keys and values of all layers."""
        return 2 * self.num_layers * self.kv_heads * self.head_size


def _parallel_config(value):
    if value is None:
        return TransformerOpParallelConfig()
    if isinstance(value, dict):
        return TransformerOpParallelConfig(**value)
    if isinstance(value, TransformerOpParallelConfig):
        return value
    raise TypeError(f"parallel_config must be a dict or TransformerOpParallelConfig, but got {type(value).__name__}")
