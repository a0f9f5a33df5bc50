"""AdamW, and the base it shares with the other Adam variants with decoupled weight decay."""
import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops


class DecoupledAdam(nn.Optimizer):
    """Adam with decoupled weight decay and float32 moments; subclasses choose defaults and bias correction.

    One fused in-place kernel (`ops.Adam`) updates a float32 parameter and its moments; the decay is a multiplication
    before it. That is 3 to 8 times faster on CPU than separate operations or `ops.AdamWeightDecay`. Parameters of a
    lower precision are updated in float32 and rounded once.

    Args:
        params (Iterable[Parameter] | list[dict]): parameters, or groups with `params`, `lr`, `weight_decay`.
        learning_rate (float | Tensor | LearningRateSchedule): called with the step, counted from 0.
        betas (tuple[float]): decay rates of the two moments, each in (0, 1).
        eps (float): added to the root of the second moment; > 0.
        weight_decay (float): decoupled decay (Loshchilov & Hutter 2019), multiplied with the learning rate.
        bias_correction (bool): divide the moments by 1 - beta^t.
        decay_flags (tuple[bool]): per parameter, whether weight decay applies; None = all with a decay > 0.

    State parameters are named ``adam_m.<name>`` and ``adam_v.<name>``.
    """

    # the step cells hand over float32 gradients whatever the parameter's dtype
    takes_float32_gradients = True

    def __init__(self, params, learning_rate, betas, eps, weight_decay, bias_correction, decay_flags=None):
        super().__init__(learning_rate, params, weight_decay)
        self.beta1, self.beta2 = (float(np.float32(beta)) for beta in betas)
        self.eps = float(eps)
        self.bias_correction = bias_correction
        if decay_flags is not None:
            self.decay_flags = decay_flags
        elif not self.is_group:
            self.decay_flags = (self.exec_weight_decay,) * self.param_length
        kinds = [None] * self.param_length
        if self.is_group:  # parameters of a kind have the same rate and the same decay
            kinds = [(id(rate), decay if isinstance(decay, float) else id(decay))
                     for rate, decay in zip(self.group_lr, self.group_weight_decay)]
        distinct = list(dict.fromkeys(kinds))
        self.first_of_kind = tuple(kinds.index(kind) for kind in distinct)
        self.kinds = tuple(distinct.index(kind) for kind in kinds)
        self.moments1 = self.clone_state("adam_m", "zeros")
        self.moments2 = self.clone_state("adam_v", "zeros")
        # logarithms in double precision of the float32 rates: 1 - beta^t without cancellation, for the rates used
        self.log_beta1, self.log_beta2 = math.log(self.beta1), math.log(self.beta2)
        self.adam = ops.Adam()
        self.expm1 = ops.Expm1()

    def clone_state(self, prefix, init):
        """Return a ParameterTuple of float32 states shaped like the parameters, named ``<prefix>.<name>``."""
        states = []
        for parameter in self._parameters:
            start = ms.common.initializer.initializer(init, parameter.shape, ms.float32)
            states.append(Parameter(start, name=f"{prefix}.{parameter.name}", requires_grad=False))
        return ParameterTuple(states)

    @property
    def exp_avg(self):
        """ParameterTuple of the first moments."""
        return self.moments1

    @property
    def exp_avg_sq(self):
        """ParameterTuple of the second moments."""
        return self.moments2

    def construct(self, gradients):
        rates = self.get_lr()
        decays = self.get_weight_decay()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        root2, bias1 = Tensor(1.0, ms.float32), Tensor(1.0, ms.float32)
        if self.bias_correction:
            step = ops.reshape(ops.cast(self.global_step, ms.float32), ())
            bias1 = -self.expm1(step * self.log_beta1)
            root2 = ops.sqrt(-self.expm1(step * self.log_beta2))
        keeps, corrected_rates = (), ()
        for i in self.first_of_kind:  # what each parameter computed for itself would be compiled for each
            rate = rates[i] if self.is_group_lr else rates
            decay = decays[i] if self.is_group else decays
            keeps, corrected_rates = keeps + (1.0 - rate * decay,), corrected_rates + (rate * root2 / bias1,)
        update = ops.partial(self._update, keeps, corrected_rates, root2 * self.eps)
        return self.hyper_map(update, self.kinds, self.decay_flags, gradients, self._parameters, self.moments1,
                              self.moments2)

    def _update(self, keeps, corrected_rates, eps, kind, decays, gradient, parameter, moment1, moment2):
        """One parameter: ``p = p * keep - corrected_rate * m / (sqrt(v) + eps)``."""
        keep, corrected_rate = keeps[kind], corrected_rates[kind]
        gradient = ops.cast(gradient, ms.float32)
        if parameter.dtype == ms.float32:
            if decays:
                ops.assign(parameter, parameter * keep)
            # beta powers of 0 switch the kernel's own (cancelling) bias correction off
            self.adam(parameter, moment1, moment2, 0.0, 0.0, corrected_rate, self.beta1, self.beta2, eps, gradient)
        else:
            new1 = moment1 * self.beta1 + gradient * (1.0 - self.beta1)
            new2 = moment2 * self.beta2 + ops.square(gradient) * (1.0 - self.beta2)
            value = ops.cast(parameter, ms.float32)
            value = value * keep if decays else value
            value = value - corrected_rate * new1 / (ops.sqrt(new2) + eps)
            ops.assign(moment1, new1)
            ops.assign(moment2, new2)
            ops.assign(parameter, ops.cast(value, parameter.dtype))
        return True


