"""Which parameters get weight decay: groups for the optimizers."""
from mindspore import nn

from mindformers.core.optim.groups import decay_groups
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger


def get_optimizer_grouped_parameters(model=None, weight_decay=0.0, dynamic_lr_schedule=None, layer_scale=False,
                                     layer_decay=1.0):
    """Return the trainable parameters of `model` as groups with and without weight decay.

    Matrices decay; vectors (norms, biases) do not, nor what the model names in `no_weight_decay()` (full names) or
    `no_weight_decay_keywords()` (parts of names).

    Args:
        model (nn.Cell): the network.
        weight_decay (float): decay of the first group. Default: 0.0.
        dynamic_lr_schedule (LearningRateSchedule): not put into the groups (the optimizer takes it); warned about.
            Default: None.
        layer_scale (bool): learning rates by depth, of vision models only: must be False. Default: False.
        layer_decay (float): used with layer_scale only. Default: 1.0.

    Returns:
        list[dict], ``[{"params": [Parameter], "weight_decay": float}, ...]``, empty groups left out.

    Raises:
        TypeError: `model` is not a Cell.
        UnsupportedError: `layer_scale` is True.
    """
    if not isinstance(model, nn.Cell):
        raise TypeError(f"model should be inherited from mindspore.nn.Cell, but got {type(model).__name__}")
    if layer_scale:
        raise UnsupportedError(f"layer_scale (layer_decay={layer_decay}) exists for Swin and ViT models, which are not "
                               "carried here; set layer_scale: False")
    if dynamic_lr_schedule is not None:
        logger.warning("dynamic_lr_schedule is not used per group; give the schedule to the optimizer")
    return decay_groups(model, weight_decay)
