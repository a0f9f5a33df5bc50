"""`mindformers chat` and `check` on folders of GLM models, as their authors publish them."""
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
from glm_helpers import write_ranks, write_sentencepiece  # noqa: E402  pylint: disable=wrong-import-position

from mindformers.cli.main import main  # noqa: E402  pylint: disable=wrong-import-position
from mindformers.generation import TextStreamer  # noqa: E402  pylint: disable=wrong-import-position
from mindformers.models.auto import AutoTokenizer  # noqa: E402  pylint: disable=wrong-import-position
from mindformers.models.glm2.glm2 import ChatGLM2ForConditionalGeneration  # noqa: E402
from mindformers.models.glm2.glm2_config import ChatGLM2Config  # noqa: E402
from mindformers.pet import LoraConfig, get_pet_model  # noqa: E402

KINDS = {"chatglm2-6b": (write_sentencepiece, "ChatGLMTokenizer"),
         "chatglm3-6b": (write_sentencepiece, "ChatGLMTokenizer"), "glm-4-9b-chat": (write_ranks, "ChatGLM4Tokenizer")}


@pytest.fixture(params=[pytest.param("chatglm2-6b", marks=pytest.mark.slow), "chatglm3-6b",
                        pytest.param("glm-4-9b-chat", marks=pytest.mark.slow)])
def folder(request, tmp_path):
    """A small model with random weights in a folder of the published layout."""
    write, kind = KINDS[request.param]
    write(tmp_path)
    settings = {"tokenizer_class": kind, "name_or_path": f"THUDM/{request.param}",
                "auto_map": {"AutoTokenizer": [f"tokenization_chatglm.{kind}", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    size = len(AutoTokenizer.from_pretrained(str(tmp_path)))
    config = ChatGLM2Config(padded_vocab_size=size, hidden_size=16, num_layers=1, num_attention_heads=2, kv_channels=8,
                            multi_query_group_num=1, ffn_hidden_size=24, seq_length=256, param_init_type="float32")
    ChatGLM2ForConditionalGeneration(config).save_pretrained(tmp_path)
    return tmp_path


def test_chat(folder, capsys):
    arguments = [str(folder), "--temperature", "0", "--max_new_tokens", "6", "--message"]
    assert main(["chat", *arguments, "hello 你好"]) == 0
    first = capsys.readouterr().out
    assert main(["chat", *arguments, "hello 你好"]) == 0
    assert capsys.readouterr().out == first and first.strip()


def test_chat_with_adapters(folder, tmp_path, capsys):
    model = ChatGLM2ForConditionalGeneration.from_pretrained(str(folder))
    get_pet_model(model, LoraConfig(target_modules=".*query_key_value|.*output_layer", lora_rank=2, lora_alpha=64,
                                    lora_b_init="normal", lora_a_init="normal"))
    for parameter in model.adapter_parameters().values():
        parameter.set_data(parameter * 100)
    model.save_adapter(tmp_path / "adapter")
    arguments = ["chat", str(folder), "--temperature", "0", "--max_new_tokens", "6", "--message", "hello"]
    answers = []
    for more in ([], ["--adapter", str(tmp_path / "adapter")]):
        assert main([*arguments, *more]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] != answers[1]
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model.chat(tokenizer, "hello", max_new_tokens=6, do_sample=False, streamer=TextStreamer(tokenizer, skip_prompt=True))
    assert capsys.readouterr().out.strip() in answers[1]
    assert main([*arguments, "--adapter", str(tmp_path / "nowhere")]) != 0
    assert "no adapters at" in capsys.readouterr().err


def test_check(folder, capsys):
    assert main(["check", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "ChatGLM2Config" in shown and "tokenizer: tokenizer.model" in shown
