"""Loss and perplexity per token over a whole evaluation set."""
import itertools
import math

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore.train.callback import RunContext

from mindformers.tools.errors import ConfigError
from mindformers.tools.interrupt import interruptible
from mindformers.tools.register import DictConfig


class LossCell(nn.Cell):
    """Calls `network` for its loss, as one graph of its own, dropout off."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, *batch):
        """The network's training loss of `batch`."""
        return self.network.construct(*batch)  # __call__ of a model outside training gives named outputs


class Evaluator:
    """Evaluates a network; call it with batches to get ``{"loss": mean loss per target token, "PPL": exp(loss)}``.

    The sums run over all tokens of all batches, so a short or padded batch weighs what it holds.

    Args:
        network (nn.Cell): its construct returns ``(sum of token losses, number of tokens)``, or a mean loss; then a
            batch weighs its number of target tokens: the input is no `pad_token_id` and the label no `ignore_token_id`
            of the network's config.
        all_reduce (Callable): sums a float64 array [2] over all ranks; None for one rank. Default: None.
        callbacks (list[Callback]): their ``on_eval_*`` hooks are called; `original_args()` holds network, batch_num,
            cur_step_num, net_outputs and at the end `metrics`. A stop asked for ends the evaluation. Default: None.
    """

    def __init__(self, network, all_reduce=None, callbacks=None):
        self._network = network
        self._callbacks = list(callbacks or [])
        self._cell = LossCell(network)
        self._all_reduce = all_reduce
        config = getattr(network, "config", None)
        self._pad = getattr(config, "pad_token_id", None)
        self._ignored = getattr(config, "ignore_token_id", -100)

    def __call__(self, batches, steps):
        """Evaluate `steps` batches (tuples of arrays: input_ids int32 [B, T+1], then labels of that shape or nothing).

        Raises:
            ConfigError: no batch holds a target token.
        """
        params = DictConfig(network=self._network, eval_network=self._cell, mode="eval", batch_num=steps,
                            cur_step_num=0, cur_epoch_num=1, epoch_num=1, dataset_sink_mode=False, net_outputs=None)
        context = RunContext(params)
        was_training = self._network.training
        self._cell.set_train(False)
        try:
            self._call("on_eval_begin", context)
            self._call("on_eval_epoch_begin", context)
            total = self._sum(itertools.islice(batches, steps), params, context)
        finally:
            self._network.set_train(was_training)
        total = self._all_reduce(total) if self._all_reduce else total
        if total[1] == 0:
            raise ConfigError("the evaluation dataset holds no target token (every label is padding or ignored)")
        loss = float(total[0] / total[1])
        params.metrics = {"loss": loss, "PPL": math.exp(loss) if loss < 700 else math.inf}
        self._call("on_eval_epoch_end", context)
        self._call("on_eval_end", context)
        return params.metrics

    def _sum(self, batches, params, context):
        """Sum of losses and number of tokens over `batches`, float64 [2]."""
        total = np.zeros(2)
        for number, batch in enumerate(batches, 1):
            params.cur_step_num = number
            self._call("on_eval_step_begin", context)
            with interruptible():
                params.net_outputs = self._cell(*(ms.Tensor(column) for column in batch))
                total += self._loss_and_tokens(params.net_outputs, batch)
            self._call("on_eval_step_end", context)
            if context.get_stop_requested():
                break
        return total

    def _call(self, hook, context):
        for callback in self._callbacks:
            getattr(callback, hook)(context)

    def _loss_and_tokens(self, result, batch):
        if isinstance(result, tuple):
            return np.array([float(value.asnumpy()) for value in result[:2]])
        tokens = self._count_targets(batch)
        return np.array([float(result.asnumpy()) * tokens, tokens])

    def _count_targets(self, batch):
        """How many target tokens a batch has; the rows of a batch that is not token ids."""
        inputs = np.asarray(batch[0])
        if inputs.ndim != 2 or not np.issubdtype(inputs.dtype, np.integer):
            return len(inputs)
        labels = np.asarray(batch[1]) if len(batch) > 1 and np.shape(batch[1]) == inputs.shape else inputs
        real = labels[:, 1:] != self._ignored
        if self._pad is not None:
            real &= inputs[:, :-1] != self._pad
        return int(real.sum())
