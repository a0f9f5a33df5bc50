"""Keys of configurations: those every Hugging Face config.json may hold, those of the hub, and near misses."""
from mindformers.generation.generation_config import GenerationConfig
from mindformers.hub import HUB_OPTIONS
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger

# arguments of from_pretrained that say where a folder on a hub is; without effect on one that is here already
HUB_KEYS = HUB_OPTIONS

# keys of any Hugging Face config.json, kept and written back; none changes what a model here computes
_ANY_CONFIG = frozenset("""return_dict torchscript use_bfloat16 tf_legacy_loss pruned_heads tie_encoder_decoder
    chunk_size_feed_forward is_decoder cross_attention_hidden_size add_cross_attention finetuning_task prefix
    sep_token_id task_specific_params auto_map max_sequence_length""".split())

_NEAR = 0.87  # similarity from which an unknown key is taken for a slip of the pen
_reported = set()


def take_hub_keys(kwargs):
    """Take the arguments of `HUB_KEYS` out of `kwargs` and return them.

    Raises:
        ValueError: both `token` and `use_auth_token`.
    """
    refuse_two_tokens(kwargs)
    return {key: kwargs.pop(key) for key in HUB_KEYS if key in kwargs}


def refuse_two_tokens(kwargs):
    """Raise ValueError when `kwargs` hold both `token` and `use_auth_token`, which are two names of one argument."""
    if kwargs.get("token") is not None and kwargs.get("use_auth_token") is not None:
        raise ValueError("token and use_auth_token are two names of one argument; give only token")


def check_extra_keys(owner, keys, fields):
    """Refuse extra keys that look like a slip of the pen; report the others once.

    Args:
        owner (str): name of the config class.
        keys (Iterable[str]): keys that are no field; those of any Hugging Face config and those that begin with an
            underscore are let pass.
        fields (Iterable[str]): what the class knows, in any spelling.

    Raises:
        ConfigError: a key within a letter or two of a known one; the message names both.
    """
    known = {*fields, *_ANY_CONFIG}
    unknown = [key for key in keys if key not in known and not key.startswith("_")]
    slips = [(key, did_you_mean(key, known, limit=1, cutoff=_NEAR)) for key in unknown]
    slips = [f"{key!r} is no field.{hint}" for key, hint in slips if hint]
    if slips:
        raise ConfigError(f"{owner}: {' '.join(slips)} To keep a key of your own under that name, set it on the "
                          "finished object")
    new = [key for key in unknown if (owner, key) not in _reported]
    if new:
        _reported.update((owner, key) for key in new)
        logger.info("%s keeps keys that it does not use: %s", owner, ", ".join(sorted(new)))


def take_rope_settings(values, owner):
    """Take Hugging Face's ``rope_parameters`` (transformers 5) or ``rope_scaling`` (4) out of `values`.

    Args:
        values (dict): settings of a configuration; both keys are removed, the first that holds something counts.
        owner (str): name of the config class, for messages.

    Returns:
        tuple[str, dict] | None: rope_type (or its older name type; "default" when neither is there) and the other
            settings; None without settings.

    Raises:
        ConfigError: no dict, a rope_type that is no text, or two that contradict each other.
    """
    found = [(key, _rope_settings(key, given, owner)) for key in ("rope_parameters", "rope_scaling")
             if (given := values.pop(key, None))]
    if not found:
        return None
    key, settings = found[0]
    for other, given in found[1:]:
        for name in settings.keys() & given.keys():
            if settings[name] != given[name]:
                raise ConfigError(f"{owner}: {other}.{name}={given[name]!r} contradicts {key}.{name}="
                                  f"{settings[name]!r}; change both, or leave {other} out")
    return settings.pop("rope_type"), settings


def _rope_settings(key, given, owner):
    """A copy of the dict with its ``rope_type``, which older files call ``type``."""
    if not isinstance(given, dict):
        raise ConfigError(f"{owner}: {key} must be a dict, but is {given!r}")
    settings = dict(given)
    older = settings.pop("type", None)
    settings["rope_type"] = settings.get("rope_type") or older or "default"
    if not isinstance(settings["rope_type"], str):
        raise ConfigError(f"{owner}: {key}.rope_type must be a text, but is {settings['rope_type']!r}")
    return settings


def rope_factor(settings, kind, owner):
    """Return the `factor` of RoPE settings.

    Raises:
        ConfigError: there is none.
    """
    if "factor" not in settings:
        raise ConfigError(f"{owner}: rope_type {kind!r} needs a factor, but got {settings}")
    return settings["factor"]


def generation_faults(config):
    """Return sentences on the generation settings of a model config that `generate` would refuse."""
    try:
        GenerationConfig.from_model_config(config)
    except (TypeError, ValueError) as error:
        return [str(error).replace("the model config has a faulty generation setting: ", "")]
    return []
