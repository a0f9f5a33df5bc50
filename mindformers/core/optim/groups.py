"""Parameter groups: which parameters get weight decay."""


def decays(name, ndim, excluded_names=(), excluded_keywords=()):
    """Whether a parameter gets weight decay: it has two or more dimensions and no name speaks against it.

    Args:
        name (str): full name of the parameter.
        ndim (int): number of its dimensions; vectors (norm weights, biases) and scalars never decay.
        excluded_names (Iterable[str]): full names that do not decay.
        excluded_keywords (Iterable[str]): parts of names that do not decay.
    """
    if ndim < 2 or name.endswith(".bias"):
        return False
    return name not in excluded_names and not any(keyword in name for keyword in excluded_keywords)


def decay_groups(model, weight_decay=0.0):
    """Split the trainable parameters of `model` in a group with `weight_decay` and one with 0.

    The order of the parameters does not matter. The model may add exceptions through `no_weight_decay()` (full names)
    and `no_weight_decay_keywords()` (parts of names).

    Args:
        model (nn.Cell): the network.
        weight_decay (float): decay of the first group. Default: 0.0.

    Returns:
        list[dict], ``[{"params": [Parameter], "weight_decay": float}, ...]``; an empty group is left out.
    """
    names = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    keywords = model.no_weight_decay_keywords() if hasattr(model, "no_weight_decay_keywords") else ()
    groups = ([], [])
    for parameter in model.trainable_params():
        groups[0 if decays(parameter.name, parameter.ndim, names, keywords) else 1].append(parameter)
    return [{"params": params, "weight_decay": decay}
            for params, decay in zip(groups, (float(weight_decay), 0.0)) if params]
