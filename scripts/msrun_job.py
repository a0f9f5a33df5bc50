"""Run one msrun job and tell the user what became of it (called by msrun_launcher.sh).

msrun starts the workers; this process forwards Ctrl-C and SIGTERM to them (they save and leave), shows the error of the
rank that failed, and ends with a code that says so.
"""
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FAILED = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
CHATTER = re.compile(r"\[(INFO|WARNING)\] [A-Z_]+\(")  # MindSpore's C++ log
ERROR_LINES = 30
GRACE_SECONDS = 5  # for msrun to end by itself after a failure, before the whole group is killed


def fail(message):
    """Print one line and exit 1."""
    sys.exit(f"msrun_launcher.sh: {message}")


def split_command(text):
    """Return the words of the command; the script may be given relative to here or to the repository."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        fail(f"cannot split the command {text!r} into words: {error}")
    if words and words[0] in ("python", "python3"):
        words = words[1:]
    if not words:
        fail("the command is empty")
    if not os.path.isfile(words[0]):
        if not (REPO / words[0]).is_file():
            fail(f"no such script: {words[0]!r} (looked in {os.getcwd()} and {REPO})")
        words[0] = str(REPO / words[0])
    return words


def free_port(port, address):
    """Return `port`, which must not be taken, or a free one for "auto": another for each of the jobs that start now.

    The port is bound seconds later: of two jobs with the same one, one would wait for ever.
    """
    wanted = 0 if port == "auto" else int(port)
    if address not in ("127.0.0.1", "localhost"):
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            fail(f"MASTER_PORT {wanted} cannot be used ({error.strerror}); give another one")
        return probe.getsockname()[1]


def environment(local_worker):
    """Return the environment of the job: this interpreter first in PATH, the repository importable, cores shared."""
    env = dict(os.environ)
    env["PATH"] = os.path.dirname(sys.executable) + os.pathsep + env.get("PATH", "")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), env.get("PYTHONPATH")]))
    env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // local_worker)))
    env.setdefault("MS_NODE_TIMEOUT", "10")  # seconds until a silent process counts as dead
    env.setdefault("MS_RECEIVE_MSG_TIMEOUT", "15")
    env.setdefault("GLOG_v", "3")  # MindSpore's own log: errors only, or the cluster's chatter hides the job's lines
    if env.get("PLOG_REDIRECT_TO_OUTPUT") == "True":
        env["ASCEND_PROCESS_LOG_PATH"] = os.path.join(os.getcwd(), "output", "plog")
    return env


def children(pid):
    """Return ``{worker pid: rank}`` of the worker processes that msrun (`pid`) has started (Linux: /proc)."""
    workers = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0") if parent == pid else []
        except (OSError, ValueError):  # ended meanwhile
            continue
        values = dict(item.split(b"=", 1) for item in variables if b"=" in item)
        if values.get(b"MS_ROLE") == b"MS_WORKER" and b"MS_NODE_ID" in values:
            workers[int(entry.name)] = int(values[b"MS_NODE_ID"])
    return workers


class Job:
    """One msrun job: its output is passed on, its workers are known by rank."""

    def __init__(self, command, log_dir, env):
        self.log_dir = Path(log_dir)
        self.signum = None
        self.workers = {}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                                        start_new_session=True, encoding="utf-8", errors="replace", bufsize=1)

    def on_signal(self, signum, _frame):
        """First time: pass it to the workers, which save and leave. Second time: kill them."""
        again, self.signum = self.signum is not None, signum
        self.workers.update(children(self.process.pid))
        for pid in children(self.process.pid):
            self._kill(os.kill, pid, signal.SIGKILL if again else signum)
        if again or not self.workers:
            self._kill(os.killpg, self.process.pid, signal.SIGKILL)
        else:
            print("\nmsrun_launcher.sh: asked all ranks to save and stop; once more kills them", file=sys.stderr)

    @staticmethod
    def _kill(how, pid, signum):
        try:
            how(pid, signum)
        except ProcessLookupError:
            return

    def watch(self):
        """Pass msrun's output on until it ends or a worker fails; return (exit code, rank that failed or None)."""
        finder = threading.Thread(target=self._find_workers, daemon=True)
        finder.start()
        for line in self.process.stdout:
            failed = FAILED.search(line)
            if failed:
                return self._after_failure(int(failed[1]), int(failed[2]))
            if "which doesn't contain this worker" not in line:
                sys.stdout.write(line)
                sys.stdout.flush()
        return self.process.wait(), None

    def _find_workers(self):
        while self.process.poll() is None:
            self.workers.update(children(self.process.pid))
            threading.Event().wait(0.5)

    def _after_failure(self, pid, code):
        """msrun has seen a worker fail and kills the others; end its group when the scheduler lingers."""
        timer = threading.Timer(GRACE_SECONDS, self._kill, (os.killpg, self.process.pid, signal.SIGKILL))
        timer.start()
        for _ in self.process.stdout:  # msrun's own traceback says nothing about the cause
            continue
        self.process.wait()
        timer.cancel()
        self._kill(os.killpg, self.process.pid, signal.SIGKILL)
        return code, self.workers.get(pid)

    def log_path(self, rank):
        """Return the path of the log of `rank`."""
        return self.log_dir / f"worker_{rank}.log"

    def log_lines(self, rank):
        """Return the lines of the log of `rank` without MindSpore's own."""
        log = self.log_path(rank)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        return [line for line in lines if not CHATTER.match(line)]

    def error_lines(self, rank):
        """Return the end of the log of `rank`, from its last traceback on."""
        lines = self.log_lines(rank)
        starts = [number for number, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
        return lines[starts[-1] if starts else 0:][-ERROR_LINES:]


def report(job, code, rank):
    """Say how a failed job ended; return the exit code of this process."""
    if job.signum is not None:
        print(f"msrun_launcher.sh: stopped by {signal.Signals(job.signum).name}", file=sys.stderr)
        first = min(job.workers.values(), default=0)
        said = [line for line in job.log_lines(first) if "--resume_training" in line]  # its tail may be gone already
        print("\n".join(f"  [rank {first}] {line}" for line in said[-1:]), file=sys.stderr)
        return 128 + job.signum
    if rank is not None:
        how = f"was killed by signal {-code}" if code < 0 else f"failed with exit code {code}"
        print(f"\nmsrun_launcher.sh: rank {rank} {how}; the end of {job.log_path(rank)}:", file=sys.stderr)
        print("\n".join(f"  [rank {rank}] {line}" for line in job.error_lines(rank)), file=sys.stderr)
    else:
        print(f"msrun_launcher.sh: the job failed (exit code {code}); see {job.log_dir}", file=sys.stderr)
    return code if 0 < code < 126 else 1


def main(command, worker_num, local_worker, address, port, node_rank, log_dir, join, time_out):
    """Start the job, wait for it (JOIN) and exit."""
    words = split_command(command)
    msrun = Path(sys.executable).parent / "msrun"
    if not msrun.is_file():
        fail(f"MindSpore's msrun is not installed beside {sys.executable}")
    options = {"worker_num": worker_num, "local_worker_num": local_worker, "master_addr": address,
               "master_port": free_port(port, address), "node_rank": node_rank, "log_dir": log_dir,
               "join": join == "true", "cluster_time_out": time_out,
               "tail_worker_log": int(node_rank) * int(local_worker)}
    for old in Path(log_dir).glob("worker_*.log"):  # or the error of an old job could be shown
        old.unlink()
    job = Job([str(msrun), *(f"--{key}={value}" for key, value in options.items()), *words], log_dir,
              environment(int(local_worker)))
    signal.signal(signal.SIGINT, job.on_signal)
    signal.signal(signal.SIGTERM, job.on_signal)
    code, rank = job.watch()
    sys.exit(report(job, code, rank) if code else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
