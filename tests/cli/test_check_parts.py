"""`mindformers check`: what it loads and what it lists."""
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.cli import check

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
