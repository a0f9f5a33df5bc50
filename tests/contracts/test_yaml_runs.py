"""Every YAML of configs/ and research/ builds its model, shrunk, and runs it."""
from pathlib import Path

import numpy as np
import pytest

from mindformers import MindFormerConfig, build_network
from mindformers.core.optim import AdamW
from mindformers.pet import get_pet_model
from mindformers.wrapper.train_step import TrainStep
from tests.graph_mode import graph_mode, without_graphs  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("configs", "research") for path in (ROOT / folder).glob("**/*.yaml")
               if "_base_" not in path.parts and "llama_tiny" not in path.parent.name)
SHRUNK = {"hidden_size": 32, "num_layers": 1, "num_heads": 4, "intermediate_size": 32, "vocab_size": 64,
          "seq_length": 32, "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "head_dim": None}


def shrunk_model(path):
    """The model of a YAML with small sizes; everything else is as the file says."""
    config = MindFormerConfig(str(path))
    fields = config.model.model_config
    grouped = fields.get("n_kv_heads") or fields.get("multi_query_group_num")
    sizes = {**SHRUNK, "n_kv_heads": 2 if grouped else None}
    if isinstance(fields.get("scaling_factor"), dict):
        fields["scaling_factor"]["original_max_position_embeddings"] = 16
    model = build_network(config.model, sizes)
    return config.run_mode, get_pet_model(model, fields.pet_config) if fields.get("pet_config") else model


def test_files_were_found():
    assert len(FILES) >= 37 and sum("research" in path.parts for path in FILES) >= 4


def most_predict(path):
    """Whether tests/contracts/test_names.py runs a model of this kind already."""
    return path.name.startswith("predict_") and path.parent.name in ("llama", "llama2", "llama3") \
        and path.stem != "predict_llama2_7b"


@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.slow] * most_predict(path), id=path.stem)
                                  for path in FILES])
def test_yaml_builds_and_runs(path, request, monkeypatch):
    monkeypatch.setenv("REGISTER_PATH", str(path.parent) if "research" in path.parts else "")
    if most_predict(path) or path.parent.name in ("glm3", "glm4"):  # cells of Llama and of ChatGLM2, with other numbers
        request.getfixturevalue("without_graphs")
    mode, model = shrunk_model(path)
    rows = np.random.default_rng(0).integers(4, 64, (2, 9)).astype(np.int32)
    if mode in ("train", "finetune"):
        model.set_train()
        step = TrainStep(model, AdamW(model.trainable_params(), learning_rate=0.01), max_grad_norm=1.0)
        first, second = step(rows), step(rows)
        assert np.isfinite(first.loss) and second.loss < first.loss
    else:
        (out,) = model.set_train(False).generate(rows[:1], max_new_tokens=3, do_sample=False)
        assert 10 <= len(out) <= 12 and (out[:9] == rows[0]).all()
