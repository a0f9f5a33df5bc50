"""What a ChatGLM2Config may hold: values that make sense, values that are carried, keys without effect."""
from mindformers.models.config_keys import generation_faults
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
              "rope_parameters", "hidden_act", "pretraining_tp"}

# field -> (the one value that is carried, why)
REFUSED = {
    "rmsnorm": (True, "the norms are RMSNorm in every published checkpoint"),
    "post_layer_norm": (True, "every published checkpoint has a norm behind the last layer"),
    "apply_residual_connection_post_layernorm": (False, "no published checkpoint takes the residual behind the norm"),
    "multi_query_attention": (True, "the rows of query_key_value would interleave by head, as in no published "
                                    "checkpoint; for as many kv heads as heads, set multi_query_group_num to them"),
    "original_rope": (True, "no published checkpoint rotates another way"),
    "hidden_dropout": (0.0, "no published checkpoint was trained with dropout"),
    "attention_dropout": (0.0, "no published checkpoint was trained with dropout"),
    "quantization_bit": (0, "quantised files are not read; take the repository without -int4 or -int8, and make its "
                            "weights int8 with from_pretrained(..., quantization='int8')"),
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
        value = getattr(config, field)
        if value is not None and value != only:
            raise UnsupportedError(f"{name}: {field}={value!r} is not carried, only {only!r}: {why}")
    if getattr(config, "quantization_config", None):
        raise UnsupportedError(f"{name}: quantization_config: quantised weights are not carried; convert to bfloat16")
    if getattr(config, "use_rearrange_rope", False):
        raise UnsupportedError(f"{name}: use_rearrange_rope=True expects weights in another order; convert them back "
                               "and leave it False")


def refuse_other_models(model_type):
    """Raise UnsupportedError for a config.json of a GLM that is built otherwise."""
    if model_type == "glm4":
        raise UnsupportedError("model_type 'glm4' is GLM-4-0414, whose layers have two norms more; GLM-4-9B is carried "
                               "(model_type 'chatglm', and 'glm' for its transformers form)")
