"""TrainStep: what the training loop calls once per optimizer step."""
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindformers.tools.errors import CheckpointMismatchError
from mindformers.wrapper.checkpointed import CheckpointedGradients
from mindformers.wrapper.gradients import ApplyGradients, LossAndGradients, for_each
from mindformers.wrapper.wrapper import MFTrainOneStepCell


@dataclass(frozen=True)
class StepOutput:
    """Outcome of one optimizer step, as Python numbers.

    Args:
        loss (float): mean loss over the global batch. overflow (bool): the update was skipped.
        loss_scale (float): scale used in this step. lr (float): learning rate of this step.
        global_norm (float): norm of the gradients before clipping.
    """

    loss: float
    overflow: bool
    loss_scale: float
    lr: float
    global_norm: float


class _Accumulate(nn.Cell):
    """Add the sums of one micro batch to the accumulators."""

    def __init__(self, gradients, sums, accumulators):
        super().__init__(auto_prefix=False)
        self.gradients, self.add_up = gradients, _AddUp(sums, accumulators)

    def construct(self, scale, *inputs):
        numerator, denominator, gradients = self.gradients(scale, *inputs)
        return self.add_up(numerator, denominator, *gradients)


class _AddUp(nn.Cell):
    """Add a loss's numerator and denominator and the gradients to the accumulators."""

    def __init__(self, sums, accumulators):
        super().__init__(auto_prefix=False)
        self.sums, self.accumulators = sums, accumulators
        self.assign_add = ops.AssignAdd()

    def construct(self, numerator, denominator, *gradients):
        self.assign_add(self.sums, ops.stack((numerator, denominator)))
        return ops.depend(numerator, for_each(self.add, self.accumulators, gradients))

    def add(self, accumulator, gradient):
        """Add one gradient."""
        return self.assign_add(accumulator, ops.cast(gradient, ms.float32))


class _Apply(nn.Cell):
    """`ApplyGradients` on gradients that come from outside of the graph."""

    def __init__(self, update):
        super().__init__(auto_prefix=False)
        self.update = update

    def construct(self, numerator, denominator, *gradients):
        return self.update(numerator, denominator, gradients)


class _ApplyAccumulated(nn.Cell):
    """Apply the accumulated sums."""

    def __init__(self, update, sums, accumulators):
        super().__init__(auto_prefix=False)
        self.update, self.sums, self.accumulators = update, sums, accumulators

    def construct(self):
        return self.update(self.sums[0], self.sums[1], self.accumulators)


class _Clear(nn.Cell):
    """Set the accumulators to zero."""

    def __init__(self, sums, accumulators):
        super().__init__(auto_prefix=False)
        self.cleared = ParameterTuple([sums, *accumulators])

    def construct(self):
        return for_each(_clear, self.cleared)


def _clear(parameter):
    return ops.assign(parameter, ops.zeros_like(parameter))


