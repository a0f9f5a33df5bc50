"""ChatGLM4Tokenizer: byte pair encoding by a file of tiktoken ranks, conversations in role messages."""
import base64
import binascii
import json
import os
from functools import cached_property

from mindformers.models.glm2.glm_tokenizer_base import ChatInputs, GLMTokenizer
from mindformers.models.special_tokens import as_added_token
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["ChatGLM4Tokenizer"]

# how a text is cut before byte pairs are merged (published as tokenization_chatglm.py of THUDM/glm-4-9b-chat)
SPLIT_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# ids follow the ranks: 151329 <|endoftext|> to 151342 in the published model
SPECIAL_TOKENS = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>",
                  "<|assistant|>", "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
                  "<|end_of_video|>")

# what the chat model was trained to read before the list of its tools
TOOLS_PREAMBLE = ("你是一个名为 GLM-4 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，你的任务是针对用户的问题"
                  "和要求提供适当的答复和支持。\n\n# 可用工具")
TOOL_ENDING = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"

CHAT_TEMPLATE = """{% macro list_tools(tools) %}
{{ '<|system|>\\n""" + TOOLS_PREAMBLE.replace("\n", "\\n") + """' }}
{%- for tool in tools %}
{% if tool['type'] and tool['type'] != 'function' %}
{{ raise_exception('tools of type ' ~ tool['type'] ~ ' need the chat_template of the model') }}
{% endif %}
{% set function = tool['function'] or tool %}
{{ '\\n\\n## ' ~ function['name'] ~ '\\n\\n' ~ function | tojson(indent=4) }}{{ '""" \
    + TOOL_ENDING.replace("\n", "\\n") + """' }}
{%- endfor %}
{% endmacro %}
[gMASK]<sop>{% if tools %}{{ list_tools(tools) }}{% endif %}
{% for message in messages %}
{% set role = 'observation' if message['role'] == 'tool' else message['role'] %}
{% if role not in ('system', 'user', 'assistant', 'observation') %}
{{ raise_exception('GLM-4 knows the roles system, user, assistant and observation, but got ' ~ role) }}
{% endif %}
{% if message['tools'] %}{{ list_tools(message['tools']) }}{% endif %}
{% if message['content'] or not message['tools'] %}
{{ '<|' ~ role ~ '|>' ~ (message['metadata'] or '') ~ '\\n' ~ (message['content'] or '') }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class ChatGLM4Tokenizer(ChatInputs, GLMTokenizer):
    """Tokenizer of GLM-4-9B: byte pairs merged in the order of a tiktoken file.

    Tokens are shown in the byte alphabet of byte-level BPE (a space is "Ġ"), as in the tokenizer.json of the same
    model. Special tokens inside a text of a call are recognised, as in the original; ``split_special_tokens=True``
    treats them as text, and a chat never recognises them in what people say.

    Args:
        vocab_file (str): the tokenizer.model, lines of a base64 token and its rank.
        clean_up_tokenization_spaces (bool): Default: False.
        encode_special_tokens (bool): kept and written back; the original does not read it either. Default: False.
        eos_token, pad_token (str | AddedToken): Default: "<|endoftext|>".
        **kwargs: see PreTrainedTokenizerBase. Without `added_tokens_decoder`, the special tokens of the published model
            follow the ranks; without a `chat_template`, one of role messages with metadata and functions is used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no file of ranks.
    """

    prefix = ("[gMASK]", "<sop>")

    def __init__(self, vocab_file, clean_up_tokenization_spaces=False, encode_special_tokens=False,
                 eos_token="<|endoftext|>", pad_token="<|endoftext|>", chat_template=None, **kwargs):
        self.vocab_file = os.fspath(vocab_file)
        self.encode_special_tokens = bool(encode_special_tokens)
        self.mergeable_ranks = read_ranks(self.vocab_file)
        self.tokenizer = make_encoding(self.mergeable_ranks)
        if not kwargs.get("added_tokens_decoder"):
            first = len(self.mergeable_ranks)
            kwargs["added_tokens_decoder"] = {first + place: as_added_token(token)
                                              for place, token in enumerate(SPECIAL_TOKENS)}
        super().__init__(clean_up_tokenization_spaces=clean_up_tokenization_spaces, eos_token=eos_token,
                         pad_token=pad_token, chat_template=chat_template or CHAT_TEMPLATE, **kwargs)

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "tokenizer"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.tokenizer = make_encoding(self.mergeable_ranks)

    # vocabulary -----------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self):
        """Number of ranks; special tokens come on top, see ``len(tokenizer)``."""
        return len(self.mergeable_ranks)

    def vocabulary_bytes(self):
        """Return the lines of base64 tokens and ranks out of memory, bytes."""
        return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(self.decoder))

    @cached_property
    def decoder(self):
        """Bytes of each rank, list."""
        return sorted(self.mergeable_ranks, key=self.mergeable_ranks.get)

    @cached_property
    def _rank_of_token(self):
        return {shown(token): rank for token, rank in self.mergeable_ranks.items()}

    def get_vocab(self):
        """Return ``{token: id}``, special and added tokens included."""
        return self._rank_of_token | self.added_tokens_encoder

    @property
    def control_tokens(self):
        """``{text: id}`` of the special tokens."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()
                if token.special or token.content in SPECIAL_TOKENS}

    @property
    def all_special_ids(self):
        """Ids that decode leaves out with ``skip_special_tokens=True``."""
        return list(dict.fromkeys([*super().all_special_ids, *self.control_tokens.values()]))

    def convert_special_tokens_to_ids(self, token):
        """Return the id of a special token.

        Raises:
            ValueError: no special token.
        """
        return self.get_command(token)

    # text -> ids -> text --------------------------------------------------------------------------------------------

    def plain_ids(self, text):
        """Return the ids of a text in which nothing is a special token."""
        return self.tokenizer.encode_ordinary(text)

    def _tokenize(self, text, **kwargs):
        return [shown(self.decoder[index]) for index in self.plain_ids(text)]

    def _convert_token_to_id(self, token):
        return self._rank_of_token.get(token)

    def _convert_id_to_token(self, index):
        return shown(self.decoder[index])

    def convert_tokens_to_string(self, tokens):
        """Return the text of tokens; bytes that are no whole character become U+FFFD."""
        text, held = "", b""
        for token in [*tokens, None]:
            if token is not None and token not in self._added_tokens_encoder:
                held += token.translate(_BYTES).encode("latin-1")
                continue
            text += held.decode("utf-8", errors="replace") + (token or "")
            held = b""
        return text

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        return super()._decode(ids, skip_special_tokens, bool(spaces_between_special_tokens))

    # chats ----------------------------------------------------------------------------------------------------------

    def history_messages(self, item):
        """Return the messages ``[(role, metadata, text)]`` of a history entry; tools make a system message.

        Raises:
            ValueError: a tool that is no function; the chat_template of the model knows such.
        """
        found = [("system", "", tools_text(item["tools"]))] if item.get("tools") else []
        if item.get("content") or not found:
            found.append((item["role"], item.get("metadata", ""), item.get("content")))
        return found


