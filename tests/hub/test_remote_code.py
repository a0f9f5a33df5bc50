"""Code of repositories: never run without trust, run from the commit that was asked for, and nothing but that code."""
import importlib
import importlib.util
import json
import os
import py_compile
import sys
from pathlib import Path

import pytest

from hub_server import ONE_FAST
from mindformers.hub import HubNotFoundError
from mindformers.models.auto import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from mindformers.models.llama import LlamaConfig, LlamaForCausalLM
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from test_download import asked_files

ROOT = Path(__file__).parents[2]

MARK = "import os\nos.environ['REMOTE_CODE_RAN'] = {!r}\n"
CONFIG_PY = MARK.format("config") + """
from mindformers.models.configuration_utils import PretrainedConfig
from .sizes import WIDTH

class FarConfig(PretrainedConfig):
    model_type = "far"

    def __init__(self, width=WIDTH, **kwargs):
        self.width = width
        super().__init__(**kwargs)
"""
TOKENIZER_PY = MARK.format("tokenizer") + """
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast

class FarTokenizer(PreTrainedTokenizerFast):
    pass
"""
FAR = {"config.json": json.dumps({"model_type": "far", "auto_map": {"AutoConfig": "far_config.FarConfig"}}),
       "far_config.py": CONFIG_PY, "sizes.py": "WIDTH = 3\n", "unused.py": "raise RuntimeError('not asked for')\n"}


@pytest.fixture(autouse=True)
def not_run(monkeypatch):
    """The mark that the code leaves is not there."""
    monkeypatch.setenv("REMOTE_CODE_RAN", "")
    monkeypatch.setenv("REMOTE_CODE_RAN", "")


def ran():
    """What code ran last."""
    return os.environ["REMOTE_CODE_RAN"]


