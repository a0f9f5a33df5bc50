"""ChatGLM3Tokenizer: SentencePiece, control tokens for masks and roles, conversations in role messages."""
import json

from mindformers.models.glm2.glm_sentencepiece import SentencePieceGLMTokenizer, SPTokenizer
from mindformers.models.glm2.glm_tokenizer_base import ChatInputs
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["ChatGLM3Tokenizer", "SPTokenizer"]

TOOLS_PREAMBLE = ("Answer the following questions as best as you can. You have access to the following tools:")

# the messages of `build_chat_input`; SentencePiece starts each part of them with a space
CHAT_TEMPLATE = """[gMASK]sop{% if tools %}
{{ '<|system|>\\n """ + TOOLS_PREAMBLE + """\\n' ~ tools | tojson(indent=4) }}
{%- endif %}
{% for message in messages %}
{% set role = 'observation' if message['role'] == 'tool' else message['role'] %}
{% if role not in ('system', 'user', 'assistant', 'observation') %}
{{ raise_exception('ChatGLM3 knows the roles system, user, assistant and observation, but got ' ~ role) }}
{% endif %}
{{ '<|' ~ role ~ '|>' ~ (message['metadata'] or '') ~ '\\n' }}
{%- if message['content'] %}{{ ' ' ~ message['content'] }}{% endif %}
{% if message['tools'] and role == 'system' %}{{ '\\n' ~ message['tools'] | tojson(indent=4) }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class ChatGLM3Tokenizer(ChatInputs, SentencePieceGLMTokenizer):
    """Tokenizer of ChatGLM3-6B (published as tokenization_chatglm.py of THUDM/chatglm3-6b).

    Control tokens follow the SentencePiece vocabulary: [MASK], [gMASK], [sMASK], sop, eop, <|system|>, <|user|>,
    <|assistant|>, <|observation|> (64789 to 64797 in the published model). Padding is <unk>, the end of a text </s>.

    Args:
        vocab_file (str): the tokenizer.model.
        bos_token, eos_token, end_token, mask_token, gmask_token, pad_token, unk_token (str | AddedToken | None): names
            of special tokens, "<sop>" and "<eop>" as YAMLs write them. Default: those of the original.
        encode_special_tokens, **kwargs: see SentencePieceGLMTokenizer and PreTrainedTokenizerBase. Without a
            `chat_template`, one of role messages with metadata and tools is used.

    Raises:
        FileNotFoundError, ValueError: no such file, or no SentencePiece model.
    """

    specials = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>",
                "<|observation|>")

    def __init__(self, vocab_file, bos_token="<sop>", eos_token="<eop>", end_token="</s>", mask_token="[MASK]",
                 gmask_token="[gMASK]", pad_token="<pad>", unk_token="<unk>", chat_template=None, **kwargs):
        self.end_token, self.gmask_token = end_token, gmask_token
        super().__init__(vocab_file, bos_token=bos_token, eos_token=eos_token, mask_token=mask_token,
                         pad_token=pad_token, unk_token=unk_token, chat_template=chat_template or CHAT_TEMPLATE,
                         **kwargs)

    def history_messages(self, item):
        """Return the messages ``[(role, metadata, text)]`` of a history entry; tools are listed as JSON."""
        content = item.get("content") or ""
        if item["role"] == "system" and "tools" in item:
            content += "\n" + json.dumps(item["tools"], indent=4, ensure_ascii=False)
        return [(item["role"], item.get("metadata", ""), content)]
