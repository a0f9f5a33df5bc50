"""What users pass as `input_ids` -> a list of 1-D int32 prompts without padding, checked against the model."""
import numpy as np

from mindformers.generation.utils import to_numpy
from mindformers.tools.logger import logger

_WARNED = set()


def warn_once(key, message, *values):
    """Log a warning the first time `key` is seen in this process."""
    if key not in _WARNED:
        _WARNED.add(key)
        logger.warning(message, *values)


def to_prompts(input_ids, attention_mask=None, *, config, vocab_size):
    """Return the prompts of `input_ids` as a list of 1-D int32 arrays without padding.

    With `attention_mask` (1 = keep) exactly the kept tokens remain. Without one, runs of `pad_token_id` at both ends
    of a row are taken for padding, unless that id is an end or begin token too (then nothing is stripped, and a
    warning asks for a mask). A row left empty becomes the begin token.

    Args:
        input_ids (list[int] | list[list[int]] | array | tensor): one prompt [L] or a batch [B, L]; the lists of a
            batch may differ in length.
        attention_mask (same shape): Default: None.
        config (GenerationConfig): gives pad_token_id, bos_token_id, eos_token_id.
        vocab_size (int): bound of the token ids.

    Raises:
        TypeError: ids that are no integers.
        ValueError: no prompts, wrong shape, a mask that does not fit, an id out of the vocabulary, an empty prompt
            without a begin token.
    """
    rows = _rows("input_ids", input_ids)
    if attention_mask is None:
        kept = [_strip_padding(row, config) for row in rows]
    else:
        masks = _rows("attention_mask", attention_mask)
        if [len(mask) for mask in masks] != [len(row) for row in rows]:
            raise ValueError(f"attention_mask has rows of length {_brief(map(len, masks))}, but input_ids of length "
                             f"{_brief(map(len, rows))}")
        kept = [_keep_masked(row, mask, index) for index, (row, mask) in enumerate(zip(rows, masks))]
    return [_checked(row, index, config, vocab_size) for index, row in enumerate(kept)]


def _rows(name, value):
    """Return `value` as a list of 1-D integer arrays."""
    if value is None:
        raise ValueError(f"{name} is required: token ids [L] or [B, L]")
    if isinstance(value, (str, bytes)) or (isinstance(value, (list, tuple)) and value and isinstance(value[0], str)):
        raise TypeError(f"{name} must be token ids, but is text; encode it with the tokenizer first, or use "
                        f"pipeline('text_generation', ...)")
    if hasattr(value, "keys"):
        raise TypeError(f"{name} must be token ids, but is a {type(value).__name__}; pass the tokenizer's output as "
                        f"generate(**inputs)")
    if isinstance(value, (list, tuple)) and any(np.ndim(to_numpy(row)) > 0 for row in value if not np.isscalar(row)):
        rows = [to_numpy(row) for row in value]
    else:
        array = to_numpy(value)
        if array.ndim not in (1, 2):
            raise ValueError(f"{name} must have shape [L] or [B, L], but has shape {list(array.shape)}")
        rows = [array] if array.ndim == 1 else list(array)
    if not rows:
        raise ValueError(f"{name} is empty: give at least one prompt")
    for row in rows:
        if row.ndim != 1:
            raise ValueError(f"each row of {name} must be one-dimensional, but one has shape {list(row.shape)}")
        if row.size and not (np.issubdtype(row.dtype, np.integer) or (name != "input_ids" and row.dtype == bool)):
            raise TypeError(f"{name} must be integers, but has dtype {row.dtype}")
    return [row.astype(np.int64) for row in rows]


def _strip_padding(row, config):
    pad = config.pad_token_id
    if pad is None or not row.size or (row[0] != pad and row[-1] != pad):
        return row
    if pad in config.eos_token_id or pad == config.bos_token_id:
        # a lone begin token in front is what tokenizers add; only more than that can be padding
        if row[-1] == pad or (len(row) > 1 and row[0] == pad and row[1] == pad):
            warn_once("ambiguous padding", "input_ids may be padded with id %d, which is an end or begin token too; "
                      "every token is read as part of the prompt. Pass attention_mask= to tell padding apart.", pad)
        return row
    real = np.flatnonzero(row != pad)
    return row[real[0]:real[-1] + 1] if real.size else row[:0]


