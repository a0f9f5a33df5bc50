"""CAME: an optimizer with factored second moments (Luo et al., "CAME: Confidence-guided Adaptive Memory Efficient
Optimization", ACL 2023)."""
import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import initializer

from mindformers.tools.errors import UnsupportedError


class Came(nn.Optimizer):
    """CAME: Adafactor's factored second moment, momentum, and a factored confidence in the update.

    For a gradient g of a matrix (t from 1, b2 = 1 - t^-decay_rate, b3 = beta3):

        R, C   <- b2 (R, C) + (1 - b2) (row means, column means) of g^2 + eps1
        u       = g / sqrt(R C / mean(R)), scaled to a root mean square of at most clip_threshold
        m      <- beta1 m + (1 - beta1) u
        P, Q   <- b3 (P, Q) + (1 - b3) (row means, column means) of (u - m)^2 + eps3
        step    = m / sqrt(P Q / mean(P))

    A vector keeps its second moment whole and steps by m. Row and column means run over the last two dimensions.

    Args:
        params (Iterable[Parameter] | list[dict]): parameters or groups.
        learning_rate (float | Tensor | LearningRateSchedule): None needs relative_step. Default: None.
        eps (tuple[float]): (eps1, eps2, eps3): added to g^2, lower bound of a parameter's scale, added to (u - m)^2.
            Default: (1e-30, 1e-3, 1e-16).
        clip_threshold (float): Default: 1.0. decay_rate (float): Default: 0.8. beta1 (float): Default: 0.9.
        beta3 (float): Default: 0.99. weight_decay (float): decoupled. Default: 0.0.
        scale_parameter (bool): multiply the rate by the root mean square of the parameter (at least eps2).
        relative_step (bool): rate min(1e-2, 1/sqrt(t)) instead of learning_rate. Default: False.
        warmup_init (bool): rate min(1e-6 t, 1/sqrt(t)); needs relative_step. Default: False.
        compression (bool): states in half precision; not carried. loss_scale (float): gradients are divided by it.

    Raises:
        ValueError: learning_rate together with relative_step or neither; warmup_init without relative_step; a value
            out of its range. UnsupportedError: compression.
    """

    takes_float32_gradients = True

    def __init__(self, params, learning_rate=None, eps=(1e-30, 1e-3, 1e-16), clip_threshold=1.0, decay_rate=0.8,
                 beta1=0.9, beta3=0.99, weight_decay=0.0, scale_parameter=False, relative_step=False,
                 warmup_init=False, compression=False, loss_scale=1):
        if compression:
            raise UnsupportedError("Came(compression=True) is not carried: states are float32; leave it False")
        if (learning_rate is None) != relative_step:
            raise ValueError("give either learning_rate or relative_step=True, and only one of them")
        if warmup_init and not relative_step:
            raise ValueError("warmup_init needs relative_step=True")
        if not isinstance(eps, (list, tuple)) or len(eps) != 3 or min(eps) < 0:
            raise ValueError(f"eps must be three numbers of at least 0, but got {eps!r}")
        for name, value in (("beta1", beta1), ("beta3", beta3)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must be in (0, 1), but got {value}")
        if not clip_threshold > 0 or not 0.0 < decay_rate <= 1.0:
            raise ValueError(f"clip_threshold must be > 0 and decay_rate in (0, 1], but got {clip_threshold} and "
                             f"{decay_rate}")
        super().__init__(0.0 if learning_rate is None else learning_rate, params, weight_decay, float(loss_scale))
        self.eps = tuple(float(value) for value in eps)
        self.clip_threshold, self.decay_rate = float(clip_threshold), float(decay_rate)
        self.beta1, self.beta3 = float(beta1), float(beta3)
        self.scale_parameter, self.relative_step, self.warmup_init = scale_parameter, relative_step, warmup_init
        self.init_came_state()

    def init_came_state(self):
        """Make the float32 states: momentum; row and column moments of g^2 and of (u - m)^2; full ones for vectors."""
        self.factored = tuple(parameter.ndim >= 2 for parameter in self._parameters)
        rows = [p.shape[:-1] if p.ndim >= 2 else (1,) for p in self._parameters]
        columns = [p.shape[:-2] + p.shape[-1:] if p.ndim >= 2 else (1,) for p in self._parameters]
        self.exp_avg = self._states("came_m", [p.shape for p in self._parameters])
        self.exp_avg_sq = self._states("came_v", [(1,) if p.ndim >= 2 else p.shape for p in self._parameters])
        self.exp_avg_sq_row, self.exp_avg_sq_col = self._states("came_r", rows), self._states("came_c", columns)
        self.exp_avg_res_row, self.exp_avg_res_col = self._states("came_p", rows), self._states("came_q", columns)

    def _states(self, prefix, shapes):
        return ParameterTuple([
            Parameter(initializer("zeros", shape, ms.float32), name=f"{prefix}.{parameter.name}", requires_grad=False)
            for parameter, shape in zip(self._parameters, shapes)])

    def construct(self, gradients):
        rates = self.get_lr()
        decays = self.get_weight_decay()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        step = ops.reshape(ops.cast(self.global_step, ms.float32), ())
        if self.relative_step:
            most = step * 1e-6 if self.warmup_init else Tensor(1e-2, ms.float32)
            rates = ops.minimum(most, 1.0 / ops.sqrt(step))
        beta2 = 1.0 - ops.pow(step, -self.decay_rate)
        for i in range(self.param_length):
            rate = rates[i] if self.is_group_lr and not self.relative_step else rates
            decay = decays[i] if self.is_group else decays
            self._update(i, gradients[i], rate, decay / self.loss_scale, beta2)
        return True

    def _update(self, i, gradient, rate, decay, beta2):
        parameter = self._parameters[i]
        gradient = ops.cast(gradient, ms.float32) / self.loss_scale
        value = ops.cast(parameter, ms.float32)
        if self.scale_parameter:
            rate = rate * ops.maximum(_rms(value), Tensor(self.eps[1], ms.float32))
        squares = ops.square(gradient) + self.eps[0]
        if self.factored[i]:
            update = gradient * self._factored(self.exp_avg_sq_row[i], self.exp_avg_sq_col[i], squares, beta2)
        else:
            moment = self.exp_avg_sq[i] * beta2 + squares * (1.0 - beta2)
            ops.assign(self.exp_avg_sq[i], moment)
            update = gradient * ops.rsqrt(moment)
        update = update / ops.maximum(_rms(update) / self.clip_threshold, Tensor(1.0, ms.float32))
        momentum = self.exp_avg[i] * self.beta1 + update * (1.0 - self.beta1)
        ops.assign(self.exp_avg[i], momentum)
        change = momentum
        if self.factored[i]:
            residual = ops.square(update - momentum) + self.eps[2]
            change = momentum * self._factored(self.exp_avg_res_row[i], self.exp_avg_res_col[i], residual, self.beta3)
        value = value - rate * decay * value - rate * change
        ops.assign(parameter, ops.cast(value, parameter.dtype))

    def _factored(self, row_state, column_state, squares, beta):
        """Update row and column means of `squares` and return 1 / sqrt of the matrix they stand for."""
        row = row_state * beta + ops.mean(squares, -1) * (1.0 - beta)
        column = column_state * beta + ops.mean(squares, -2) * (1.0 - beta)
        ops.assign(row_state, row)
        ops.assign(column_state, column)
        row_factor = ops.rsqrt(row / ops.mean(row, -1, True))
        return ops.expand_dims(row_factor, -1) * ops.expand_dims(ops.rsqrt(column), -2)


def _rms(value):
    """Root mean square of a tensor."""
    return ops.sqrt(ops.mean(ops.square(value)))
