"""LoraAdapter: puts low-rank updates beside the products of a model, or takes them out again."""
from mindformers.modules.layers import Linear
from mindformers.pet.tuners.lora_linear import LoraLinear
from mindformers.pet.tuners.pet_adapter import PetAdapter
from mindformers.pet.utils import is_target
from mindformers.tools.errors import ConfigError, did_you_mean


class LoraAdapter(PetAdapter):
    """LoRA (arXiv:2106.09685) for any model made of `Linear` cells."""

    @staticmethod
    def add(model, config):
        """Replace the Linear cells that `config` (LoraConfig) targets by LoraLinear; returns their names.

        Raises:
            ConfigError: no target_modules, a model with adapters already, or no cell that fits.
        """
        if not config.target_modules:
            raise ConfigError("No target modules for lora layer: set target_modules, for example '.*wq|.*wk|.*wv|.*wo'")
        if list(lora_cells(model)):
            raise ConfigError("the model has LoRA adapters already; merge_and_unload() or delete_adapter() first")
        products = list(_products(model))
        chosen = [place for place in products if is_target(place[0], config)]
        if not chosen:
            own = sorted({name.rsplit(".", maxsplit=1)[-1] for name, *_ in products})
            hint = did_you_mean(config.target_modules, own) if isinstance(config.target_modules, str) else ""
            raise ConfigError(f"target_modules {config.target_modules!r} (without exclude_layers "
                              f"{config.exclude_layers!r}) fits no product of {type(model).__name__}.{hint} Its "
                              f"products are {', '.join(own)}")
        for _, owner, place, linear in chosen:
            replace_cell(owner, place, LoraLinear(linear, config))
        return [name for name, *_ in chosen]


def _products(model):
    """Yield (path, owner, name in the owner, cell) of every Linear."""
    for path, owner in model.cells_and_names():
        for place, cell in owner.name_cells().items():
            if type(cell) is Linear:
                yield (f"{path}.{place}" if path else place), owner, place, cell


def lora_cells(model):
    """Yield (path, LoraLinear) of every product with an adapter."""
    for path, cell in model.cells_and_names():
        if isinstance(cell, LoraLinear):
            yield path, cell


def remove(model):
    """Replace every LoraLinear by a Linear with its weight as it is now."""
    for _, owner in list(model.cells_and_names()):
        for place, cell in owner.name_cells().items():
            if isinstance(cell, LoraLinear):
                replace_cell(owner, place, cell.plain_linear())


def replace_cell(owner, place, new):
    """Put a cell in the place of another; its parameters keep the names they have."""
    names = [(parameter, parameter.name) for parameter in new.get_parameters()]
    setattr(owner, place, new)
    for parameter, name in names:  # a cell that is set gets the name of its place before those of its parameters
        parameter.name = name
