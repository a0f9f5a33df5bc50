"""Chat templates: rendering, the sandbox, tools, options and errors (equality with transformers: the golden tests)."""
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from mindformers.models.chat_tools import tool_schema
from mindformers.models.llama import LlamaTokenizer
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1] / "reference" / "tokenizers"
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you"},
            {"role": "user", "content": "Bye"}]


@pytest.fixture
def tokenizer():
    return PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3")


def render(tokenizer, template, messages=None, **options):
    return tokenizer.apply_chat_template(messages or MESSAGES, chat_template=template, tokenize=False, **options)


def test_ids_are_those_of_the_text(tokenizer):
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    ids = tokenizer.apply_chat_template(MESSAGES)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert ids.count(tokenizer.bos_token_id) == 1, "bos is the template's business"
    assert text.endswith("Bye<|eot_id|>")
    prompt = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert prompt == text + "<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_batches_and_tensors(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    batch = [MESSAGES, MESSAGES[:1]]
    encoded = tokenizer.apply_chat_template(batch, padding=True, return_tensors="np", return_dict=True)
    assert encoded.input_ids.shape == encoded.attention_mask.shape and encoded.input_ids.shape[0] == 2
    assert tokenizer.apply_chat_template(batch)[1] == tokenizer.apply_chat_template(batch[1])
    assert tokenizer.apply_chat_template(batch, tokenize=False)[1] == \
        tokenizer.apply_chat_template(batch[1], tokenize=False)
    assert len(tokenizer.apply_chat_template(MESSAGES, truncation=True, max_length=7)) == 7


def test_slow_tokenizers_have_templates_too():
    tokenizer = LlamaTokenizer(str(ROOT / "llama2" / "tokenizer.model"))
    tokenizer.chat_template = (ROOT / "llama2.jinja").read_text()
    text = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    assert text == "<s>[INST] Hi [/INST] Hello you </s><s>[INST] Bye [/INST]"
    assert tokenizer.apply_chat_template(MESSAGES)[0] == tokenizer.bos_token_id


def test_continue_final_message(tokenizer):
    text = tokenizer.apply_chat_template(MESSAGES[:2], tokenize=False, continue_final_message=True)
    assert text.endswith("Hello you")
    with pytest.raises(ValueError, match="exclude each other"):
        tokenizer.apply_chat_template(MESSAGES, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(ValueError, match="changes or drops"):
        render(tokenizer, "nothing", continue_final_message=True)


def test_assistant_tokens_mask(tokenizer):
    encoded = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True)
    said = [index for index, mask in zip(encoded.input_ids, encoded.assistant_masks, strict=True) if mask]
    assert tokenizer.decode(said) == "Hello you<|eot_id|>"
    arrays = tokenizer.apply_chat_template(MESSAGES, return_dict=True, return_assistant_tokens_mask=True,
                                           return_tensors="np")
    assert arrays.assistant_masks.shape == arrays.input_ids.shape == (1, len(encoded.input_ids))
    with pytest.raises(ValueError, match="return_dict"):
        tokenizer.apply_chat_template(MESSAGES, return_assistant_tokens_mask=True)


def test_template_functions(tokenizer):
    assert render(tokenizer, "{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert render(tokenizer, "{{ messages[0] | tojson }}{{ '<b>' | tojson }}") == \
        '{"role": "user", "content": "Hi"}"<b>"'
    assert render(tokenizer, "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.content }}"
                             "{% endfor %}") == "HiHello you"
    assert render(tokenizer, "{{ bos_token }}{{ mine }}", mine=3) == "<|begin_of_text|>3"
    with pytest.raises(ValueError, match="system comes first"):
        render(tokenizer, "{{ raise_exception('system comes first') }}")


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append({}) }}",
    "{{ raise_exception.__globals__.keys() }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% for i in range(10 ** 9) %}x{% endfor %}",
])
def test_sandbox(tokenizer, template):
    with pytest.raises(ValueError, match="chat template"):
        render(tokenizer, template)
    assert MESSAGES[0] == {"role": "user", "content": "Hi"} and len(MESSAGES) == 3


def test_several_templates(tokenizer):
    tokenizer.chat_template = {"default": "D", "tool_use": "T", "rag": "R"}
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == "D"
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False, tools=[{"type": "function"}]) == "T"
    assert render(tokenizer, "rag") == "R" and render(tokenizer, "{{ 1 + 1 }}") == "2"
    tokenizer.chat_template = {"rag": "R"}
    with pytest.raises(ValueError, match="none called 'default'"):
        tokenizer.apply_chat_template(MESSAGES)


def test_errors(tokenizer):
    with pytest.raises(ValueError, match="line 2"):
        render(tokenizer, "a\n{% if %}")
    with pytest.raises(ValueError, match="refused"):
        render(tokenizer, "{{ nowhere.attribute }}")
    for wrong in ("Hi", [["a"]], [{"content": "no role"}], 3):
        with pytest.raises(TypeError, match="role"):
            tokenizer.apply_chat_template(wrong)
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template.*chat_template.jinja"):
        tokenizer.apply_chat_template(MESSAGES)


def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C", tags: list[str] | None = None) -> float:
    """Forecast of the temperature.

    It is a guess.

    Args:
        city: Name of the city,
            with its country.
        days (int): How far ahead.
        unit: Unit of the answer.
        tags: More.

    Returns:
        float: the temperature
    """
    return len(city) * days


def test_tools_from_functions(tokenizer):
    schema = tool_schema(weather)
    assert schema == {"type": "function", "function": {
        "name": "weather", "description": "Forecast of the temperature.\n\nIt is a guess.",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name of the city, with its country."},
            "days": {"type": "integer", "description": "How far ahead."},
            "unit": {"type": "string", "enum": ["C", "F"], "description": "Unit of the answer."},
            "tags": {"type": "array", "items": {"type": "string"}, "nullable": True, "description": "More."}}},
        "return": {"type": "number", "description": "the temperature"}}}
    assert tool_schema(schema) is schema
    assert '"name": "weather"' in render(tokenizer, None, tools=[weather], date_string="today")
    with pytest.raises(ValueError, match="docstring"):
        tool_schema(lambda x: x)
    with pytest.raises(TypeError, match="JSON schema"):
        tool_schema("weather")
