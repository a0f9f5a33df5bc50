"""Matching of cell names."""
import re


def re_match_list(mstr, patterns=None):
    """Whether any of `patterns` (a regular expression or a list of them) matches the start of `mstr`."""
    patterns = [patterns] if isinstance(patterns, str) else patterns or ()
    return any(re.match(pattern, mstr) for pattern in patterns)


def is_target(path, config):
    """Whether a product gets an adapter.

    Args:
        path (str): dotted name of the cell, such as "model.layers.0.attention.wq".
        config (LoraConfig): see its target_modules and exclude_layers.
    """
    own = path.rsplit(".", maxsplit=1)[-1]
    targets = config.target_modules
    if isinstance(targets, str):
        found = re_match_list(own, targets) or re_match_list(path, targets)
    else:
        found = any(own == name or path == name or path.endswith(f".{name}") for name in targets)
    excluded = config.exclude_layers
    return found and not (re_match_list(own, excluded) or re_match_list(path, excluded))
