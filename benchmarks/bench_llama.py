"""Llama on CPU, with Hugging Face transformers beside it: import, --help, load, compile, prefill, decode, cold start.

    python benchmarks/bench_llama.py --peer-python /path/to/python-with-transformers

Makes a 134 M-parameter Llama folder (random weights) under --workdir once, then measures each suite in processes of its
own, taking turns (A B A B ...), and prints medians and ratios. Results: <workdir>/bench_llama.json and .md.
The same file is the worker: `bench_llama.py worker TASK --side SIDE` prints one JSON object.
"""
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from random_llama import SIZES, make_model

REPO = Path(__file__).resolve().parents[1]
PROMPT_TOKENS, DECODE_TOKENS, REPEATS = 128, 64, 5
# metric -> (title, unit, True when more is better)
METRICS = {
    "import_package": ("`import` of the package", "s", False),
    "import_auto": ("import of AutoModelForCausalLM", "s", False),
    "help": ("`--help`, whole process", "s", False),
    "load": ("from_pretrained", "s", False),
    "compile": ("first generate minus a later one (compile)", "s", False),
    "prefill": (f"prefill of {PROMPT_TOKENS} tokens", "tok/s", True),
    "decode": ("decode, one sequence", "tok/s", True),
    "cold_start": ("process start to first token", "s", False),
    "peak_memory": ("peak resident memory", "MB", False),
}


# -- worker: one measurement in this process -------------------------------------------------------------------------


def prompt(vocab_size):
    """The same pseudo-random token ids on both sides, none of them special."""
    return [3 + (i * 7919 + 101) % (vocab_size - 3) for i in range(PROMPT_TOKENS)]


def open_ours(folder):
    """Return generate(ids, n) -> list of n new tokens, and the seconds of import and load."""
    sys.path.insert(0, str(REPO))
    start = time.perf_counter()
    from mindformers import AutoModelForCausalLM
    imported = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder)
    loaded = time.perf_counter()

    def generate(ids, count):
        out = model.generate([ids], max_new_tokens=count, do_sample=False)
        return [int(token) for token in out[0]][len(ids):]

    return generate, imported - start, loaded - imported


def open_peer(folder):
    """The same with transformers."""
    start = time.perf_counter()
    import torch
    from transformers import AutoModelForCausalLM
    imported = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    loaded = time.perf_counter()

    def generate(ids, count):
        ids = torch.tensor([ids])
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False)
        return out[0, ids.shape[1]:].tolist()

    return generate, imported - start, loaded - imported


