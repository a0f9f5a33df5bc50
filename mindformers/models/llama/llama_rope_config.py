"""RoPE scaling in two dialects: MindFormers' (extend_method, scaling_factor) and Hugging Face's rope_scaling dict."""
from mindformers.models.config_keys import rope_factor, take_rope_settings
from mindformers.tools.errors import ConfigError, did_you_mean

# MindFormers' word -> Hugging Face's
METHODS = {"None": "default", "PI": "linear", "DYNAMIC": "dynamic", "YARN": "yarn", "LLAMA3": "llama3"}
_BACK = {hf: mf for mf, hf in METHODS.items()}
_REQUIRED = {"YARN": ("factor", "original_max_position_embeddings"),
             "LLAMA3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor")}


def translate(values):
    """Replace ``rope_scaling`` / ``rope_parameters`` in `values` by our fields for them.

    Raises:
        ConfigError: no dict, an unknown rope_type, or a base that contradicts `theta`.
    """
    taken = take_rope_settings(values, "LlamaConfig")
    if taken is None:
        return
    kind, given = taken
    theta = given.pop("rope_theta", values.get("theta"))
    if theta is not None and values.setdefault("theta", theta) != theta:
        raise ConfigError(f"rope_theta={values['theta']!r} contradicts rope_parameters.rope_theta={theta!r}")
    if kind not in _BACK:
        raise ConfigError(f"rope_type {kind!r} is not known; known: {', '.join(_BACK)}.{did_you_mean(kind, _BACK)}")
    values["extend_method"] = _BACK[kind]
    if kind in ("linear", "dynamic"):
        factor = rope_factor(given, kind, "LlamaConfig")
        values["scaling_factor"] = float(factor) if isinstance(factor, int) else factor
    elif kind != "default":
        values["scaling_factor"] = given


def to_huggingface(config):
    """Return (rope_theta, rope_scaling dict or None) of a LlamaConfig."""
    method, factor = config.extend_method, config.scaling_factor
    if method == "NTK":  # MindFormers' NTK multiplies the base, which Hugging Face writes as a larger base
        return config.theta * float(factor), None
    kind = METHODS[method]
    if kind == "default":
        return config.theta, None
    if kind in ("linear", "dynamic"):
        return config.theta, {"rope_type": kind, "factor": float(factor)}
    scaling = {"rope_type": kind, **factor}
    if kind == "yarn":
        scaling.setdefault("original_max_position_embeddings", config.max_position_embedding or config.seq_length)
    return config.theta, scaling


def faults(config):
    """Return what is wrong with extend_method and scaling_factor, as a list of sentences."""
    method, factor = config.extend_method, config.scaling_factor
    known = [*METHODS, "NTK"]
    if method not in known:
        return [f"extend_method {method!r} is not one of {', '.join(known)}.{did_you_mean(method, known)}"]
    if method in ("PI", "NTK", "DYNAMIC"):
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 1 <= factor < float("inf"):
            return [f"scaling_factor of {method} must be a number >= 1, but is {factor!r}"]
    if method not in _REQUIRED:
        return []
    if not isinstance(factor, dict):
        return [f"scaling_factor of {method} must be a dict with {', '.join(_REQUIRED[method])}, but is {factor!r}"]
    missing = [key for key in _REQUIRED[method] if key not in factor
               and not (method == "YARN" and key == "original_max_position_embeddings")]
    if missing:
        return [f"scaling_factor of {method} lacks {', '.join(missing)}"]
    out = [f"scaling_factor.{key} must be a number, but is {factor[key]!r}" for key in _REQUIRED[method]
           if isinstance(factor.get(key, 0), bool) or not isinstance(factor.get(key, 0), (int, float))]
    if out:
        return out
    if not 1 <= factor["factor"] < float("inf"):
        out.append(f"scaling_factor.factor must be a number >= 1, but is {factor['factor']!r}")
    if method == "LLAMA3" and factor["low_freq_factor"] == factor["high_freq_factor"]:
        out.append(f"low_freq_factor and high_freq_factor must differ, but both are {factor['low_freq_factor']}")
    return out
