"""SwiGLU feed-forward block (arXiv:2002.05202)."""
from mindspore import nn

from mindformers import kernels
from mindformers.modules.layers import Linear, Plain


class SwiGLU(Plain, nn.Cell):
    """``down(silu(gate x) * up x)``, whatever its products are called.

    A subclass answers `inputs()`, the Linear cells of gate and up or the one whose rows are [gate; up], and `output()`,
    the Linear behind.

    Args:
        intermediate_size (int): inner width F.

    Inputs: x [M, D]. Outputs: [M, D].
    """

    is_plain = True  # a subclass with a `construct` of its own is called in steps on the cache too

    def __init__(self, intermediate_size):
        super().__init__()
        self.inner = intermediate_size
        for op in ("swiglu", "norm_gate_up", "linear_add", "rms_norm"):
            setattr(self, op, kernels.get(op))

    def construct(self, x):
        inputs = self.inputs()
        if len(inputs) == 1:
            packed = inputs[0](x)
            gate, up = packed[:, :self.inner], packed[:, self.inner:]
        else:
            gate, up = inputs[0](x), inputs[1](x)
        return self.output()(self.swiglu(gate, up))

    def cached(self, x, norm, eps):
        """``x + feed_forward(rms_norm(x))``; x [M, D], norm: weight of the norm [D]."""
        output = self.output()
        weights, biases, scales, plain = (), (), (), self.is_plain and output.is_plain
        for linear in self.inputs():
            weights, biases = weights + (linear.weight,), biases + (linear.bias,)
            scales, plain = scales + (linear.weight_scale,), plain and linear.is_plain
        if not plain:
            return x + self.construct(self.rms_norm(x, norm, eps))
        inner = self.norm_gate_up(x, norm, eps, weights, biases, scales)
        return self.linear_add(inner, output.weight, output.bias, output.weight_scale, x)


class FeedForward(SwiGLU):
    """SwiGLU with Llama's parameter names: w1 gate, w2 down, w3 up, or the packed w_gate_hidden.

    Args:
        hidden_size (int): width D.
        intermediate_size (int): inner width F.
        has_bias (bool): biases on the three products. Default: False.
        concat (bool): one packed product for gate and up (`w_gate_hidden`). Default: False.
        param_init_type (str): dtype of the parameters. Default: "float32".
    """

    def __init__(self, hidden_size, intermediate_size, has_bias=False, concat=False, param_init_type="float32"):
        super().__init__(intermediate_size)
        self.concat = concat
        if concat:
            self.w_gate_hidden = Linear(hidden_size, 2 * intermediate_size, has_bias, param_init_type)
        else:
            self.w1 = Linear(hidden_size, intermediate_size, has_bias, param_init_type)
            self.w3 = Linear(hidden_size, intermediate_size, has_bias, param_init_type)
        self.w2 = Linear(intermediate_size, hidden_size, has_bias, param_init_type)

    def inputs(self):
        """The Linear cells of gate and up, or the packed one."""
        return (self.w_gate_hidden,) if self.concat else (self.w1, self.w3)

    def output(self):
        """The Linear behind."""
        return self.w2