def check_adam_arguments(name, betas, eps, weight_decay):
    """Check the hyper-parameters all Adam variants share.

    Raises:
        TypeError: a value is not of its type.
        ValueError: betas are not two numbers in (0, 1), eps <= 0, or weight_decay < 0.
    """
    if not isinstance(betas, (list, tuple)):
        raise TypeError(f"{name}: betas must be a list or tuple of two numbers, but got {type(betas).__name__}")
    if len(betas) != 2:
        raise ValueError(f"{name}: betas must be two numbers, but got {len(betas)}")
    for beta in betas:
        if isinstance(beta, bool) or not isinstance(beta, (int, float)):
            raise TypeError(f"{name}: each beta must be a number, but got {beta!r}")
        if not 0.0 < beta < 1.0:
            raise ValueError(f"{name}: each beta must be in (0, 1), but got {beta}")
    if isinstance(eps, bool) or not isinstance(eps, (int, float)):
        raise TypeError(f"{name}: eps must be a number, but got {eps!r}")
    if not eps > 0.0:
        raise ValueError(f"{name}: eps must be greater than 0, but got {eps}")
    if isinstance(weight_decay, bool) or not isinstance(weight_decay, (int, float, nn.Cell)):
        raise TypeError(f"{name}: weight_decay must be a number or a schedule cell, but got {weight_decay!r}")
    if not isinstance(weight_decay, nn.Cell) and weight_decay < 0.0:
        raise ValueError(f"{name}: weight_decay must be at least 0, but got {weight_decay}")


class AdamW(DecoupledAdam):
    """AdamW (Loshchilov & Hutter 2019) with bias correction, equal to ``torch.optim.AdamW``.

    ``p = p * (1 - lr * weight_decay) - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)``

    Args:
        params (Iterable[Parameter] | list[dict]): parameters or groups (`params`, `lr`, `weight_decay`).
        learning_rate (float | Tensor | LearningRateSchedule): Default: 1e-3.
        betas (tuple[float]): Default: (0.9, 0.999).
        eps (float): Default: 1e-8.
        weight_decay (float): for every parameter of a group without its own. Default: 0.0.

    Raises:
        TypeError, ValueError: see `check_adam_arguments`.
    """

    def __init__(self, params, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        check_adam_arguments("AdamW", betas, eps, weight_decay)
        super().__init__(params, learning_rate, betas, eps, weight_decay, bias_correction=True)
