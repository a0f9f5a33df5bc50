"""Names, shapes and number of a model's parameters, from its configuration alone: nothing is built or allocated."""
import importlib
import math

from mindformers.tools.errors import UnsupportedError


def parameter_shapes(config, architecture=None):
    """Return ``{our parameter name: shape}`` of the model of `config`.

    Args:
        config (PretrainedConfig): of a family that is carried; its module `x_config` has a neighbour `x_shapes`.
        architecture (str | None): class of the model. Default: the first of ``config.architectures``, else the
            family's causal language model.

    Raises:
        UnsupportedError: a configuration class whose family does not say its shapes.
    """
    module = f"{type(config).__module__.removesuffix('_config')}_shapes"
    try:
        shapes = importlib.import_module(module).parameter_shapes
    except ModuleNotFoundError:
        raise UnsupportedError(f"{type(config).__name__} does not say the shapes of its parameters: build the model "
                               "and call num_parameters()") from None
    named = getattr(config, "architectures", None) or ()
    architecture = architecture or (named if isinstance(named, str) else next(iter(named), None))
    return shapes(config, architecture) if architecture else shapes(config)


def parameter_count(config, architecture=None):
    """Return the number of parameters of the model of `config`; arguments as of `parameter_shapes`."""
    return sum(math.prod(shape) for shape in parameter_shapes(config, architecture).values())
