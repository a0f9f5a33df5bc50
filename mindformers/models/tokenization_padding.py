"""Padding of encoded rows: the `pad` of every tokenizer."""
from collections.abc import Mapping

from mindformers.models.batch_encoding import BatchEncoding, PaddingStrategy, to_py_obj

# what fills the new places of each row; input_ids take the pad token's id
_FILL = {"attention_mask": 0, "position_ids": 0, "special_tokens_mask": 1, "offset_mapping": (0, 0), "labels": -100}


def collate(rows):
    """Return a list of dicts (one a row) as one dict of lists.

    Raises:
        ValueError: rows with different keys.
    """
    keys = list(rows[0])
    for index, row in enumerate(rows):
        if set(row) != set(keys):
            raise ValueError(f"row {index} has the keys {sorted(row)}, row 0 has {sorted(keys)}: rows of one batch "
                             f"need the same keys")
    return {key: [row[key] for row in rows] for key in keys}


def target_length(lengths, strategy, max_length, multiple):
    """Return the length all rows are padded to, or None when nothing is padded."""
    if strategy is PaddingStrategy.DO_NOT_PAD:
        return None
    longest = max(lengths, default=0)
    length = longest if strategy is PaddingStrategy.LONGEST else max_length
    if multiple and length % multiple:
        length += multiple - length % multiple
    return length


def pad_row(values, missing, fill, side):
    """Return `values` with `missing` copies of `fill` on one side."""
    padding = [fill] * missing
    return padding + list(values) if side == "left" else list(values) + padding


def pad_batch(batch, tokenizer, strategy, max_length, multiple, side, return_attention_mask):
    """Pad every value of `batch` in place (dict name -> list of rows).

    Rows longer than the target keep their length. The mask of real tokens is added when asked for.

    Args:
        batch (dict): name -> list of rows; the first of ``tokenizer.model_input_names`` must be in it.
        tokenizer (PreTrainedTokenizerBase): gives the pad token and the type of padding.
        strategy (PaddingStrategy): to the longest row, to `max_length`, or not at all.
        max_length (int | None): for PaddingStrategy.MAX_LENGTH.
        multiple (int | None): round the length up to a multiple of it.
        side (str): "left" or "right".
        return_attention_mask (bool): add "attention_mask" when it is not there.

    Raises:
        ValueError: the tokenizer has no pad token, though padding is asked for.
    """
    main = tokenizer.model_input_names[0]
    lengths = [len(row) for row in batch[main]]
    if return_attention_mask and "attention_mask" not in batch:
        batch["attention_mask"] = [[1] * length for length in lengths]
    length = target_length(lengths, strategy, max_length, multiple)
    if length is None:
        return batch
    if tokenizer.pad_token_id is None:
        raise ValueError("padding needs a pad token and this tokenizer has none: set tokenizer.pad_token = "
                         "tokenizer.eos_token, or add one with tokenizer.add_special_tokens({'pad_token': '<pad>'})")
    fills = {**_FILL, main: tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    for key, rows in batch.items():
        if key not in fills:
            continue
        batch[key] = [pad_row(row, max(length - count, 0), fills[key], side) if len(row) == count else row
                      for row, count in zip(rows, lengths, strict=True)]
    return batch


def pad_inputs(tokenizer, encoded_inputs, strategy, max_length, multiple, side, return_attention_mask, return_tensors):
    """The work of `PreTrainedTokenizerBase.pad`; arguments as there, already checked."""
    main = tokenizer.model_input_names[0]
    if isinstance(encoded_inputs, (list, tuple)) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
        encoded_inputs = collate(encoded_inputs)
    if not isinstance(encoded_inputs, Mapping):
        raise TypeError(f"pad takes a dict, a BatchEncoding, or a list of them, but got "
                        f"{type(encoded_inputs).__name__}")
    if main not in encoded_inputs:
        raise ValueError(f"the inputs of pad need {main!r}, but hold only {sorted(encoded_inputs)}")
    encodings = getattr(encoded_inputs, "encodings", None)
    batch = {key: to_py_obj(value) for key, value in encoded_inputs.items()}
    single = bool(batch[main]) and not isinstance(batch[main][0], (list, tuple))
    if single:
        batch = {key: [value] for key, value in batch.items()}
    pad_batch(batch, tokenizer, strategy, max_length, multiple, side, return_attention_mask)
    if single:
        batch = {key: value[0] for key, value in batch.items()}
    return BatchEncoding(batch, encodings, tensor_type=return_tensors)
