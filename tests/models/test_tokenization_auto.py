"""AutoTokenizer: what is found where, which class, remote code, registration, errors."""
import io
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
import yaml

from mindformers.models.auto.tokenization_auto import (TOKENIZER_MAPPING, AutoTokenizer, get_tokenizer_config,
                                                       tokenizer_class_from_name)
from mindformers.models.build_tokenizer import build_tokenizer
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.glm2 import ChatGLM2Config
from mindformers.models.llama import LlamaConfig, LlamaTokenizer, LlamaTokenizerFast
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1] / "reference" / "tokenizers"
MODEL, FAST = ROOT / "llama2" / "tokenizer.model", ROOT / "llama3" / "tokenizer.json"


def folder(path, *files, **config):
    """A folder with copies of `files` and a tokenizer_config.json of `config` (none without)."""
    path.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, path)
    if config:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("files, config, use_fast, kind", [
    ([MODEL], {}, True, LlamaTokenizerFast),
    ([MODEL], {}, False, LlamaTokenizer),
    ([FAST], {}, True, PreTrainedTokenizerFast),
    ([FAST], {"tokenizer_class": "PreTrainedTokenizerFast"}, True, PreTrainedTokenizerFast),
    ([FAST], {"tokenizer_class": "TokenizersBackend"}, True, PreTrainedTokenizerFast),
    ([FAST], {"tokenizer_class": "LlamaTokenizerFast"}, True, LlamaTokenizerFast),
    ([FAST], {"tokenizer_class": "LlamaTokenizer"}, True, LlamaTokenizerFast),
    ([MODEL], {"tokenizer_class": "LlamaTokenizer"}, True, LlamaTokenizerFast),
    ([MODEL], {"tokenizer_class": "LlamaTokenizerFast"}, False, LlamaTokenizer),
    ([FAST], {"tokenizer_class": "Qwen2Tokenizer"}, True, PreTrainedTokenizerFast),
])
def test_class_of_a_folder(tmp_path, files, config, use_fast, kind):
    tokenizer = AutoTokenizer.from_pretrained(folder(tmp_path, *files, **config), use_fast=use_fast)
    assert type(tokenizer) is kind
    text = "Hello world"
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True) == text
    assert len(tokenizer) == (900 if files == [MODEL] else 505), "nothing may be added by loading"


def test_class_of_config_json(tmp_path):
    folder(tmp_path, MODEL)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is LlamaTokenizerFast
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=False)) is LlamaTokenizer


def test_class_of_arguments(tmp_path):
    folder(tmp_path, MODEL)
    assert type(AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="llama")) is LlamaTokenizerFast
    assert type(AutoTokenizer.from_pretrained(tmp_path, config=LlamaConfig(), use_fast=False)) is LlamaTokenizer
    with pytest.raises(ValueError, match="llama"):
        AutoTokenizer.from_pretrained(tmp_path, tokenizer_type="lama")


def test_single_files():
    assert AutoTokenizer.from_pretrained(MODEL, use_fast=False).encode("Hello") == LlamaTokenizer(MODEL).encode("Hello")
    assert AutoTokenizer.from_pretrained(FAST).vocab_size == 500
    with pytest.raises(ValueError, match="no vocabulary file of LlamaTokenizer"):
        LlamaTokenizer.from_pretrained(FAST)


def test_arguments_win_over_the_folder(tmp_path):
    folder(tmp_path, MODEL, tokenizer_class="LlamaTokenizer", padding_side="left", model_max_length=9)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding_side="right", pad_token="</s>")
    assert (tokenizer.padding_side, tokenizer.model_max_length, tokenizer.pad_token) == ("right", 9, "</s>")
    assert tokenizer.name_or_path == str(tmp_path)
    with pytest.raises(TypeError, match="Did you mean 'padding_side'"):
        AutoTokenizer.from_pretrained(tmp_path, padding_sde="left")


