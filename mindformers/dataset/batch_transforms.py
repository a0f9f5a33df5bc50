"""What is done to a whole batch: padding rows of different lengths, and resetting positions at document ends."""
import numpy as np

from mindformers.dataset.rows import IGNORE_TOKEN_ID
from mindformers.tools.errors import ConfigError


def dyn_batch_wrapper(divisor, remainder, pad_token_id=0):
    """Return a collate function that pads rows of different lengths to one length.

    The length is the smallest ``k * divisor + remainder`` (k >= 1) that holds the longest row. `labels` are filled with
    -100, `input_ids` with `pad_token_id`, other columns with 0.

    Args:
        divisor (int): >= 1.
        remainder (int): 0 <= remainder; 1 for models that shift the labels by themselves.

    Raises:
        ConfigError: a value out of bounds.
    """
    if not isinstance(divisor, int) or divisor < 1 or not isinstance(remainder, int) or remainder < 0:
        raise ConfigError(f"dynamic_batch needs divisor >= 1 and remainder >= 0, but got {divisor!r} and {remainder!r}")
    fills = {"input_ids": pad_token_id, "labels": IGNORE_TOKEN_ID}

    def collate(rows):
        longest = max(np.asarray(row[name]).shape[0] for row in rows for name in row)
        width = max(1, -(-(longest - remainder) // divisor)) * divisor + remainder
        batch = {}
        for name in rows[0]:
            batch[name] = np.full((len(rows), width), fills.get(name, 0), np.asarray(rows[0][name]).dtype)
            for index, row in enumerate(rows):
                batch[name][index, :len(row[name])] = row[name]
        return batch

    return collate


def reset_at_eod(input_ids, eod_token_id):
    """Return position ids and attention masks under which no document of a packed row sees the one before it.

    Args:
        input_ids: int [B, S + 1]; the last token is a target only.
        eod_token_id (int): the token that ends a document; it belongs to the document it ends.

    Returns:
        position_ids int32 [B, S], from 0 in each document; attention_mask uint8 [B, S, S], 1 where the query (second
        axis) may see the key (third axis).
    """
    tokens = np.asarray(input_ids)[:, :-1]
    positions = np.arange(tokens.shape[1], dtype=np.int32)
    starts = np.zeros(tokens.shape, bool)
    starts[:, 1:] = tokens[:, :-1] == eod_token_id
    first = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
    same_document = first[:, :, None] == first[:, None, :]
    mask = same_document & (positions[:, None] >= positions[None, :])
    return (positions - first).astype(np.int32), mask.astype(np.uint8)


def eod_reset_transform(eod_token_id):
    """Return a batch transform that adds `position_ids` and `attention_mask` of `reset_at_eod` to `input_ids`.

    `labels` are copied from `input_ids` when the rows have none, because the models take them before the two.
    """

    def transform(batch):
        position_ids, attention_mask = reset_at_eod(batch["input_ids"], eod_token_id)
        return {"labels": batch["input_ids"], **batch, "position_ids": position_ids, "attention_mask": attention_mask}

    return transform
