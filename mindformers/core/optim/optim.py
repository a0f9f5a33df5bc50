"""Adam variants without bias correction, as MindSpore's AdamWeightDecay computes them."""
from mindformers.core.optim.adamw import DecoupledAdam, check_adam_arguments
from mindformers.tools.errors import UnsupportedError


class FP32StateAdamWeightDecay(DecoupledAdam):
    """MindSpore's AdamWeightDecay update with float32 states: no bias correction, decoupled decay.

    ``p = p - lr * (m / (sqrt(v) + eps) + weight_decay * p)``

    Without parameter groups, parameters with "beta" or "gamma" in their name do not decay (MindSpore's rule).

    Args:
        params (Iterable[Parameter] | list[dict]): parameters or groups.
        learning_rate (float | Tensor | LearningRateSchedule): Default: 1e-3.
        beta1 (float): in (0, 1). Default: 0.9.
        beta2 (float): in (0, 1). Default: 0.999.
        eps (float): > 0. Default: 1e-6.
        weight_decay (float): Default: 0.0.

    Raises:
        TypeError, ValueError: see `check_adam_arguments`.
    """

    def __init__(self, params, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0):
        check_adam_arguments(type(self).__name__, (beta1, beta2), eps, weight_decay)
        params = list(params)
        flags = None
        if params and not isinstance(params[0], dict) and weight_decay != 0.0:
            flags = tuple("beta" not in parameter.name and "gamma" not in parameter.name for parameter in params)
        super().__init__(params, learning_rate, (beta1, beta2), eps, weight_decay, bias_correction=False,
                         decay_flags=flags)


class FusedAdamWeightDecay(FP32StateAdamWeightDecay):
    """The same update; `offload=True` (states on the host of an accelerator) is not carried.

    Raises:
        UnsupportedError: `offload` is True.
    """

    def __init__(self, params, learning_rate=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.0, offload=False):
        if offload:
            raise UnsupportedError("FusedAdamWeightDecay(offload=True) is not carried: states stay beside their "
                                   "parameters; leave offload at False")
        super().__init__(params, learning_rate, beta1, beta2, eps, weight_decay)


class FusedCastAdamWeightDecay:
    """Refused by name: its fused kernel clips and casts inside the optimizer, which the step cells do here."""

    def __new__(cls, *args, **kwargs):
        raise UnsupportedError("FusedCastAdamWeightDecay is not carried; use FP32StateAdamWeightDecay with "
                               "use_clip_grad and max_grad_norm of the step cell")
