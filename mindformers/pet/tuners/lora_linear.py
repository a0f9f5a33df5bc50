"""LoraLinear: a Linear with a low-rank update beside it (arXiv:2106.09685)."""
import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common.initializer import initializer

from mindformers.core.dtype import to_ms_dtype
from mindformers.modules.layers import Linear
from mindformers.tools.errors import ConfigError


class LoraLinear(Linear):
    """``y = W x + b + scaling * B A dropout(x)``; takes over weight and bias of a Linear, which keep their names.

    Args:
        linear (Linear): the product, of any dtype, int8 too.
        config (LoraConfig): rank, scale, dropout, initial values, dtype.

    Attributes:
        mindpet_delta_lora_a (Parameter): A [rank, in].
        mindpet_delta_lora_b (Parameter): B [out, rank].
        active (bool): whether the update counts; False once it is merged into W, or disabled.

    Inputs: x [M, in]. Outputs: [M, out] float32.
    """

    def __init__(self, linear, config):
        nn.Cell.__init__(self)
        self.in_channels, self.out_channels, self.has_bias = linear.in_channels, linear.out_channels, linear.has_bias
        self.linear = linear.linear
        self.weight, self.bias, self.weight_scale = linear.weight, linear.bias, linear.weight_scale
        rank, dtype = config.lora_rank, to_ms_dtype(config.param_init_type or "float32")
        place = linear.weight.name.removesuffix("weight")
        self.mindpet_delta_lora_a = Parameter(initializer(_init(config.lora_a_init), (rank, self.in_channels), dtype),
                                              name=f"{place}mindpet_delta_lora_a")
        self.mindpet_delta_lora_b = Parameter(initializer(_init(config.lora_b_init), (self.out_channels, rank), dtype),
                                              name=f"{place}mindpet_delta_lora_b")
        self.scaling = float(config.scaling)
        self.dropout = nn.Dropout(p=float(config.lora_dropout)) if config.lora_dropout > 0 else None
        self.active = True
        self._hidden("unmerged", None)

    def _hidden(self, name, value):
        object.__setattr__(self, name, value)

    def construct(self, x):
        y = self.linear(x, self.weight, self.bias, self.weight_scale)
        if not self.active:
            return y
        if self.dropout is not None:
            x = self.dropout(x)
        low = self.linear(x, self.mindpet_delta_lora_a, None, None)
        return y + self.scaling * self.linear(low, self.mindpet_delta_lora_b, None, None)

    @property
    def is_plain(self):
        """Whether the weight says all, as in `Linear`: merged or disabled adapters add nothing."""
        return not self.active

    @property
    def merged(self):
        """Whether the update is part of the weight."""
        return self.unmerged is not None

    def update(self):
        """``scaling * B A``, np.float32 [out, in]."""
        low, high = (parameter.astype(ms.float32).asnumpy() for parameter in (self.mindpet_delta_lora_a,
                                                                              self.mindpet_delta_lora_b))
        return self.scaling * (high @ low)

    def merge(self):
        """Add the update to the weight, computed in float32 and rounded to the weight's dtype; the weight is kept.

        Raises:
            ConfigError: an int8 weight.
        """
        if self.merged:
            return
        if self.weight.dtype == ms.int8:
            raise ConfigError(f"{self.weight.name} is int8: merge the adapters first, then quantize")
        self._hidden("unmerged", self.weight.asnumpy().copy())
        total = self.unmerged.astype(np.float32) + self.update()
        self.weight.set_data(Tensor.from_numpy(np.ascontiguousarray(total.astype(self.unmerged.dtype))))
        self.active = False

    def unmerge(self):
        """Put the weight back as it was, bit for bit."""
        if self.merged:
            self.weight.set_data(Tensor.from_numpy(self.unmerged))
            self._hidden("unmerged", None)
        self.active = True

    def plain_linear(self):
        """Return a Linear with the weight and bias of this cell as they are now."""
        linear = Linear.__new__(Linear)
        nn.Cell.__init__(linear)
        linear.in_channels, linear.out_channels, linear.has_bias = self.in_channels, self.out_channels, self.has_bias
        linear.linear = self.linear
        linear.weight, linear.bias, linear.weight_scale = self.weight, self.bias, self.weight_scale
        return linear

    def extend_repr(self):
        return f"{super().extend_repr()}, rank={self.mindpet_delta_lora_a.shape[0]}, scaling={self.scaling:g}"


def _init(value):
    return "zeros" if value == "zero" else value
