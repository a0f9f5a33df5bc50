"""What goes wrong on the way, one clear error each; what was cut goes on; nothing is fetched twice."""
import json
import os
from pathlib import Path

import pytest

from mindformers import hub as hubs
from mindformers.hub import HubAccessError, HubError, HubNotFoundError, HubOfflineError
from mindformers.hub.names import choose_hub
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from test_download import CONFIG, WEIGHTS, asked_files, read

FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}


def line_of(error):
    """The message of an error, which is one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.fixture
def tiny(hub):
    """The name of a repository with a configuration and weights."""
    hub.add("Owner/tiny", FILES)
    return f"{hub.prefix}Owner/tiny"


# ---- answers of the hub ----

def test_no_such_repository(hub):
    with pytest.raises(HubNotFoundError) as error:
        hubs.resolve(f"{hub.prefix}Owner/none", token="read" if hub.prefix == "hf://" else None)
    assert "'Owner/none' on the" in line_of(error) and "does not exist (404)" in line_of(error)
    assert isinstance(error.value, FileNotFoundError) and isinstance(error.value, OSError)


def test_private_and_wrong_tokens(hub, tiny, tmp_path):
    hub.add("Owner/secret", FILES, private=True, token="mine")
    for token in (None, "bad"):
        with pytest.raises(HubAccessError) as error:
            hubs.resolve(f"{hub.prefix}Owner/secret", kind="config", token=token)
        assert "(401)" in line_of(error) and "token=" in line_of(error)
    folder = hubs.resolve(f"{hub.prefix}Owner/secret", kind="config", use_auth_token="mine")
    assert read(folder) == {"config.json": CONFIG.encode()}
    hubs.resolve(f"{hub.prefix}Owner/secret", token="mine")
    sent = [headers.get("Authorization") for _, path, headers in hub.log if "/cdn/" in path]
    assert sent == ([None] if hub.prefix == "hf://" else [])  # another host is not shown the token
    with pytest.raises(ValueError, match="two names of one argument"):
        hubs.resolve(tiny, token="a", use_auth_token="b")
    with pytest.raises(HubAccessError, match="cannot write to 'Owner/tiny'"):
        hubs.push_folder(folder, tiny, ["config.json"], token="bad")


def test_gated(hub):
    hub.add("Owner/gated", FILES, gated=True, token="accepted")
    with pytest.raises(HubAccessError) as error:
        hubs.resolve(f"{hub.prefix}Owner/gated")
    if hub.prefix == "hf://":  # the openMind hub answers 401 to whoever may not read
        assert f"is gated: accept its terms at {hub.url}/Owner/gated" in line_of(error)
    assert read(hubs.resolve(f"{hub.prefix}Owner/gated", token="accepted"))["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("status, kind, words", [(403, HubAccessError, "does not allow it"),
                                                 (500, HubError, r"fault of its own \(500\)"),
                                                 (503, HubError, r"fault of its own \(503\)"),
                                                 (429, HubError, "too many requests")])
def test_refusals(hub, tiny, status, kind, words):
    hub.fault("Owner/tiny", status=status, times=99)
    with pytest.raises(kind, match=words) as error:
        hubs.resolve(tiny)
    line_of(error)
    hub.faults.clear()
    hubs.resolve(tiny)
    hub.fault("Owner/tiny", status=status, times=99)
    # the cache serves
    assert read(hubs.resolve(tiny)) == {"config.json": CONFIG.encode(), "model.safetensors": WEIGHTS}
    with pytest.raises(kind, match=words):
        hubs.resolve(tiny, force_download=True)


def test_revisions(hub, tiny):
    repo = hub.repos["Owner/tiny"]
    first = repo.branches["main"]
    repo.branches["side"] = first
    second = repo.commit({"config.json": b'{"model_type": "other"}'}, "side")
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == CONFIG.encode()
    for revision in ("side", second):
        assert b"other" in read(hubs.resolve(tiny, kind="config", revision=revision))["config.json"]
    assert b"other" in read(hubs.resolve(f"{tiny}@side", kind="config"))["config.json"]
    count = len(hub.log)
    assert hubs.resolve(tiny, kind="config", revision=first) and len(hub.log) == count  # a commit: nothing to ask
    with pytest.raises(HubNotFoundError, match="no revision 'absent'"):
        hubs.resolve(tiny, revision="absent")
    for wrong in ("../../x", "a b", "/etc", ".hidden", ""):
        with pytest.raises(ConfigError, match="must be a branch, a tag or a commit"):
            hubs.resolve(tiny, revision=wrong or " ")
    repo.commit({"config.json": b"{}"})  # the branch moves on, and so does the next call
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == b"{}"


# ---- files ----

def test_forms_of_weights(hub):
    index = json.dumps({"weight_map": {str(n): f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}})
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 50 for n in (1, 2)}
    hub.add("Owner/one", {**FILES, **shards, "model.safetensors.index.json": index, "pytorch_model.bin": b"p",
                          "model.fp16.safetensors": b"half", "in/model.safetensors": b"inner",
                          "in/config.json": "{}"})
    name = f"{hub.prefix}Owner/one"
    assert set(read(hubs.resolve(name, kind="weights"))) == {"model.safetensors"}
    assert "model.fp16.safetensors" in read(hubs.resolve(name, kind="weights", variant="fp16"))
    assert read(hubs.resolve(name, subfolder="in"))["in/model.safetensors"] == b"inner"
    assert "pytorch_model.bin" in read(hubs.resolve(name, kind="weights", use_safetensors=False))
    hub.add("Owner/shards", {"config.json": CONFIG, **shards, "model.safetensors.index.json": index,
                             "pytorch_model.bin": b"p", "other.bin": b"o"})
    folder = hubs.resolve(f"{hub.prefix}Owner/shards")
    assert set(read(folder)) == {"config.json", "model.safetensors.index.json", *shards}
    hub.add("Owner/native", {"predict_x.yaml": "a: 1", "llama.ckpt": b"ckpt", "README.md": "x"})
    assert set(read(hubs.resolve(f"{hub.prefix}Owner/native"))) == {"predict_x.yaml", "llama.ckpt"}
    hub.add("Owner/bare", {"config.json": CONFIG, "README.md": "x"})
    with pytest.raises(HubNotFoundError, match="no weights: it holds README.md, config.json"):
        hubs.resolve(f"{hub.prefix}Owner/bare")
    with pytest.raises(HubNotFoundError, match="no weights of variant 'int4'"):
        hubs.resolve(name, variant="int4")
    with pytest.raises(HubNotFoundError, match="no weights"):
        hubs.resolve(f"{hub.prefix}Owner/native", use_safetensors=True)


@pytest.mark.parametrize("shard", ["../../../secret", "/etc/passwd", "a\\..\\b", "sub/x.safetensors", 7, ""])
def test_an_index_that_leads_out_is_refused(hf, shard):
    index = json.dumps({"weight_map": {"a": shard}})
    hf.add("Owner/evil", {"config.json": CONFIG, "model.safetensors.index.json": index, "secret": "x"})
    with pytest.raises(ConfigError, match="only files beside it may be named"):
        hubs.resolve("hf://Owner/evil")


def test_file_names_that_lead_out_are_refused(hub, tmp_path):
    hub.add("Owner/evil", {"config.json": CONFIG, "../../../../up/tokenizer.json": b"x",
                           "chat/../../tokenizer.model": b"x"})
    hubs.resolve(f"{hub.prefix}Owner/evil", kind="config")
    with pytest.raises(HubError, match="would lead out of its folder; refused"):
        hubs.resolve(f"{hub.prefix}Owner/evil", subfolder="../../../../up", kind="tokenizer")
    assert not list(tmp_path.rglob("tokenizer.*"))


def test_a_commit_that_is_a_path_is_refused(hf, tmp_path):
    repo = hf.add("Owner/evil", FILES)
    repo.commits["../../../out"] = repo.commits[repo.branches["main"]]
    repo.branches["main"] = "../../../out"
    with pytest.raises(HubError, match="answers with commit '../../../out'"):
        hubs.resolve("hf://Owner/evil")
    assert not (tmp_path / "out").exists()


def test_links_of_a_repository_are_text(hub):
    hub.add("Owner/link", {"config.json": "/etc/passwd"})  # git keeps a symbolic link as its target
    path = Path(hubs.resolve(f"{hub.prefix}Owner/link", kind="config")) / "config.json"
    assert path.read_text() == "/etc/passwd" and "blobs" in str(path.resolve())


def test_damaged_content_is_not_kept(hub, tiny):
    hub.fault("config.json", corrupt=True, times=1)
    with pytest.raises(HubError, match="config.json of 'Owner/tiny' arrived damaged") as error:
        hubs.resolve(tiny, kind="config")
    assert "checksum" in line_of(error)
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == CONFIG.encode()  # and the cache is clean


def test_a_file_of_another_size_is_not_kept(hub, tiny):
    hub.fault("config.json", short=5, times=1)
    with pytest.raises(HubError, match="config.json: cannot read 'Owner/tiny'") as error:
        hubs.resolve(tiny, kind="config")
    assert "size" in line_of(error)
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == CONFIG.encode()  # the rest was fetched


def test_large_files_beside_the_storage_service(hf, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    hf.add("Owner/tiny", FILES)  # which has no such service
    assert read(hubs.resolve("hf://Owner/tiny"))["model.safetensors"] == WEIGHTS
    assert [method for method, path, _ in hf.log if "/resolve/" in path and path.endswith(".safetensors")] == [
        "HEAD", "GET"]


def test_what_lies_in_the_storage_service_is_left_to_the_library(hf, monkeypatch):
    from huggingface_hub import constants, file_download
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(file_download, "is_xet_available", lambda: False)  # the library finds none, and takes HTTP
    hf.storage_service = True
    hf.add("Owner/tiny", FILES)
    assert read(hubs.resolve("hf://Owner/tiny"))["model.safetensors"] == WEIGHTS
    assert [method for method, path, _ in hf.log if "/resolve/" in path and path.endswith(".safetensors")] == [
        "HEAD", "HEAD", "GET"]  # ours; the library's
    assert len(hf.asked("/cdn/", "GET")) == 1


def test_a_kind_that_is_none(hf):
    with pytest.raises(ConfigError, match="kind 'tokeniser' is unknown.*Did you mean 'tokenizer'"):
        hubs.resolve("hf://Owner/tiny", kind="tokeniser")
    assert hf.log == []


def test_a_slow_hub_is_waited_for(hub, tiny):
    hub.fault("/cdn/" if hub.prefix == "hf://" else "model.safetensors", slow=0.6, times=1)
    assert read(hubs.resolve(tiny))["model.safetensors"] == WEIGHTS


def test_force_download(hub, tiny):
    folder = Path(hubs.resolve(tiny, kind="config"))
    (folder / "config.json").resolve().write_text("spoilt")
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == b"spoilt"
    assert read(hubs.resolve(tiny, kind="config", force_download=True))["config.json"] == CONFIG.encode()
    assert asked_files(hub)["config.json"] == 2


# ---- without a network ----

def test_offline(hub, tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger, "propagate", True)
    with pytest.raises(HubOfflineError) as error:
        hubs.resolve(tiny, local_files_only=True)
    assert "local_files_only=True, and the cache " in line_of(error) and "nothing of revision 'main'" in line_of(error)
    assert str(tmp_path) in line_of(error) or ".cache" in line_of(error)
    hubs.resolve(tiny, kind="config", cache_dir=str(tmp_path / "c"))
    with pytest.raises(HubOfflineError, match="has of 'Owner/tiny' no weights"):
        hubs.resolve(tiny, local_files_only=True, cache_dir=str(tmp_path / "c"))
    folder = hubs.resolve(tiny, cache_dir=str(tmp_path / "c"))
    hub.log.clear()
    names = ["MF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] + (["HF_HUB_OFFLINE"] if hub.prefix == "hf://" else [])
    for name in names:
        monkeypatch.setenv(name, "1")
        assert hubs.resolve(tiny, cache_dir=str(tmp_path / "c")) == folder
        with pytest.raises(HubOfflineError, match=f"forbidden by {name}=1"):
            hubs.resolve(f"{hub.prefix}Owner/other", cache_dir=str(tmp_path / "c"))
        with pytest.raises(ConfigError, match=f"anew, but asking the hub is forbidden by {name}=1"):
            hubs.resolve(tiny, force_download=True)
        with pytest.raises(HubOfflineError, match=f"forbidden by {name}=1"):
            hubs.push_folder(folder, tiny)
        monkeypatch.delenv(name)
    assert hub.log == []


def test_no_network(hf, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logger, "propagate", True)
    hf.add("Owner/tiny", FILES)
    folder = hubs.resolve("hf://Owner/tiny", cache_dir=str(tmp_path / "c"))
    hf.stop()
    hf.stop = lambda: None
    assert hubs.resolve("hf://Owner/tiny", cache_dir=str(tmp_path / "c")) == folder  # what is here serves
    assert "no connection to" in caplog.text and "taking Owner/tiny from the cache" in caplog.text
    with pytest.raises(HubOfflineError) as error:
        hubs.resolve("hf://Owner/tiny", cache_dir=str(tmp_path / "other"))
    assert f"no connection to {hf.url}" in line_of(error) and f"the cache {tmp_path / 'other'} has" in line_of(error)
    assert "give a local folder" in line_of(error)


# ---- which hub, and how to it ----

def test_which_hub(hf, om, monkeypatch):
    hf.add("Owner/x", {"config.json": '{"hub": "hf"}'})
    om.add("Owner/x", {"config.json": '{"hub": "om"}'})
    def hub_of(name, **options):
        return json.loads(read(hubs.resolve(name, kind="config", **options))["config.json"])["hub"]
    assert hub_of("Owner/x") == "hf" and hub_of("openmind://Owner/x") == hub_of("modelers://Owner/x") == "om"
    monkeypatch.setenv("MF_HUB", "openmind")
    assert hub_of("Owner/x") == "om" and hub_of("hf://Owner/x") == "hf"
    both = {"huggingface": "Owner/x", "openmind": "Owner/x"}
    assert hub_of("any", among=both) == "om"
    monkeypatch.setenv("MF_HUB", "modelscope")
    with pytest.raises(ConfigError, match="MF_HUB: 'modelscope' is no hub; use huggingface or openmind"):
        hubs.resolve("Owner/x")
    monkeypatch.setenv("MF_HUB", "hf")
    with pytest.raises(ConfigError, match="unset MF_HUB"):
        hubs.resolve("any", among={"openmind": "Owner/x"})
    with pytest.raises(ConfigError, match="ftp:// is no hub"):
        hubs.resolve("ftp://Owner/x")
    with pytest.raises(TypeError, match="'revison'. Did you mean 'revision'"):
        hubs.resolve("Owner/x", revison="main")


def test_clients_that_are_not_installed(monkeypatch):
    monkeypatch.setattr("mindformers.hub.names.is_installed", lambda hub: hub == "openmind")
    assert choose_hub() == "openmind"
    with pytest.raises(ImportError, match="the huggingface hub needs its client: pip install huggingface_hub"):
        choose_hub("huggingface")
    monkeypatch.setattr("mindformers.hub.names.is_installed", lambda hub: False)
    with pytest.raises(ImportError, match="pip install huggingface_hub or pip install openmind_hub"):
        hubs.resolve("Owner/x")


def test_mirrors_and_proxies(hf, tmp_path, monkeypatch):
    from hub_proxy import Proxy
    monkeypatch.delenv("HF_ENDPOINT")
    hf.add("Owner/x", {"config.json": "{}"})
    assert hubs.resolve("hf://Owner/x", kind="config", mirror=hf.url)
    with pytest.raises(ConfigError, match="mirror 'tuna' must be the address of a hub"):
        hubs.resolve("hf://Owner/x", mirror="tuna")
    proxy = Proxy(hf.port)
    try:
        for key in ("http", "http://far.example"):
            folder = hubs.resolve("hf://Owner/x", kind="config", endpoint="http://far.example",
                                  proxies={key: proxy.url, "https": "http://127.0.0.1:9"},
                                  cache_dir=str(tmp_path / key.replace("/", "")))
            assert read(folder) == {"config.json": b"{}"}
        assert set(proxy.hosts) == {"far.example"} and len(proxy.hosts) >= 4
    finally:
        proxy.stop()
    with pytest.raises(TypeError, match="proxies must be a dict"):
        hubs.resolve("hf://Owner/x", proxies="http://x")
    assert "http_proxy" not in os.environ


def test_proxies_reach_the_other_library_too(om, monkeypatch, tmp_path):
    om.add("Owner/x", {"config.json": "{}"})
    monkeypatch.delenv("HTTPS_PROXY")
    with pytest.raises(HubOfflineError, match="no connection to https://modelers.cn"):
        hubs.resolve("openmind://Owner/x", kind="config")
    assert hubs.resolve("openmind://Owner/x", kind="config", proxies={"https": om.proxy.url})
