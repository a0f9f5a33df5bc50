"""What a ChatGLM2Config may hold: values that make sense, values that are carried, keys without effect."""
from mindformers.models.config_keys import generation_faults, take_rope_settings
from mindformers.pet.pet_config import as_pet_config
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean

DTYPES = ("float32", "float16", "bfloat16")

IGNORED = {key: why for keys, why in (
    (("use_past",), "generation always uses the KV cache; pass use_cache=False to generate to go without"),
    (("is_dynamic",), "shapes are always dynamic in generation"),
    (("use_flash_attention",), "the kernel form is chosen by backend: mindformers check --kernels"),
    (("offset", "pp_interleave_num"), "takes effect only with pipeline parallelism"),
    (("num_blocks",), "the KV cache grows as it is needed"),
    (("layernorm_compute_type", "rotary_dtype", "attention_softmax_in_fp32", "fp32_residual_connection"),
     "norms, rotation, softmax and residuals are always computed in float32"),
    (("apply_query_key_layer_scaling",), "scores are divided by the layer's number and multiplied by it again: the "
                                         "result is the same; 1/sqrt(d) always applies"),
    (("bias_dropout_fusion",), "a way to compute the same"),
    (("batch_size",), "the batch is taken from the input"),
) for key in keys}

# keys of the published files and of MindFormers' YAMLs that are no field
EXTRA_KEYS = {"pet_config", "quantization_config", "parallel_decoding_params", "auto_map", "use_cache",
              "check_for_nan_in_loss_and_grad", "return_dict", "classifier_dropout", "mask_generate",
              "fine_grain_interleave", "use_rearrange_rope", "prefix_name", "moe_config", "rope_scaling",
              "rope_parameters", "hidden_act", "pretraining_tp", "interleaved_qkv", "sliding_window", "projection_dim"}

# setting of a pet_config of type ptuning2 -> our field
PREFIX_NAMES = {"pre_seq_len": "pre_seq_len", "prefix_projection": "prefix_projection",
                "dropout_prob": "prefix_dropout", "projection_dim": "projection_dim"}

# field -> (the one value that is carried, why)
REFUSED = {
    "rmsnorm": (True, "the norms are RMSNorm in every published checkpoint"),
    "post_layer_norm": (True, "every published checkpoint has a norm behind the last layer"),
    "apply_residual_connection_post_layernorm": (False, "no published checkpoint takes the residual behind the norm"),
    "multi_query_attention": (True, "the rows of query_key_value would interleave by head, as in no published "
                                    "checkpoint; for as many kv heads as heads, set multi_query_group_num to them"),
    "original_rope": (True, "no published checkpoint rotates another way"),
    "hidden_act": ("silu", "the MLP of every published checkpoint is SwiGLU"),
    "interleaved_qkv": (False, "the rows of query_key_value are [q; k; v] in every published checkpoint"),
    "sliding_window": (None, "every layer of every published checkpoint sees the whole context"),
    "hidden_dropout": (0.0, "no published checkpoint was trained with dropout"),
    "attention_dropout": (0.0, "no published checkpoint was trained with dropout"),
    "quantization_bit": (0, "quantised files are not read; take the repository without -int4 or -int8, and make its "
                            "weights int8 with from_pretrained(..., quantization='int8')"),
}

# models with the model_type of ours -> keys that only their config.json has
OTHER_MODELS = {
    "ChatGLM-6B (the first)": ("position_encoding_2d", "inner_hidden_size", "mask_token_id"),
    "GLM-4V, which reads images": ("vision_config", "boi_token_id", "eoi_token_id"),
}

_POSITIVE = ("num_layers", "padded_vocab_size", "hidden_size", "ffn_hidden_size", "num_attention_heads", "seq_length",
             "block_size", "batch_size")
_POSITIVE_OR_NONE = ("kv_channels", "multi_query_group_num", "pre_seq_len")
_NUMBERS = ("layernorm_epsilon", "rope_ratio", "rope_theta")
_FLAGS = ("add_bias_linear", "add_qkv_bias", "prefix_projection", "qkv_concat", "mlp_concat", "interpolate_positions",
          "tie_word_embeddings", "calculate_per_token_loss", "labels_shifted", "rmsnorm", "post_layer_norm",
          "multi_query_attention", "apply_residual_connection_post_layernorm", "original_rope")


def check(config):
    """Check a ChatGLM2Config.

    Raises:
        ConfigError: every fault of its values, in one message.
        UnsupportedError: the first value that is not carried.
    """
    faults = _kinds(config)
    if not faults:
        faults = _sizes(config)
    for name in ("param_init_type", "compute_dtype", "embedding_init_type"):
        value = getattr(config, name)
        if value not in DTYPES and not (name == "embedding_init_type" and value is None):
            faults.append(f"{name} must be one of {', '.join(DTYPES)}, but is {value!r}.{did_you_mean(value, DTYPES)}")
    faults += generation_faults(config)
    if faults:
        raise ConfigError(f"{type(config).__name__}: " + "; ".join(faults))
    _refuse(config)


def _kinds(config):
    """Faults of single values."""
    faults = []
    for name in _POSITIVE + _POSITIVE_OR_NONE:
        value = getattr(config, name)
        if value is None and name in _POSITIVE_OR_NONE:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            faults.append(f"{name} must be a positive integer{' or null' * (name in _POSITIVE_OR_NONE)}, but is "
                          f"{value!r}")
    for name in _NUMBERS:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
            faults.append(f"{name} must be a positive number, but is {value!r}")
    for name, low, high in (("partial_rotary_factor", 0, 1), ("prefix_dropout", 0, 1), ("init_method_std", 0, 1e9)):
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            faults.append(f"{name} must be a number from {low} to {high:g}, but is {value!r}")
    for name in _FLAGS:
        if getattr(config, name) not in (True, False):  # the text "false" would count as true
            faults.append(f"{name} must be true or false, but is {getattr(config, name)!r}")
    return faults


