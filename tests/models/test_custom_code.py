"""Classes of a user that travel with their folder: saved with their code, run only when trusted."""
import importlib
import json
import sys

import pytest

from mindformers.models.auto.configuration_auto import AutoConfig, model_type_of_name
from mindformers.models.auto.processing_auto import AutoProcessor
from mindformers.models.auto.tokenization_auto import AutoTokenizer
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.llama import LlamaProcessor
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from mindformers.tools.errors import ConfigError
from tokenization_helpers import ROOT

SOURCE = '''
"""A user's classes."""
from mindformers.models.configuration_utils import PretrainedConfig
from mindformers.models.llama import LlamaProcessor
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast


class MyConfig(PretrainedConfig):
    model_type = "mine"

    def __init__(self, width=3, **kwargs):
        self.width = width
        super().__init__(**kwargs)

    def doubled(self):
        return 2 * self.width


class MyTokenizer(PreTrainedTokenizerFast):
    def shout(self, text):
        return self(text.upper()).input_ids


class MyProcessor(LlamaProcessor):
    kind = "mine"
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The module of the user's classes, not yet registered."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_classes.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield importlib.import_module("my_classes")
    del sys.modules["my_classes"]


def forget(mine, monkeypatch):
    """Take the module away, as in a process that never saw it."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "code" not in str(path)])


def test_a_config_with_its_code(mine, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    mine.MyConfig(width=5).save_pretrained(str(folder))
    assert not (folder / "my_classes.py").exists()  # not registered: the class alone is nothing to copy
    mine.MyConfig.register_for_auto_class()
    mine.MyConfig(width=5, extra=1).save_pretrained(str(folder))
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {"AutoConfig": "my_classes.MyConfig"}
    assert (folder / "my_classes.py").read_text() == SOURCE
    forget(mine, monkeypatch)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoConfig.from_pretrained(str(folder))
    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    assert type(config) is not mine.MyConfig and (config.width, config.doubled(), config.extra) == (5, 10, 1)
    again = tmp_path / "again"
    config.save_pretrained(str(again))
    assert AutoConfig.from_pretrained(str(again), trust_remote_code=True).doubled() == 10
    assert "auto_map" not in LlamaConfig().to_hf_dict()


def test_a_tokenizer_and_a_processor_with_their_code(mine, tmp_path, monkeypatch):
    mine.MyTokenizer.register_for_auto_class()
    mine.MyProcessor.register_for_auto_class("AutoProcessor")
    tokenizer = mine.MyTokenizer.from_pretrained(ROOT / "llama3")
    expected = tokenizer.shout("hello")
    mine.MyProcessor(tokenizer=tokenizer).save_pretrained(str(tmp_path / "model"))
    forget(mine, monkeypatch)
    folder = str(tmp_path / "model")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoTokenizer.from_pretrained(folder)
    read = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    assert read.shout("hello") == expected != read("hello").input_ids
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    assert processor.kind == "mine" and processor.tokenizer.shout("hello") == expected
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoProcessor.from_pretrained(folder)


def test_only_the_fitting_auto_class(mine):
    for cls, wanted in ((mine.MyConfig, "AutoConfig"), (mine.MyTokenizer, "AutoTokenizer"),
                        (mine.MyProcessor, "AutoProcessor")):
        with pytest.raises(ValueError, match=f"'AutoModl' is not a valid auto class here; use '{wanted}'"):
            cls.register_for_auto_class("AutoModl")
    mine.MyTokenizer.register_for_auto_class(AutoTokenizer)
    assert mine.MyTokenizer._auto_class == "AutoTokenizer"
    assert PreTrainedTokenizerFast._auto_class is None and PretrainedConfig._auto_class is None
    assert LlamaProcessor._auto_class is None


def test_code_that_cannot_travel(tmp_path, monkeypatch):
    kind = type("Here", (PretrainedConfig,), {"__module__": "__main__", "_auto_class": "AutoConfig"})
    with pytest.raises(ConfigError, match="Here cannot be saved with its code"):
        kind().save_pretrained(str(tmp_path / "out"))
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("VALUE = 1\n")
    (package / "config.py").write_text("from .helper import VALUE\n" + SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_package.config")
    module.MyConfig.register_for_auto_class()
    module.MyConfig(width=4).save_pretrained(str(tmp_path / "whole"))
    assert (tmp_path / "whole" / "helper.py").read_text() == "VALUE = 1\n"
    assert AutoConfig.from_pretrained(str(tmp_path / "whole"), trust_remote_code=True).doubled() == 8
    (package / "config.py").write_text("from ..other import VALUE\n" + SOURCE)
    with pytest.raises(ConfigError, match=r"config.py:1: only files of the same folder travel with a class"):
        module.MyConfig().save_pretrained(str(tmp_path / "out"))
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("model_type, auto_map, words", [
    ("llama", ["x.Y", None], r"auto_map must map names of auto classes to 'file.Class', but is \['x.Y', None\]"),
    ("mine", "x.Y", "auto_map must map .* but is 'x.Y'"),
    ("mine", {"AutoConfig": ["c.Foo"]}, r"auto_map.AutoConfig must be a text 'file.Class', but is \['c.Foo'\]"),
    ("mine", {"AutoConfig": 3}, "auto_map.AutoConfig must be a text 'file.Class', but is 3"),
])
def test_an_auto_map_that_is_none(tmp_path, model_type, auto_map, words):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "auto_map": auto_map}))
    with pytest.raises(ConfigError, match=words):
        AutoConfig.from_pretrained(str(tmp_path), trust_remote_code=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {}}))
    assert isinstance(AutoConfig.from_pretrained(str(tmp_path)), LlamaConfig)


@pytest.mark.parametrize("name, kind", [("Llama-2-7b-hf", "llama"), ("./models/TinyLLAMA/", "llama"), ("gpt2", None),
                                        ("llama/gpt2", None), ("", None)])
def test_model_type_by_name(name, kind):
    assert model_type_of_name(name) == kind


def test_a_config_without_a_type_goes_by_the_name_of_its_folder(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name in ("my-llama-2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(sizes))
    assert isinstance(AutoConfig.from_pretrained(str(tmp_path / "my-llama-2")), LlamaConfig)
    with pytest.raises(ValueError, match="Unrecognized model in .*other: model_type None"):
        AutoConfig.from_pretrained(str(tmp_path / "other"))
