"""The fields of GenerationConfig: default, accepted types, bound; and the settings of other suites that are refused.

No MindSpore is imported here.
"""
import numbers
from dataclasses import dataclass
from typing import Any, Callable, Optional

from mindformers.tools.errors import UnsupportedError


@dataclass(frozen=True)
class Field:
    """One setting: its default, and a function that checks and normalises a value."""

    default: Any
    check: Callable[[str, Any], Any]

    @property
    def none_is_default(self):
        """Whether None stands for the default: it is no value of its own of plain numbers and switches."""
        return isinstance(self.default, (bool, int, float)) and self.check not in (_top_k, _top_p)


def _integer(low: Optional[int] = None, optional=False):
    def check(name, value):
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be an int{' or None' if optional else ''}, but is {value!r} "
                            f"({type(value).__name__})")
        if low is not None and value < low:
            raise ValueError(f"{name} must be at least {low}, but is {value}")
        return int(value)
    return check


def _number(low=None, high=None, above=None, optional=False, hint=""):
    def check(name, value):
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be an int or float{' or None' if optional else ''}, but is {value!r} "
                            f"({type(value).__name__})")
        value = float(value)
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{name} must be finite, but is {value}")
        if above is not None and value <= above:
            raise ValueError(f"{name} must be more than {above}, but is {value}{hint}")
        if low is not None and value < low:
            raise ValueError(f"{name} must be at least {low}, but is {value}{hint}")
        if high is not None and value > high:
            raise ValueError(f"{name} must be at most {high}, but is {value}{hint}")
        return value
    return check


def _boolean(name, value):
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, but is {value!r} ({type(value).__name__})")
    return value


def _token(name, value):
    return _integer(low=0, optional=True)(name, value)


def _pad_token(name, value):
    return _integer(low=-1, optional=True)(name, value)


def _token_list(name, value):
    """int -> [int]; None -> []; list or tuple of ints -> list without repeats."""
    if value is None:
        return []
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be an int or a list of ints, but is {value!r} ({type(value).__name__})")
    return list(dict.fromkeys(_integer(low=0)(f"each id of {name}", item) for item in value))


def _optional_token_list(name, value):
    return _token_list(name, value) or None


def _bad_words(name, value):
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, (list, tuple)) for word in value):
        raise TypeError(f"{name} must be a list of lists of token ids, but is {value!r}")
    if any(not word for word in value):
        raise ValueError(f"{name} has an empty list; each bad word needs at least one token id")
    return [[_integer(low=0)(f"each id of {name}", item) for item in word] for word in value] or None


def _stop_strings(name, value):
    if value is None:
        return None
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a string or a list of strings, but is {value!r}")
    if any(not item for item in value):
        raise ValueError(f"{name} has an empty string, which would stop at once")
    return list(value) or None


def _early_stopping(name, value):
    if not (isinstance(value, bool) or value == "never"):
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{name} must be True, False or 'never', but is {value!r}")
    return value


def _seed(name, value):
    """None, an int, or one int per prompt."""
    if isinstance(value, (list, tuple)):
        return [_integer(low=0)(f"each value of {name}", item) for item in value]
    return _integer(low=0, optional=True)(name, value)


def _top_k(name, value):
    return _integer(low=0)(name, 0 if value is None else value)


def _top_p(name, value):
    return _number(low=0.0, high=1.0)(name, 1.0 if value is None else value)


FIELDS = {
    # length
    "max_length": Field(20, _integer(low=1)),
    "max_new_tokens": Field(None, _integer(low=1, optional=True)),
    "min_length": Field(0, _integer(low=0)),
    "min_new_tokens": Field(None, _integer(low=0, optional=True)),
    "max_time": Field(None, _number(above=0.0, optional=True)),
    "stop_strings": Field(None, _stop_strings),
    # strategy
    "do_sample": Field(False, _boolean),
    "use_cache": Field(True, _boolean),
    "num_beams": Field(1, _integer(low=1)),
    "length_penalty": Field(1.0, _number()),
    "early_stopping": Field(False, _early_stopping),
    "num_return_sequences": Field(1, _integer(low=1)),
    "seed": Field(None, _seed),
    # distribution
    "temperature": Field(1.0, _number(above=0.0, hint="; for the most likely token each time use do_sample=False")),
    "top_k": Field(50, _top_k),
    "top_p": Field(1.0, _top_p),
    "min_p": Field(None, _number(low=0.0, high=1.0, optional=True)),
    "repetition_penalty": Field(1.0, _number(above=0.0)),
    "frequency_penalty": Field(0.0, _number()),
    "presence_penalty": Field(0.0, _number()),
    "no_repeat_ngram_size": Field(0, _integer(low=0)),
    "bad_words_ids": Field(None, _bad_words),
    "suppress_tokens": Field(None, _optional_token_list),
    "begin_suppress_tokens": Field(None, _optional_token_list),
    "forced_bos_token_id": Field(None, _token),
    "forced_eos_token_id": Field(None, _optional_token_list),
    "remove_invalid_values": Field(False, _boolean),
    "renormalize_logits": Field(False, _boolean),
    # output
    "return_dict_in_generate": Field(False, _boolean),
    "output_scores": Field(False, _boolean),
    "output_logits": Field(False, _boolean),
    # special tokens
    "pad_token_id": Field(None, _pad_token),
    "bos_token_id": Field(None, _token),
    "eos_token_id": Field([], _token_list),
}

