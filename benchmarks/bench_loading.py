"""Time and memory of from_pretrained beside transformers, and of `mindformers check` on the same folder.

    python benchmarks/bench_loading.py FOLDER --peer-python PYTHON_WITH_TRANSFORMERS [--runs 5]

Each value comes from a process of its own that has imported its library before the clock starts; the sides take turns. The
first logits of one token are timed too, as a side may leave part of the reading to them. Prints medians and ratios.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

OURS = """
import mindspore
import mindformers.models.llama.llama
from mindformers import AutoModelForCausalLM
def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder)
def first(model):
    with model.make_cache(1, 16) as cache:
        model.forward_step([[5]], [1], cache)
"""
PEER = """
import torch
import transformers.models.llama.modeling_llama
from transformers import AutoModelForCausalLM
def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
def first(model):
    with torch.inference_mode():
        model(torch.tensor([[5]]))
"""
MEASURE = """
import json, sys, time
def resident(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024
before, begin = resident("VmRSS"), time.perf_counter()
model = load(sys.argv[1])
loaded, peak = time.perf_counter() - begin, resident("VmHWM") - before
begin = time.perf_counter()
first(model)
print(json.dumps({"from_pretrained, s": loaded, "peak memory above the import, MB": peak,
                  "first step after it, s": time.perf_counter() - begin,
                  "peak memory with the first step, MB": resident("VmHWM") - before}))
"""


def run(python, side, folder):
    """One process of a side; its values."""
    done = subprocess.run([python, "-c", side + MEASURE, folder], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).resolve().parents[1])
    if done.returncode:
        raise SystemExit(f"{python} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def check_seconds(folder):
    """Wall time of `mindformers check FOLDER`, a whole process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mindformers.cli.main", "check", folder], capture_output=True, check=True,
                   cwd=Path(__file__).resolve().parents[1])
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="a Hugging Face folder")
    parser.add_argument("--peer-python", required=True, help="Python of an environment with transformers")
    parser.add_argument("--runs", type=int, default=5, help="processes a side (default: %(default)s)")
    args = parser.parse_args()
    ours, peer, checks = [], [], []
    for _ in range(args.runs):
        ours.append(run(sys.executable, OURS, args.folder))
        peer.append(run(args.peer_python, PEER, args.folder))
        checks.append(check_seconds(args.folder))
    print("| | mindformers | transformers | ratio (>1: mindformers is better) |\n|---|---|---|---|")
    for name in ours[0]:
        mine, other = (statistics.median(values[name] for values in side) for side in (ours, peer))
        print(f"| {name} | {mine:.4g} | {other:.4g} | {other / mine:.2f} |")
    print(f"| `mindformers check`, whole process, s | {statistics.median(checks):.4g} | - | - |")


if __name__ == "__main__":
    main()
