"""--register_path: a model type that the suite does not have, in each verb that takes a folder."""
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from mindformers.cli.main import main
from mindformers.models.auto.configuration_auto import CONFIG_MAPPING
from mindformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

ROOT = Path(__file__).resolve().parents[2]
QWEN2 = ROOT / "research" / "qwen2"
FOLDER = str(QWEN2 / "golden" / "tied")


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch):
    """Nothing of research/ imported or registered; all as it was afterwards."""
    monkeypatch.setenv("REGISTER_PATH", "")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(QWEN2)])
    for mapping in (CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        monkeypatch.setattr(mapping, "_extra", {key: value for key, value in mapping._extra.items()
                                                if "qwen2" not in str(key).lower()})
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("qwen2")}
    yield
    for name in [name for name in sys.modules if name.startswith("qwen2")]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.mark.parametrize("verb", [["check", FOLDER], ["check", FOLDER, "--parameters"],
                                  ["convert", FOLDER, "out", "--to", "mindformers"]], ids=lambda verb: verb[0])
def test_without_it_the_error_names_it(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(verb) == 2
    error = capsys.readouterr().err
    assert "'qwen2' is not carried" in error and "qwen2.py in the folder that --register_path" in error


def test_check_and_convert_with_it(capsys, tmp_path):
    assert main(["check", FOLDER, "--register_path", str(QWEN2)]) == 0
    assert "config: Qwen2Config, architecture Qwen2ForCausalLM" in capsys.readouterr().out
    assert main(["check", FOLDER, "--parameters", "--register_path", str(QWEN2)]) == 0
    assert "model.layers.1.attention.wv.bias" in capsys.readouterr().out
    assert main(["convert", FOLDER, str(tmp_path / "out"), "--to", "mindformers", "--register_path", str(QWEN2)]) == 0
    assert list((tmp_path / "out").glob("*.ckpt"))


def test_chat_with_it(capsys, tmp_path):
    """The tokenizer says Qwen2Tokenizer, a class that is not here: its tokenizer.json says all."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{FOLDER}/{name}", tmp_path)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, 96)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "</s>", "pad_token": "<pad>"}))
    assert main(["chat", str(tmp_path), "--message", "w5 w6 w7", "--temperature", "0", "--max_new_tokens", "4",
                 "--register_path", str(QWEN2)]) == 0
    assert len(re.findall(r"\bw\d+", capsys.readouterr().out)) >= 3


@pytest.mark.parametrize("path", ["nowhere", FOLDER + "/config.json"])
def test_no_folder(path, capsys):
    assert main(["check", FOLDER, "--register_path", path]) == 2
    assert f"--register_path {path!r} is not a folder" in capsys.readouterr().err
