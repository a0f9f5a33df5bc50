"""SwiGLU feed-forward block (arXiv:2002.05202) with Llama's parameter names: w1 gate, w2 down, w3 up."""
from mindspore import nn

from mindformers import kernels
from mindformers.modules.layers import Linear


class FeedForward(nn.Cell):
    """``w2(silu(w1 x) * w3 x)``.

    Args:
        hidden_size (int): width D.
        intermediate_size (int): inner width F.
        has_bias (bool): biases on the three products. Default: False.
        concat (bool): one packed product for gate and up (`w_gate_hidden`). Default: False.
        param_init_type (str): dtype of the parameters. Default: "float32".

    Inputs: x [M, D]. Outputs: [M, D].
    """

    def __init__(self, hidden_size, intermediate_size, has_bias=False, concat=False, param_init_type="float32"):
        super().__init__()
        self.concat, self.inner = concat, intermediate_size
        if concat:
            self.w_gate_hidden = Linear(hidden_size, 2 * intermediate_size, has_bias, param_init_type)
        else:
            self.w1 = Linear(hidden_size, intermediate_size, has_bias, param_init_type)
            self.w3 = Linear(hidden_size, intermediate_size, has_bias, param_init_type)
        self.w2 = Linear(intermediate_size, hidden_size, has_bias, param_init_type)
        for op in ("swiglu", "norm_gate_up", "linear_add"):
            setattr(self, op, kernels.get(op))

    def construct(self, x):
        if self.concat:
            packed = self.w_gate_hidden(x)
            gate, up = packed[:, :self.inner], packed[:, self.inner:]
        else:
            gate, up = self.w1(x), self.w3(x)
        return self.w2(self.swiglu(gate, up))

    def cached(self, x, norm, eps):
        """``x + feed_forward(rms_norm(x))``; x [M, D], norm: weight of the norm [D]."""
        if self.concat:
            packed = self.w_gate_hidden
            inner = self.norm_gate_up(x, norm, eps, (packed.weight,), (packed.bias,), (packed.weight_scale,))
        else:
            inner = self.norm_gate_up(x, norm, eps, (self.w1.weight, self.w3.weight), (self.w1.bias, self.w3.bias),
                                      (self.w1.weight_scale, self.w3.weight_scale))
        return self.linear_add(inner, self.w2.weight, self.w2.bias, self.w2.weight_scale, x)
