"""What users call with a repository's name: configs, models, tokenizers, processors, YAMLs, the command line."""
import shutil

import numpy as np
import pytest

from hub_server import ONE_FAST
from mindformers.checkpoint import open_weights
from mindformers.cli.main import main as cli
from mindformers.hub import HubAccessError
from mindformers.models import config_sources
from mindformers.models.auto import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer
from mindformers.models.hub_sources import weights_of
from mindformers.models.llama import LlamaForCausalLM, LlamaTokenizerFast
from mindformers.tools.utils import configs_dir
from test_download import asked_files

TINY = configs_dir() / "tiny" / "llama_tiny"


@pytest.fixture(scope="module")
def files():
    """The shipped tiny model as files of a repository."""
    return {path.name: path.read_bytes() for path in TINY.iterdir() if path.is_file()}


@pytest.fixture
def tiny(hub, files):
    """The repository Owner/tiny-llama with the shipped tiny model; its name with the prefix of the hub."""
    hub.add("Owner/tiny-llama", files)
    return f"{hub.prefix}Owner/tiny-llama"


def test_config_tokenizer_and_processor(hub, tiny):
    config = AutoConfig.from_pretrained(tiny, num_layers=1)
    assert config.num_layers == 1 and config.name_or_path == tiny
    tokenizer, local = AutoTokenizer.from_pretrained(tiny), AutoTokenizer.from_pretrained(str(TINY))
    assert tokenizer("def f(x):").input_ids == local("def f(x):").input_ids and tokenizer.name_or_path == tiny
    assert type(AutoProcessor.from_pretrained(tiny)).__name__ == "LlamaProcessor"
    assert LlamaTokenizerFast.from_pretrained(tiny).vocab_size == local.vocab_size
    assert set(asked_files(hub).values()) == {1} and "model.safetensors" not in asked_files(hub)


def test_a_model(hub, tiny):
    commit = hub.repos["Owner/tiny-llama"].branches["main"]
    model, info = AutoModelForCausalLM.from_pretrained(tiny, output_loading_info=True)
    assert info["missing_keys"] == [] and model.config.name_or_path == tiny
    weights = open_weights(TINY).read("model.embed_tokens.weight")
    assert np.array_equal(model.model.tok_embeddings.embedding_weight.asnumpy(), weights)
    assert asked_files(hub) == {"config.json": 1, "generation_config.json": 1, "model.safetensors": 1}
    hub.repos["Owner/tiny-llama"].commit({"config.json": b"{}"})  # the branch moves on; the commit does not
    again = AutoModelForCausalLM.from_pretrained(tiny, revision=commit, local_files_only=True, num_layers=1)
    assert again.config.num_layers == 1


@ONE_FAST
def test_a_known_name_takes_its_repository(hub, tiny, tmp_path, monkeypatch, files):
    other = "openmind" if hub.prefix == "hf://" else "huggingface"
    mine = "huggingface" if other == "openmind" else "openmind"
    configs = tmp_path / "configs"
    shutil.copytree(configs_dir() / "_base_", configs / "_base_")
    text = (configs_dir() / "tiny" / "predict_llama_tiny.yaml").read_text()
    (configs / "tiny").mkdir()
    (configs / "tiny" / "predict_llama_far.yaml").write_text(
        text.replace("load_checkpoint: ./llama_tiny", f"load_checkpoint: ''\nhub:\n  {mine}: Owner/tiny-llama\n"
                     f"  {other}: Owner/elsewhere"))
    monkeypatch.setattr(config_sources, "configs_dir", lambda: configs)
    monkeypatch.setenv("MF_HUB", mine)
    assert AutoConfig.from_pretrained("llama_far").num_layers and hub.log == []
    assert AutoTokenizer.from_pretrained("llama_far")("def").input_ids
    folder = weights_of("llama_far")
    assert open_weights(folder).names() == open_weights(TINY).names()
    kept = tmp_path / "checkpoint_download" / "llama"
    kept.mkdir(parents=True)
    (kept / "llama_far.safetensors").write_bytes(files["model.safetensors"])
    count = len(hub.log)
    assert weights_of("llama_far") == str(kept / "llama_far.safetensors") and len(hub.log) == count


@ONE_FAST
def test_the_command_line(hub, tiny, capsys):
    assert cli(["check", tiny]) == 0
    out = capsys.readouterr().out
    assert f"{tiny}: valid" in out and "weights: not fetched yet; 1 file on the hub" in out
    assert "model.safetensors" not in asked_files(hub)
    assert cli(["chat", tiny, "--message", "def f(x):", "--max_new_tokens", "2", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.strip()
    assert cli(["check", tiny]) == 0 and "weights: 56 tensors" in capsys.readouterr().out
    assert cli(["chat", f"{hub.prefix}Owner/none"]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["./foo", "./Owner/tiny-llama", "/no/such/folder", "a/b/c", "../x/y", "foo", "x.yaml",
                                  "Owner/config.json", "~/nothing/here"])
@pytest.mark.parametrize("read", [AutoConfig, AutoTokenizer, AutoModelForCausalLM, LlamaForCausalLM])
def test_a_mistyped_path_asks_no_hub(hf, name, read):
    with pytest.raises(FileNotFoundError):
        read.from_pretrained(name)
    assert hf.log == []


def test_a_path_that_exists_asks_no_hub(hf, tmp_path, monkeypatch):
    shutil.copytree(TINY, tmp_path / "Owner" / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    assert AutoConfig.from_pretrained("Owner/tiny-llama").num_layers
    assert hf.log == []
    with pytest.raises(HubAccessError, match="it does not exist, or is private"):
        AutoConfig.from_pretrained("hf://Owner/tiny-llama")
    assert hf.log != []


@ONE_FAST
def test_load_checkpoint_of_a_yaml(hub, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_DEFAULT_PATH", str(tmp_path / "out"))
    yaml_path = str(configs_dir() / "tiny" / "predict_llama_tiny.yaml")
    arguments = ["run", "--config", yaml_path, "--output_dir", str(tmp_path / "out"), "--predict_data", "def f(x):"]
    assert cli([*arguments, "--load_checkpoint", tiny]) == 0
    assert asked_files(hub) == {"model.safetensors": 1}
    assert "def f(x):" in capsys.readouterr().out
    count = len(hub.log)
    assert cli([*arguments, "--load_checkpoint", "./Owner/tiny-llama"]) == 2 and len(hub.log) == count
    assert "'./Owner/tiny-llama' does not exist" in capsys.readouterr().err
    # one hub says that there is no such name, wrong input (404); the other that access is a matter of a token (401)
    code = 2 if "openmind" in hub.prefix else 1
    assert cli([*arguments, "--load_checkpoint", f"{hub.prefix}Owner/none"]) == code
    assert "does not exist" in capsys.readouterr().err
