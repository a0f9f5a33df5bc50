"""The parts of a ChatGLM2 layer that are not attention; parameter names are those of the published checkpoints."""
from mindspore import nn, ops

from mindformers.models.head_pruning import spans
from mindformers.modules.feed_forward import SwiGLU
from mindformers.modules.layers import Linear, VocabEmbedding
from mindformers.modules.masks import counted


class ChatGLM2MLP(SwiGLU):
    """SwiGLU: the rows of `dense_h_to_4h` are [gate; up] (`dense_left` and `dense_right` when ``mlp_concat`` is False).

    Args:
        config (ChatGLM2Config): sizes, biases and dtype.

    Inputs: x [M, D]. Outputs: [M, D].
    """

    def __init__(self, config):
        super().__init__(config.ffn_hidden_size)
        d, f, bias, dtype = config.hidden_size, config.ffn_hidden_size, config.add_bias_linear, config.param_init_type
        self.concat = config.mlp_concat
        if self.concat:
            self.dense_h_to_4h = Linear(d, 2 * f, bias, dtype)
        else:
            self.dense_left = Linear(d, f, bias, dtype)
            self.dense_right = Linear(d, f, bias, dtype)
        self.dense_4h_to_h = Linear(f, d, bias, dtype)

    def inputs(self):
        """The Linear cells of gate and up, or the packed one."""
        return (self.dense_h_to_4h,) if self.concat else (self.dense_left, self.dense_right)

    def output(self):
        """The Linear behind."""
        return self.dense_4h_to_h


class PrefixEncoder(nn.Cell):
    """Keys and values of a trained prefix, P-tuning v2 (arXiv:2110.07602), as in the published ChatGLM2.

    Row p of `embedding` holds, for each layer, the keys and then the values of token p; with `prefix_projection` it
    first goes through `trans`, a two-layer MLP with tanh. Parameters are float32 whatever the model's dtype.

    Args:
        config (ChatGLM2Config): pre_seq_len P, prefix_projection, prefix_dropout, sizes.

    Outputs: float32 [2 * layers, K, P, H].
    """

    def __init__(self, config):
        super().__init__()
        width = config.prefix_width
        self.projection = config.prefix_projection
        self.shape = (config.pre_seq_len, 2 * config.num_layers, config.kv_heads, config.head_size)
        self.embedding = VocabEmbedding(config.pre_seq_len, width)
        if self.projection:
            self.trans = nn.CellList([Linear(width, config.hidden_size), nn.Tanh(),
                                      Linear(config.hidden_size, width)])
        self.dropout = nn.Dropout(p=float(config.prefix_dropout))

    def construct(self):
        rows = self.embedding(counted(self.shape[0]))
        if self.projection:
            for cell in self.trans:
                rows = cell(rows)
        return ops.transpose(ops.reshape(self.dropout(rows), self.shape), (1, 2, 0, 3))

    def keep_heads(self, kept_kv, replace_parameter):
        """Drop the columns of `embedding` that belong to other kv heads than `kept_kv`; not for a projection.

        Args:
            kept_kv (list[list[int]]): kv heads that stay, for each layer, all as many.
            replace_parameter (Callable): see `model_surgery`.
        """
        length, parts, heads, width = self.shape
        columns = spans([part * heads + head for part in range(parts) for head in kept_kv[part // 2]], width)
        replace_parameter(self.embedding, "embedding_weight", self.embedding.embedding_weight.asnumpy()[:, columns])
        self.embedding.hidden_size = len(columns)
        self.shape = (length, parts, len(kept_kv[0]), width)