def _keep_masked(row, mask, index):
    real = np.flatnonzero(mask)
    if real.size and real[-1] - real[0] + 1 != real.size:
        raise ValueError(f"attention_mask of row {index} has a gap: padding is possible at the two ends of a row only")
    return row[real]


def _checked(row, index, config, vocab_size):
    if not row.size:
        if config.bos_token_id is None:
            raise ValueError(f"prompt {index} is empty and the model has no bos_token_id to start from: give at least "
                             f"one token, or set bos_token_id")
        return np.array([config.bos_token_id], np.int32)
    wrong = row[(row < 0) | (row >= vocab_size)]
    if wrong.size:
        raise ValueError(f"prompt {index} has token id {int(wrong[0])}, outside the vocabulary [0, {vocab_size}) of "
                         f"the model; is this the model's own tokenizer?")
    return row.astype(np.int32)


def _brief(values):
    values = list(values)
    return ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")


def context_length(model_config):
    """Return the longest sequence the model takes (seq_length, else max_position_embedding(s)), or None."""
    for name in ("seq_length", "max_position_embedding", "max_position_embeddings"):
        value = getattr(model_config, name, None)
        if value:
            return int(value)
    return None


def length_limits(prompts, config, context, asked):
    """Return int [B]: at how many tokens each row stops.

    `max_new_tokens` wins over `max_length`; a limit beyond the model's context stops at the context, with a warning
    when the user `asked` for it.

    Raises:
        ValueError: a prompt longer than the context or filling it, or not shorter than `max_length`; a minimum
            beyond the limit.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    if context is not None and longest >= context:
        relation = "is longer than" if longest > context else "fills"
        raise ValueError(f"a prompt of {longest} tokens {relation} the model's context (seq_length={context}), which "
                         f"leaves no room for an answer: shorten the prompt or raise seq_length")
    if config.max_new_tokens is not None:
        limits, wish = lengths + config.max_new_tokens, f"max_new_tokens={config.max_new_tokens}"
    else:
        limits, wish = np.full(len(prompts), config.max_length), f"max_length={config.max_length}"
        if longest >= config.max_length:
            raise ValueError(f"The max_length set is smaller than the length in the input_ids. max_length="
                             f"{config.max_length} counts prompt and answer together and must be more than the "
                             f"{longest} tokens of the prompt: raise it, or use max_new_tokens")
    if context is not None and limits.max() > context:
        if asked:
            warn_once(("context", wish, context), "%s goes beyond the model's context of %d tokens (seq_length); "
                      "generation stops there.", wish, context)
        limits = np.minimum(limits, context)
    wanted = np.maximum(config.min_length, lengths + (config.min_new_tokens or 0))
    if (wanted > limits).any():
        row = int(np.argmax(wanted - limits))
        raise ValueError(f"row {row} shall have at least {wanted[row]} tokens (min_length={config.min_length}, "
                         f"min_new_tokens={config.min_new_tokens}), but stops at {limits[row]}")
    return limits


def check_token_ids(config, vocab_size):
    """Raise ValueError when a setting names a token id outside the vocabulary."""
    named = {"eos_token_id": config.eos_token_id, "suppress_tokens": config.suppress_tokens or (),
             "begin_suppress_tokens": config.begin_suppress_tokens or (),
             "forced_eos_token_id": config.forced_eos_token_id or (),
             "bad_words_ids": [token for word in config.bad_words_ids or () for token in word],
             "forced_bos_token_id": [] if config.forced_bos_token_id is None else [config.forced_bos_token_id],
             "bos_token_id": [] if config.bos_token_id is None else [config.bos_token_id]}
    for name, tokens in named.items():
        wrong = [token for token in tokens if token >= vocab_size]
        if wrong:
            raise ValueError(f"{name} has id {wrong[0]}, outside the vocabulary [0, {vocab_size}) of the model")
