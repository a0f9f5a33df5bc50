"""The two halves of a training step: gradients of one micro batch, and their application.

A loss is handled as a sum of token losses (numerator) and a count (denominator). A network that returns a mean is the
case of count 1. Numerators, counts and gradients add up over micro batches and ranks and are divided once, at the end:
so accumulation equals the big batch and two ranks equal one, exactly.
"""
import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindformers.tools import mapped_file

_CLIP_EPSILON = 1e-6
for_each = ops.HyperMap()  # a loop that builds a tuple takes the compiler time with the square of its length


def sum_and_count(out):
    """Return a network's answer, a mean loss or (sum of token losses, number of tokens), as the latter in float32."""
    numerator, denominator = (out[0], out[1]) if isinstance(out, tuple) else (out, ops.ones_like(out))
    return ops.cast(numerator, ms.float32), ops.cast(denominator, ms.float32)


class LossAndGradients(nn.Cell):
    """Loss numerator, denominator and gradients of ``numerator * scale`` for one micro batch.

    Args:
        network (nn.Cell): returns a scalar mean loss, or (sum of token losses, number of tokens).
        weights (ParameterTuple): what to differentiate by.

    Inputs: scale (float32 scalar), then the inputs of the network.

    Returns: (numerator, denominator, gradients), float32 scalars and a tuple of tensors.

    Raises:
        UnsupportedError: weights of int8.
    """

    def __init__(self, network, weights):
        if hasattr(network, "refuse_quantised_training"):
            network.refuse_quantised_training()
        mapped_file.finish()  # an optimizer writes weights in place
        super().__init__(auto_prefix=False)
        self.network = network
        self.weights = weights
        self.grad = ms.value_and_grad(self.scaled_loss, None, weights, has_aux=True)

    def scaled_loss(self, scale, *inputs):
        """(numerator * scale, numerator, denominator)."""
        numerator, denominator = sum_and_count(self.network(*inputs))
        return numerator * scale, numerator, denominator

    def construct(self, scale, *inputs):
        (_, numerator, denominator), gradients = self.grad(scale, *inputs)
        return ops.reshape(numerator, ()), ops.reshape(denominator, ()), gradients


def sum_of_squares(gradient):
    """Sum of squares of a tensor in float32; rows first, which is both faster on CPU and more exact than one sum."""
    squares = ops.square(ops.cast(gradient, ms.float32))
    return ops.sum(ops.sum(squares, -1)) if gradient.ndim > 0 else squares


def global_norm(gradients):
    """L2 norm over all `gradients` together, float32 scalar."""
    return ops.sqrt(ops.addn(for_each(sum_of_squares, gradients)))


def _scaled(factor, gradient):
    return ops.cast(gradient, ms.float32) * factor


def _scaled_as(factor, gradient, parameter):
    return ops.cast(_scaled(factor, gradient), parameter.dtype)


def _norm_over(divisor, gradient):
    return ops.sqrt(sum_of_squares(gradient)) / divisor


