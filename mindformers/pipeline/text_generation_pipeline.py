"""Text in, continued text out."""
import numpy as np

from mindformers.generation.generation_config import GenerationConfig, known_names
from mindformers.pipeline.base_pipeline import Pipeline
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

_PREPROCESS = ("add_special_tokens",)
_POSTPROCESS = ("skip_special_tokens", "return_full_text")
_GENERATE = ("generation_config", "logits_processor", "stopping_criteria", "streamer", "seed")


@MindFormerRegister.register(MindFormerModuleType.PIPELINE, alias="text_generation")
class TextGenerationPipeline(Pipeline):
    """Continue texts with a causal language model.

    Every call takes the settings of GenerationConfig and `generation_config`, `logits_processor`, `stopping_criteria`,
    `streamer`, `seed` of `generate`, and:
        add_special_tokens (bool): let the tokenizer add its begin and end tokens. Default: True.
        skip_special_tokens (bool): leave special tokens out of the answer. Default: True.
        return_full_text (bool): text and continuation, or the continuation only. Default: True.
    With an int `seed`, input i draws with ``seed + i``, whatever the batch_size.

    Args:
        model (object | str): a model with `generate`, or the name or folder of one (its tokenizer is loaded too).
        tokenizer (object | str): its tokenizer, or the name or folder of one. Default: None.
        kwargs: default arguments of every call, and those of Pipeline.

    Raises:
        ValueError: no tokenizer, or a model without `generate`.
        ConfigError: an unknown argument.

    Example:
        >>> answer = TextGenerationPipeline("llama_tiny")("def read_json(path):", max_new_tokens=32)
        >>> answer[0]["text_generation_text"][0]
    """

    def __init__(self, model, tokenizer=None, **kwargs):
        if tokenizer is None and isinstance(model, str):
            tokenizer = model
        if isinstance(model, str):
            from mindformers.models.auto import AutoModelForCausalLM
            model = AutoModelForCausalLM.from_pretrained(model)
        if isinstance(tokenizer, str):
            from mindformers.models.auto import AutoTokenizer
            tokenizer = AutoTokenizer.from_pretrained(tokenizer)
        if not callable(getattr(model, "generate", None)):
            raise ValueError(f"text_generation needs a model with generate(), but got {type(model).__name__}")
        if tokenizer is None:
            raise ValueError("text_generation needs a tokenizer: pass tokenizer=, or give the model by name or folder")
        if not (callable(tokenizer) and hasattr(tokenizer, "decode")):
            raise ValueError(f"text_generation needs a tokenizer object (or a name or folder of one), but got "
                             f"{type(tokenizer).__name__}")
        super().__init__(model, tokenizer, **{"task": "text_generation", **kwargs})

    def _sanitize_parameters(self, **kwargs):
        """See Pipeline."""
        known = {*known_names(), *_PREPROCESS, *_POSTPROCESS, *_GENERATE}
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise ConfigError(f"text_generation got an unknown argument {unknown[0]!r}."
                              f"{did_you_mean(unknown[0], known)}")
        GenerationConfig(**_pick(kwargs, known_names()))  # faults show before the model runs
        forward = _pick(kwargs, {*known_names(), *_GENERATE})
        return _pick(kwargs, _PREPROCESS), forward, _pick(kwargs, _POSTPROCESS)

    def batch_parameters(self, forward_params, start, count):
        """Give each input its own seed, so that answers do not depend on the batch_size."""
        seed = forward_params.get("seed")
        if seed is None:
            return forward_params
        seeds = list(seed[start:start + count]) if np.ndim(seed) else [seed + start + i for i in range(count)]
        return {**forward_params, "seed": seeds}

    def preprocess(self, inputs, **preprocess_params):
        """Return the token ids of a list of texts: one list per text, without padding.

        Raises:
            TypeError: an input that is no text.
        """
        for text in inputs:
            if not isinstance(text, str):
                raise TypeError(f"text_generation takes texts, but got {type(text).__name__}")
        options = {"add_special_tokens": True, **preprocess_params}
        return [list(self.tokenizer(text, **options)["input_ids"]) for text in inputs]

    def forward(self, model_inputs, **forward_params):
        """Return ``(answers, prompt lengths)``: a list of int32 arrays per input."""
        masks = [[1] * len(tokens) for tokens in model_inputs]
        arguments = {**forward_params, "tokenizer": self.tokenizer, "return_dict_in_generate": True}
        sequences = self.model.generate(model_inputs, attention_mask=masks, **arguments).sequences
        each = len(sequences) // len(model_inputs)
        answers = [sequences[i * each:(i + 1) * each] for i in range(len(model_inputs))]
        return list(zip(answers, map(len, model_inputs)))

    def postprocess(self, model_outputs, skip_special_tokens=True, return_full_text=True):
        """Return ``[{"text_generation_text": [text, ...]}, ...]``: per input, one text per returned sequence."""
        return [{"text_generation_text": [
            self.tokenizer.decode(sequence[0 if return_full_text else length:].tolist(),
                                  skip_special_tokens=skip_special_tokens)
            for sequence in answers]} for answers, length in model_outputs]


def _pick(arguments, names):
    return {name: value for name, value in arguments.items() if name in names}