def _sizes(config):
    """Faults of sizes that do not go together."""
    faults, heads = [], config.num_attention_heads
    if config.kv_channels is None and config.hidden_size % heads:
        faults.append(f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {heads}; set "
                      "kv_channels")
    if heads % config.kv_heads:
        faults.append(f"num_attention_heads {heads} is not a multiple of multi_query_group_num {config.kv_heads}")
    if config.head_size % 2 or config.rotary_size % 2 or config.rotary_size < 2:
        faults.append(f"kv_channels must be even and the part of it that rotates even and positive, but they are "
                      f"{config.head_size} and {config.rotary_size} (partial_rotary_factor "
                      f"{config.partial_rotary_factor})")
    vocabulary, pad = config.padded_vocab_size, config.pad_token_id
    if pad not in (None, -1) and not (isinstance(pad, int) and 0 <= pad < vocabulary):
        faults.append(f"pad_token_id must be a token of the vocabulary, 0 to {vocabulary - 1}, or null, but is {pad!r}")
    return faults


def _refuse(config):
    name = type(config).__name__
    for field, (only, why) in REFUSED.items():
        value = getattr(config, field, None)
        if value is not None and value != only:
            raise UnsupportedError(f"{name}: {field}={value!r} is not carried, only {only!r}: {why}")
    if getattr(config, "quantization_config", None):
        raise UnsupportedError(f"{name}: quantization_config: quantised weights are not carried; convert to bfloat16")
    if getattr(config, "use_rearrange_rope", False):
        raise UnsupportedError(f"{name}: use_rearrange_rope=True expects weights in another order; convert them back "
                               "and leave it False")
    experts = _experts(getattr(config, "moe_config", None))
    if experts not in (None, 1):
        raise UnsupportedError(f"{name}: moe_config.expert_num={experts!r}: mixture of experts is not carried for GLM; "
                               "use expert_num 1")
    width = getattr(config, "projection_dim", None)
    if config.prefix_projection and width not in (None, config.hidden_size):
        raise UnsupportedError(f"{name}: projection_dim={width!r} is not carried: the MLP of a prefix is as wide as "
                               f"the model, as published; leave it out or set it to {config.hidden_size}")


def _experts(moe):
    return moe.get("expert_num") if isinstance(moe, dict) else getattr(moe, "expert_num", None)


def refuse_rope(values, owner):
    """Take ``rope_scaling`` and ``rope_parameters`` out of `values`; only what changes nothing may be there.

    Raises:
        ConfigError: no dict.
        UnsupportedError: any setting.
    """
    given = {key: values[key] for key in ("rope_parameters", "rope_scaling") if values.get(key)}
    taken = take_rope_settings(values, owner)
    if taken not in (None, ("default", {})):
        key, value = next(iter(given.items()))
        raise UnsupportedError(f"{owner}: {key}={value!r} is not carried: the published files have none; set "
                               "rope_theta and rope_ratio, their product is the base (with interpolate_positions=True "
                               "rope_ratio is the factor of linear scaling)")


def take_prefix(values, owner):
    """Replace a ``pet_config`` of type ptuning2 in `values` by our fields; one of another type is checked and stays.

    Raises:
        ConfigError: no dict, an unknown type or setting, no pre_seq_len, or one that contradicts the field.
        UnsupportedError: a type that is not carried.
    """
    pet = values.get("pet_config")
    if not pet:
        return
    if not isinstance(pet, dict):
        raise ConfigError(f"{owner}: pet_config must be a section with pet_type, but is {pet!r}")
    if pet.get("pet_type") != "ptuning2":
        as_pet_config(pet)
        return
    del values["pet_config"]
    for key, value in pet.items():
        if key == "pet_type" or value is None:
            continue
        if key not in PREFIX_NAMES:
            raise ConfigError(f"{owner}: pet_config of type ptuning2 has no {key!r}.{did_you_mean(key, PREFIX_NAMES)}")
        field = PREFIX_NAMES[key]
        if values.get(field) not in (None, "None", 0, value):  # what MindFormers' YAMLs and config.json have unset
            raise ConfigError(f"{owner}: pet_config.{key}={value!r} contradicts {field}={values[field]!r}")
        values[field] = value
    if pet.get("pre_seq_len") in (None, "None", 0):
        raise ConfigError(f"{owner}: pet_config of type ptuning2 needs the length of the prefix; write for example "
                          "pre_seq_len: 128")


def refuse_other_models(config_dict):
    """Raise UnsupportedError for a config.json of a GLM that is built otherwise."""
    for model, marks in OTHER_MODELS.items():
        found = [key for key in marks if config_dict.get(key) is not None]
        if found:
            raise UnsupportedError(f"{', '.join(found)} in config.json: this is {model}, another model of the same "
                                   "model_type; ChatGLM2-6B, ChatGLM3-6B and GLM-4-9B are carried")
    if config_dict.get("model_type") == "glm4":
        raise UnsupportedError("model_type 'glm4' is GLM-4-0414, whose layers have two norms more; GLM-4-9B is carried "
                               "(model_type 'chatglm', and 'glm' for its transformers form)")
