"""MyLlamaConfig: the fields that this model adds to Llama's."""
from mindformers import LlamaConfig
from mindformers.tools.errors import ConfigError


class MyLlamaConfig(LlamaConfig):
    """Llama with scaled embeddings and capped logits.

    Args (beyond those of LlamaConfig, in either spelling):
        embedding_multiplier (float): factor of the token embeddings. Default: 1.0.
        logit_cap (float | None): logits stay within (-logit_cap, logit_cap), by ``cap * tanh(logits / cap)`` (Gemma 2,
            arXiv:2408.00118, section 2). Default: None, no cap.

    Raises:
        ConfigError: a logit_cap that is not above 0; see also LlamaConfig.
    """

    model_type = "my_llama"

    def __init__(self, embedding_multiplier=1.0, logit_cap=None, **kwargs):
        self.embedding_multiplier, self.logit_cap = embedding_multiplier, logit_cap
        super().__init__(**kwargs)
        if logit_cap is not None and not logit_cap > 0:
            raise ConfigError(f"MyLlamaConfig: logit_cap must be above 0 or null, but is {logit_cap!r}")