def session(side, folder, spawned):
    """Import, load, first token, then prefill and decode in a warm process."""
    vocab_size = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    ids = prompt(vocab_size)
    generate, import_auto, load = (open_ours if side == "ours" else open_peer)(folder)

    def seconds(count):
        start = time.perf_counter()
        found = generate(ids, count)
        took = time.perf_counter() - start
        if len(found) != count:
            raise SystemExit(f"{side}: asked for {count} tokens, got {len(found)}")
        return took, found

    first, _ = seconds(1)
    cold_start = time.monotonic() - spawned
    seconds(2)                                  # compiles the decode step where there is one to compile
    pairs = [(seconds(1)[0], seconds(1 + DECODE_TOKENS)) for _ in range(REPEATS)]
    one = statistics.median(short for short, _ in pairs)
    added = statistics.median(took - short for short, (took, _) in pairs)
    if added <= 0:
        raise SystemExit(f"{side}: {DECODE_TOKENS} more tokens took {added:.2f} s; the machine is too busy to measure")
    return {"import_auto": import_auto, "load": load, "compile": first - one, "cold_start": cold_start,
            "prefill": PROMPT_TOKENS / one, "decode": DECODE_TOKENS / added,
            "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "tokens": pairs[-1][1][1]}


def import_package(side):
    """Seconds of `import mindformers` or `import transformers` alone."""
    sys.path.insert(0, str(REPO))
    start = time.perf_counter()
    __import__("mindformers" if side == "ours" else "transformers")
    return {"import_package": time.perf_counter() - start}


def versions(side):
    """Versions of what this side runs on."""
    names = ("mindspore",) if side == "ours" else ("transformers", "torch")
    return {"python": platform.python_version(),
            **{name: metadata.version(name) for name in (*names, "numpy", "safetensors")}}


# -- the parent ------------------------------------------------------------------------------------------------------


def run_worker(python, side, task, folder):
    """Run one task in a process of its own and return what it printed last."""
    command = [python, __file__, "worker", task, "--side", side, "--folder", str(folder),
               "--spawned", repr(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} {task} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def time_help(python, side):
    """Seconds of the whole `--help` process."""
    command = [python, str(REPO / "run_mindformer.py"), "--help"] if side == "ours" else [
        python, "-c", "from transformers.cli.transformers import main; main()", "--help"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{side} --help failed:\n{done.stderr[-2000:]}")
    return {"help": took}


def has_transformers(python):
    """Whether this interpreter can import torch and transformers."""
    command = [python, "-c", "import torch, transformers"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def measure(pythons, folder, runs):
    """{side: {metric: [values]}} and {side: tokens}; the sides take turns within every run."""
    values = {side: {} for side in pythons}
    tokens = {}
    for run in range(runs + 1):                 # run 0 warms the disk cache and the byte code, and is not counted
        for side, python in pythons.items():
            found = {**run_worker(python, side, "import", folder), **time_help(python, side),
                     **run_worker(python, side, "session", folder)}
            tokens[side] = found.pop("tokens")
            if run:
                for metric, value in found.items():
                    values[side].setdefault(metric, []).append(value)
            print(f"run {run}/{runs} {side}: prefill {found['prefill']:.0f} tok/s, decode {found['decode']:.1f} tok/s, "
                  f"first token after {found['cold_start']:.2f} s{'' if run else '  (warm-up)'}", flush=True)
    return values, tokens


def summarise(values):
    """{metric: {side: median, ..., "ratio": how many times better we are than the peer}}."""
    table = {}
    for metric, (_, _, more_is_better) in METRICS.items():
        row = {side: statistics.median(found[metric]) for side, found in values.items()}
        if "peer" in row and row["ours"] > 0 and row["peer"] > 0:
            row["ratio"] = row["ours"] / row["peer"] if more_is_better else row["peer"] / row["ours"]
        table[metric] = row
    return table


def markdown(result):
    """The result as a Markdown page."""
    table, setup = result["medians"], result["setup"]
    lines = ["| | mindformers | transformers | ratio (>1: mindformers is better) |", "|---|---|---|---|"]
    for metric, (title, unit, _) in METRICS.items():
        row = table[metric]
        peer = f"{row['peer']:.4g} {unit}" if "peer" in row else "-"
        ratio = f"{row['ratio']:.2f}" if "ratio" in row and metric != "compile" else "-"
        lines.append(f"| {title} | {row['ours']:.4g} {unit} | {peer} | {ratio} |")
    facts = [f"{setup['size']} Llama, {setup['dtype']}, batch 1, medians of {setup['runs']} processes a side that took "
             f"turns, {REPEATS} repeats in each; {setup['cpus']} CPUs, {setup['system']}."]
    facts += [f"{side}: " + ", ".join(f"{k} {v}" for k, v in found.items())
              for side, found in setup["versions"].items()]
    if "agreement" in result:
        facts.append(f"Greedy tokens that agree before the first difference: {result['agreement']} of "
                     f"{DECODE_TOKENS + 1}.")
    return "\n".join(["# Llama on CPU", "", *[line for fact in facts for line in (fact, "")], *lines, ""])


def run(args):
    """Measure, print, and write bench_llama.json and bench_llama.md."""
    workdir = Path(args.workdir)
    folder = workdir / f"llama-{args.size}-{args.dtype}"
    make_model(folder, args.size, args.dtype)
    pythons = {"ours": sys.executable}
    peer = args.peer_python or sys.executable
    if not args.no_peer and has_transformers(peer):
        pythons["peer"] = peer
    elif args.peer_python and not args.no_peer:
        raise SystemExit(f"--peer-python {peer}: this interpreter cannot import torch and transformers")
    else:
        print("transformers is not installed: measuring without a peer (see --peer-python)")
    values, tokens = measure(pythons, folder, args.runs)
    setup = {"size": args.size, "dtype": args.dtype, "runs": args.runs, "cpus": os.cpu_count(),
             "system": f"{platform.system()} {platform.machine()}",
             "versions": {side: run_worker(python, side, "versions", folder) for side, python in pythons.items()}}
    result = {"setup": setup, "medians": summarise(values), "values": values}
    if "peer" in tokens:
        same = [a == b for a, b in zip(tokens["ours"], tokens["peer"])]
        result["agreement"] = same.index(False) if False in same else len(same)
    (workdir / "bench_llama.json").write_text(json.dumps(result, indent=1) + "\n")
    (workdir / "bench_llama.md").write_text(markdown(result))
    print("\n" + markdown(result))


def parse(argv):
    """Arguments of both forms: the benchmark itself, and `worker`, which it starts."""
    if argv[:1] == ["worker"]:
        parser = argparse.ArgumentParser(prog="bench_llama.py worker")
        parser.add_argument("task", choices=("import", "session", "versions"))
        parser.add_argument("--side", choices=("ours", "peer"), required=True)
        parser.add_argument("--folder", required=True)
        parser.add_argument("--spawned", type=float, required=True, help="time.monotonic() at its start")
        return parser.parse_args(argv[1:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="output/bench", help="model folder and results (default: %(default)s)")
    parser.add_argument("--peer-python", help="interpreter with torch and transformers (default: this one)")
    parser.add_argument("--no-peer", action="store_true", help="measure mindformers alone")
    parser.add_argument("--runs", type=int, default=5, help="processes a side (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="134m", help="model (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="weights (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.runs < 1:
        parser.error(f"--runs must be at least 1, but is {args.runs}")
    return args


def main(argv):
    args = parse(argv)
    if not hasattr(args, "task"):
        run(args)
        return
    tasks = {"import": lambda: import_package(args.side), "versions": lambda: versions(args.side),
             "session": lambda: session(args.side, args.folder, args.spawned)}
    print(json.dumps(tasks[args.task]()))


if __name__ == "__main__":
    main(sys.argv[1:])
