"""The commands in surroundings that are not the developer's: another folder, the C locale, ASCII, pipes."""
import ast
import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "configs" / "tiny" / "llama_tiny"


def run(arguments, folder, text=None, **variables):
    """Run a command in `folder` with nothing of this process' environment but PATH; returns the finished process."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=False,
                          input=None if text is None else text.encode("utf-8"))


VERB = ["-c", "import sys; from mindformers.cli.main import main; sys.exit(main())"]


def test_chat_from_a_pipe_in_the_c_locale(tmp_path):
    lines = "def é(漢):\n/help\n\ndef two(b):\n"
    done = run([*VERB, "chat", str(SHIPPED), "--temperature", "0", "--max_new_tokens", "8"], tmp_path, lines,
               LC_ALL="C")
    assert done.returncode == 0, done.stderr.decode()[-1500:]
    out = done.stdout.decode("utf-8")
    assert "def é(漢):" in out and "def two(b):" in out and "/clear forgets" in out
    assert "> " not in out and "Traceback" not in done.stderr.decode("utf-8", "replace")
    assert len(out) > len(lines) + 10  # each text is continued
    assert not list(tmp_path.iterdir())  # talking leaves nothing behind


def test_a_run_elsewhere_on_an_ascii_terminal(tmp_path):
    done = run([str(ROOT / "run_mindformer.py"), "--config", "configs/tiny/predict_llama_tiny.yaml", "--predict_data",
                "# Grüße 漢\nimport os\n\ndef ", "--model.model_config.max_decode_length", "40"], tmp_path,
               PYTHONIOENCODING="ascii:strict", LC_ALL="C")
    assert done.returncode == 0, done.stderr.decode()[-1500:]
    assert b"# Gr??e ?\n" in done.stdout and b"import os" in done.stdout
    (result,) = (tmp_path / "text_generation_result.txt").read_text(encoding="utf-8").splitlines()
    (text,) = ast.literal_eval(result)["text_generation_text"]
    assert text.startswith("# Grüße 漢\nimport os\n\ndef ")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, arguments, folder):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, *arguments],
                      {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "PYTHONPATH": str(ROOT)})
        self.seen = ""

    def wait_for(self, text, seconds=90):
        """Read until `text` is on the screen; what came before it is forgotten."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen[-2000:]!r}"
            if select.select([self.screen], [], [], 0.2)[0]:
                self.seen += os.read(self.screen, 4096).decode("utf-8", "replace")
        self.seen = self.seen.split(text, 1)[1]

    def type(self, text):
        os.write(self.screen, text.encode())

    def code(self):
        """Exit code; what is still printed is read away."""
        with contextlib.suppress(OSError):
            while os.read(self.screen, 4096):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_ctrl_c_on_a_terminal_ends_the_answer_and_not_the_talk(tmp_path):
    talk = Terminal([*VERB, "chat", str(SHIPPED), "--temperature", "0"], tmp_path)
    talk.wait_for("> ")
    talk.type("def first(x):\n")
    talk.wait_for("def first(x):")  # the echo of the terminal
    talk.wait_for("def first(x):")  # the answer begins
    talk.wait_for("\n")
    talk.type("\x03")
    talk.wait_for("(stopped)")
    talk.wait_for("> ")
    talk.type("/help\n")
    talk.wait_for("/clear forgets the conversation")
    talk.type("/exit\n")
    assert talk.code() == 0


@pytest.mark.parametrize("arguments, words", [
    (["chat", "no/such/folder"], b"is not a file, not a folder, not a known model name, and not the owner/name"),
    (["run", "--config", "configs/tiny/predict_llama_tiny.yaml", "--predict_data", "x", "--sed", "1"],
     b"Did you mean '--seed'"),
    (["check", "Grüße.yaml"], b"no configuration")])
def test_wrong_input_elsewhere_is_one_line(tmp_path, arguments, words):
    done = run([*VERB, *arguments], tmp_path, LC_ALL="C", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 2 and words in done.stderr and b"Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
