"""Loss cells. Shape legend: N tokens (rows), V vocabulary, B batch, T sequence."""
import mindspore as ms
from mindspore import nn, ops

from mindformers import kernels

_EPSILON = 1e-8


class CrossEntropyLoss(nn.Cell):
    """Masked mean of the tokens' cross entropy, computed in float32.

    The token losses are the op `token_loss` of `mindformers.kernels`: on CPU the native library reads the logits as
    they are and writes nothing of their size but their gradient.

    Args:
        parallel_config: accepted for MindFormers' signature; sharding strategies do not apply to these ops.
        check_for_nan_in_loss_and_grad (bool): recorded; the check itself is made by MFLossMonitor, which sees the
            loss of every step. Default: False.
        calculate_per_token_loss (bool): return the sums instead of their quotient. Default: False.

    Inputs:
        logits: [N, V], any float dtype. label: int [N]; a label is not looked at where the mask is 0.
        input_mask: [N], weight of each token (0 or 1 as a rule).

    Returns:
        float32 scalar ``sum(loss * mask) / (sum(mask) + 1e-8)``, or the tuple (numerator, denominator).
    """

    def __init__(self, parallel_config=None, check_for_nan_in_loss_and_grad=False, calculate_per_token_loss=False):
        super().__init__(auto_prefix=False)
        del parallel_config
        self.check_for_nan_in_loss_and_grad = check_for_nan_in_loss_and_grad
        self.calculate_per_token_loss = calculate_per_token_loss
        self.token_loss = kernels.get("token_loss")

    def construct(self, logits, label, input_mask):
        mask = ops.cast(ops.reshape(input_mask, (-1,)), ms.float32)
        label = ops.cast(ops.reshape(label, (-1,)), ms.int32)
        numerator = ops.sum(self.token_loss(logits, label, mask) * mask)
        denominator = ops.sum(mask) + _EPSILON
        if self.calculate_per_token_loss:
            return numerator, denominator
        return numerator / denominator


class SoftTargetCrossEntropy(nn.Cell):
    """Cross entropy against a distribution: mean over rows of ``-sum(label * log_softmax(logit))``.

    Inputs: logit [..., V] float, label [..., V] probabilities. Returns a float32 scalar.
    """

    def __init__(self, parallel_config=None):
        super().__init__(auto_prefix=False)
        del parallel_config
        self.log_softmax = ops.LogSoftmax(-1)

    def construct(self, logit, label):
        log_probs = self.log_softmax(ops.cast(logit, ms.float32))
        return ops.mean(-ops.sum(ops.cast(label, ms.float32) * log_probs, -1))


class MSELoss(nn.Cell):
    """Masked mean squared error of patches (masked image modelling).

    Args:
        norm_pixel_loss (bool): normalise each target patch by its own mean and variance first. Default: True.
        parallel_config: accepted for MindFormers' signature.

    Inputs: pred [B, P, D], target [B, P, D], mask [B, P] (1 = patch counts). Returns a float32 scalar, the mean over
    counted patches.
    """

    def __init__(self, norm_pixel_loss=True, parallel_config=None):
        super().__init__(auto_prefix=False)
        del parallel_config
        self.norm_pixel_loss = norm_pixel_loss

    def construct(self, pred, target, mask):
        pred, target = ops.cast(pred, ms.float32), ops.cast(target, ms.float32)
        mask = ops.cast(mask, ms.float32)
        if self.norm_pixel_loss:
            centred = target - ops.mean(target, -1, True)
            variance = ops.sum(ops.square(centred), -1, keepdim=True) / (target.shape[-1] - 1)
            target = centred / ops.sqrt(variance + 1e-6)
        patch_loss = ops.mean(ops.square(pred - target), -1)
        return ops.sum(patch_loss * mask) / (ops.sum(mask) + _EPSILON)


class L1Loss(nn.Cell):
    """Absolute error.

    Args:
        reduction (str): "mean", "sum" or "none". Default: "mean".
        parallel_config: accepted for MindFormers' signature.

    Raises:
        ValueError: unknown `reduction`.
    """

    def __init__(self, reduction="mean", parallel_config=None):
        super().__init__(auto_prefix=False)
        del parallel_config
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"L1Loss reduction must be 'mean', 'sum' or 'none', but got {reduction!r}")
        self.reduction = reduction

    def construct(self, logits, labels):
        error = ops.abs(ops.cast(logits, ms.float32) - ops.cast(labels, ms.float32))
        if self.reduction == "mean":
            return ops.mean(error)
        return ops.sum(error) if self.reduction == "sum" else error


class CompareLoss(nn.Cell):
    """Pairwise reward loss: ``-log(sigmoid(chosen - rejected))``, mean over the tokens that differ.

    Args:
        config: an object with `seq_length` is accepted for MindFormers' signature; shapes are read from the inputs.

    Inputs:
        rewards: [2B, T]; the first half belongs to the chosen answers, the second to the rejected ones.
        loss_mask: [B, T], 1 where a token counts. end_ind: int [B], exclusive end of each pair.

    Returns:
        (loss, chosen_end_scores [B], rejected_end_scores [B]); the scores are the rewards before `end_ind`.
    """

    def __init__(self, config=None):
        super().__init__(auto_prefix=False)
        self.config = config
        self.gather = ops.GatherD()

    def construct(self, rewards, loss_mask, end_ind):
        rewards = ops.cast(rewards, ms.float32)
        batch = loss_mask.shape[0]
        chosen, rejected = rewards[:batch], rewards[batch:]
        mask = ops.cast(loss_mask, ms.float32)
        difference = chosen - rejected
        # log(sigmoid(d)) = min(d, 0) - log(1 + exp(-|d|)) does not overflow
        pair_loss = ops.log1p(ops.exp(-ops.abs(difference))) - ops.minimum(difference, ops.zeros_like(difference))
        per_pair = ops.sum(pair_loss * mask, -1) / (ops.sum(mask, -1) + _EPSILON)
        last = ops.reshape(ops.cast(end_ind, ms.int32) - 1, (-1, 1))
        return (ops.mean(per_pair), ops.reshape(self.gather(chosen, 1, last), (-1,)),
                ops.reshape(self.gather(rejected, 1, last), (-1,)))
