"""The shell launchers: forms of arguments, words of the command, errors; msrun itself is a stand-in here."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MSRUN = """#!{python}
import json, os, sys
words = sys.argv[1:]
print(json.dumps({{"words": words, "path": os.environ["PATH"], "pythonpath": os.environ["PYTHONPATH"]}}))
if "fail" in words:
    print("[ERROR] Worker process 77 exit with exception. Error code: 3.", flush=True)
    sys.exit(1)
"""


def run_script(name, arguments, folder, **environment):
    """Run a script of scripts/ in `folder`; returns the finished process."""
    return subprocess.run(["bash", str(ROOT / "scripts" / name), *arguments], cwd=folder, text=True, check=False,
                          capture_output=True, timeout=120, env={**os.environ, **environment})


@pytest.fixture
def launch(tmp_path):
    """Return a function that runs msrun_launcher.sh with a stand-in msrun; it gives the finished process."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    (folder / "msrun").write_text(MSRUN.format(python=sys.executable))
    (folder / "msrun").chmod(0o755)
    (tmp_path / "job.py").write_text("")

    def run(*arguments):
        return run_script("msrun_launcher.sh", arguments, tmp_path, PYTHON=str(folder / "python"))
    return run


def options(result):
    """The words msrun got, as (options, command)."""
    assert result.returncode == 0, result.stderr
    words = json.loads(result.stdout.splitlines()[-1])["words"]
    given = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
    return given, words[len(given):]


@pytest.mark.parametrize("arguments, expected", [
    ((), {"worker_num": "8", "local_worker_num": "8", "node_rank": "0", "join": "True", "log_dir": "output/msrun_log"}),
    (("2",), {"worker_num": "2", "local_worker_num": "2", "master_addr": "127.0.0.1", "cluster_time_out": "7200"}),
    (("4", "9123", "logs", "False", "60"),
     {"worker_num": "4", "local_worker_num": "4", "master_port": "9123", "log_dir": "logs", "join": "False",
      "cluster_time_out": "60"}),
    (("16", "8", "10.1.2.3", "9124", "1", "logs", "true", "90"),
     {"worker_num": "16", "local_worker_num": "8", "master_addr": "10.1.2.3", "master_port": "9124", "node_rank": "1",
      "log_dir": "logs", "join": "True", "cluster_time_out": "90", "tail_worker_log": "8"}),
])
def test_forms_of_arguments(launch, arguments, expected):
    given, command = options(launch("job.py --run_mode train", *arguments))
    assert {key: given[key] for key in expected} == expected
    assert command == ["job.py", "--run_mode", "train"]


def test_command_is_split_into_words_and_never_evaluated(launch, tmp_path):
    _, command = options(launch("job.py 'two words' \"$HOME\" $(touch made) ; touch made && x=1 `touch made`", "2"))
    assert command[:2] == ["job.py", "two words"] and "$HOME" in command
    assert not (tmp_path / "made").exists()


def test_environment_of_the_job(launch, tmp_path):
    seen = json.loads(launch("job.py", "2").stdout.splitlines()[-1])
    assert seen["path"].split(":")[0] == str(tmp_path / "bin")
    assert seen["pythonpath"].split(":")[0] == str(ROOT)


@pytest.mark.parametrize("arguments, message", [
    (("job.py", "two"), "WORKER_NUM must be an integer >= 1, got 'two'"),
    (("job.py", "0"), "WORKER_NUM must be an integer >= 1, got '0'"),
    (("job.py", "2", "8118"), "takes 1, 2, 6 or 9 arguments, got 3"),
    ((), "takes 1, 2, 6 or 9 arguments, got 0"),
    (("job.py", "2", "8118", "logs", "Maybe", "60"), "JOIN must be True or False"),
    (("absent.py", "2"), "no such script: 'absent.py'"),
    (("job.py 'open", "2"), "cannot split the command"),
    ((" ", "2"), "the command is empty"),
])
def test_wrong_arguments(launch, arguments, message):
    result = launch(*arguments)
    assert result.returncode == 1 and message in result.stderr and "Traceback" not in result.stderr


def test_failing_rank_is_shown(launch):
    result = launch("job.py fail", "2", "9125", "logs", "True", "60")
    assert result.returncode == 3
    assert "the job failed (exit code 3)" in result.stderr


def test_standalone_checks_its_arguments(tmp_path):
    (tmp_path / "run.yaml").write_text("")
    for arguments, message in (((), "Usage"), (("absent.yaml", "0", "train"), "no such configuration file"),
                               (("run.yaml", "x", "train"), "DEVICE_ID"), (("run.yaml", "0", "fly"), "RUN_STATUS")):
        result = run_script("run_standalone.sh", arguments, tmp_path)
        assert result.returncode == 1 and message in result.stderr