def test_yaml_and_name(tmp_path, monkeypatch):
    """A YAML's type is taken as it is; its paths are relative to the working directory or to the YAML."""
    folder(tmp_path / "vocabulary", MODEL)
    section = {"type": "LlamaTokenizer", "vocab_file": "./vocabulary/tokenizer.model", "pad_token": "</s>"}
    path = tmp_path / "predict_my_llama.yaml"
    path.write_text(yaml.safe_dump({"processor": {"type": "LlamaProcessor", "tokenizer": section}}))
    for where in (path, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(where)
        assert type(tokenizer) is LlamaTokenizer and tokenizer.pad_token == "</s>"
    monkeypatch.setattr("mindformers.models.config_sources.configs_dir", lambda: str(tmp_path))
    assert AutoTokenizer.from_pretrained("my_llama").encode("Hi") == LlamaTokenizer(MODEL).encode("Hi")
    assert AutoTokenizer.get_support_list() == {"llama": ["my_llama"]}
    assert LlamaTokenizer.get_support_list() == ["my_llama"] and LlamaTokenizerFast.get_support_list() == []
    AutoTokenizer.show_support_list()
    with pytest.raises(FileNotFoundError, match="my_llama"):
        AutoTokenizer.from_pretrained("my_lama")


def test_yaml_names_a_checkpoint_folder(tmp_path):
    """Without file paths the vocabulary is looked for in the checkpoint's folder."""
    folder(tmp_path / "weights", MODEL, tokenizer_class="LlamaTokenizer", model_max_length=12)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"load_checkpoint": "./weights",
                                    "processor": {"tokenizer": {"type": "LlamaTokenizerFast"}}}))
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert type(tokenizer) is LlamaTokenizerFast and tokenizer.model_max_length == 12


def test_build_tokenizer(tmp_path):
    section = {"type": "LlamaTokenizer", "vocab_file": str(MODEL), "add_eos_token": True}
    kept = dict(section)
    tokenizer = build_tokenizer(section, default_args={"padding_side": "left"})
    assert tokenizer.add_eos_token and tokenizer.padding_side == "left" and section == kept
    assert build_tokenizer(class_name="LlamaTokenizer", vocab_file=str(MODEL)).vocab_size == 900
    assert build_tokenizer(str(ROOT / "llama3")).vocab_size == 500 and build_tokenizer() is None
    folder(tmp_path, MODEL)
    beside = build_tokenizer({"type": "LlamaTokenizer", "vocab_file": "tokenizer.model"}, base_dir=str(tmp_path))
    assert beside.vocab_size == 900
    for wrong, error, message in (({"vocab_file": str(MODEL)}, ConfigError, "needs type"),
                                  ({"type": "LlamaTokenizr"}, ValueError, "LlamaTokenizer"),
                                  ({"type": "LlamaTokenizer"}, ConfigError, "vocab_file"),
                                  ({"type": "LlamaTokenizer", "vocab_file": "none.model"}, FileNotFoundError,
                                   "none.model"),
                                  ({"type": "LlamaTokenizer", "vocab_file": str(MODEL), "add_eos": 1}, TypeError,
                                   "add_eos_token")):
        with pytest.raises(error, match=message):
            build_tokenizer(wrong)


REMOTE = """
from mindformers.models.llama import LlamaTokenizer
open(__file__ + ".ran", "w").close()
class MyTokenizer(LlamaTokenizer):
    pass
"""


def test_remote_code_runs_only_when_trusted(tmp_path):
    folder(tmp_path, MODEL, tokenizer_class="MyTokenizer", auto_map={"AutoTokenizer": ["my_code.MyTokenizer", None]})
    (tmp_path / "my_code.py").write_text(REMOTE)
    for trust in (None, False):
        with pytest.raises(ValueError, match=r"my_code.py.*trust_remote_code=True"):
            AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=trust)
    assert not (tmp_path / "my_code.py.ran").exists()
    assert type(AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)).__name__ == "MyTokenizer"
    assert (tmp_path / "my_code.py.ran").exists()


