"""README commands and documents: executed, and compared with the code they speak of."""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.tools.env import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
SET_UP = ("bash scripts/quickstart.sh", "bash scripts/test.sh")


def blocks(readme, language):
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / readme).read_text(encoding="utf-8"), re.S)


def commands(readme="README.md"):
    """The commands of the bash blocks, without comments."""
    lines = "\n".join(blocks(readme, "bash")).splitlines()
    return [line.split("   #")[0].strip() for line in lines if line.strip()]


def is_long(command):
    """Whether a command trains."""
    return "pretrain_" in command and "check" not in command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder that looks like the repository, where commands may write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "mindformers", "scripts", "run_mindformer.py"):
        (folder / name).symlink_to(ROOT / name)
    tools = folder / "bin"
    tools.mkdir()
    launcher = tools / "mindformers"
    launcher.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mindformers.cli.main \"$@\"\n")
    launcher.chmod(0o755)
    return folder


def with_smaller_batches(command):
    """A command that trains, on 2 rows a step instead of 8."""
    options = "runner_config.stop_step="
    assert options in command
    return command.replace(options, f"runner_config.batch_size=2 {options}")


def run(command, checkout):
    """Run a README command with this Python first in PATH."""
    path = os.pathsep.join([str(checkout / "bin"), os.path.dirname(sys.executable), os.environ["PATH"]])
    return subprocess.run(["bash", "-c", command], cwd=checkout, text=True, capture_output=True, timeout=900,
                          env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, check=False)


def test_both_readmes_show_the_same_commands():
    assert commands() == commands("README_CN.md")
    assert len(commands()) >= 8


def test_set_up_commands_are_run_by_ci():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in SET_UP:
        assert command in commands() and command in text


@pytest.mark.parametrize("command", [c for c in commands() if c not in SET_UP and not is_long(c)])
def test_short_commands_run(command, checkout):
    done = run(command, checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), done.stderr
    if "eval_" in command:
        assert "PPL: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if is_long(c) and "msrun" not in c])
def test_training_command_runs_and_leaves_its_files(command, checkout):
    done = run(with_smaller_batches(command), checkout)
    assert done.returncode == 0, done.stderr
    output = checkout / "output" / "pretrain_llama_tiny"
    assert list((output / "checkpoint" / "rank_0").glob("*.ckpt"))
    assert (output / "loss_curve.png").stat().st_size > 1000 and (output / "loss.csv").is_file()
    assert "loss" in done.stderr + done.stdout and "lr" in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("command", [c for c in commands() if "msrun" in c])
def test_msrun_command_runs(command, checkout):
    shutil.rmtree(checkout / "output" / "pretrain_llama_tiny", ignore_errors=True)
    done = run(with_smaller_batches(command), checkout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("readme", ["README.md", "README_CN.md"])
def test_python_block_runs(readme, checkout):
    (program,) = blocks(readme, "python")
    done = run(f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}", checkout)
    assert done.returncode == 0, done.stderr
    assert "import os" in done.stdout


def test_links_of_the_documents_exist():
    for document in [ROOT / "README.md", ROOT / "README_CN.md", *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} -> {target}"


def test_environment_table_is_the_code_s():
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]*)`|\(empty\)) \|",
                           (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8"), re.M))
    assert rows == {name: default for name, (default, _) in VARIABLES.items()}
