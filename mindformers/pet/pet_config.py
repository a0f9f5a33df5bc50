"""Settings of adapters: `PetConfig`, `LoraConfig`."""
import re

from mindformers.pet.constants import REFUSED, SUPPORTED, PetType
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.register.config import DictConfig

__all__ = ["LoraConfig", "PetConfig", "as_pet_config"]

_DTYPES = ("float32", "float16", "bfloat16")


class PetConfig(DictConfig):
    """Settings of a kind of tuning; a dict with attributes.

    Args:
        pet_type (str | PetType | None): kind, such as "lora". Default: None.
        **kwargs: its settings.
    """

    def __init__(self, pet_type=None, **kwargs):
        super().__init__(pet_type=getattr(pet_type, "value", pet_type), **kwargs)


class LoraConfig(PetConfig):
    """Settings of LoRA (arXiv:2106.09685): ``y = W x + lora_alpha / lora_rank * B A dropout(x)``, W frozen.

    Args:
        lora_rank (int): rows of A and columns of B. Default: 8.
        lora_alpha (float): scale of the update, see above. Default: 16.
        lora_dropout (float): probability in [0, 1) that an input of A is dropped in training. Default: 0.01.
        lora_a_init, lora_b_init (str | number): initial A and B: names of MindSpore's initializers. Default: "normal"
            and "zero", so that the first step starts from the base model.
        param_init_type (str | None): dtype of A and B: float32, float16, bfloat16. Default: None, float32.
        compute_dtype (str | None): kept; products take their dtype from the kernels. Default: None.
        target_modules (str | list[str]): which products get an adapter: a regular expression, matched from the start
            against a cell's own name ("wq") and its path ("model.layers.0.attention.wq"); or a list of own names.
        exclude_layers (str | list[str] | None): regular expressions of cells that get none. Default: none.
        freeze_include, freeze_exclude (str | list[str] | None): wildcard patterns (``*lm_head*``) of parameters to
            freeze though they are of an adapter, and to train though they are not. Default: none.
        adapter_path (str | None): folder or file with trained adapters to start from. Default: None.

    Raises:
        ConfigError: an unknown name or a value out of bounds; the message names it.
    """

    def __init__(self, lora_rank=8, lora_alpha=16, lora_dropout=0.01, lora_a_init="normal", lora_b_init="zero",
                 param_init_type=None, compute_dtype=None, target_modules=None, exclude_layers=None,
                 freeze_include=None, freeze_exclude=None, adapter_path=None, **kwargs):
        kind = kwargs.pop("pet_type", PetType.LORA)
        fields = dict(lora_rank=lora_rank, lora_alpha=lora_alpha, lora_dropout=lora_dropout, lora_a_init=lora_a_init,
                      lora_b_init=lora_b_init, param_init_type=_dtype_name(param_init_type),
                      compute_dtype=_dtype_name(compute_dtype), target_modules=target_modules,
                      exclude_layers=exclude_layers, freeze_include=_as_list(freeze_include),
                      freeze_exclude=_as_list(freeze_exclude), adapter_path=adapter_path)
        for name in kwargs:
            raise ConfigError(f"LoraConfig has no field {name!r}.{did_you_mean(name, fields)}")
        super().__init__(kind, **fields)
        self.check()

    @property
    def scaling(self):
        """Factor of the update, lora_alpha / lora_rank."""
        return self["lora_alpha"] / self["lora_rank"]

    def check(self):
        """Raise ConfigError for the first faulty field."""
        if self["pet_type"] != PetType.LORA.value:
            raise ConfigError(f"pet_type of a LoraConfig must be 'lora', but is {self['pet_type']!r}")
        rank, alpha, dropout = self["lora_rank"], self["lora_alpha"], self["lora_dropout"]
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise ConfigError(f"lora_rank must be an int of at least 1, but is {rank!r}")
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < float("inf"):
            raise ConfigError(f"lora_alpha must be a number above 0, but is {alpha!r}")
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
            raise ConfigError(f"lora_dropout must be in [0, 1), but is {dropout!r}")
        for name in ("param_init_type", "compute_dtype"):
            if self[name] not in (None, *_DTYPES):
                raise ConfigError(f"{name} must be one of {', '.join(_DTYPES)}, but is {self[name]!r}")
        for name in ("target_modules", "exclude_layers"):
            _check_patterns(name, self[name])


def _check_patterns(name, value):
    values = [value] if isinstance(value, str) else value or ()
    if not isinstance(values, (list, tuple)) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name} must be a regular expression or a list of texts, but is {value!r}")
    for pattern in values:
        try:
            re.compile(pattern)
        except re.error as fault:
            raise ConfigError(f"{name}: {pattern!r} is no regular expression: {fault}") from fault


def _dtype_name(value):
    return value if value is None or isinstance(value, str) else str(value).rsplit(".", maxsplit=1)[-1].lower()


def _as_list(value):
    return [value] if isinstance(value, str) else value


def as_pet_config(config):
    """Return the LoraConfig of a PetConfig or dict with "pet_type".

    Raises:
        ConfigError: no pet_type, an unknown one, or faulty settings.
        UnsupportedError: a kind that is not carried; the message says what to do.
    """
    if isinstance(config, LoraConfig):
        return config
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    kind = values.pop("pet_type", None)
    kind = getattr(kind, "value", kind)
    known = [item.value for item in PetType]
    if kind not in known:
        raise ConfigError(f"pet_type must be one of {', '.join(known)}, but is {kind!r}."
                          f"{did_you_mean(str(kind), known)}")
    if PetType(kind) not in SUPPORTED:
        raise UnsupportedError(f"pet_type {kind!r} is not carried; {REFUSED[PetType(kind)]}")
    return LoraConfig(**values)