def test_a_built_in_class_needs_no_remote_code(tmp_path):
    folder(tmp_path, MODEL, tokenizer_class="LlamaTokenizer", auto_map={"AutoTokenizer": ["my_code.MyTokenizer", None]})
    (tmp_path / "my_code.py").write_text(REMOTE)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is LlamaTokenizerFast
    assert not (tmp_path / "my_code.py.ran").exists()


def test_register(tmp_path, monkeypatch):
    class MyConfig(PretrainedConfig):
        """A family of a user."""

        model_type = "my_family"

    class MySlow(LlamaTokenizer):
        """Its slow tokenizer."""

    class MyFast(LlamaTokenizerFast):
        """Its fast one."""

        slow_tokenizer_class = MySlow

    monkeypatch.setattr(TOKENIZER_MAPPING, "registered", {})
    AutoTokenizer.register(MyConfig, slow_tokenizer_class=MySlow)
    AutoTokenizer.register(MyConfig, fast_tokenizer_class=MyFast)
    assert TOKENIZER_MAPPING[MyConfig] == (MySlow, MyFast) and tokenizer_class_from_name("MyFast") is MyFast
    folder(tmp_path, MODEL, tokenizer_class="MySlow")
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is MyFast
    assert type(AutoTokenizer.from_pretrained(tmp_path, config=MyConfig(), use_fast=False)) is MySlow
    with pytest.raises(ValueError, match="exist_ok"):
        AutoTokenizer.register(MyConfig, MySlow, MyFast)
    AutoTokenizer.register(MyConfig, MySlow, MyFast, exist_ok=True)
    for arguments in ((MyConfig,), (MyConfig, MyFast), (MyConfig, None, MySlow), (LlamaConfig, LlamaTokenizer),
                      (MyConfig, LlamaTokenizer, MyFast)):
        with pytest.raises(ValueError):
            AutoTokenizer.register(*arguments)


def test_mapping():
    assert TOKENIZER_MAPPING[LlamaConfig] == (LlamaTokenizer, LlamaTokenizerFast)
    assert list(TOKENIZER_MAPPING.keys()) == [LlamaConfig, ChatGLM2Config] and len(TOKENIZER_MAPPING) == 2
    assert tokenizer_class_from_name("LlamaTokenizer") is LlamaTokenizer
    assert tokenizer_class_from_name("Nothing") is None and TOKENIZER_MAPPING.get(dict) is None
    assert get_tokenizer_config(ROOT / "llama3")["eos_token"] == "<|eot_id|>"
    with pytest.raises(EnvironmentError, match="from_pretrained"):
        AutoTokenizer()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json.*it holds nothing"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder"):
        AutoTokenizer.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="subfolder 'x'"):
        AutoTokenizer.from_pretrained(tmp_path, subfolder="x")
    with pytest.raises(TypeError, match="non-empty str"):
        AutoTokenizer.from_pretrained(3)
    folder(tmp_path, tokenizer_class="LlamaTokenizer")
    with pytest.raises(FileNotFoundError, match="tokenizer.model.*tokenizer_config.json"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="LamaTokenizer.*Did you mean 'LlamaTokenizer'"):
        AutoTokenizer.from_pretrained(folder(tmp_path, tokenizer_class="LamaTokenizer"))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
def test_broken_json_names_the_file(tmp_path, name):
    folder(tmp_path, MODEL)
    for content in ('{"a": ', "[1]", "\udcff".encode("utf-8", "surrogatepass")):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=name):
            AutoTokenizer.from_pretrained(tmp_path)


def test_fast_form_that_cannot_be_made_falls_back_to_sentencepiece(tmp_path):
    """A model that normalizes its text has no faithful tokenizer.json: AutoTokenizer takes the slow class."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["hello world"] * 9), model_writer=model,
                                             vocab_size=30, model_type="bpe", minloglevel=2)
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is LlamaTokenizer
    with pytest.raises(NotImplementedError, match="normalizes"):
        LlamaTokenizerFast.from_pretrained(tmp_path)
