"""Names: each is found from its YAML, has the published number of parameters, runs, and says where its weights live."""
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindformers import AutoConfig, AutoModelForCausalLM, MindFormerConfig
from mindformers.cli import ls
from mindformers.hub.names import is_repo_name
from mindformers.models.config_sources import find_yaml, known_names
from mindformers.models.model_counts import parameter_count, parameter_shapes
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401

# as the model cards and safetensors indexes of the repositories give them
PUBLISHED = {
    "llama_7b": 6_738_415_616, "llama_13b": 13_015_864_320, "llama_65b": 65_285_660_672,
    "llama2_7b": 6_738_415_616, "llama2_13b": 13_015_864_320, "llama2_70b": 68_976_648_192,
    "codellama_7b": 6_738_546_688, "codellama_13b": 13_016_028_160, "codellama_34b": 33_743_970_304,
    "tinyllama_1b": 1_100_048_384,
    "llama3_8b": 8_030_261_248, "llama3_70b": 70_553_706_496, "llama3_1_8b": 8_030_261_248,
    "llama3_1_70b": 70_553_706_496, "llama3_1_405b": 405_853_388_800, "llama3_2_1b": 1_235_814_400,
    "llama3_2_3b": 3_212_749_824, "llama3_3_70b": 70_553_706_496,
    "glm2_6b": 6_243_584_000, "glm3_6b": 6_243_584_000, "glm4_9b": 9_399_951_360,
}
SHRUNK = {"num_layers": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "vocab_size": 64,
          "seq_length": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "head_dim": None,
          "param_init_type": "float32"}


def test_every_name_is_looked_at():
    assert set(known_names()) == {*PUBLISHED, "llama_tiny"} and len(PUBLISHED) == 21


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_full_size_are_the_published_number(name):
    """Counted twice: from the shapes of all parameters, and by the config's own arithmetic; nothing is allocated."""
    config = AutoConfig.from_pretrained(name)
    assert parameter_count(config) == config.num_parameters() == PUBLISHED[name]
    title = Path(find_yaml(name)).read_text(encoding="utf-8").splitlines()[0]
    assert f"{PUBLISHED[name]:,} parameters" in title
    config.num_layers += 1
    assert parameter_count(config) > PUBLISHED[name]  # the control


ONE_OF_EACH_FAMILY = ("llama3_2_1b", "glm4_9b")


@pytest.mark.parametrize("name", [name if name in ONE_OF_EACH_FAMILY else pytest.param(name, marks=pytest.mark.slow)
                                  for name in PUBLISHED])
def test_shrunk_to_two_layers_it_runs(name, request):
    if name not in ONE_OF_EACH_FAMILY:
        request.getfixturevalue("without_graphs")
    given = AutoConfig.from_pretrained(name)
    sizes = {**SHRUNK, "n_kv_heads": 4 // min(4, given.num_heads // given.kv_heads)}
    if isinstance(getattr(given, "scaling_factor", None), dict):
        sizes["scaling_factor"] = {**given.scaling_factor, "original_max_position_embeddings": 16}
    model = AutoModelForCausalLM.from_config(find_yaml(name), **sizes).set_train(False)
    assert model.config.num_layers == 2
    assert parameter_shapes(model.config) == {parameter.name: parameter.shape for parameter in model.get_parameters()}
    assert parameter_count(model.config) == model.num_parameters()
    logits = model(np.array([[1, 7, 9, 3]], np.int32)).logits.asnumpy()
    assert logits.shape == (1, 4, 64) and np.isfinite(logits).all() and logits.std() > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_weights_live_somewhere(name):
    hub = MindFormerConfig(find_yaml(name)).hub
    assert set(hub) == {"huggingface", "openmind"} and is_repo_name(hub.huggingface)
    assert hub.openmind is None or is_repo_name(hub.openmind)


@pytest.mark.parametrize("given, meant", [("llama2_7", "llama2_7b"), ("llama2-7b", "llama2_7b"),
                                          ("lama3_8b", "llama3_8b"), ("GLM2_6B", "glm2_6b"), ("glm4_9", "glm4_9b"),
                                          ("llama3.1_8b", "llama3_1_8b"), ("Llama-3.2-1B", "llama3_2_1b")])
def test_near_misses_are_helped(given, meant):
    with pytest.raises(FileNotFoundError, match=f"Did you mean .*{meant}"):
        AutoConfig.from_pretrained(given)


def test_ls_shows_names_sizes_and_repositories(capsys):
    assert ls.main(["models"]) == 0
    lines = {line.split("\t")[0].split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for name, count in PUBLISHED.items():
        assert re.search(rf"{re.escape(ls.short_count(count))}\b", lines[name]), lines[name]
        assert MindFormerConfig(find_yaml(name)).hub.huggingface in lines[name]
    assert "PyTorch-NPU/chatglm2_6b" in lines["glm2_6b"]


def test_a_yaml_put_into_configs_is_a_name(tmp_path):
    """There is no list in the code: a copy of the package's configs with one more file knows one more name."""
    root = Path(__file__).resolve().parents[2]
    shutil.copytree(root / "mindformers", tmp_path / "mindformers", ignore=shutil.ignore_patterns("csrc", "lib"))
    shutil.copytree(root / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("llama_tiny"))
    yaml = (tmp_path / "configs" / "llama2" / "predict_llama2_7b.yaml").read_text(encoding="utf-8")
    (tmp_path / "configs" / "llama2" / "predict_llama2_1b.yaml").write_text(
        yaml.replace("num_layers: 32", "num_layers: 4"), encoding="utf-8")
    code = "from mindformers import AutoConfig; print(AutoConfig.from_pretrained('llama2_1b').num_layers)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env={"PATH": "", "PYTHONPATH": str(tmp_path)})
    assert done.stdout.split()[-1] == "4"
