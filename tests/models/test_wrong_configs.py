"""Configurations and paths that a user gets wrong: each is one clear error, never a silently different model."""
import json
import pathlib
import threading
import time

import pytest
from glm_helpers import write_ranks, write_sentencepiece

from mindformers.models import ChatGLM3Tokenizer, ChatGLM4Tokenizer
from mindformers.models.auto.configuration_auto import AutoConfig
from mindformers.models.glm2.glm2_chat import GLMChatMixin
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import ConfigError

HF = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
      "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128}


def write(folder, prefix=b"", **values):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(prefix + json.dumps({**HF, **values}).encode())
    return str(folder)


@pytest.mark.parametrize("values, words", [
    ({"num_key_value_heads": 0}, "n_kv_heads must be a positive integer or null, but is 0"),
    ({"head_dim": -8}, "head_dim must be a positive integer"),
    ({"intermediate_size": "80"}, "intermediate_size must be a positive integer or null, but is '80'"),
    ({"rms_norm_eps": "1e-6"}, "rms_norm_eps must be a positive number, but is '1e-6'"),
    ({"rms_norm_eps": -1}, "rms_norm_eps must be a positive number, but is -1"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number, but is nan"),
    ({"rope_theta": -1.0}, "theta must be a positive number, but is -1.0"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false, but is 'false'"),
    ({"attention_bias": "no"}, "qkv_has_bias must be true or false, but is 'no'"),
    ({"rope_scaling": {"type": "linear", "factor": "two"}}, "must be a number >= 1, but is 'two'"),
    ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, "must be a number >= 1, but is nan"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
                       "low_freq_factor": "1", "high_freq_factor": 4.0}},
     "scaling_factor.low_freq_factor must be a number, but is '1'"),
    ({"model_type": ["llama"]}, r"model_type must be a string, but is \['llama'\]"),
])
def test_values_that_would_build_another_model(tmp_path, values, words):
    assert AutoConfig.from_pretrained(write(tmp_path / "good")).hidden_size == 64
    with pytest.raises(ConfigError, match=words):
        AutoConfig.from_pretrained(write(tmp_path / "bad", **values))


def test_byte_order_mark_is_read_over(tmp_path):
    assert AutoConfig.from_pretrained(write(tmp_path / "bom", prefix=b"\xef\xbb\xbf")).vocab_size == 96


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model")
    assert AutoConfig.from_pretrained("~/model").vocab_size == 96
    assert AutoConfig.from_pretrained(pathlib.Path("~/model")).vocab_size == 96
    LlamaConfig(num_layers=3).save_pretrained("~/saved")
    assert AutoConfig.from_pretrained("~/saved").num_layers == 3
    assert not (tmp_path / "~").exists()


def test_bytes_that_are_not_utf8_are_named():
    from tokenizers import Tokenizer, models
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, "<unk>")))
    text = b"a \xe9".decode("utf-8", "surrogateescape")
    with pytest.raises(ValueError, match=r"'\\udce9' at place 2 is no character; it comes from bytes that are not UTF"):
        tokenizer(text)


MESSAGES = [
    ({"role": "system", "content": "s", "tools": "notalist"}, "tools of a system message must be .* 'notalist'"),
    ({"role": "system", "content": "s", "tools": ["name"]}, r"a list of JSON schemas \(dicts\), but is \['name'"),
    ({"role": "user", "content": [{"type": "text", "text": "t"}]}, "content of a user message must be a string"),
    ({"content": "s"}, "history must be a list of dicts with role and content"),
]


@pytest.mark.parametrize("message, words", MESSAGES)
@pytest.mark.parametrize("kind, make", [(ChatGLM3Tokenizer, write_sentencepiece), (ChatGLM4Tokenizer, write_ranks)],
                         ids=["ChatGLM3", "ChatGLM4"])
def test_messages_that_are_none(tmp_path, kind, make, message, words):
    tokenizer = kind(str(make(tmp_path)))
    for call in (GLMChatMixin().chat, GLMChatMixin().stream_chat):
        with pytest.raises(TypeError, match=words):
            next(iter(call(tokenizer, "x", [message])))
    with pytest.raises(TypeError, match=words):
        tokenizer.build_chat_input("x", [message])


def test_tools_without_a_name_and_messages_of_tools_alone(tmp_path):
    tokenizer = ChatGLM4Tokenizer(str(write_ranks(tmp_path)))
    with pytest.raises(ValueError, match="schema of a function with a name, but is {'function': 'f'}"):
        tokenizer.build_chat_input("x", [{"role": "system", "tools": [{"function": "f"}]}])
    third = ChatGLM3Tokenizer(str(write_sentencepiece(tmp_path)))
    tools = [{"name": "n"}]
    bare, empty = ({"role": "system", "tools": tools, **more} for more in ({}, {"content": ""}))
    assert third.build_chat_input("x", [bare]).input_ids.tolist() == \
        third.build_chat_input("x", [empty]).input_ids.tolist()


def test_threads_share_one_pool(monkeypatch):
    from mindformers.models import decoding

    class SlowPool(decoding.CachePool):
        def __init__(self, *args, **kwargs):
            time.sleep(0.05)  # so that both threads are inside when there is no lock
            super().__init__(*args, **kwargs)

    class Decoder(decoding.DecodingMixin):
        def __init__(self):
            self.config = LlamaConfig(**{key: value for key, value in HF.items() if key != "model_type"})
            self.model = type("Backbone", (), {"num_layers": 2, "heads": (4, 2, 16), "past_length": 0})

        def _hide(self, name, value):
            setattr(self, name, value)

    monkeypatch.setattr(decoding, "CachePool", SlowPool)
    decoder, pools = Decoder(), []
    threads = [threading.Thread(target=lambda: pools.append(decoder.make_cache(1, 16).pool)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pools) == 2 and pools[0] is pools[1]
