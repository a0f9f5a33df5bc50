"""scripts/prepare_tiny_data.py: prepares a folder that training finds prepared."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from mindformers.dataset.dataloader import python_source
from mindformers.dataset.dataloader.python_source import PythonSourceDataLoader

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare_tiny_data.py"


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The script's main(), with a standard library of 40 small files."""
    root = tmp_path / "lib"
    root.mkdir()
    for index in range(40):
        (root / f"m{index}.py").write_text(f'"""Module {index}."""\n\n\ndef f{index}(value):\n    return value\n')
    monkeypatch.setattr(python_source.sysconfig, "get_paths", lambda: {"stdlib": str(root)})
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("prepare_tiny_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        module.main()

    return run


def test_it_prepares_prints_the_manifest_and_is_found_by_the_loader(main, tmp_path, capsys):
    folder = tmp_path / "data"
    main("--output", str(folder), "--vocab_size", "280")
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((folder / "manifest.json").read_text())
    assert printed["settings"]["vocab_size"] == 280 and printed["splits"]["train"]["files"] > 30
    names = {path.name for path in folder.iterdir()}
    assert {"train.npy", "val.npy", "tokenizer.json", "tokenizer_config.json"} <= names
    written = {name: (folder / name).stat().st_mtime_ns for name in printed["files"]}
    main("--output", str(folder), "--vocab_size", "280")  # what is there is used
    assert json.loads(capsys.readouterr().out) == printed
    rows = PythonSourceDataLoader(str(folder), seq_length=16, vocab_size=280)
    tokens = printed["splits"]["train"]["tokens"]
    assert len(rows) == -(-(tokens - 1) // 16) and rows[0]["input_ids"].max() < 280  # every token is a target once
    assert written and all((folder / name).stat().st_mtime_ns == time for name, time in written.items())


def test_its_default_folder_is_that_of_the_training_yaml(main, tmp_path, monkeypatch):
    import yaml
    training = yaml.safe_load((SCRIPT.parents[1] / "configs" / "tiny" / "pretrain_llama_tiny.yaml").read_text())
    loader = training["train_dataset"]["data_loader"]
    assert loader["type"] == "PythonSourceDataLoader"
    monkeypatch.chdir(tmp_path)
    main("--vocab_size", "280")
    assert (tmp_path / loader["dataset_dir"] / "manifest.json").is_file()


def test_wrong_arguments_end_it(main, capsys):
    with pytest.raises(SystemExit):
        main("--vocab_size", "many")
    assert "--vocab_size" in capsys.readouterr().err
