"""Chat templates: messages to text with Jinja, in a sandbox that cannot change or reach anything outside."""
import json
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from mindformers.models.chat_tools import tool_schema

DEFAULT_NAME = "default"
TOOL_USE_NAME = "tool_use"

# what encloses {% generation %} blocks while rendering; random, so that no message can hold it
_MARK = secrets.token_hex(8)
_START, _END = f"\ufdd0{_MARK}<", f"\ufdd0{_MARK}>"


class ChatTemplateError(ValueError):
    """A template that cannot be compiled or rendered, or messages it refuses."""


@lru_cache(maxsize=64)
def _compile(template):
    """Return the compiled template; ``{% break %}``, ``{% continue %}`` and ``{% generation %}`` are known."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """Marks what the assistant said."""

        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller):
            return f"{_START}{caller()}{_END}"

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                extensions=[GenerationBlock, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    try:
        return environment.from_string(template)
    except TemplateSyntaxError as fault:
        raise ChatTemplateError(f"the chat template does not parse, line {fault.lineno}: {fault.message}") from fault


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    # Jinja's own filter escapes < > & for HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message):
    from jinja2.exceptions import TemplateError
    raise TemplateError(message)


def render_chat(template, messages, **variables):
    """Return ``(text, spans)``: one conversation rendered, and the characters of its ``{% generation %}`` blocks.

    Args:
        template (str): the Jinja template.
        messages (list[dict]): ``{"role": ..., "content": ...}`` in order.
        **variables: other names the template reads (tools, documents, add_generation_prompt, bos_token, ...).

    Raises:
        ChatTemplateError: a fault of the template, or its own ``raise_exception(message)``.
    """
    from jinja2.exceptions import TemplateError
    compiled = _compile(template)
    try:
        marked = compiled.render(messages=messages, **variables)
    except TemplateError as fault:
        raise ChatTemplateError(f"the chat template refused the conversation: {fault.message}") from fault
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as fault:
        raise ChatTemplateError(f"the chat template failed: {type(fault).__name__}: {fault}") from fault
    text, spans, opened = "", [], []
    for part in re.split(f"({re.escape(_START)}|{re.escape(_END)})", marked):
        if part == _START:
            opened.append(len(text))
        elif part == _END:
            spans.append((opened.pop(), len(text)))
        else:
            text += part
    return text, spans


def cut_after_final_message(text, final_message):
    """Return `text` up to the end of the last message's content, so that the model goes on with it.

    Raises:
        ValueError: the template does not show that content.
    """
    content = final_message["content"]
    if isinstance(content, (list, tuple)):
        content = next((part["text"] for part in reversed(content) if part.get("type") == "text"), "")
    # a template may strip the content
    shown = content if content in text else content.strip()
    if shown not in text:
        raise ValueError("continue_final_message=True, but the chat template changes or drops the last message's "
                         "content")
    return text[:text.rindex(shown) + len(shown)]


def as_conversations(conversation):
    """Return ``(list of conversations, whether it was a batch)``.

    Raises:
        TypeError: messages that are no dicts with a "role".
    """
    conversation = getattr(conversation, "messages", conversation)
    if not isinstance(conversation, (list, tuple)):
        raise TypeError(f"a conversation must be a list of messages like {{'role': 'user', 'content': 'Hi'}}, but got "
                        f"{type(conversation).__name__}")
    first = conversation[0] if conversation else None
    batched = isinstance(first, (list, tuple)) or hasattr(first, "messages")
    conversations = [list(getattr(one, "messages", one)) for one in conversation] if batched else [list(conversation)]
    for messages in conversations:
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or "role" not in message:
                raise TypeError(f"message {index} must be a dict with 'role' and 'content', but got {message!r:.120}")
    return conversations, batched


class ChatTemplateMixin:
    """`apply_chat_template` of a tokenizer; `chat_template` is a template, several by name, or None."""

    chat_template = None

    def get_chat_template(self, chat_template=None, tools=None):
        """Return the template to use: the given one (text or name), else the tokenizer's own.

        Raises:
            ValueError: there is none, or no template of that name.
        """
        own = self.chat_template
        if isinstance(own, dict):
            if chat_template in own:
                return own[chat_template]
            if chat_template is not None:
                return chat_template
            name = TOOL_USE_NAME if tools is not None and TOOL_USE_NAME in own else DEFAULT_NAME
            if name not in own:
                raise ValueError(f"this tokenizer has the chat templates {sorted(own)} and none called 'default': "
                                 f"pass chat_template=<name>")
            return own[name]
        if chat_template is None and own is None:
            raise ValueError("this tokenizer has no chat template: neither chat_template.jinja nor \"chat_template\" "
                             "in tokenizer_config.json was found. Pass chat_template=..., or set "
                             "tokenizer.chat_template")
        return own if chat_template is None else chat_template

    def apply_chat_template(self, conversation, chat_template=None, add_generation_prompt=False, tokenize=True,
                            padding=False, truncation=None, max_length=None, return_tensors=None, return_dict=False,
                            tools=None, documents=None, continue_final_message=False,
                            return_assistant_tokens_mask=False, tokenizer_kwargs=None, **kwargs):
        """Render messages with the chat template, and encode them.

        Args:
            conversation (list[dict] | list[list[dict]]): messages ``{"role": ..., "content": ...}``, or a batch.
            chat_template (str | None): a template, or the name of one of the tokenizer's. Default: the tokenizer's.
            add_generation_prompt (bool): end with what starts the assistant's answer. Default: False.
            tokenize (bool): return ids, else text. Default: True.
            padding, truncation, max_length, return_tensors: as in `__call__`.
            return_dict (bool): return the BatchEncoding, not only its "input_ids". Default: False.
            tools (list[dict | callable] | None): functions the model may call: JSON schemas, or typed functions with a
                docstring. Default: None.
            documents (list[dict] | None): for retrieval templates. Default: None.
            continue_final_message (bool): leave the last message open, so that the model goes on with it.
                Default: False.
            return_assistant_tokens_mask (bool): with `return_dict`, add "assistant_masks": 1 for tokens of
                ``{% generation %}`` blocks (fast tokenizers). Default: False.
            tokenizer_kwargs (dict | None): more arguments for `__call__`. Default: None.
            **kwargs: variables of the template.

        Returns:
            str or list[str] (tokenize=False), ids, or BatchEncoding.

        Raises:
            TypeError: messages that are no dicts with a "role".
            ValueError: no template, a template that fails, or options that exclude each other.
        """
        conversations, batched = as_conversations(conversation)
        template = self.get_chat_template(chat_template, tools)
        if continue_final_message and add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other: one goes on with "
                             "the last message, the other starts a new one")
        if return_assistant_tokens_mask and not (return_dict and tokenize):
            raise ValueError("return_assistant_tokens_mask=True needs return_dict=True and tokenize=True")
        variables = {**self.special_tokens_map, **kwargs, "add_generation_prompt": add_generation_prompt,
                     "tools": None if tools is None else [tool_schema(tool) for tool in tools], "documents": documents}
        texts, spans = [], []
        for messages in conversations:
            text, marked = render_chat(template, self._guard_messages(messages) if tokenize else messages, **variables)
            texts.append(cut_after_final_message(text, messages[-1]) if continue_final_message else text)
            spans.append(marked)
        if not tokenize:
            return texts if batched else texts[0]
        options = {"padding": padding, "truncation": truncation, "max_length": max_length,
                   "add_special_tokens": False, **(tokenizer_kwargs or {})}
        encoded = self._encode_chat(texts if batched else texts[0], **options,
                                    return_tensors=None if return_assistant_tokens_mask else return_tensors)
        if return_assistant_tokens_mask:
            _add_assistant_masks(encoded, spans, batched, return_tensors)
        return encoded if return_dict else encoded["input_ids"]

    def _guard_messages(self, messages):
        """Hook: messages as they are rendered when they will be encoded; what it changes `_encode_chat` takes back."""
        return messages

    def _encode_chat(self, texts, **options):
        """Hook: encode what a template rendered, a text or a list; options and result as of `__call__`."""
        return self(texts, **options)


def _add_assistant_masks(encoded, spans, batched, return_tensors):
    """Add "assistant_masks" to `encoded`, from the character spans of each row, then convert to tensors."""
    if not encoded.is_fast:
        raise ValueError("return_assistant_tokens_mask=True needs a fast tokenizer, which maps characters to tokens")
    masks = []
    for encoding, row_spans in zip(encoded.encodings, spans, strict=True):
        masks.append([int(any(start < end and start < last and end > first for first, last in row_spans))
                      for start, end in encoding.offsets])
    encoded["assistant_masks"] = masks if batched else masks[0]
    if return_tensors is not None:
        encoded.convert_to_tensors(return_tensors, prepend_batch_axis=not batched)
