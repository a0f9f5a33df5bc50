"""Uploading to both hubs: files, cards, branches, and the objects that save themselves."""
import json
import os

import numpy as np
import pytest
import yaml

from hub_server import ONE_FAST
from mindformers import hub as hubs
from mindformers.generation.generation_config import GenerationConfig
from mindformers.hub import HubAccessError, HubError
from mindformers.hub.card import add_tags
from mindformers.models.auto import AutoModelForCausalLM, AutoTokenizer
from mindformers.models.llama import LlamaConfig, LlamaForCausalLM, LlamaProcessor
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.utils import configs_dir

TINY = configs_dir() / "tiny" / "llama_tiny"

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


def test_a_users_card_is_not_overwritten(hub):
    card = "---\nlicense: mit\ntags: [mine, other]\n---\n# My words\n\ntags: none of your business\n"
    hub.add("Owner/mine", {"README.md": card})
    name = f"{hub.prefix}Owner/mine"
    LlamaConfig(**SMALL).push_to_hub(name, token="write")
    assert held(hub, "Owner/mine")["README.md"].decode() == card
    LlamaConfig(**SMALL, max_position_embedding=9).push_to_hub(name, token="write", tags=["mine", "new"])
    assert held(hub, "Owner/mine")["README.md"].decode() == card.replace("tags: [mine, other]\n",
                                                                         "tags:\n- mine\n- other\n- new\n")


@pytest.mark.parametrize("text, expected", [
    ("# words\n", "---\ntags:\n- new\n---\n# words\n"),
    ("", "---\ntags:\n- new\n---\n"),
    ("---\nlicense: mit\n---\nwords", "---\nlicense: mit\ntags:\n- new\n---\nwords"),
    ("---\ntags:\n  - a\n  - b\nlicense: mit\n---\nx", "---\ntags:\n  - a\n  - b\n  - new\nlicense: mit\n---\nx"),
    ("---\ntags: a\n---\nx", "---\ntags:\n- a\n- new\n---\nx"),
    ("---\ntags:\nlicense: mit\n---\nx", "---\nlicense: mit\ntags:\n- new\n---\nx"),
    ("---\ntags: [new]\n---\nx", "---\ntags: [new]\n---\nx"),
    ("---\ntags:\n- new\n---\nx", "---\ntags:\n- new\n---\nx")])
def test_tags_of_a_card(text, expected):
    assert add_tags(text, ["new"]) == expected and add_tags(expected, ["new"]) == expected
    assert yaml.safe_load(expected.split("---")[1])["tags"][-1] == "new"


@ONE_FAST
def test_a_model_brings_license_base_and_shards(hub, tmp_path):
    base = hub.add("Base/llama", {"config.json": json.dumps(LlamaConfig(**SMALL).to_hf_dict()),
                                  "README.md": "---\nlicense: llama2\n---\n# Llama\n"})
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.save_pretrained(str(tmp_path / "local"))
    base.commit({path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()})
    model = AutoModelForCausalLM.from_pretrained(f"{hub.prefix}Base/llama")
    model.add_model_tags(["tiny", "test"])
    address = model.push_to_hub(f"{hub.prefix}Owner/tuned", token="write", max_shard_size="20KB", private=True,
                                commit_message="tuned", commit_description="for a test", tags=["more"])
    repo, files = hub.repos["Owner/tuned"], held(hub, "Owner/tuned")
    assert repo.private and repo.branches["main"] in address and repo.message.startswith("tuned")
    head = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert head == {"license": "llama2", "base_model": "Base/llama", "library_name": "mindformers",
                    "pipeline_tag": "text-generation", "tags": ["mindformers", "mindspore", "tiny", "test", "more"]}
    assert f"[Base/llama]({hub.url}" in files["README.md"].decode()
    assert "model.safetensors.index.json" in files and len([path for path in files if "-of-" in path]) > 1
    again = AutoModelForCausalLM.from_pretrained(f"{hub.prefix}Owner/tuned", token="write")
    for ours, theirs in zip(model.get_parameters(), again.get_parameters()):
        assert np.array_equal(ours.asnumpy(), theirs.asnumpy())


