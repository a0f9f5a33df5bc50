"""Downloads that are cut, killed or stopped, and processes that want the same file."""
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
from mindformers.hub import HubAccessError
from test_download import CONFIG, WEIGHTS, asked_files, read

FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny(hub):
    """The name of a repository with a configuration and weights."""
    hub.add("Owner/tiny", FILES)
    return f"{hub.prefix}Owner/tiny"


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


@pytest.mark.slow
def test_a_hub_that_goes_silent(hf, tmp_path):
    hf.add("Owner/tiny", {**FILES, "model.safetensors": BIG})
    hf.fault("/cdn/", stall=15 * 1024 * 1024, times=1)
    done = run("hf://Owner/tiny", tmp_path / "cache", HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode == 0 and len(hf.asked("/cdn/", "GET")) == 2
    assert read(done.stdout.strip())["model.safetensors"] == BIG


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


def test_variables_that_the_library_reads_when_it_is_imported(hf, tmp_path):
    hf.add("Owner/tiny", FILES)
    code = ("import sys; from mindformers import hub; folder = hub.resolve(sys.argv[1]); "
            "print(hub.push_folder(folder, 'Owner/copy', token='write'), folder)")
    done = run("Owner/tiny", code=code, HF_ENDPOINT=hf.url, HF_HUB_CACHE=str(tmp_path / "elsewhere"))
    assert done.returncode == 0 and hf.url in done.stdout and str(tmp_path / "elsewhere") in done.stdout
    assert hf.repos["Owner/copy"].at("main")[1]["model.safetensors"] == WEIGHTS
    done = run("Owner/tiny", str(tmp_path / "new"), HF_HUB_OFFLINE="1")
    assert "HubOfflineError: asking the hub is forbidden by HF_HUB_OFFLINE=1" in done.stderr.splitlines()[-1]
