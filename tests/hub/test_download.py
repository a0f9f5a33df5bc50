"""Fetching from both hubs: what is fetched, how often, and what the cache looks like."""
import json
from pathlib import Path

from mindformers import hub as hubs

CONFIG = json.dumps({"model_type": "llama"})
WEIGHTS = bytes(range(256)) * 40


def asked_files(server):
    """Files whose content was asked for, each with how often."""
    found = {}
    for method, path, _ in server.log:
        if method == "GET" and ("/resolve/" in path or "/media/" in path):
            name = path.rsplit("/resolve/" if "/resolve/" in path else "/media/", maxsplit=1)[-1]
            name = name.split("/", maxsplit=1)[1] if "/resolve/" in path else name
            found[name] = found.get(name, 0) + 1
    return found


def read(folder):
    """{path: content} of a snapshot."""
    folder = Path(folder)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_needed(hub):
    hub.add("Owner/tiny", {"config.json": CONFIG, "model.safetensors": WEIGHTS, "pytorch_model.bin": WEIGHTS[1:],
                           "README.md": "# card", "tokenizer.json": "{}", "generation_config.json": "{}",
                           "model.fp16.safetensors": WEIGHTS[:100], "old/model.safetensors": b"old"})
    folder = hubs.resolve(f"{hub.prefix}Owner/tiny", kind="config")
    assert asked_files(hub) == {"config.json": 1} and set(read(folder)) == {"config.json"}
    folder = hubs.resolve(f"{hub.prefix}Owner/tiny")
    assert read(folder) == {"config.json": CONFIG.encode(), "generation_config.json": b"{}",
                            "model.safetensors": WEIGHTS}
    count = len(asked_files(hub))
    assert hubs.resolve(f"{hub.prefix}Owner/tiny") == folder and len(asked_files(hub)) == count == 3
    assert set(read(hubs.resolve(f"{hub.prefix}Owner/tiny", kind="tokenizer"))) > {"tokenizer.json"}
    assert all(times == 1 for times in asked_files(hub).values())
