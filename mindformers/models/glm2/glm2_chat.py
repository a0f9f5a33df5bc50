"""`chat` and `stream_chat` of ChatGLM2, ChatGLM3 and GLM-4, answering as the published models do."""
import ast
import contextlib
import copy
import json

import numpy as np

from mindformers.generation.decode import build_selector, run_steps
from mindformers.generation.prompts import context_length
from mindformers.generation.text_generator import evaluation_mode, report_failure, resolve_config, sampling_seed
from mindformers.generation.utils import to_numpy
from mindformers.models.glm2.glm_tokenizer_base import check_turn
from mindformers.tools.errors import UnsupportedError

_LONGEST = 8192  # tokens of a chat, prompt included, unless the model holds fewer
_UNFINISHED = "\ufffd"


class GLMChatMixin:
    """Chat methods for a model with `generate`; the tokenizer says which conversation the model was trained on.

    ChatGLM2Tokenizer: numbered rounds, a history of ``(query, answer)``. ChatGLM3Tokenizer and ChatGLM4Tokenizer:
    role messages, a history of dicts. Any other tokenizer: its chat template, as `GenerationMixin.chat`.
    """

    def generate(self, input_ids=None, *args, position_ids=None, **kwargs):
        """Continue prompts; see `GenerationMixin.generate`.

        Args:
            position_ids (array [B, L]): as the GLM tokenizers return them; checked, since the decode loop counts the
                real tokens of each row itself. Default: None.

        Raises:
            UnsupportedError: other positions.
        """
        if position_ids is not None:
            _check_positions(to_numpy(position_ids), kwargs.get("attention_mask"))
        return super().generate(input_ids, *args, **kwargs)

    def chat(self, tokenizer, query, history=None, role="user", max_length=None, num_beams=1, do_sample=True, top_p=0.8,
             temperature=0.8, logits_processor=None, instruction="", streamer=None, **kwargs):
        """Answer one message of a conversation.

        Args:
            tokenizer: ChatGLM2Tokenizer, ChatGLM3Tokenizer, ChatGLM4Tokenizer, or one with a chat template.
            query (str): the message.
            history (list): what `chat` returned before: tuples ``(query, answer)`` with ChatGLM2, dicts with "role",
                "content" and perhaps "metadata" and "tools" otherwise. Left as it is. Default: None.
            role (str): who says the query; "observation" for a tool's result (not ChatGLM2). Default: "user".
            max_length (int): tokens of prompt and answer. Default: 8192, or what the model holds.
            num_beams, do_sample, top_p, temperature, logits_processor: as in `generate`.
            instruction (str): system message, put in front when the history has none (not ChatGLM2). Default: "".
            streamer, **kwargs: passed to `generate` (`max_new_tokens`, `seed`, ...).

        Returns:
            (str, list): the answer and the new history. A call of a tool is answered as ``{"name": str,
            "parameters": dict}`` when the conversation lists tools, ``{"name": str, "content": str}`` otherwise.

        Raises:
            TypeError: a query that is no text.
            ValueError: a role or instruction that the model does not know.
        """
        settings = {"num_beams": num_beams, "do_sample": do_sample, "logits_processor": logits_processor, **kwargs}
        if do_sample:
            settings.update(top_p=top_p, temperature=temperature)
        if not _is_glm(tokenizer):
            limit = {} if max_length is None else {"max_length": max_length}
            return super().chat(tokenizer, query, history, user_role_name=role, instruction=instruction,
                                streamer=streamer, **limit, **settings)
        with report_failure(streamer):
            talk = _conversation(tokenizer, query, history, role, instruction)
        prompt = talk.prompt()
        output = self.generate(prompt, attention_mask=np.ones_like(prompt), streamer=streamer, tokenizer=tokenizer,
                               max_length=self._chat_limit(max_length), eos_token_id=talk.end_ids,
                               **{**settings, "return_dict_in_generate": False})
        return self._chat_answer(talk, output[0][len(prompt):].tolist())

    def stream_chat(self, tokenizer, query, history=None, role="user", past_key_values=None, max_length=None,
                    do_sample=True, top_p=0.8, temperature=0.8, logits_processor=None, return_past_key_values=False,
                    instruction="", seed=None, **kwargs):
        """Yield ``(answer so far, history with it)`` as the answer grows; arguments as in `chat`.

        Raises:
            UnsupportedError: `past_key_values` or `return_past_key_values`; a tokenizer that is none of the GLMs'.
        """
        if past_key_values is not None or return_past_key_values:
            raise UnsupportedError("stream_chat keeps its cache to itself: leave out past_key_values and "
                                   "return_past_key_values and pass the history")
        if not _is_glm(tokenizer):
            raise UnsupportedError(f"stream_chat needs a GLM tokenizer, but got {type(tokenizer).__name__}; use chat "
                                   f"with streamer=TextIteratorStreamer(tokenizer)")
        talk = _conversation(tokenizer, query, history, role, instruction)
        settings = {"do_sample": do_sample, "max_length": self._chat_limit(max_length), "eos_token_id": talk.end_ids,
                    **kwargs}
        if do_sample:
            settings.update(top_p=top_p, temperature=temperature)
        config, asked = resolve_config(self, None, settings)
        if config.num_beams > 1:
            raise ValueError("stream_chat cannot search with beams: the text is only known at the end")
        prompt = talk.prompt()
        selector = build_selector(self.config, prompt, config, attention_mask=np.ones_like(prompt), tokenizer=tokenizer,
                                  processors=logits_processor, seed=sampling_seed(seed), length_asked=asked)
        return self._stream(talk, selector)

    def _stream(self, talk, selector):
        ids = []
        with evaluation_mode(self), contextlib.closing(run_steps(self, selector)) as steps:
            for step in steps:
                ids.append(int(step.tokens[0]))
                text = talk.text(ids)
                if text and not text.endswith(_UNFINISHED):
                    yield self._chat_answer(talk, ids)

    def _chat_answer(self, talk, ids):
        """Return ``(answer, new history)`` for the ids behind the prompt."""
        text = talk.text(ids)
        if talk.has_rounds:
            answer = self.process_response(text)
            return answer, [*talk.history, (talk.query, answer)]
        return self.process_response(text, talk.history)

    def _chat_limit(self, max_length):
        return min(_LONGEST, context_length(self.config) or _LONGEST) if max_length is None else max_length

    def process_response(self, output, history=None):
        """Return what a user sees of the model's text.

        Args:
            output (str): the text.
            history (list[dict] | None): messages up to the query; None for ChatGLM2. Default: None.

        Returns:
            str without `history`; else ``(answer, history with the answer's messages)``, see `chat`.
        """
        if history is None:
            return _dated(output.strip())
        answer, history = "", copy.deepcopy(history)
        has_tools = bool(history) and history[0]["role"] == "system" and "tools" in history[0]
        for part in output.split("<|assistant|>"):
            metadata, content = part.split("\n", maxsplit=1) if "\n" in part else ("", part)
            if metadata.strip():
                answer = {"name": metadata.strip(), **_call_of(content, has_tools)}
            else:
                content = content.strip()
                answer = _dated(content)
            history.append({"role": "assistant", "metadata": metadata, "content": content})
        return answer, history


