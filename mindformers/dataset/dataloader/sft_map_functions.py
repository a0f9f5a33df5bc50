"""Map functions of SFTDataLoader: a record of a data set -> token ids and labels.

Each takes ``(example, **kwargs)``, where kwargs hold `tokenizer`, `max_length` and the loader's `map_function_kwargs`,
and returns ``{"input_ids": int32 [L], "labels": int32 [L]}``; L is `max_length`, or the sample's own length for the
`dyn` functions. Labels stand under their tokens (models shift by themselves) and are -100 on all that is not to be
learnt: prompts and filling.
"""
import numpy as np

from mindformers.dataset.rows import IGNORE_TOKEN_ID
from mindformers.dataset.text_encoder import build_text_encoder
from mindformers.tools.errors import ConfigError

# The published Alpaca prompts (Stanford Alpaca, 2023): models tuned with them expect these words.
ALPACA_PROMPT = ("Below is an instruction that describes a task. Write a response that appropriately completes the "
                 "request.\n\n"
                 "### Instruction:\n{instruction}\n\n### Response:")
ALPACA_PROMPT_WITH_INPUT = ("Below is an instruction that describes a task, paired with an input that provides further "
                            "context. Write a response that appropriately completes the request.\n\n"
                            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:")


def build_sample(turns, tokenizer, max_length, pad=True):
    """Tokenize ``[bos] turn turn ...`` where a turn is (text, learnt: bool) and a learnt one ends with eos.

    What goes past `max_length` is cut at the end.

    Returns:
        dict: `input_ids` and `labels`, int32 [max_length], or [min(length, max_length)] without `pad`.
    """
    encoder = build_text_encoder(tokenizer)
    if encoder.eos_token_id is None:
        raise ConfigError("the tokenizer has no eos token: an answer could not be ended")
    bos = [] if encoder.bos_token_id is None else [encoder.bos_token_id]
    tokens, labels = list(bos), [IGNORE_TOKEN_ID] * len(bos)
    for ids, (_, learnt) in zip(encoder.encode([text for text, _ in turns]), turns):
        ids = [*ids, encoder.eos_token_id] if learnt else ids
        tokens += ids
        labels += ids if learnt else [IGNORE_TOKEN_ID] * len(ids)
    tokens, labels = tokens[:max_length], labels[:max_length]
    missing = max_length - len(tokens) if pad else 0
    filling = encoder.eos_token_id if encoder.pad_token_id is None else encoder.pad_token_id
    return {"input_ids": np.asarray(tokens + [filling] * missing, np.int32),
            "labels": np.asarray(labels + [IGNORE_TOKEN_ID] * missing, np.int32)}


def _field(example, name):
    if name not in example:
        raise ConfigError(f"no column {name!r}; the columns are {sorted(map(str, example))}")
    return example[name]


def _text(example, name):
    value = _field(example, name)
    if not isinstance(value, str):
        raise ConfigError(f"column {name!r} must be text, but is {type(value).__name__}")
    return value


def default_map_fn(example, **kwargs):
    """A text to learn as a whole, or a prompt and its answer.

    kwargs: `data_field` ("text") for a text; `prompt_field` ("prompt") and `answer_field` ("answer") when the record
    has both.
    """
    prompt, answer = kwargs.get("prompt_field", "prompt"), kwargs.get("answer_field", "answer")
    if prompt in example and answer in example:
        turns = [(_text(example, prompt), False), (_text(example, answer), True)]
    else:
        turns = [(_text(example, kwargs.get("data_field", "text")), True)]
    return build_sample(turns, kwargs["tokenizer"], kwargs["max_length"])


def _alpaca_turns(example):
    template = ALPACA_PROMPT_WITH_INPUT if example.get("input") else ALPACA_PROMPT
    prompt = template.format(instruction=_text(example, "instruction"), input=example.get("input") or "")
    return [(prompt, False), (_text(example, "output"), True)]


def alpaca_map_fn(example, **kwargs):
    """Records with `instruction`, optional `input`, and `output`, in Alpaca's prompt."""
    return build_sample(_alpaca_turns(example), kwargs["tokenizer"], kwargs["max_length"])


def multi_instruct_dyn_map_fn(example, **kwargs):
    """Like `alpaca_map_fn`, not padded: for ``dynamic_batch: True``."""
    return build_sample(_alpaca_turns(example), kwargs["tokenizer"], kwargs["max_length"], pad=False)


def advertisegen_map_fn(example, **kwargs):
    """Records with `content` (what is advertised) and `summary` (the text to learn)."""
    turns = [(_text(example, "content"), False), (_text(example, "summary"), True)]
    return build_sample(turns, kwargs["tokenizer"], kwargs["max_length"])


def _chat_turns(example, data_field="conversations", from_keyword="from", value_keyword="value", user_role_name="human",
                assistant_role_name="gpt", system_role_name="system", user_prompt="", assistant_prompt="",
                system_message="", **_):
    """Turns of a chat: only what the assistant says is learnt."""
    conversations = _field(example, data_field)
    if not isinstance(conversations, list) or not conversations:
        raise ConfigError(f"column {data_field!r} must be a list of turns that is not empty")
    turns = [(system_message, False)] if system_message else []
    for turn in conversations:
        role, text = _text(turn, from_keyword), _text(turn, value_keyword)
        if role == user_role_name:
            turns.append((user_prompt + text, False))
        elif role == assistant_role_name:
            turns += [(assistant_prompt, False)] if assistant_prompt else []
            turns.append((text, True))
        elif role == system_role_name:
            turns.append((text, False))
        else:
            raise ConfigError(f"unknown role {role!r}; the roles are {user_role_name!r}, {assistant_role_name!r} and "
                              f"{system_role_name!r} (user_role_name, assistant_role_name, system_role_name)")
    return turns


def multi_round_chat_map_fn(example, **kwargs):
    """Chats: a list of turns with a role and a text.

    kwargs: `data_field` ("conversations"), `from_keyword` ("from"), `value_keyword` ("value"), `user_role_name`
    ("human"), `assistant_role_name` ("gpt"), `system_role_name` ("system"), `user_prompt`, `assistant_prompt` (put
    before each turn, not learnt) and `system_message` (put first), "" by default.
    """
    return build_sample(_chat_turns(example, **kwargs), kwargs["tokenizer"], kwargs["max_length"])


def multi_round_chat_dyn_map_fn(example, **kwargs):
    """Like `multi_round_chat_map_fn`, not padded: for ``dynamic_batch: True``."""
    return build_sample(_chat_turns(example, **kwargs), kwargs["tokenizer"], kwargs["max_length"], pad=False)


# dataset_name of SFTDataLoader -> its map function
MAP_FUNCTIONS = {"": default_map_fn, "alpaca": alpaca_map_fn, "advertisegen": advertisegen_map_fn,
                 "multi-round-chat": multi_round_chat_map_fn, "multi-round-chat-dyn": multi_round_chat_dyn_map_fn,
                 "multi-instruct-dyn": multi_instruct_dyn_map_fn}
