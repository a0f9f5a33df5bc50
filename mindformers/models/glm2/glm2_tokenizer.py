"""ChatGLM2Tokenizer: SentencePiece, five control tokens, conversations in numbered rounds."""
from mindformers.models.glm2.glm_sentencepiece import SentencePieceGLMTokenizer, SPTokenizer
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["ChatGLM2Tokenizer", "SPTokenizer"]

# the rounds of `build_prompt`, for messages
CHAT_TEMPLATE = """[gMASK]sop{% set rounds = namespace(number=0) -%}
{% for message in messages %}
{% if message['role'] == 'user' %}
{% set rounds.number = rounds.number + 1 -%}
{{ '[Round ' ~ rounds.number ~ ']\\n\\n问：' ~ message['content'] ~ '\\n\\n' }}
{%- elif message['role'] == 'assistant' -%}
{{ '答：' ~ message['content'] ~ '\\n\\n' }}
{%- else -%}
{{ raise_exception('ChatGLM2 knows the roles user and assistant, but got ' ~ message['role']) }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '答：' }}{% endif %}"""


@MindFormerRegister.register(MindFormerModuleType.TOKENIZER)
class ChatGLM2Tokenizer(SentencePieceGLMTokenizer):
    """Tokenizer of ChatGLM2-6B (published as tokenization_chatglm.py of THUDM/chatglm2-6b).

    Control tokens follow the SentencePiece vocabulary: [MASK], [gMASK], [sMASK], sop, eop (64789 to 64793 in the
    published model). Padding is <unk>, the end of a text </s>, whatever a YAML calls them.

    Args:
        vocab_file (str): the tokenizer.model.
        bos_token, eos_token, end_token, mask_token, gmask_token, pad_token, unk_token (str | AddedToken | None): names
            of special tokens, "<sop>" and "<eop>" as YAMLs write them. Default: those of the original.
        encode_special_tokens, **kwargs: see SentencePieceGLMTokenizer and PreTrainedTokenizerBase. Without a
            `chat_template`, the template of the rounds is used.

    Raises:
        FileNotFoundError, ValueError: no such file, or no SentencePiece model.
    """

    specials = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")

    def __init__(self, vocab_file, bos_token="<sop>", eos_token="<eop>", end_token="</s>", mask_token="[MASK]",
                 gmask_token="[gMASK]", pad_token="<pad>", unk_token="<unk>", chat_template=None, **kwargs):
        self.end_token, self.gmask_token = end_token, gmask_token
        super().__init__(vocab_file, bos_token=bos_token, eos_token=eos_token, mask_token=mask_token,
                         pad_token=pad_token, unk_token=unk_token, chat_template=chat_template or CHAT_TEMPLATE,
                         **kwargs)

    def build_prompt(self, query, history=None):
        """Return the text of a conversation, ready for the answer.

        Args:
            query (str): the last question.
            history (list[tuple[str, str]] | None): earlier questions and answers. Default: none.

        >>> tokenizer.build_prompt("Q2", [("Q1", "A1")])
        '[Round 1]\\n\\n问：Q1\\n\\n答：A1\\n\\n[Round 2]\\n\\n问：Q2\\n\\n答：'
        """
        rounds = [*(history or []), (query, "")]
        return "\n\n".join(f"[Round {number}]\n\n问：{question}\n\n答：{answer}"
                           for number, (question, answer) in enumerate(rounds, 1))

    def _decode(self, ids, skip_special_tokens=False, spaces_between_special_tokens=None):
        # the original writes none of the control tokens
        shown = [index for index in ids if index not in self.tokenizer.index_special_tokens]
        return super()._decode(shown, skip_special_tokens, spaces_between_special_tokens)
