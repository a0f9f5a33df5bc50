"""What goes wrong on the way, one clear error each; what was cut goes on; nothing is fetched twice."""
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hub_server import ONE_FAST
from mindformers import hub as hubs
from mindformers.hub import HubAccessError, HubError, HubNotFoundError, HubOfflineError
from mindformers.hub.names import choose_hub
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from test_download import CONFIG, WEIGHTS, asked_files, read

FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
ROOT = Path(__file__).parents[2]


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
    assert read(hubs.resolve(tiny)) == {"config.json": CONFIG.encode(), "model.safetensors": WEIGHTS}  # the cache serves
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
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 50 for n in (1, 2)}
    hub.add("Owner/one", {**FILES, **shards, "model.safetensors.index.json": index, "pytorch_model.bin": b"p",
                          "model.fp16.safetensors": b"half", "in/model.safetensors": b"inner",
                          "in/config.json": "{}"})
    name = f"{hub.prefix}Owner/one"
    assert set(read(hubs.resolve(name, kind="weights"))) == {"model.safetensors"}
    assert set(read(hubs.resolve(name, kind="weights", variant="fp16"))) == {"model.safetensors", "model.fp16.safetensors"}
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
    hf.add("Owner/evil", {"config.json": CONFIG, "model.safetensors.index.json": json.dumps({"weight_map": {"a": shard}}),
                          "secret": "x"})
    with pytest.raises(ConfigError, match="only files beside it may be named"):
        hubs.resolve("hf://Owner/evil")


def test_file_names_that_lead_out_are_refused(hub, tmp_path):
    hub.add("Owner/evil", {"config.json": CONFIG, "../../../../up/tokenizer.json": b"x", "chat/../../tokenizer.model": b"x"})
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


def test_a_slow_hub_is_waited_for(hub, tiny):
    hub.fault("/cdn/" if hub.prefix == "hf://" else "model.safetensors", slow=0.6, times=1)
    assert read(hubs.resolve(tiny))["model.safetensors"] == WEIGHTS


def test_force_download(hub, tiny):
    folder = Path(hubs.resolve(tiny, kind="config"))
    (folder / "config.json").resolve().write_text("spoilt")
    assert read(hubs.resolve(tiny, kind="config"))["config.json"] == b"spoilt"
    assert read(hubs.resolve(tiny, kind="config", force_download=True))["config.json"] == CONFIG.encode()
    assert asked_files(hub)["config.json"] == 2


# ---- interruptions ----

