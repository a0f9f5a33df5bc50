"""Uploading to both hubs: files, cards, branches, and the objects that save themselves."""
import json
import os

import pytest

from mindformers import hub as hubs
from mindformers.hub.card import add_tags
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.generation.generation_config import GenerationConfig

SMALL = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 64}


@pytest.fixture
def folder(tmp_path):
    """A folder with a small and a large file."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    (tmp_path / "out" / "model.safetensors").write_bytes(bytes(range(200)))
    return tmp_path / "out"


def held(server, repo_id, branch="main"):
    """Files of a branch."""
    return server.repos[repo_id].at(branch)[1]


def test_a_folder_is_one_commit(hub, folder):
    address = hubs.push_folder(folder, f"{hub.prefix}Owner/new", commit_message="first", token="write", private=True)
    repo = hub.repos["Owner/new"]
    assert held(hub, "Owner/new") == {"config.json": b"{}", "model.safetensors": bytes(range(200))}
    assert repo.private and len(repo.commits) == 2 and repo.message == "first"
    assert repo.branches["main"] in address
    assert len([path for _, path, _ in hub.log if "/lfs/" in path or "/part/" in path]) == 2  # batch, content
    (folder / "config.json").write_text("{} ")
    hubs.push_folder(folder, f"{hub.prefix}Owner/new", ["config.json"], token="write", revision="side")
    assert held(hub, "Owner/new")["config.json"] == b"{}" and held(hub, "Owner/new", "side")["config.json"] == b"{} "


def test_configs_bring_a_card(hub):
    config = LlamaConfig(**SMALL)
    config.push_to_hub(f"{hub.prefix}Owner/mine", token="write", tags=["tiny"])
    files = held(hub, "Owner/mine")
    assert json.loads(files["config.json"])["hidden_size"] == 32
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: mindformers\ntags:\n- mindformers\n- mindspore\n- tiny\n---\n")
    GenerationConfig(max_new_tokens=7).push_to_hub(f"{hub.prefix}Owner/mine", token="write")
    files = held(hub, "Owner/mine")
    assert json.loads(files["generation_config.json"]) == {"max_new_tokens": 7} and files["README.md"].decode() == card
    assert GenerationConfig.from_pretrained(f"{hub.prefix}Owner/mine").max_new_tokens == 7
