"""`mindformers check`: what it loads and what it lists."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.checkpoint import open_weights, save_weights
from mindformers.cli import check
from mindformers.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ROOT / "tests" / "reference" / "folders"
SLOW = ("mindspore", "torch", "transformers", "pickletools", "mindformers.tools.register.schema",
        "mindformers.models.modeling_utils", "mindformers.checkpoint.load", "jinja2", "tqdm", "huggingface_hub")


@pytest.mark.parametrize("case, also", [("sharded", ()), ("glm_sharded", ()), ("bin_sharded", ("pickletools",))])
def test_a_folder_is_checked_without_what_is_slow_to_import(case, also):
    code = ("import sys; from mindformers.cli.main import main; code = main(['check', sys.argv[1]]);"
            f"print('slow:', *[name for name in {SLOW!r} if name in sys.modules]); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, str(FOLDERS / case)], capture_output=True, text=True, check=True,
                          env={"PATH": "", "PYTHONPATH": str(ROOT)})
    assert ": valid" in done.stdout and "tensors" in done.stdout
    assert done.stdout.splitlines()[-1].split()[1:] == list(also)


def test_only_headers_of_weights_are_read(monkeypatch, capsys):
    from mindformers.checkpoint.source import FileSource
    monkeypatch.setattr(FileSource, "read", lambda *_: pytest.fail("a weight was read"))
    for case in ("sharded", "bin_sharded", "glm_sharded"):
        assert check.main([str(FOLDERS / case)]) == 0
    assert capsys.readouterr().out.count(": valid") == 3


@pytest.mark.parametrize("name, first, total", [
    ("llama3_2_1b", "model.tok_embeddings.embedding_weight\t128256x2048\t262,668,288",
     "1,235,814,400 parameters, bfloat16"),
    ("glm2_6b", "transformer.embedding.embedding_weight\t65024x4096\t266,338,304", "6,243,584,000 parameters, float16"),
    (str(FOLDERS / "tied_bfloat16"), "model.tok_embeddings.embedding_weight\t40x16\t640", "parameters, bfloat16")])
def test_shapes_of_parameters_without_weights(name, first, total, capsys):
    assert check.main([name, "--parameters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(total in line for line in lines) and first in lines
    assert not any(line.startswith("lm_head") for line in lines)


def test_a_name_that_is_nowhere(capsys):
    assert check.main(["llama2_7", "--parameters"]) != 0
    assert "Did you mean" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["5GB", "20KB"])
def test_a_variant_is_checked_and_converted(size, tmp_path, capsys):
    folder, source = tmp_path / "model", open_weights(FOLDERS / "sharded")
    save_weights(folder, source, variant="fp16", max_shard_size=size)
    shutil.copy(FOLDERS / "sharded" / "config.json", folder)
    convert = ["convert", str(folder), str(tmp_path / "ours"), "--to", "mindformers"]
    assert main(["check", str(folder)]) == main(convert) == 2
    assert capsys.readouterr().err.count("variant='fp16' loads them") == 2
    assert main(["check", str(folder), "--variant", "fp16"]) == main([*convert, "--variant", "fp16"]) == 0
    assert f"weights: {len(source)} tensors" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "ours")]) == 0
    assert main(["check", str(folder), "--variant", "bf16"]) == main([*convert, "--variant", "bf16"]) == 2
    assert capsys.readouterr().err.count("It has variant 'fp16'") == 2


def test_a_variant_of_what_has_none_is_refused(tmp_path, capsys):
    file = str(FOLDERS / "sharded" / "config.json")
    assert main(["check", "llama_tiny", "--variant", "fp16"]) == 2
    assert main(["check", str(FOLDERS / "sharded"), "--parameters", "--variant", "fp16"]) == 2
    assert main(["convert", file, str(tmp_path), "--to", "hf", "--variant", "fp16"]) == 2
    assert capsys.readouterr().err.count("leave it out") == 3


def test_a_variant_reaches_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(check, "resolve", lambda name, **options: asked.append(options) or str(FOLDERS / "variant"))
    assert check.main(["hf://owner/name", "--variant", "fp16"]) == 0
    assert asked == [{"kind": "model", "variant": "fp16", "local_files_only": True}]


def test_packed_parameters_of_other_sizes_are_not_missing_too(tmp_path, capsys):
    shutil.copytree(FOLDERS / "sharded", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_key_value_heads"] != 1
    config.update(num_key_value_heads=1, qkv_concat=True)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert main(["check", str(tmp_path / "model")]) == 2
    told = capsys.readouterr().err
    assert "but the config gives" in told and "missing" not in told
