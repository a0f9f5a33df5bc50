"""LlamaConfig: one object for MindFormers' YAML names and both generations of Hugging Face config.json."""
import copy
import inspect

from mindformers.core.parallel_config import MoEConfig, TransformerOpParallelConfig
from mindformers.models.config_keys import generation_faults
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.llama import llama_rope_config as rope
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean

DTYPES = ("float32", "float16", "bfloat16")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

# Hugging Face name -> our field
HF_NAMES = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "n_kv_heads",
    "max_position_embeddings": "max_position_embedding",
    "rope_theta": "theta",
    "torch_dtype": "param_init_type",
    "dtype": "param_init_type",
    "mlp_bias": "mlp_has_bias",
    "initializer_range": "init_method_std",
}
# what Hugging Face assumes when its config.json is silent, where that differs from MindFormers
HF_DEFAULTS = {"rms_norm_eps": 1e-6, "param_init_type": "float32", "pad_token_id": None, "intermediate_size": 11008,
               "init_method_std": 0.02, "max_position_embedding": 2048, "do_sample": False, "use_past": True}
# keys of a Hugging Face config.json that cannot change a result here
HF_INERT = {"use_cache": True, "attention_dropout": 0.0, "hidden_act": "silu", "pretraining_tp": 1}
_HF_MARKS = ("num_hidden_layers", "num_attention_heads", "max_position_embeddings", "rope_parameters", "torch_dtype")


