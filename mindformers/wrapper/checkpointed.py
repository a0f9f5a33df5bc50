"""Gradients of a network that is cut into segments, of which only the inputs are kept: gradient checkpointing.

The same sums as `gradients.LossAndGradients`, by other graphs: forward, each segment on its own; backward, each segment
again together with its gradients.
"""
import mindspore as ms
from mindspore import ParameterTuple, nn, ops

from mindformers.tools import mapped_file
from mindformers.wrapper.gradients import sum_and_count


class _Backward(nn.Cell):
    """Gradients of a segment by its first input and by its weights.

    Inputs: the segment's inputs, then the gradient of its output.
    """

    def __init__(self, segment, weights, by_input):
        super().__init__(auto_prefix=False)
        self.segment, self.weights = segment, ParameterTuple(weights)
        self.by_input, self.by_weights = by_input, bool(weights)
        self.grad = ops.GradOperation(get_all=by_input, get_by_list=self.by_weights, sens_param=True)

    def construct(self, *inputs):
        if not self.by_weights:
            return self.grad(self.segment)(*inputs)[0], ()
        if not self.by_input:
            return 0.0, self.grad(self.segment, self.weights)(*inputs)
        by_inputs, by_weights = self.grad(self.segment, self.weights)(*inputs)
        return by_inputs[0], by_weights


class _LossBackward(nn.Cell):
    """Numerator and denominator of the loss, and gradients of ``numerator * scale`` by the rows and the weights.

    Inputs: rows, scale, then the inputs of the network.
    """

    def __init__(self, segment, weights):
        super().__init__(auto_prefix=False)
        self.segment, self.by_weights = segment, bool(weights)
        self.grad = ms.value_and_grad(self.scaled_loss, 0, ParameterTuple(weights) if weights else None, has_aux=True)

    def scaled_loss(self, rows, scale, *inputs):
        """(numerator * scale, numerator, denominator)."""
        numerator, denominator = sum_and_count(self.segment(rows, *inputs))
        return numerator * scale, numerator, denominator

    def construct(self, rows, scale, *inputs):
        (_, numerator, denominator), gradients = self.grad(rows, scale, *inputs)
        by_rows, by_weights = gradients if self.by_weights else (gradients, ())
        return ops.reshape(numerator, ()), ops.reshape(denominator, ()), by_rows, by_weights


class CheckpointedGradients:
    """What `LossAndGradients` computes, with the memory of one segment and of the rows between segments.

    Args:
        segments (list): each with `cell`, `parameters` that it reads, and `stands_for`, the cell's own parameters,
            which are given the values of `parameters` before it runs (the same list when they are these). The first
            cell takes the network's inputs and gives rows; the others take rows and the network's inputs; the last
            gives a scalar mean loss, or (sum of token losses, number of tokens). A cell that occurs again is compiled
            once.
        weights (ParameterTuple): what to differentiate by.

    Inputs: scale (float32 scalar), then the inputs of the network.

    Returns: (numerator, denominator, gradients), float32 scalars and a tuple of tensors.

    Raises:
        ValueError: a weight that no segment reads.
    """

    def __init__(self, segments, weights):
        mapped_file.finish()  # an optimizer writes weights in place
        self._names = [weight.name for weight in weights]
        wanted = set(self._names)
        self._segments = segments
        self._trained = [[p.name for p in segment.parameters if p.name in wanted] for segment in segments]
        unread = wanted.difference(*self._trained)
        if unread:
            raise ValueError(f"no part of the network reads {', '.join(sorted(unread))}: gradient checkpointing cannot "
                             "train it")
        # nothing below the lowest segment that trains needs a gradient
        self._first = next(index for index, names in enumerate(self._trained) if names)
        backward = {}
        for index, segment in enumerate(segments):
            own = [p for p, other in zip(segment.stands_for, segment.parameters) if other.name in wanted]
            key = id(segment.cell), index > self._first
            if index == len(segments) - 1:
                backward[key] = _LossBackward(segment.cell, own)
            elif index >= self._first:
                backward.setdefault(key, _Backward(segment.cell, own, index > self._first))
        self._backward = [backward.get((id(segment.cell), index > self._first))
                          for index, segment in enumerate(segments)]

    def __call__(self, scale, *inputs):
        kept, rows, last = [], None, len(self._segments) - 1
        for index in range(last):
            kept.append(rows)
            rows = self._lent(index).cell(*self._taken(rows, index), *inputs)
        self._lent(last)
        numerator, denominator, slope, gradients = self._backward[last](rows, scale, *inputs)
        sums = dict(zip(self._trained[last], gradients))
        del rows, gradients
        for index in reversed(range(self._first, last)):
            self._lent(index)
            slope, gradients = self._backward[index](*self._taken(kept.pop(), index), *inputs, slope)
            for name, gradient in zip(self._trained[index], gradients):
                # a parameter that several segments read has the sum of their gradients
                sums[name] = gradient if name not in sums else ops.add(sums[name], gradient)
        return numerator, denominator, tuple(sums[name] for name in self._names)

    def _lent(self, index):
        """The segment `index`, whose cell has the values of its parameters now."""
        segment = self._segments[index]
        if segment.stands_for is not segment.parameters:
            for own, parameter in zip(segment.stands_for, segment.parameters):
                own.set_data(parameter)
        return segment

    @staticmethod
    def _taken(rows, index):
        return () if index == 0 else (rows,)
