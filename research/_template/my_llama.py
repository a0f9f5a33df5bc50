"""MyLlama: what it does in another way than Llama, and nothing else."""
from mindspore import ops

from mindformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM
from mindformers.models.llama.llama import LlamaBackbone, LlamaDecoderLayer
from mindformers.modules.feed_forward import FeedForward
from my_llama_config import MyLlamaConfig


class MyFeedForward(FeedForward):
    """``down(gelu(gate x) * up x)`` (GEGLU, arXiv:2002.05202). Steps on the cache call `construct` too."""

    def construct(self, x):
        gate, up = self.inputs()
        return self.output()(ops.gelu(gate(x)) * up(x))


class MyDecoderLayer(LlamaDecoderLayer):
    """A layer with `MyFeedForward`."""

    feed_forward_class = MyFeedForward


class MyBackbone(LlamaBackbone):
    """Layers of that kind behind scaled embeddings."""

    layer_class = MyDecoderLayer

    def __init__(self, config):
        super().__init__(config)
        self.embedding_multiplier = float(config.embedding_multiplier)

    def embed(self, tokens):
        """Rows of the embedding for int32 tokens of any shape; float32 [..., D]."""
        return self.embedding_cell()(tokens) * self.embedding_multiplier


class MyLlamaForCausalLM(LlamaForCausalLM):
    """The model with its next-token head."""

    config_class = MyLlamaConfig
    backbone_class = MyBackbone

    def __init__(self, config):
        super().__init__(config)
        self.logit_cap = config.logit_cap

    def row_logits(self, rows):
        """rows [M, D] -> logits [M, V] float32, within the cap."""
        logits = super().row_logits(rows)
        if self.logit_cap is None:
            return logits
        return self.logit_cap * ops.tanh(logits / self.logit_cap)


AutoConfig.register("my_llama", MyLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(MyLlamaConfig, MyLlamaForCausalLM, exist_ok=True)
