"""PetAdapter: the base of what puts adapters into a model, and which parameters then train."""
import fnmatch

from mindformers.pet.pet_config import as_pet_config
from mindformers.tools.errors import ConfigError

ADAPTER_MARK = "mindpet_delta"  # part of the name of every adapter parameter


class PetAdapter:
    """Base of adapters; `get_pet_model` changes a model in place."""

    @classmethod
    def get_pet_model(cls, model=None, config=None):
        """Put the adapters that `config` (PetConfig or dict) describes into `model` and return it."""
        from mindformers.pet.pet_model import get_pet_model
        return get_pet_model(model, config)

    @classmethod
    def freeze_pretrained_model(cls, model, pet_type, freeze_include=None, freeze_exclude=None):
        """Leave only adapters trainable.

        Args:
            model (nn.Cell): has its adapters.
            pet_type (str | PetType): kind of its adapters.
            freeze_include (list[str] | None): wildcard patterns of adapter parameters to freeze, too. Default: none.
            freeze_exclude (list[str] | None): wildcard patterns of base parameters that train. Default: none.

        Raises:
            ConfigError: a pattern that fits no parameter.
        """
        as_pet_config({"pet_type": pet_type})
        names = [parameter.name for parameter in model.get_parameters()]
        for pattern in [*(freeze_include or ()), *(freeze_exclude or ())]:
            if not fnmatch.filter(names, pattern):
                raise ConfigError(f"freeze pattern {pattern!r} fits no parameter; one of them is {names[0]}")
        for parameter in model.get_parameters():
            own = ADAPTER_MARK in parameter.name and not _fits(parameter.name, freeze_include)
            parameter.requires_grad = own or _fits(parameter.name, freeze_exclude)


def _fits(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns or ())