class TrainStep:
    """One optimizer step over `grad_accumulation` micro batches.

    With one micro batch this is one graph; with more, one graph adds up each micro batch's gradients and another
    applies the sums. The result equals a single batch of all rows. A network whose ``is_gradient_checkpointing`` is
    true is run in its ``training_segments()``, see `CheckpointedGradients`.

    Args:
        network (nn.Cell): returns a scalar mean loss, or (sum of token losses, number of tokens).
        optimizer (nn.Optimizer): updates the network's parameters.
        grad_accumulation (int): micro batches per step. Default: 1.
        max_grad_norm (float): clip by this global norm. Default: None, no clipping.
        scale_sense (float | Tensor | nn.Cell): loss scale or the cell that adapts it. Default: 1.0.
        rank_size (int): data-parallel ranks whose gradients are summed. Default: 1.

    Raises:
        ValueError: grad_accumulation or rank_size below 1; see also ApplyGradients.
    """

    def __init__(self, network, optimizer, *, grad_accumulation=1, max_grad_norm=None, scale_sense=1.0, rank_size=1):
        for name, value in (("grad_accumulation", grad_accumulation), ("rank_size", rank_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, but got {value!r}")
        self.grad_accumulation = grad_accumulation
        self.optimizer = optimizer
        self._gradients = None
        if getattr(network, "is_gradient_checkpointing", False):
            self._gradients = CheckpointedGradients(network.training_segments(), optimizer.parameters)
            self._apply = ApplyGradients(optimizer, max_grad_norm, scale_sense, rank_size)
            if grad_accumulation == 1:
                self._apply_once = _Apply(self._apply)
            else:
                self._build_accumulation(network)
        elif grad_accumulation == 1:
            self._cell = MFTrainOneStepCell(network, optimizer, max_grad_norm is not None, max_grad_norm, scale_sense,
                                            rank_size=rank_size)
            self._apply = self._cell.update
        else:
            self._apply = ApplyGradients(optimizer, max_grad_norm, scale_sense, rank_size)
            self._build_accumulation(network)

    def _build_accumulation(self, network):
        weights = self.optimizer.parameters
        accumulators = ParameterTuple([
            Parameter(Tensor(np.zeros(weight.shape, np.float32)), name=f"accu_grads.{weight.name}",
                      requires_grad=False) for weight in weights])
        sums = Parameter(Tensor(np.zeros(2, np.float32)), name="accu_loss", requires_grad=False)
        if self._gradients is None:
            self._accumulate = _Accumulate(LossAndGradients(network, weights), sums, accumulators)
        else:
            self._add_up = _AddUp(sums, accumulators)
        self._apply_accumulated = _ApplyAccumulated(self._apply, sums, accumulators)
        self._clear = _Clear(sums, accumulators)

    def __call__(self, *batch):
        """Train on one batch of arrays [rows, ...] and return a StepOutput.

        The rows are split in order into `grad_accumulation` micro batches.

        Raises:
            ValueError: the rows do not divide by `grad_accumulation`.
        """
        if self.grad_accumulation == 1 and self._gradients is None:
            return _to_output(self._cell(*(Tensor(array) for array in batch)))
        if self.grad_accumulation == 1:
            scale = Tensor(self._apply.scale_sense.asnumpy().reshape(()))
            numerator, denominator, gradients = self._gradients(scale, *(Tensor(array) for array in batch))
            return _to_output(self._apply_once(numerator, denominator, *gradients))
        rows = len(batch[0])
        if rows % self.grad_accumulation:
            raise ValueError(f"a batch of {rows} rows cannot be split in {self.grad_accumulation} micro batches; make "
                             "it a multiple of gradient_accumulation_steps")
        size = rows // self.grad_accumulation
        scale = Tensor(self._apply.scale_sense.asnumpy())
        self._clear()
        for start in range(0, rows, size):
            part = [Tensor(np.ascontiguousarray(array[start:start + size])) for array in batch]
            if self._gradients is None:
                self._accumulate(scale, *part)
            else:
                numerator, denominator, gradients = self._gradients(scale, *part)
                self._add_up(numerator, denominator, *gradients)
        return _to_output(self._apply_accumulated())

    def state(self):
        """Loss scale and its counters by name, as JSON-able numbers; `load_state` takes it back."""
        return {parameter.name: parameter.asnumpy().reshape(()).item() for parameter in self._scale_parameters()}

    def load_state(self, state):
        """Restore what `state` returned.

        Raises:
            CheckpointMismatchError: the names differ (another kind of loss scale).
        """
        parameters = {parameter.name: parameter for parameter in self._scale_parameters()}
        if set(parameters) != set(state):
            raise CheckpointMismatchError(f"loss scale state holds {sorted(state)}, this run needs "
                                          f"{sorted(parameters)}; was runner_wrapper.scale_sense changed?")
        for name, value in state.items():
            old = parameters[name]
            old.set_data(Tensor(np.full(old.shape, value), old.dtype))

    def _scale_parameters(self):
        manager = self._apply.scale_manager
        return [self._apply.scale_sense, *(manager.get_parameters() if manager is not None else ())]


def _to_output(values):
    loss, overflow, scale, rate, norm = (value.asnumpy().reshape(()).item() for value in values)
    return StepOutput(loss, bool(overflow), scale, rate, norm)
