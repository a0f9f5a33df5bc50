"""The options of one tokenizer call, checked and put in one object."""
from dataclasses import dataclass, field

from mindformers.models.batch_encoding import PaddingStrategy, TensorType, TruncationStrategy
from mindformers.tools.errors import did_you_mean
from mindformers.tools.logger import logger

UNLIMITED_LENGTH = int(1e30)  # model_max_length of a tokenizer that knows no bound
LARGE_LENGTH = int(1e20)      # anything above counts as no bound


@dataclass
class EncodeOptions:
    """What a call of a tokenizer does beside splitting the text; see PreTrainedTokenizerBase.__call__."""

    add_special_tokens: bool = True
    padding: PaddingStrategy = PaddingStrategy.DO_NOT_PAD
    truncation: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: TensorType | None = None
    return_token_type_ids: bool = False
    return_attention_mask: bool = True
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool = False
    verbose: bool = True
    extra: dict = field(default_factory=dict)


def check_kwargs(kwargs, known, where):
    """Raise TypeError when `kwargs` holds a name outside `known`; the message names the nearest."""
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        hints = "".join(f" {name!r}:{did_you_mean(name, known)}" for name in unknown if did_you_mean(name, known))
        raise TypeError(f"{where} got unknown arguments {', '.join(map(repr, unknown))}.{hints}")


def check_side(value, name):
    """Return "left" or "right", or raise ValueError."""
    if value not in ("left", "right"):
        raise ValueError(f"{name} must be 'left' or 'right', but got {value!r}")
    return value


def check_length(value, name, least=1):
    """Return an int of at least `least` (None passes).

    Raises:
        TypeError: not an int.
        ValueError: below `least`.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        if not hasattr(value, "__index__") or isinstance(value, bool):
            raise TypeError(f"{name} must be an int, but got {type(value).__name__}: {value!r}")
        value = value.__index__()
    if value < least:
        raise ValueError(f"{name} must be at least {least}, but got {value}")
    return value


def resolve_padding(padding, max_length, model_max_length, max_length_is_for_truncation):
    """Return ``(PaddingStrategy, length or None)`` for the `padding` argument of a call.

    Raises:
        ValueError: an unknown strategy, or "max_length" without any length.
    """
    if padding is None or padding is False:
        return PaddingStrategy.DO_NOT_PAD, max_length
    if padding is True:
        if max_length is not None and not max_length_is_for_truncation:
            logger.warning("max_length is ignored with padding=True and no truncation: pass padding='max_length' to "
                           "pad to it, or truncation=True to cut at it")
        return PaddingStrategy.LONGEST, max_length
    strategy = PaddingStrategy(padding)
    if strategy is PaddingStrategy.MAX_LENGTH and max_length is None:
        if model_max_length > LARGE_LENGTH:
            raise ValueError("padding='max_length' needs a length: pass max_length, or set model_max_length of the "
                             "tokenizer, which has none")
        max_length = model_max_length
    return strategy, max_length


def resolve_truncation(truncation, padding, max_length, model_max_length):
    """Return ``(TruncationStrategy, length or None)`` for the `truncation` argument of a call.

    `max_length` alone (no padding, no truncation) means truncation to it, as in transformers, and is logged.
    Truncation without any bound (no `max_length`, unlimited `model_max_length`) cuts nothing.
    """
    if truncation is None and max_length is not None and padding in (False, None):
        logger.warning("max_length=%s without truncation or padding: truncating to it; pass truncation=True to say so",
                       max_length)
        truncation = True
    if truncation is None or truncation is False:
        return TruncationStrategy.DO_NOT_TRUNCATE, max_length
    strategy = TruncationStrategy.LONGEST_FIRST if truncation is True else TruncationStrategy(truncation)
    if strategy is not TruncationStrategy.DO_NOT_TRUNCATE and max_length is None:
        if model_max_length > LARGE_LENGTH:
            return TruncationStrategy.DO_NOT_TRUNCATE, None
        max_length = model_max_length
    return strategy, max_length


def make_options(tokenizer, padding=False, truncation=None, max_length=None, stride=0, pad_to_multiple_of=None,
                 padding_side=None, return_tensors=None, return_token_type_ids=None, return_attention_mask=None,
                 **rest):
    """Return the EncodeOptions of a call; arguments as in PreTrainedTokenizerBase.__call__.

    Raises:
        TypeError: a length that is no int.
        ValueError: a strategy, side, tensor type or length that cannot be honoured.
    """
    max_length = check_length(max_length, "max_length")
    stride = check_length(stride or 0, "stride", least=0)
    multiple = check_length(pad_to_multiple_of, "pad_to_multiple_of")
    limit = tokenizer.model_max_length
    cut, cut_length = resolve_truncation(truncation, padding, max_length, limit)
    cuts = cut is not TruncationStrategy.DO_NOT_TRUNCATE
    pad, pad_length = resolve_padding(padding, max_length, limit, cuts)
    length = pad_length if pad is PaddingStrategy.MAX_LENGTH else cut_length
    if cuts and pad is not PaddingStrategy.DO_NOT_PAD and multiple and length % multiple:
        raise ValueError(f"truncation to max_length={length} and pad_to_multiple_of={multiple} contradict each other: "
                         f"make max_length a multiple of {multiple}")
    names = tokenizer.model_input_names
    return EncodeOptions(
        padding=pad, truncation=cut, max_length=length, stride=stride, pad_to_multiple_of=multiple,
        padding_side=None if padding_side is None else check_side(padding_side, "padding_side"),
        return_tensors=None if return_tensors is None else TensorType(return_tensors),
        return_token_type_ids="token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
        return_attention_mask="attention_mask" in names if return_attention_mask is None else return_attention_mask,
        **rest)
