"""Linear, RMSNorm and token embedding; parameter names are MindFormers' (`weight`, `bias`, `embedding_weight`)."""
from mindspore import Parameter, nn
from mindspore.common.initializer import Normal, initializer

from mindformers import kernels
from mindformers.core.dtype import to_ms_dtype


class Plain:
    """For a cell whose parameters say all, so that kernels may read them instead of calling it (`is_plain`).

    A subclass with a `construct` of its own is not plain.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "construct" in vars(cls) and "is_plain" not in vars(cls):
            cls.is_plain = False


class Linear(Plain, nn.Cell):
    """``y = x W^T + b`` on rows.

    Args:
        in_channels (int): width of the input.
        out_channels (int): width of the output.
        has_bias (bool): whether a bias is added. Default: True.
        param_init_type (str | mindspore dtype): dtype of the parameters. Default: "float32".
        weight_init (str | Initializer): initial weight. Default: normal with standard deviation 0.02.

    Attributes:
        weight_scale (Parameter | None): float32 [O] or [O, groups] once the weight is int8, see `modules.quantize`.

    Inputs: x [M, in_channels]. Outputs: [M, out_channels] float32.
    """

    is_plain = True

    def __init__(self, in_channels, out_channels, has_bias=True, param_init_type="float32", weight_init=None):
        super().__init__()
        self.in_channels, self.out_channels, self.has_bias = in_channels, out_channels, has_bias
        dtype = to_ms_dtype(param_init_type)
        init = Normal(0.02) if weight_init is None else weight_init
        self.weight = Parameter(initializer(init, (out_channels, in_channels), dtype), name="weight")
        self.bias = Parameter(initializer("zeros", (out_channels,), dtype), name="bias") if has_bias else None
        self.weight_scale = None
        self.linear = kernels.get("linear")

    def construct(self, x):
        return self.linear(x, self.weight, self.bias, self.weight_scale)

    def extend_repr(self):
        return f"in={self.in_channels}, out={self.out_channels}, bias={self.has_bias}, dtype={self.weight.dtype}"


class RMSNorm(Plain, nn.Cell):
    """Root mean square norm (arXiv:1910.07467) over the last axis of x [M, dim]; computes in float32."""

    is_plain = True

    def __init__(self, dim, eps=1e-6, param_init_type="float32"):
        super().__init__()
        self.eps = float(eps)
        self.weight = Parameter(initializer("ones", (dim,), to_ms_dtype(param_init_type)), name="weight")
        self.rms_norm = kernels.get("rms_norm")

    def construct(self, x):
        return self.rms_norm(x, self.weight, self.eps)


class VocabEmbedding(nn.Cell):
    """Rows of a table [vocab_size, hidden_size] by int32 token id (any shape); returns float32."""

    def __init__(self, vocab_size, hidden_size, param_init_type="float32"):
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        table = initializer(Normal(0.02), (vocab_size, hidden_size), to_ms_dtype(param_init_type))
        self.embedding_weight = Parameter(table, name="embedding_weight")
        self.embedding = kernels.get("embedding")

    def construct(self, input_ids):
        return self.embedding(input_ids, self.embedding_weight)