def tools_text(tools):
    """Return the system message that lists functions: JSON schemas, bare or under "function"."""
    text = TOOLS_PREAMBLE
    for tool in tools:
        if tool.get("type", "function") != "function":
            raise ValueError(f"tools of type {tool['type']!r} need the chat_template of the model; functions are "
                             f"described here")
        function = tool.get("function") or tool
        if not isinstance(function, dict) or "name" not in function:
            raise ValueError(f"a tool must be the JSON schema of a function with a name, but is {tool!r:.120}")
        text += f"\n\n## {function['name']}\n\n{json.dumps(function, ensure_ascii=False, indent=4)}{TOOL_ENDING}"
    return text


def make_encoding(ranks):
    """Return the tiktoken.Encoding of ranks, without special tokens."""
    import tiktoken
    return tiktoken.Encoding(name="glm-4", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})


def read_ranks(path):
    """Return ``{bytes: rank}`` of a tiktoken file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no base64 token and rank, ranks that are not 0 to n - 1, or a byte without a rank;
            the message names file and line.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"vocab_file {path} does not exist")
    ranks = {}
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error) as fault:
                raise ValueError(f"{path} is no tiktoken file (lines of a base64 token and its rank): line {number} is "
                                 f"{line[:60]!r}") from fault
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{path}: the ranks of its {len(ranks)} tokens must be 0 to {len(ranks) - 1}, each once")
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise ValueError(f"{path} is not complete: {len(missing)} of the 256 bytes have no rank, first {missing[0]}")
    return ranks


def _byte_alphabet():
    """``{byte: character}``: printable ones stand for themselves, the others follow from U+0100 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in own]
    return {value: chr(value) for value in own} | {value: chr(256 + place) for place, value in enumerate(others)}


_CHARACTERS = _byte_alphabet()
_BYTES = {ord(character): value for value, character in _CHARACTERS.items()}


def shown(token):
    """Return bytes as text in the byte alphabet."""
    return token.decode("latin-1").translate(_CHARACTERS)
