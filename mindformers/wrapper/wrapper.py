"""MindFormers' step cells."""
import mindspore as ms
from mindspore import nn, ops
from mindspore.communication import GlobalComm, get_group_size

from mindformers.tools.errors import UnsupportedError
from mindformers.wrapper.gradients import ApplyGradients, LossAndGradients


class MFTrainOneStepCell(nn.Cell):
    """One training step as one graph: gradients, loss scale, clipping, update.

    Args:
        network (nn.Cell): returns a scalar mean loss, or (sum of token losses, number of tokens).
        optimizer (nn.Optimizer): updates the network's parameters.
        use_clip_grad (bool): clip by the global norm. Default: False.
        max_grad_norm (float): its bound. Default: 1.0.
        scale_sense (float | int | Tensor | nn.Cell): loss scale or the cell that adapts it. Default: 1.0.
        local_norm (bool): also return the norm of each gradient of this rank before reduction. Default: False.
        rank_size (int): data-parallel ranks whose gradients are summed. Default: None, the ranks of the job when the
            parallel mode is data_parallel, else 1.

    Returns:
        (loss, overflow, loss_scale, learning_rate, global_norm[, local_norm [P], size [P]]): float32 scalars, overflow
        bool; an update whose norm is not finite is skipped.

    Raises:
        UnsupportedError: a network with gradient checkpointing, which `TrainStep` runs.
    """

    def __init__(self, network, optimizer, use_clip_grad=False, max_grad_norm=1.0, scale_sense=1.0, local_norm=False,
                 rank_size=None):
        super().__init__(auto_prefix=False)
        if getattr(network, "is_gradient_checkpointing", False):
            raise UnsupportedError("MFTrainOneStepCell is one graph, in which gradient checkpointing saves nothing: "
                                   "use Trainer or wrapper.TrainStep, or network.gradient_checkpointing_disable()")
        self.network = network
        self.optimizer = optimizer
        self.gradients = LossAndGradients(network, optimizer.parameters)
        self.update = ApplyGradients(optimizer, max_grad_norm if use_clip_grad else None, scale_sense,
                                    data_parallel_size() if rank_size is None else rank_size, local_norm)

    @property
    def scale_sense(self):
        """Parameter holding the loss scale."""
        return self.update.scale_sense

    def construct(self, *inputs):
        scale = ops.reshape(self.update.scale_sense, ()) + 0.0
        numerator, denominator, gradients = self.gradients(scale, *inputs)
        return self.update(numerator, denominator, gradients)


def data_parallel_size():
    """Ranks that share the gradients: the job's in data-parallel mode, else 1."""
    if ms.get_auto_parallel_context("parallel_mode") == "data_parallel" and GlobalComm.INITED:
        return get_group_size()
    return 1


class MFPipelineWithLossScaleCell:
    """Refused by name: pipeline stages need semi-automatic parallelism, which is not carried yet."""

    def __new__(cls, *args, **kwargs):
        raise UnsupportedError("MFPipelineWithLossScaleCell (pipeline parallelism) is not carried; for gradient "
                               "accumulation set runner_config.gradient_accumulation_steps with MFTrainOneStepCell")