@ONE_FAST
def test_saving_uploads_what_it_wrote(hub, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "notes.txt").write_text("private")
    (folder / ".env").write_text("secret")
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    model.save_pretrained(str(folder), push_to_hub=True, repo_id=f"{hub.prefix}Owner/work", token="write")
    assert set(held(hub, "Owner/work")) == {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    tokenizer = AutoTokenizer.from_pretrained(str(TINY))
    tokenizer.save_pretrained(str(folder), push_to_hub=True, repo_id=f"{hub.prefix}Owner/work", token="write")
    assert {"tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= set(held(hub, "Owner/work"))
    LlamaProcessor(tokenizer=tokenizer).push_to_hub(f"{hub.prefix}Owner/both", token="write")
    assert {"processor_config.json", "tokenizer.json"} <= set(held(hub, "Owner/both"))
    assert not {"notes.txt", ".env"} & set(held(hub, "Owner/work"))
    before = len(hub.log)
    model.save_pretrained(str(folder), is_main_process=False, push_to_hub=True, repo_id=f"{hub.prefix}Owner/no")
    model.save_pretrained(str(folder))
    assert len(hub.log) == before and "Owner/no" not in hub.repos


@ONE_FAST
def test_a_folder_called_like_the_repository(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("# by hand\n")
    config = LlamaConfig(**SMALL)
    config.push_to_hub(f"{hub.prefix}Owner/mine", token="write")
    assert (tmp_path / "mine" / "config.json").is_file()
    assert held(hub, "Owner/mine")["README.md"] == b"# by hand\n"  # the user's, not ours
    config.push_to_hub(f"{hub.prefix}Owner/other", use_temp_dir=False, token="write")
    assert os.listdir(tmp_path / "other") == ["config.json"]
    config.push_to_hub(f"{hub.prefix}Owner/mine", use_temp_dir=True, revision="side", token="write")
    assert set(hub.repos["Owner/mine"].branches) == {"main", "side"}


def test_pull_requests(hub, folder):
    hub.add("Owner/theirs", {"config.json": "{}"})
    arguments = dict(token="write", create_pr=True, commit_message="please")
    if hub.prefix == "hf://":
        assert hubs.push_folder(folder, "hf://Owner/theirs", **arguments).endswith("/discussions/1")
        assert held(hub, "Owner/theirs") == {"config.json": b"{}"} and len(hub.repos["Owner/theirs"].pulls) == 1
    else:
        with pytest.raises(UnsupportedError, match="create_pr=True: openmind_hub opens no pull requests"):
            hubs.push_folder(folder, "openmind://Owner/theirs", **arguments)


def test_what_cannot_be_uploaded(hub, folder, tmp_path):
    for name in ("a/b/c", "../x", "", None, "Owner/x.ckpt"):
        with pytest.raises((ValueError, TypeError), match="repo_id"):
            hubs.push_folder(folder, name)
    with pytest.raises(FileNotFoundError, match="has no files to upload"):
        hubs.push_folder(tmp_path / "nothing", f"{hub.prefix}Owner/x")
    with pytest.raises(HubAccessError, match="cannot write to 'Owner/x' .*401"):
        hubs.push_folder(folder, f"{hub.prefix}Owner/x", token="bad" if hub.prefix == "openmind://" else None)
    with pytest.raises(TypeError, match="'privat'. Did you mean 'private'"):
        LlamaConfig(**SMALL).push_to_hub("Owner/x", privat=True)
    with pytest.raises(ValueError, match="give only token"):
        LlamaConfig(**SMALL).push_to_hub("Owner/x", token="a", use_auth_token="b")
    assert "Owner/x" not in hub.repos


def test_a_plain_name_is_ones_own(hub, folder):
    hubs.push_folder(folder, "plain" if hub.prefix == "hf://" else "openmind://plain", token="write")
    assert set(held(hub, "myself/plain")) == {"config.json", "model.safetensors"}


def test_damage_on_the_way_up_is_noticed(hf, folder):
    hf.fault("/lfs-verify", status=422, times=9)
    with pytest.raises(HubError, match="cannot write to 'Owner/new'"):
        hubs.push_folder(folder, "hf://Owner/new", token="write")
    assert held(hf, "Owner/new") == {}  # no commit
