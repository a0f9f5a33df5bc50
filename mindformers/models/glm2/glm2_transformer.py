"""The layers of ChatGLM2, ChatGLM3 and GLM-4; parameter names are those of the published checkpoints."""
from mindspore import nn

from mindformers.models.glm2.glm2_modules import ChatGLM2MLP
from mindformers.modules.attention import Attention
from mindformers.modules.decoder import DecoderLayer
from mindformers.modules.layers import Linear, RMSNorm


class ChatGLM2SelfAttention(Attention):
    """Attention with multi-query groups; the rows of `query_key_value` are [q; k; v].

    With ``qkv_concat: False`` they are the parameters `wq`, `wk` and `wv`. Scores are scaled by 1/sqrt(H) in every
    layer: the published code divides them by the layer's number too, and multiplies them by it before the softmax.

    Args:
        config (ChatGLM2Config): sizes, biases and dtype.
        layer_number (int): from 1; without effect, see above. Default: 1.
    """

    def __init__(self, config, layer_number=1):
        n, k, h = config.num_attention_heads, config.kv_heads, config.head_size
        super().__init__(n, k, h)
        self.layer_number, self.qkv_concat = layer_number, config.qkv_concat
        d, bias, dtype = config.hidden_size, config.qkv_has_bias, config.param_init_type
        if self.qkv_concat:
            self.query_key_value = Linear(d, (n + 2 * k) * h, bias, dtype)
        else:
            self.wq = Linear(d, n * h, bias, dtype)
            self.wk = Linear(d, k * h, bias, dtype)
            self.wv = Linear(d, k * h, bias, dtype)
        self.dense = Linear(n * h, d, config.add_bias_linear, dtype)

    def inputs(self):
        """The Linear cells of q, k and v, or the packed one."""
        return (self.query_key_value,) if self.qkv_concat else (self.wq, self.wk, self.wv)

    def output(self):
        """The Linear behind the heads."""
        return self.dense


class ChatGLM2Block(DecoderLayer):
    """Pre-norm attention and MLP with residuals; arguments as in `ChatGLM2SelfAttention`."""

    def __init__(self, config, layer_number=1):
        super().__init__()
        d, eps, dtype = config.hidden_size, config.layernorm_epsilon, config.param_init_type
        self.input_layernorm = RMSNorm(d, eps, dtype)
        self.self_attention = ChatGLM2SelfAttention(config, layer_number)
        self.post_attention_layernorm = RMSNorm(d, eps, dtype)
        self.mlp = ChatGLM2MLP(config)

    def parts(self):
        """Norm, attention, norm, MLP."""
        return self.input_layernorm, self.self_attention, self.post_attention_layernorm, self.mlp


class ChatGLM2Transformer(nn.Cell):
    """The layers and the norm behind them; `ChatGLM2Backbone` runs them."""

    def __init__(self, config):
        super().__init__()
        self.layers = nn.CellList([ChatGLM2Block(config, number) for number in range(1, config.num_layers + 1)])
        self.final_layernorm = RMSNorm(config.hidden_size, config.layernorm_epsilon, config.param_init_type)