def test_only_with_trust_and_only_what_is_needed(hub, caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    hub.add("Owner/far", FAR)
    name = f"{hub.prefix}Owner/far"
    for trust in (False, None, 1, "yes"):  # True, and nothing that only looks like it
        with pytest.raises(ValueError, match="needs the code of far_config.py .* pass trust_remote_code=True"):
            AutoConfig.from_pretrained(name, trust_remote_code=trust)
    assert ran() == "" and "far_config.py" not in asked_files(hub)
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    assert config.width == 3 and ran() == "config"
    commit = hub.repos["Owner/far"].branches["main"]
    assert f"snapshots/{commit}: far_config.py, sizes.py (trust_remote_code=True)" in caplog.text


def test_the_commit_of_the_code_is_pinned(hub):
    repo = hub.add("Owner/far", FAR)
    name, first = f"{hub.prefix}Owner/far", repo.branches["main"]
    assert AutoConfig.from_pretrained(name, trust_remote_code=True).width == 3
    repo.commit({"sizes.py": b"WIDTH = 4\n"})
    assert AutoConfig.from_pretrained(name, trust_remote_code=True).width == 4
    assert AutoConfig.from_pretrained(name, trust_remote_code=True, code_revision=first).width == 3
    assert AutoConfig.from_pretrained(name, trust_remote_code=True, revision=first).width == 3
    repo.branches["review"] = first
    assert AutoConfig.from_pretrained(name, trust_remote_code=True, code_revision="review").width == 3
    with pytest.raises(HubNotFoundError, match="no revision 'gone'"):
        AutoConfig.from_pretrained(name, trust_remote_code=True, code_revision="gone")


@ONE_FAST
def test_code_of_another_repository(hub, caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    hub.add("Other/code", {path: text for path, text in FAR.items() if path.endswith(".py")})
    hub.add("Owner/thin", {"config.json": json.dumps(
        {"model_type": "far", "auto_map": {"AutoConfig": "Other/code--far_config.FarConfig"}})})
    name = f"{hub.prefix}Owner/thin"
    monkeypatch.setenv("MF_HUB", hub.prefix.removesuffix("://"))
    with pytest.raises(ValueError, match="far_config.py in the repository Other/code to be run"):
        AutoConfig.from_pretrained(name)
    assert not hub.asked("Other/code") and ran() == ""
    assert AutoConfig.from_pretrained(name, trust_remote_code=True).width == 3
    assert "the code of Other/code is not pinned" in caplog.text


def test_built_in_classes_win(hf):
    """As THUDM/chatglm2-6b has it: a known model type beside an auto_map."""
    config = LlamaConfig(hidden_size=16, num_layers=1, num_heads=2, vocab_size=32).to_hf_dict()
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    hf.add("Owner/known", {"config.json": json.dumps(config), "evil.py": MARK.format("evil"),
                           "tokenizer_config.json": json.dumps({"tokenizer_class": "LlamaTokenizerFast", "auto_map": {
                               "AutoTokenizer": ["evil.Evil", None]}}),
                           "tokenizer.json": json.dumps({
                               "version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0},
                                                                               "merges": []}})})
    for trust in (None, True):
        assert type(AutoConfig.from_pretrained("hf://Owner/known", trust_remote_code=trust)) is LlamaConfig
        model = AutoModelForCausalLM.from_pretrained("hf://Owner/known", trust_remote_code=trust,
                                                     state_dict=LlamaForCausalLM(LlamaConfig(
                                                         hidden_size=16, num_layers=1, num_heads=2,
                                                         vocab_size=32)).parameters_dict())
        assert type(model) is LlamaForCausalLM
        assert type(AutoTokenizer.from_pretrained("hf://Owner/known", trust_remote_code=trust)).__name__ == \
            "LlamaTokenizerFast"
    assert ran() == "" and "evil.py" not in asked_files(hf)


def test_a_tokenizer_of_a_repository(hf):
    hf.add("Owner/far", {"tokenizer_config.json": json.dumps({"tokenizer_class": "FarTokenizer", "auto_map": {
        "AutoTokenizer": [None, "far_tokenizer.FarTokenizer"]}}), "far_tokenizer.py": TOKENIZER_PY,
        "tokenizer.json": json.dumps({"version": "1.0", "added_tokens": [],
                                      "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})})
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoTokenizer.from_pretrained("hf://Owner/far")
    assert ran() == ""
    tokenizer = AutoTokenizer.from_pretrained("hf://Owner/far", trust_remote_code=True)
    assert type(tokenizer).__name__ == "FarTokenizer" and tokenizer("a").input_ids == [0] and ran() == "tokenizer"


@pytest.mark.parametrize("reference", ["../far_config.FarConfig", "os.path.join", "a.b.C", "/etc/x.C", "far config.C",
                                       "../..--far_config.FarConfig", "C", ""])
def test_references_that_are_none(tmp_path, reference):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "far", "auto_map": {"AutoConfig": reference}}))
    with pytest.raises(ValueError):
        AutoConfig.from_pretrained(str(tmp_path), trust_remote_code=True)


def local(tmp_path, **files):
    """A local folder with a far config and its code; returns its path."""
    folder = tmp_path / "far"
    folder.mkdir()
    for name, text in {**FAR, **files}.items():
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    folder = local(tmp_path, **{"sizes.py": None})
    (tmp_path / "outside.py").write_text("WIDTH = 9\n")
    (folder / "sizes.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(ConfigError, match="sizes.py is a link to .*outside.py outside its folder"):
        AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    assert ran() == ""


def test_compiled_files_are_not_run(tmp_path):
    folder = local(tmp_path)
    evil = tmp_path / "evil.py"
    evil.write_text("WIDTH = 666\n")
    target = importlib.util.cache_from_source(str(folder / "sizes.py"))
    py_compile.compile(str(evil), target, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    spec = importlib.util.spec_from_file_location("plain", folder / "sizes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.WIDTH == 666  # what Python itself would run
    held = set(os.listdir(folder / "__pycache__"))
    assert AutoConfig.from_pretrained(str(folder), trust_remote_code=True).width == 3
    assert set(os.listdir(folder / "__pycache__")) == held


@pytest.mark.parametrize("line, error, words", [
    ("from ..sizes import WIDTH", ConfigError, "only files of the same folder"),
    ("from .deep.sizes import WIDTH", ConfigError, "only files of the same folder"),
    ("from .absent import WIDTH", FileNotFoundError, "needs .*absent.py, which is not a file"),
    ("from .sizes import (", ConfigError, "no Python that can be read")])
def test_imports_that_lead_nowhere(tmp_path, line, error, words):
    folder = local(tmp_path, **{"far_config.py": CONFIG_PY.replace("from .sizes import WIDTH", line)})
    with pytest.raises(error, match=words):
        AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    assert ran() == ""


@ONE_FAST
def test_a_model_of_ones_own_travels_with_its_code(hub, tmp_path, monkeypatch):
    code = tmp_path / "my_package"
    code.mkdir()
    (code / "my_llama.py").write_text(
        "from mindformers.models.llama import LlamaForCausalLM\nfrom .my_config import MyConfig\n\n\n"
        "class MyLlama(LlamaForCausalLM):\n    config_class = MyConfig\n")
    (code / "my_config.py").write_text(
        "from mindformers.models.llama import LlamaConfig\n\n\nclass MyConfig(LlamaConfig):\n    model_type = 'mine'\n")
    (code / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_package.my_llama")
    config_class, model_class = module.MyConfig, module.MyLlama
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModelForCausalLM")
    model = model_class(config_class(hidden_size=16, num_layers=1, num_heads=2, vocab_size=32))
    model.push_to_hub(f"{hub.prefix}Owner/mine", token="write", tags="own")
    files = hub.repos["Owner/mine"].at("main")[1]
    assert json.loads(files["config.json"])["auto_map"] == {
        "AutoConfig": "my_config.MyConfig", "AutoModelForCausalLM": "my_llama.MyLlama"}
    assert files["my_llama.py"] == (code / "my_llama.py").read_bytes() and "my_config.py" in files
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModelForCausalLM.from_pretrained(f"{hub.prefix}Owner/mine")
    again = AutoModelForCausalLM.from_pretrained(f"{hub.prefix}Owner/mine", trust_remote_code=True)
    assert type(again).__name__ == "MyLlama" and type(again) is not model_class
    assert type(again.config) is type(again).config_class
    assert (again.model.norm_out.weight.asnumpy() == model.model.norm_out.weight.asnumpy()).all()


def test_chatglm2_needs_no_trust(hf):
    """The published repository as it is: auto_map for everything, .bin weights, no file of ours."""
    code = "modeling_chatglm.ChatGLMForConditionalGeneration"
    config = {"model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": 1, "hidden_size": 32,
              "num_attention_heads": 4, "kv_channels": 8, "ffn_hidden_size": 48, "padded_vocab_size": 64,
              "multi_query_attention": True, "multi_query_group_num": 2, "seq_length": 64, "add_qkv_bias": True,
              "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig", "AutoModel": code,
                           "AutoModelForCausalLM": code, "AutoModelForSeq2SeqLM": code}}
    settings = {"tokenizer_class": "ChatGLMTokenizer", "name_or_path": "THUDM/chatglm2-6b", "remove_space": False,
                "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}}
    files = {name: MARK.format("evil") for name in ("configuration_chatglm.py", "modeling_chatglm.py",
                                                    "tokenization_chatglm.py")}
    model = (ROOT / "tests" / "reference" / "tokenizers" / "llama2" / "tokenizer.model").read_bytes()
    hf.add("THUDM/chatglm2-6b", {"config.json": json.dumps(config), "tokenizer_config.json": json.dumps(settings),
                                 "tokenizer.model": model, **files})
    config = AutoConfig.from_pretrained("THUDM/chatglm2-6b")
    assert type(config).__name__ == "ChatGLM2Config" and config.num_layers == 1
    assert type(AutoTokenizer.from_pretrained("THUDM/chatglm2-6b")).__name__ == "ChatGLM2Tokenizer"
    empty = AutoModelForCausalLM.from_config(config)
    weights = {parameter.name: parameter for parameter in empty.get_parameters()}
    model = AutoModelForCausalLM.from_pretrained("THUDM/chatglm2-6b", state_dict=weights)
    assert type(model).__name__ == "ChatGLM2ForConditionalGeneration"
    assert ran() == "" and not set(files) & set(asked_files(hf))
