"""What a run uploads: at its end, at each save, its checkpoints; and what a fault of the hub does to it."""
import numpy as np
import pytest
from mindspore.train.callback import RunContext

from mindformers.checkpoint import open_weights
from mindformers.hub import HubAccessError
from mindformers.models.llama import LlamaConfig, LlamaForCausalLM
from mindformers.tools.logger import logger
from mindformers.tools.register import DictConfig
from mindformers.trainer import Trainer, TrainingArguments

SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 11, "max_position_embedding": 12, "param_init_type": "float32", "compute_dtype": "float32"}


class Rows:
    """8 rows of random token ids."""

    def __getitem__(self, index):
        ids = np.random.default_rng(index).integers(0, 38, 12).astype(np.int32)
        return {"input_ids": ids, "labels": ids}

    def __len__(self):
        return 8


def trainer(tmp_path, **kwargs):
    """A trainer of 4 steps whose checkpoints are saved every 2."""
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"), use_cpu=True, batch_size=2, num_train_epochs=1, scale_sense=1.0, seed=0,
        save_strategy="steps", save_steps=2, **{"push_to_hub": True, "hub_token": "write", **kwargs})
    return Trainer(arguments, model=LlamaForCausalLM(LlamaConfig(**SIZES)), train_dataset=Rows())


def saved(tmp_path, name):
    """A checkpoint comes; returns what a callback is given then."""
    folder = tmp_path / "run" / "checkpoint" / "rank_0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(name.encode())
    return RunContext(DictConfig(cur_step_num=2))


def test_a_save_is_uploaded_once(hf, tmp_path):
    run = trainer(tmp_path, hub_model_id="Owner/run", hub_strategy="checkpoint", hub_always_push=True)
    context = saved(tmp_path, "t_rank_0-1_1.ckpt")
    run.hub.on_train_begin(context)
    run.hub.on_train_step_end(context)  # it was there before
    assert "Owner/run" not in hf.repos
    run.hub.on_train_step_end(saved(tmp_path, "t_rank_0-1_2.ckpt"))
    run.hub.on_train_step_end(context)
    run.hub.push("end")
    repo = hf.repos["Owner/run"]
    assert len(repo.commits) == 3 and repo.message == "end"
    assert repo.at("main")[1]["last-checkpoint/last.ckpt"] == b"t_rank_0-1_2.ckpt"


def test_a_save_while_an_upload_runs_is_left_out(hf, tmp_path):
    run = trainer(tmp_path, hub_model_id="Owner/run")
    run.hub.on_train_begin(None)
    hf.fault("/commit/", wait=1.0, times=1)
    run.hub.on_train_step_end(saved(tmp_path, "t_rank_0-1_1.ckpt"))
    run.hub.on_train_step_end(saved(tmp_path, "t_rank_0-1_2.ckpt"))
    run.hub.push("end")
    assert len(hf.repos["Owner/run"].commits) == 3  # empty, the first save, the end


@pytest.mark.slow
def test_saves_are_uploaded_and_a_fault_ends_nothing(hf, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    run = trainer(tmp_path, hub_model_id="Owner/run", hub_strategy="checkpoint", hub_private_repo=True,
                  hub_always_push=True)
    hf.fault("/api/repos/create", status=403, times=1)  # of the first save
    assert run.train() == 4 and "an upload to Owner/run failed: cannot write to" in caplog.text
    repo = hf.repos["Owner/run"]
    files = repo.at("main")[1]
    assert repo.private and len(repo.commits) == 3  # empty, after step 4, at the end
    assert {"config.json", "model.safetensors", "README.md", "last-checkpoint/last.ckpt"} <= set(files)
    assert b"pipeline_tag: text-generation" in files["README.md"]
    (tmp_path / "last.ckpt").write_bytes(files["last-checkpoint/last.ckpt"])
    assert "adam_m.model.norm_out.weight" in open_weights(tmp_path / "last.ckpt").names()
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    pushed = open_weights(tmp_path / "model.safetensors").read("model.embed_tokens.weight")
    assert np.array_equal(pushed, run.model.model.tok_embeddings.embedding_weight.asnumpy())
    assert "hub_token" not in run.config and "write" not in run.config.values()
    assert not list((tmp_path / "run").glob(".push_*"))


def test_by_hand(hf, tmp_path):
    run = trainer(tmp_path, push_to_hub=False, hub_model_id="Owner/hand")
    address = run.push_to_hub("by hand", blocking=False).result()
    repo = hf.repos["Owner/hand"]
    assert repo.branches["main"] in address and repo.message == "by hand"
    hf.fault("/api/repos/create", status=403, times=1)
    with pytest.raises(HubAccessError, match="cannot write to 'Owner/hand' .* .403.: the token does not allow it"):
        run.push_to_hub()
    assert not list((tmp_path / "run").glob(".push_*"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy, commits, extra", [("end", 2, set()), ("every_save", 4, set()), (
    "all_checkpoints", 4, {"checkpoint/rank_0/meta.json"})])
def test_strategies(hf, tmp_path, strategy, commits, extra):
    run = trainer(tmp_path, hub_strategy=strategy, hub_model_id="Owner/x", hub_always_push=True)
    run.train()
    repo = hf.repos["Owner/x"]
    assert len(repo.commits) == commits
    assert {path for path in repo.at("main")[1] if path.endswith("meta.json")} == extra
