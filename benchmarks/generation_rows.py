"""What bench_generation.py measures: the models, the rows of its table and what each row has to reach."""
from dataclasses import dataclass, field, replace

from random_llama import ITEM_BYTES, config_of, weights_per_token

OURS, LLAMA_CPP, TRANSFORMERS = "mindformers", "llama.cpp", "transformers"


@dataclass(frozen=True)
class Model:
    """A random Llama: `size` and `dtype` name its folder, `quantization` how we load it, `gguf` llama.cpp's type."""

    size: str
    dtype: str
    quantization: str | None
    gguf: str

    @property
    def weight_bytes(self):
        """Bytes of weights that a decode step reads (int8 without its scales)."""
        return weights_per_token(config_of(self.size, self.dtype)) * ITEM_BYTES[self.quantization or self.dtype]

    @property
    def file_megabytes(self):
        """MB (2^20 bytes) of all weights as they are used, embedding included."""
        config = config_of(self.size, self.dtype)
        embedding = config["vocab_size"] * config["hidden_size"] * ITEM_BYTES[self.dtype]
        return (self.weight_bytes + embedding) / 2 ** 20

    def cache_bytes(self, tokens):
        """Bytes of keys and values of `tokens` tokens, in the model's dtype."""
        c = config_of(self.size, self.dtype)
        head = c["hidden_size"] // c["num_attention_heads"]
        return 2 * c["num_hidden_layers"] * c["num_key_value_heads"] * head * ITEM_BYTES[self.dtype] * tokens


MODELS = {
    "134m-bf16": Model("134m", "bfloat16", None, "bf16"),
    "134m-fp32": Model("134m", "float32", None, "f32"),
    "134m-int8": Model("134m", "bfloat16", "int8", "q8_0"),
    "1.1b-bf16": Model("1.1b", "bfloat16", None, "bf16"),
    "1.1b-int8": Model("1.1b", "bfloat16", "int8", "q8_0"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `times`: ours must be at least that many times the best of `peers` (where less is better: at most 1/times of it).
    `share`: ours must reach that part of the memory bandwidth limit. `at_most`: bound of the value itself.
    """

    name: str
    title: str
    model: str
    kind: str
    unit: str = "tok/s"
    arguments: dict = field(default_factory=dict)
    peers: tuple = ()
    times: float | None = None
    share: float | None = None
    at_most: float | None = None
    more_is_better: bool = True
    bound_by_memory: bool = False

    @property
    def step_bytes(self):
        """Bytes a step reads from memory; None for rows that are not bound by it."""
        if not self.bound_by_memory:
            return None
        model, middle = MODELS[self.model], self.arguments["position"] + self.arguments["count"] / 2
        return model.weight_bytes + model.cache_bytes(middle)


def _decode(name, model, position, times, share=None, repeats=3, peers=(LLAMA_CPP,), batch=1):
    size, kind = model.split("-")
    title = f"decode {size} {kind}, " + (f"batch {batch}, " if batch > 1 else "") + f"64 tokens from {position}"
    arguments = {"position": position, "count": 64, "repeats": repeats, "batch": batch}
    return Row(name, title, model, "decode", arguments=arguments, peers=peers, times=times, share=share,
               bound_by_memory=batch == 1)


def _prefill(name, model, tokens, repeats=3):
    size, kind = model.split("-")
    return Row(name, f"prefill {size} {kind}, {tokens} tokens", model, "prefill",
               arguments={"tokens": tokens, "repeats": repeats}, peers=(LLAMA_CPP, TRANSFORMERS), times=1.3)


_LENGTHS = [37, 101, 223, 300]
_GENERATE = {"position": 128, "count": 64, "repeats": 2}
_MEMORY_LIMIT = MODELS["1.1b-bf16"].file_megabytes + 600e6 / 2 ** 20
_BOTH = (LLAMA_CPP, TRANSFORMERS)

ROWS = (
    _decode("decode-134m-bf16", "134m-bf16", 128, 1.15, share=0.8, peers=_BOTH),
    _decode("decode-134m-fp32", "134m-fp32", 128, 1.2),
    _decode("decode-134m-int8", "134m-int8", 128, 1.15),
    _decode("decode-1.1b-bf16", "1.1b-bf16", 128, 1.2, repeats=1),
    _decode("decode-1.1b-bf16-2000", "1.1b-bf16", 2000, 1.2, repeats=1),
    _decode("decode-1.1b-int8", "1.1b-int8", 128, 1.2, repeats=1),
    _decode("decode-1.1b-int8-2000", "1.1b-int8", 2000, 1.2, repeats=1),
    _prefill("prefill-134m-bf16-128", "134m-bf16", 128),
    _prefill("prefill-134m-bf16-512", "134m-bf16", 512),
    _prefill("prefill-1.1b-bf16-128", "1.1b-bf16", 128, repeats=1),
    _decode("batch8-134m-bf16", "134m-bf16", 128, 1.3, repeats=1, peers=_BOTH, batch=8),
    Row("cold-start", "process start to first token, 134m bf16", "134m-bf16", "cold_start", "s",
        peers=(TRANSFORMERS,), times=1 / 0.6, more_is_better=False),
    Row("peak-memory", "peak memory of generate, 1.1b bf16", "1.1b-bf16", "peak_memory", "MB",
        peers=(TRANSFORMERS,), at_most=_MEMORY_LIMIT, more_is_better=False),
    Row("generate-134m-bf16", "the same decode through generate(), greedy", "134m-bf16", "generate",
        arguments=_GENERATE),
    Row("sampling", "sampling adds to a step of generate(), 134m bf16", "134m-bf16", "sampling", "%",
        arguments=_GENERATE, at_most=5.0, more_is_better=False),
    Row("new-length", "first prompt of a new length over a later one, 134m bf16", "134m-bf16", "new_length", "x",
        arguments={"lengths": _LENGTHS}, at_most=1.3, more_is_better=False),
)


def tiny_rows(rows):
    """The same rows on the tiny model with few tokens: whether everything runs, not how fast. Nothing to reach."""
    small = []
    for row in rows:
        arguments = {name: min(value, {"position": 24, "tokens": 24}.get(name, 3)) if isinstance(value, int)
                     else [7, 9] for name, value in row.arguments.items()}
        small.append(replace(row, title=f"{row.name}, tiny", arguments=arguments, times=None, share=None, at_most=None,
                             bound_by_memory=False))
    return tuple(small)


def tiny_models():
    """MODELS with the tiny size in place of each."""
    return {name: replace(model, size="tiny") for name, model in MODELS.items()}