class ApplyGradients(nn.Cell):
    """Reduce over ranks, unscale, clip and apply gradients; skip the update when their norm is not finite.

    Args:
        optimizer (nn.Optimizer): updates its parameters in place.
        max_grad_norm (float): bound of the global norm, or None for no clipping.
        scale_sense (float | int | Tensor | nn.Cell): loss scale, or the cell that adapts it.
        rank_size (int): data-parallel ranks; > 1 sums gradients with AllReduce in float32.
        local_norm (bool): also return the norms of this rank's own gradients.

    Inputs: numerator, denominator (float32 scalars), gradients (tuple), all sums over this rank's micro batches.

    Returns: (loss, overflow, loss scale used, learning rate, global norm before clipping[, local norms, sizes]).

    Raises:
        ValueError: a Tensor `scale_sense` of another shape than () or (1,), max_grad_norm <= 0.
        TypeError: `scale_sense` of another type.
    """

    def __init__(self, optimizer, max_grad_norm=None, scale_sense=1.0, rank_size=1, local_norm=False):
        super().__init__(auto_prefix=False)
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be greater than 0, but got {max_grad_norm}")
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.rank_size = rank_size
        self.local_norm = local_norm
        self.scale_manager, self.scale_sense = loss_scale(scale_sense)
        self.float32_gradients = getattr(optimizer, "takes_float32_gradients", False)
        self.all_reduce = ops.AllReduce() if rank_size > 1 else None
        self.group_rates = optimizer.is_group_lr

    def construct(self, numerator, denominator, gradients):
        scale = ops.reshape(self.scale_sense, ()) + 0.0
        own = gradients
        own_denominator = denominator
        if self.rank_size > 1:
            sums = self.all_reduce(ops.stack((numerator, denominator)))
            numerator, denominator = sums[0], sums[1]
            gradients = for_each(self.sum_over_ranks, gradients)
        divisor = scale * denominator
        norm = global_norm(gradients) / divisor
        overflow = ops.logical_not(ops.isfinite(norm))
        if self.scale_manager is not None:
            overflow = self.scale_manager(self.scale_sense, overflow)
        rate = self.learning_rate()
        factor = 1.0 / divisor
        if self.max_grad_norm is not None:
            factor = factor * ops.minimum(self.max_grad_norm / (norm + _CLIP_EPSILON), ops.ones_like(norm))
        loss = numerator / denominator
        if not overflow:
            loss = ops.depend(loss, self.optimizer(self.finished(gradients, factor)))
        if self.local_norm:
            norms, sizes = self.local_norms(own, scale * own_denominator)
            return loss, overflow, scale, rate, norm, norms, sizes
        return loss, overflow, scale, rate, norm

    def learning_rate(self):
        """Rate of this step (of the first group when groups have their own), before the optimizer advances it."""
        rate = self.optimizer.get_lr()
        if self.group_rates:
            rate = rate[0]
        # the sum makes a copy: the parameter behind a constant rate must not be handed out
        return ops.reshape(ops.cast(rate, ms.float32), ()) + 0.0

    def sum_over_ranks(self, gradient):
        """The gradient's sum over ranks, in float32."""
        return self.all_reduce(ops.cast(gradient, ms.float32))

    def finished(self, gradients, factor):
        """Gradients times `factor`, in float32 or in their own dtype, as the optimizer takes them."""
        if self.float32_gradients:
            return for_each(ops.partial(_scaled, factor), gradients)
        return for_each(ops.partial(_scaled_as, factor), gradients, self.optimizer.parameters)

    def local_norms(self, gradients, divisor):
        """(norm of each gradient [P] float32, elements of each gradient [P] int32) of this rank alone."""
        norms, sizes = for_each(ops.partial(_norm_over, divisor), gradients), ()
        for gradient in gradients:
            sizes = sizes + (gradient.size,)
        return ops.stack(norms), Tensor(sizes, ms.int32)


def loss_scale(scale_sense):
    """Return (update cell or None, Parameter "scale_sense") for a number, Tensor or update cell.

    Raises:
        ValueError, TypeError: see ApplyGradients.
    """
    manager = None
    if isinstance(scale_sense, nn.Cell):
        manager, scale_sense = scale_sense, float(scale_sense.get_loss_scale())
    if isinstance(scale_sense, Tensor):
        if scale_sense.shape not in ((), (1,)):
            raise ValueError(f"the shape of scale_sense must be (1,) or (), but got {scale_sense.shape}")
        scale_sense = float(scale_sense.asnumpy().reshape(()))
    if isinstance(scale_sense, bool) or not isinstance(scale_sense, (int, float)):
        raise TypeError(f"scale_sense must be a number, a Tensor or a loss scale cell, but got "
                        f"{type(scale_sense).__name__}")
    if not scale_sense > 0:
        raise ValueError(f"scale_sense must be greater than 0, but got {scale_sense}")
    return manager, Parameter(Tensor(float(scale_sense), ms.float32), name="scale_sense", requires_grad=False)