class _Rounds:
    """A conversation with ChatGLM2."""

    has_rounds = True

    def __init__(self, tokenizer, query, history):
        self.tokenizer, self.query, self.history = tokenizer, query, list(history or [])
        for turn in self.history:
            if not isinstance(turn, (tuple, list)) or len(turn) != 2:
                raise TypeError(f"history must be a list of (query, answer), but has {turn!r:.120}")
        self.end_ids = [tokenizer.eos_token_id]

    def prompt(self):
        """Ids of the prompt, int32 [L]; what people say is no control token."""
        text = self.tokenizer.build_prompt(self.query, self.history)
        return np.array([*self.tokenizer.get_prefix_tokens(), *self.tokenizer.plain_ids(text)], np.int32)

    def text(self, ids):
        """Text of an answer's ids without its end."""
        return self.tokenizer.decode(_without_end(ids, self.end_ids))


class _Roles(_Rounds):
    """A conversation with ChatGLM3 or GLM-4; `history` has the query at its end."""

    has_rounds = False

    def __init__(self, tokenizer, query, history, role, instruction):
        turns = list(history or [])
        for turn in turns:
            check_turn(turn)
        if instruction and not any(turn["role"] == "system" for turn in turns):
            turns.insert(0, {"role": "system", "content": instruction})
        self.tokenizer, self.query, self.role, self.before = tokenizer, query, role, turns
        self.history = [*turns, {"role": role, "content": query}]
        self.end_ids = [tokenizer.eos_token_id, *map(tokenizer.get_command, ("<|user|>", "<|observation|>"))]

    def prompt(self):
        """Ids of the prompt, int32 [L]."""
        encoded = self.tokenizer.build_chat_input(self.query, self.before, self.role)
        return np.asarray(encoded["input_ids"][0], np.int32)


def _is_glm(tokenizer):
    return hasattr(tokenizer, "build_prompt") or hasattr(tokenizer, "build_chat_input")


def _conversation(tokenizer, query, history, role, instruction):
    if not isinstance(query, str):
        raise TypeError(f"query must be a string, but is {type(query).__name__}")
    if hasattr(tokenizer, "build_chat_input"):
        return _Roles(tokenizer, query, history, role, instruction)
    if instruction or role != "user":
        raise ValueError(f"ChatGLM2 knows no {'system message' if instruction else f'role {role!r}'}: say it in the "
                         f"query")
    return _Rounds(tokenizer, query, history)


def _without_end(ids, end_ids):
    return ids[:-1] if ids and ids[-1] in end_ids else ids


def _dated(text):
    # the placeholder the models were trained to write for the year of their data
    return text.replace("[[训练时间]]", "2023年")


def _call_of(content, has_tools):
    """Return ``{"parameters": ...}`` of a tool call's text, or ``{"content": text}`` when it is none.

    GLM-4 writes JSON, ChatGLM3 ``tool_call(name=value, ...)`` between lines of three backticks. Nothing is run: the
    values are literals, and a text that is anything else is handed on as it is.
    """
    if not has_tools:
        return {"content": content}
    try:
        return {"parameters": json.loads(content)}
    except json.JSONDecodeError:
        code = "\n".join(line for line in content.strip().split("\n") if not line.startswith("```"))
    try:
        call = ast.parse(code.strip(), mode="eval").body
        if isinstance(call, ast.Call) and not call.args:
            return {"parameters": {word.arg: ast.literal_eval(word.value) for word in call.keywords}}
    except (SyntaxError, ValueError):
        return {"content": content}
    return {"content": content}


def _check_positions(positions, attention_mask):
    mask = np.ones_like(positions) if attention_mask is None else to_numpy(attention_mask)
    for row, kept in zip(np.atleast_2d(positions), np.atleast_2d(mask)):
        real = row[kept != 0]
        if not np.array_equal(real, np.arange(len(real))):
            raise UnsupportedError(f"position_ids of real tokens must count from 0, as the tokenizer gives them, but "
                                   f"are {real[:8].tolist()}...; leave them out")