class LlamaConfig(PretrainedConfig):
    """Configuration of Llama 1, 2, 3, 3.1 and 3.2.

    Field names and defaults are MindFormers'; every Hugging Face name works too (`HF_NAMES`, `rope_scaling`,
    `rope_parameters`, `attention_bias`) and reads and writes the same value. Dtypes are strings.

    Args (beyond the self-explaining sizes):
        n_kv_heads (int | None): kv heads; None means num_heads.
        head_dim (int | None): width of a head; None means hidden_size / num_heads.
        seq_length (int): longest training row and longest context of generation. Default: 2048.
        max_position_embedding (int | None): context the weights were made for; None means seq_length.
        intermediate_size (int | None): None derives it from multiple_of and ffn_dim_multiplier as Llama did.
        extend_method, scaling_factor: RoPE scaling in MindFormers' words: "None", "PI" (linear), "NTK", "DYNAMIC",
            "YARN", "LLAMA3"; a float or a dict of the method's parameters.
        qkv_has_bias, attn_proj_has_bias, mlp_has_bias (bool): biases of q/k/v, of the attention's output, of the MLP.
        qkv_concat (bool): packed `w_qkv` and `w_gate_hidden` parameters.
        param_init_type (str): dtype of the parameters. compute_dtype (str): wish for products, see
            `kernels.compute_dtype`.
        calculate_per_token_loss (bool): a training step returns (sum, count) instead of the mean.
        num_labels (int): answers of the sequence classification head; follows id2label. Default: 2.
        problem_type (str | None): "regression", "single_label_classification" or "multi_label_classification"; None
            is regression for one label, else a single label.
        id2label (dict[int, str] | None), label2id (dict[str, int] | None): names of the labels.

    Raises:
        ConfigError: sizes that do not divide, an unknown dtype or method, a bad scaling parameter.
        UnsupportedError: MoE, quantisation or a backend that is not carried.
    """

    model_type = "llama"
    attribute_map = HF_NAMES
    ignored_keys = {key: why for keys, why in (
        (("use_past",), "generation always uses the KV cache; pass use_cache=False to generate to go without"),
        (("is_dynamic",), "shapes are always dynamic in generation"),
        (("use_flash_attention", "use_attn_mask_compression", "use_rope_slice", "fused_rms_norm"),
         "the kernel form is chosen by backend: mindformers check --kernels"),
        (("parallel_optimizer", "fine_grain_interleave", "pp_interleave_num", "offset"),
         "takes effect only with pipeline or semi-automatic parallelism"),
        (("num_blocks",), "the KV cache grows as it is needed"),
        (("layernorm_compute_type", "softmax_compute_type", "rotary_dtype"), "always computed in float32"),
        (("batch_size",), "the batch is taken from the input"),
    ) for key in keys}

    def __init__(self, batch_size=1, seq_length=2048, hidden_size=4096, num_layers=32, num_heads=32, n_kv_heads=None,
                 head_dim=None, max_position_embedding=None, intermediate_size=None, vocab_size=32000,
                 multiple_of=256, ffn_dim_multiplier=None, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
                 pad_token_id=0, ignore_token_id=-100, theta=10000.0, compute_dtype="float16",
                 layernorm_compute_type="float32", softmax_compute_type="float32", rotary_dtype="float32",
                 param_init_type="float16", embedding_init_type=None, qkv_has_bias=False, attn_proj_has_bias=False,
                 mlp_has_bias=False, qkv_concat=False, parallel_config=None, moe_config=None, use_past=False,
                 extend_method="None", scaling_factor=1.0, is_dynamic=False, use_rope_slice=False,
                 use_flash_attention=False, use_ring_attention=False, use_attn_mask_compression=False,
                 parallel_optimizer=False, fine_grain_interleave=1, pp_interleave_num=1, offset=0,
                 repetition_penalty=1.0, max_decode_length=1024, block_size=16, num_blocks=512, top_k=5, top_p=1.0,
                 do_sample=True, quant_config=None, tie_word_embeddings=False, llm_backend="", fused_rms_norm=True,
                 init_method_std=0.02, calculate_per_token_loss=False, num_labels=None, problem_type=None,
                 id2label=None, label2id=None, **kwargs):
        own = {key: value for key, value in locals().items() if key not in ("self", "kwargs", "__class__")}
        kwargs = self.translate(kwargs)
        _refuse_contradictions(own, kwargs)
        own.update({key: kwargs.pop(key) for key in list(kwargs) if key in own})
        own["num_labels"], own["id2label"] = _labels(own["num_labels"], own["id2label"])
        own["parallel_config"] = _as_config(own["parallel_config"], TransformerOpParallelConfig, "parallel_config")
        own["moe_config"] = _as_config(own["moe_config"], MoEConfig, "moe_config")
        for key, value in own.items():
            setattr(self, key, copy.deepcopy(value))
        super().__init__(**kwargs)
        self._check()

    # -- dialects -------------------------------------------------------------------------------------------------

    @classmethod
    def translate(cls, values):
        """Return `values` in our field names; two spellings of one field that disagree are an error."""
        out = {}
        for name, value in values.items():
            field = HF_NAMES.get(name, name)
            if field in ("param_init_type", "compute_dtype") and value is not None:
                value = str(value).replace("torch.", "")
            if field in out and out[field] != value:
                raise ConfigError(f"{name}={value!r} contradicts another spelling of {field}={out[field]!r}")
            out[field] = value
        if "attention_bias" in out:
            out["qkv_has_bias"] = out["attn_proj_has_bias"] = out.pop("attention_bias") or False
        rope.translate(out)
        _drop_inert(out)
        return out

    @classmethod
    def model_types(cls):
        return ("llama",)

    @classmethod
    def allowed_keys(cls):
        return super().allowed_keys() | {"attention_bias", "rope_scaling", "rope_parameters", *HF_INERT,
                                         "pet_config", "quantization_config", "parallel_decoding_params", "auto_map",
                                         "check_for_nan_in_loss_and_grad", "return_dict"}

    @classmethod
    def override(cls, values, given):
        if "num_labels" in given and "id2label" not in given:  # the names of a file belong to its own number of labels
            values.update(id2label=None, label2id=None)
        values.update(given)

    @classmethod
    def read_dialect(cls, config_dict):
        """Translate, and apply Hugging Face's defaults when the dict is in that dialect."""
        values = cls.translate(config_dict)
        if any(mark in config_dict for mark in _HF_MARKS):
            for field, default in HF_DEFAULTS.items():
                values.setdefault(field, default)
            longest = values["max_position_embedding"]
            if values.get("extend_method") == "DYNAMIC":  # made to go beyond the trained length
                longest = int(longest * values["scaling_factor"])
            values.setdefault("seq_length", longest)
            values["param_init_type"] = values["param_init_type"] or "float32"
            values.setdefault("compute_dtype", values["param_init_type"])
        return values

    def to_hf_dict(self):
        """Return the config.json for Hugging Face, readable by transformers 4 and 5, plus our own non-default keys.

        Raises:
            UnsupportedError: a setting that Hugging Face's Llama cannot express.
        """
        theta, scaling = rope.to_huggingface(self)
        data = {
            "architectures": self.architectures or [self.default_architecture()],
            "model_type": self.file_model_type("llama"),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.ffn_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embedding or self.seq_length,
            "rms_norm_eps": self.rms_norm_eps,
            "hidden_act": "silu",
            **self.hf_biases(),
            "attention_dropout": 0.0,
            "pretraining_tp": 1,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "initializer_range": self.init_method_std,
            "use_cache": True,
            "rope_theta": theta,
            "rope_scaling": scaling,
            "rope_parameters": {"rope_theta": theta, **(scaling or {"rope_type": "default"})},
            "torch_dtype": self.param_init_type,
            "dtype": self.param_init_type,
        }
        covered = {*HF_NAMES.values(), *data, "qkv_has_bias", "attn_proj_has_bias", "extend_method",
                   "scaling_factor", "multiple_of", "ffn_dim_multiplier", "n_kv_heads"}
        reread = type(self).from_dict(data).to_dict()
        own = {key: value for key, value in self.to_dict().items()
               if key not in covered and (key not in reread or reread[key] != value)}
        return {**data, **own}

    def hf_biases(self):
        """The keys of Hugging Face's config.json that say which products have biases.

        Raises:
            UnsupportedError: biases that it cannot express.
        """
        if self.qkv_has_bias != self.attn_proj_has_bias:
            raise UnsupportedError(
                "Hugging Face's Llama has one attention_bias for q, k, v and the output, but qkv_has_bias="
                f"{self.qkv_has_bias} and attn_proj_has_bias={self.attn_proj_has_bias}; "
                "save with names='mindformers'")
        return {"attention_bias": self.qkv_has_bias, "mlp_bias": self.mlp_has_bias}

    @property
    def attention_bias(self):
        """Hugging Face's name: biases on q, k, v and the output."""
        return self.qkv_has_bias and self.attn_proj_has_bias

    @property
    def rope_scaling(self):
        """RoPE scaling as Hugging Face's dict, None for none."""
        return rope.to_huggingface(self)[1]

    @property
    def rope_base(self):
        """The base that is in force: `theta`, or MindFormers' NTK multiple of it."""
        return rope.to_huggingface(self)[0]

    # -- derived sizes --------------------------------------------------------------------------------------------

    @property
    def kv_heads(self):
        """Number of kv heads."""
        return self.n_kv_heads or self.num_heads

    @property
    def head_size(self):
        """Width of one head."""
        return self.head_dim or self.hidden_size // self.num_heads

    @property
    def ffn_size(self):
        """Inner width of the MLP: intermediate_size, or Llama's own rule."""
        if self.intermediate_size:
            return self.intermediate_size
        width = 4 * self.hidden_size
        if self.ffn_dim_multiplier is not None:
            width = int((self.ffn_dim_multiplier + 0.01) * width)
        width = int(2 * width / 3)
        return self.multiple_of * ((width + self.multiple_of - 1) // self.multiple_of)

    def num_parameters(self):
        """Number of parameters of the causal LM, counted from the sizes."""
        d, f, v = self.hidden_size, self.ffn_size, self.vocab_size
        q, kv = self.num_heads * self.head_size, self.kv_heads * self.head_size
        attention = d * (q + 2 * kv) + q * d
        attention += (q + 2 * kv) * self.qkv_has_bias + d * self.attn_proj_has_bias
        mlp = 3 * d * f + (2 * f + d) * self.mlp_has_bias
        return self.num_layers * (attention + mlp + 2 * d) + d + v * d * (1 if self.tie_word_embeddings else 2)

    # -- rules ----------------------------------------------------------------------------------------------------

    def _check(self):
        faults = []
        for name in ("hidden_size", "num_layers", "num_heads", "vocab_size", "seq_length", "block_size", "batch_size",
                     "multiple_of", "num_labels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                faults.append(f"{name} must be a positive integer, but is {value!r}")
        for name in ("n_kv_heads", "head_dim", "max_position_embedding", "intermediate_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                faults.append(f"{name} must be a positive integer or null, but is {value!r}")
        for name in ("rms_norm_eps", "theta"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                faults.append(f"{name} must be a positive number, but is {value!r}")
        if not isinstance(self.init_method_std, (int, float)) or not 0 <= self.init_method_std < float("inf"):
            faults.append(f"init_method_std must be a number >= 0, but is {self.init_method_std!r}")
        for name in ("tie_word_embeddings", "qkv_has_bias", "attn_proj_has_bias", "mlp_has_bias", "qkv_concat"):
            if getattr(self, name) not in (True, False, None):  # the text "false" would count as true
                faults.append(f"{name} must be true or false, but is {getattr(self, name)!r}")
        if not faults:
            if self.head_dim is None and self.hidden_size % self.num_heads:
                faults.append(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                              "set head_dim")
            if self.num_heads % self.kv_heads:
                faults.append(f"num_heads {self.num_heads} is not a multiple of n_kv_heads {self.kv_heads}")
            if self.head_size % 2:
                faults.append(f"the head width must be even for RoPE, but is {self.head_size}")
        for name in ("param_init_type", "compute_dtype", "embedding_init_type"):
            value = getattr(self, name)
            if value not in DTYPES and not (name == "embedding_init_type" and value is None):
                faults.append(f"{name} must be one of {', '.join(DTYPES)}, but is {value!r}."
                              f"{did_you_mean(value, DTYPES)}")
        if self.pad_token_id not in (None, -1) and isinstance(self.vocab_size, int) and not (
                isinstance(self.pad_token_id, int) and 0 <= self.pad_token_id < self.vocab_size):
            faults.append(f"pad_token_id must be a token of the vocabulary, 0 to {self.vocab_size - 1}, or null, but "
                          f"is {self.pad_token_id!r}")
        if self.problem_type not in (None, *PROBLEM_TYPES):
            faults.append(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, but is {self.problem_type!r}."
                          f"{did_you_mean(self.problem_type, PROBLEM_TYPES)}")
        faults += generation_faults(self) + rope.faults(self)
        if faults:
            raise ConfigError("LlamaConfig: " + "; ".join(faults))
        self._refuse()

    def _refuse(self):
        refused = [(self.moe_config.expert_num > 1, f"moe_config.expert_num={self.moe_config.expert_num}",
                    "mixture of experts is not carried for Llama; use expert_num 1"),
                   (bool(self.quant_config), "quant_config", "quantised weights are not carried; convert to bfloat16"),
                   (bool(getattr(self, "quantization_config", None)), "quantization_config",
                    "quantised weights are not carried; convert to bfloat16"),
                   (bool(self.llm_backend), f"llm_backend={self.llm_backend!r}", "leave it empty"),
                   (bool(self.use_ring_attention), "use_ring_attention=True", "leave it False")]
        for is_set, what, way_out in refused:
            if is_set:
                raise UnsupportedError(f"LlamaConfig: {what}: {way_out}")


def _as_config(value, cls, name):
    if value is None:
        return cls()
    if isinstance(value, dict):
        return cls(**value)
    if isinstance(value, cls):
        return value
    raise TypeError(f"{name} must be a dict or {cls.__name__}, but got {type(value).__name__}")


def _refuse_contradictions(own, translated):
    """Refuse a parameter that was given in two spellings with two values; a default counts as not given."""
    defaults = inspect.signature(LlamaConfig.__init__).parameters
    for name in own.keys() & translated.keys():
        if own[name] not in (defaults[name].default, translated[name]):
            raise ConfigError(f"LlamaConfig: {name}={own[name]!r} contradicts another spelling of it with "
                              f"{translated[name]!r}; give one")


def _labels(num_labels, id2label):
    """Return (num_labels, id2label) that agree; the ids of a JSON file are texts and become ints."""
    if id2label is None:
        return 2 if num_labels is None else num_labels, None
    if not isinstance(id2label, dict) or not all(str(key).isdigit() for key in id2label):
        raise ConfigError(f"LlamaConfig: id2label must map numbers to names, but is {id2label!r}")
    id2label = {int(key): name for key, name in id2label.items()}
    if num_labels not in (None, len(id2label)):
        raise ConfigError(f"LlamaConfig: num_labels={num_labels} but id2label names {len(id2label)} labels; give one, "
                          "or make them agree")
    return len(id2label), id2label


def _drop_inert(kwargs):
    """Take out Hugging Face keys whose only supported value has no effect; another value is refused."""
    for key, only in HF_INERT.items():
        value = kwargs.pop(key, only)
        if key == "use_cache" or value is None or value == only:
            continue
        if key == "pretraining_tp":  # a way of slicing the same product, without effect on the result
            continue
        raise UnsupportedError(f"LlamaConfig: {key}={value!r} is not carried; only {only!r} is")