# other names of the same field; when both are given the name on the right wins
ALIASES = {"max_decode_length": "max_length", "use_past": "use_cache"}


@dataclass(frozen=True)
class Refused:
    """A setting of MindFormers or transformers that is not carried: values that mean "off", and what to do instead."""

    default: Any
    neutral: tuple
    instead: str


_NO_LOOKAHEAD = "decoding with look-ahead is not carried; leave parallel_decoding=False"
REFUSED = {
    "parallel_decoding": Refused(False, (False, None), _NO_LOOKAHEAD),
    "window_size": Refused(5, (5, None), _NO_LOOKAHEAD),
    "level": Refused(5, (5, None), _NO_LOOKAHEAD),
    "guess_set_size": Refused(3, (3, None), _NO_LOOKAHEAD),
    "encoder_repetition_penalty": Refused(1.0, (1.0, None), "it needs an encoder; use repetition_penalty"),
    "encoder_no_repeat_ngram_size": Refused(0, (0, None), "it needs an encoder; use no_repeat_ngram_size"),
    "num_beam_groups": Refused(1, (1, None), "diverse beam search is not carried; use num_beams, or do_sample=True "
                                             "with num_return_sequences"),
    "diversity_penalty": Refused(0.0, (0.0, None), "diverse beam search is not carried; use num_beams"),
    "penalty_alpha": Refused(None, (None, 0.0), "contrastive search is not carried; use top_k, top_p or min_p"),
    "typical_p": Refused(1.0, (1.0, None), "use top_p or min_p"),
    "top_h": Refused(None, (None,), "use top_p or min_p"),
    "epsilon_cutoff": Refused(0.0, (0.0, None), "use min_p"),
    "eta_cutoff": Refused(0.0, (0.0, None), "use min_p"),
    "constraints": Refused(None, (None,), "constrained beam search is not carried; use logits_processor"),
    "force_words_ids": Refused(None, (None,), "constrained beam search is not carried; use logits_processor"),
    "sequence_bias": Refused(None, (None,), "pass a callable in logits_processor"),
    "exponential_decay_length_penalty": Refused(None, (None,), "pass a callable in logits_processor"),
    "guidance_scale": Refused(None, (None, 1, 1.0), "classifier-free guidance is not carried"),
    "watermarking_config": Refused(None, (None,), "pass a callable in logits_processor"),
    "prompt_lookup_num_tokens": Refused(None, (None,), "assisted decoding is not carried"),
    "assistant_model": Refused(None, (None,), "assisted decoding is not carried"),
    "dola_layers": Refused(None, (None,), "use do_sample=False or beam search"),
    "token_healing": Refused(False, (False, None), "end the prompt at a token border"),
    "low_memory": Refused(None, (None, False), "lower num_beams instead"),
    "cache_implementation": Refused(None, (None, "paged"), "the cache is always paged; use_cache=False turns it off"),
    "cache_config": Refused(None, (None,), "the cache is always paged; use_cache=False turns it off"),
    "output_attentions": Refused(False, (False, None), "call the model itself with output_attentions=True"),
    "output_hidden_states": Refused(False, (False, None), "call the model itself with output_hidden_states=True"),
    "decoder_start_token_id": Refused(None, (None,), "it needs an encoder-decoder model"),
    "prefix_allowed_tokens_fn": Refused(None, (None,), "pass a callable in logits_processor"),
}


def refuse(name, value):
    """Accept a value that means "off" for a setting that is not carried.

    Raises:
        UnsupportedError: any other value; the message names the setting and the way out.
    """
    refused = REFUSED[name]
    if value not in refused.neutral:
        raise UnsupportedError(f"generation setting {name}={value!r} is not supported: {refused.instead}")