BIG = hashlib.sha256(b"x").digest() * (24 * 1024 * 1024 // 32)  # more than the libraries hold back
_FETCH = "import sys; from mindformers import hub; print(hub.resolve(sys.argv[1], cache_dir=sys.argv[2]))"


def environment_of():
    """The environment of another process."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)])}


def run(*arguments, code=_FETCH, **environment):
    """Run Python in a process of its own; returns it finished."""
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                          env={**environment_of(), **environment}, timeout=120)


@ONE_FAST
def test_a_cut_connection_goes_on(hub, tiny):
    part = "/cdn/" if hub.prefix == "hf://" else "model.safetensors"
    hub.repos["Owner/tiny"].commit({"model.safetensors": BIG})
    hub.fault(part, cut=15 * 1024 * 1024, times=1)
    assert read(hubs.resolve(tiny))["model.safetensors"] == BIG
    ranges = [headers["Range"] for _, path, headers in hub.log if part in path and "Range" in headers]
    assert len(set(ranges)) == 1 and 0 < int(ranges[0][6:-1]) <= 15 * 1024 * 1024


@ONE_FAST
def test_a_killed_process_is_continued_by_the_next(hub, tiny, tmp_path):
    part = "/cdn/" if hub.prefix == "hf://" else "model.safetensors"
    hub.repos["Owner/tiny"].commit({"model.safetensors": BIG})
    hub.fault(part, stall=15 * 1024 * 1024, times=1)
    process = subprocess.Popen([sys.executable, "-c", _FETCH, tiny, str(tmp_path / "cache")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment_of())
    waiting = threading.Event()
    for _ in range(300):
        found = [path for path in tmp_path.rglob("*.incomplete") if path.stat().st_size > 9_000_000]
        if found or waiting.wait(0.1):
            break
    process.kill()
    process.communicate()
    have = found[0].stat().st_size
    hub.log.clear()
    assert read(hubs.resolve(tiny, cache_dir=str(tmp_path / "cache")))["model.safetensors"] == BIG
    ranges = [headers["Range"] for _, path, headers in hub.log if part in path and "Range" in headers]
    assert set(ranges) == {f"bytes={have}-"} and not list(tmp_path.rglob("*.incomplete"))


def test_ctrl_c_is_not_held_up(hf, tmp_path):
    hf.add("Owner/tiny", {**FILES, "model.safetensors": BIG})
    hf.fault("/cdn/", stall=15 * 1024 * 1024, times=1)
    process = subprocess.Popen([sys.executable, "-c", _FETCH, "hf://Owner/tiny", str(tmp_path / "cache")],
                               stderr=subprocess.PIPE, env=environment_of(), text=True)
    waiting = threading.Event()
    while process.poll() is None and not waiting.wait(0.1):
        if any(path.stat().st_size > 9_000_000 for path in tmp_path.rglob("*.incomplete")):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)
    assert errors.splitlines()[-1] == "KeyboardInterrupt" and list(tmp_path.rglob("*.incomplete"))


def test_the_first_fault_ends_all(hub, tiny):
    hub.repos["Owner/tiny"].commit({f"model-0000{n}-of-00004.safetensors": bytes([n]) * 999 for n in range(1, 5)} | {
        "model.safetensors": None, "model.safetensors.index.json": json.dumps(
            {"weight_map": {str(n): f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)}}).encode()})
    hub.fault("model-00002-of-00004.safetensors", status=403, times=9)
    with pytest.raises(HubAccessError, match="model-00002-of-00004.safetensors: cannot read 'Owner/tiny'"):
        hubs.resolve(tiny)
    hub.faults.clear()
    assert len(read(hubs.resolve(tiny))) == 6


@ONE_FAST
def test_what_is_left_may_be_of_no_use(hub, tiny, tmp_path):
    folder = Path(hubs.resolve(tiny))
    blob = (folder / "model.safetensors").resolve()
    for left in (b"wrong" * 100, WEIGHTS + b"too long", WEIGHTS):  # of another content, too long, complete
        (folder / "model.safetensors").unlink()
        blob.unlink()
        Path(f"{blob}.incomplete").write_bytes(left)
        assert read(hubs.resolve(tiny))["model.safetensors"] == WEIGHTS
    (folder / "model.safetensors").unlink()
    blob.unlink()
    Path(f"{blob}.incomplete").write_bytes(WEIGHTS[:99])
    hub.log.clear()
    hubs.resolve(tiny, resume_download=False)
    assert not any("Range" in headers for _, _, headers in hub.log)


def test_processes_fetch_once(hf, tmp_path):
    hf.add("Owner/tiny", FILES)
    hf.fault("/cdn/", slow=1.5, times=9)
    jobs = [subprocess.Popen([sys.executable, "-c", _FETCH, "hf://Owner/tiny", str(tmp_path / "cache")],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=environment_of()) for _ in range(2)]
    folders = {job.communicate()[0].strip() for job in jobs}
    assert len(folders) == 1 and all(job.returncode == 0 for job in jobs)
    assert len(hf.asked("/cdn/", "GET")) == 1 and asked_files(hf)["config.json"] == 1


# ---- without a network ----

def test_variables_that_the_library_reads_when_it_is_imported(hf, tmp_path):
    hf.add("Owner/tiny", FILES)
    code = ("import sys; from mindformers import hub; folder = hub.resolve(sys.argv[1]); "
            "print(hub.push_folder(folder, 'Owner/copy', token='write'), folder)")
    done = run("Owner/tiny", code=code, HF_ENDPOINT=hf.url, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert done.returncode == 0 and hf.url in done.stdout and str(tmp_path / "elsewhere") in done.stdout
    assert hf.repos["Owner/copy"].at("main")[1]["model.safetensors"] == WEIGHTS
    done = run("Owner/tiny", str(tmp_path / "new"), HF_HUB_OFFLINE="1")
    assert "HubOfflineError: asking the hub is forbidden by HF_HUB_OFFLINE=1" in done.stderr.splitlines()[-1]


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
