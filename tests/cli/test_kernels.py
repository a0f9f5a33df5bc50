"""`mindformers kernels` and `mindformers check --kernels`."""
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.cli.main import main
from mindformers.kernels import OPS, library
from mindformers.kernels.library import Verdict

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not library.PATH.is_file(), reason="the native library is not built")


def test_path_is_that_of_the_library(capsys):
    assert main(["kernels", "--path"]) == 0
    path = capsys.readouterr().out.strip()
    assert path == library.path() and Path(path).is_file()


def test_path_of_a_library_that_does_not_fit_is_not_given(capsys, monkeypatch):
    monkeypatch.setattr(library, "verdict", lambda: Verdict(False, "built for another MindSpore"))
    assert main(["kernels", "--path"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "error: built for another MindSpore\n"


def test_list_has_every_operation_with_dtypes_and_limits(capsys):
    assert main(["kernels", "--list"]) == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()}
    for name in (*library.plugin_ops(), *library.ENTRIES):
        assert all(rows[name])
    assert {"RmsNorm", "mf_linear"} <= set(rows)


@pytest.mark.parametrize("arguments, message", [
    ([], "--path --list is required"), (["--path", "--list"], "not allowed with"),
    (["--lst"], "--path --list is required")])
def test_wrong_arguments(arguments, message, capsys):
    assert main(["kernels", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_check_kernels_says_what_runs(capsys, monkeypatch):
    monkeypatch.delenv("MF_KERNELS", raising=False)
    assert main(["check", "--kernels"]) == 0
    out = capsys.readouterr().out
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    assert rows["instruction set"] == [library.facts().isa] and rows["threads"] == [str(library.facts().threads)]
    assert rows["native library"] == [library.path()] and rows["MindSpore"][0].startswith("2.10.0")
    assert all(rows[op][0] in ("fused", "portable") and rows[op][1] for op in OPS)
    monkeypatch.setenv("MF_KERNELS", "portable")
    assert main(["check", "--kernels"]) == 0
    assert "native\t" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["kernels", "--path"], ["kernels", "--list"], ["check", "--kernels"]])
def test_mindspore_is_not_imported(arguments):
    code = (f"import sys; from mindformers.cli.main import main; code = main({arguments!r}); "
            "assert 'mindspore' not in sys.modules; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
