"""Removing attention heads: which rows and columns go, so that all layers keep one shape."""
from dataclasses import dataclass

import numpy as np

from mindformers.checkpoint.arrays import convert
from mindformers.modules.masks import TrainMask
from mindformers.tools.errors import ConfigError


@dataclass
class Pruning:
    """What goes.

    Attributes:
        removed (dict[int, set[int]]): layer -> query heads that go; layers without are left out.
        kept (list[list[int]]): query heads that stay, per layer.
        kept_kv (list[list[int]]): kv heads that some query head still reads, per layer.
        heads (tuple | None): (num_heads, n_kv_heads, head_dim) of every layer afterwards; None when they differ.
        before (tuple): the same, of now.
    """

    removed: dict
    kept: list
    kept_kv: list
    heads: tuple
    before: tuple


def plan_pruning(wanted, num_layers, heads):
    """Return the Pruning of ``{layer: [heads]}`` for `num_layers` layers of `heads` = (N, K, H).

    Raises:
        ConfigError: a layer or head that does not exist, or a layer without a head left.
    """
    n, k, h = heads
    removed = {}
    for layer, items in dict(wanted).items():
        if not _within(layer, num_layers):
            raise ConfigError(f"layer {layer!r} does not exist; the model has layers 0 to {num_layers - 1}")
        for head in items:
            if not _within(head, n):
                raise ConfigError(f"head {head!r} of layer {layer} does not exist; it has heads 0 to {n - 1}")
        if items:
            removed[int(layer)] = {int(head) for head in items}
        if len(removed.get(layer, ())) == n:
            raise ConfigError(f"layer {layer} would have no head left")
    kept = [[head for head in range(n) if head not in removed.get(layer, ())] for layer in range(num_layers)]
    groups = [np.bincount([head // (n // k) for head in row], minlength=k) for row in kept]
    kept_kv = [np.flatnonzero(sizes).tolist() for sizes in groups]
    sizes = {size for row in groups for size in row.tolist() if size}
    counts = {len(row) for row in kept_kv}
    uniform = len(sizes) == 1 and len(counts) == 1
    return Pruning(removed, kept, kept_kv, (len(kept[0]), len(kept_kv[0]), h) if uniform else None, heads)


def _within(number, count):
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and 0 <= number < count


def silence(attentions, plan, replace_parameter):
    """Zero what the removed heads of each layer's attention give to the output projection."""
    width = plan.before[2]
    for number, heads in plan.removed.items():
        output = attentions[number].output()
        values = convert(output.weight.asnumpy(), "float32").copy()
        values[:, spans(sorted(heads), width)] = 0.0
        replace_parameter(output, "weight", values)


def prune(backbone, plan, replace_parameter):
    """Take the rows and columns of the removed heads out of every layer of `backbone`."""
    n, k, width = plan.before
    for layer, kept, kept_kv in zip(backbone.blocks(), plan.kept, plan.kept_kv):
        attention = layer.parts()[1]
        inputs, output = attention.inputs(), attention.output()
        q_rows, kv_rows = spans(kept, width), spans(kept_kv, width)
        if len(inputs) == 1:
            packed = np.concatenate([q_rows, n * width + kv_rows, (n + k) * width + kv_rows])
            _keep_rows(inputs[0], packed, replace_parameter)
        else:
            for linear, rows in zip(inputs, (q_rows, kv_rows, kv_rows)):
                _keep_rows(linear, rows, replace_parameter)
        replace_parameter(output, "weight", output.weight.asnumpy()[:, q_rows])
        output.in_channels = len(q_rows)
        attention.heads = plan.heads
    backbone.heads = plan.heads
    backbone.groups = plan.heads[0] // plan.heads[1]
    backbone.train_mask = TrainMask(backbone.groups)
    if backbone.past_length:
        backbone.prune_past(plan.kept_kv, replace_parameter)


def _keep_rows(linear, rows, replace_parameter):
    for field in ("weight", "bias"):
        if getattr(linear, field, None) is not None:
            replace_parameter(linear, field, getattr(linear, field).asnumpy()[rows])
    linear.out_channels = len(rows)


def spans(heads, width):
    """Rows of `heads`, each of `width` rows, int [len(heads) * width]."""
    return (np.asarray(heads, np.int64)[:, None] * width + np.arange(width)).reshape(-1)
