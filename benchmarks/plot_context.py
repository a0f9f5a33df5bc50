"""Cost of a token against the context before it, with the part that reading the cache explains, as a picture.

    python benchmarks/plot_context.py --picture docs/images/decode_context.png [--llama-bench BUILD/bin/llama-bench ...]

One sequence grows through the positions; each point is the median of a few greedy steps there. The dashed line is the
cost with an empty context plus the bytes of keys and values held, at the bandwidth that two threads reach in the same
run. Writes <workdir>/plot_context.json too; `--from-json` draws that again.
"""
import argparse
import json
import statistics
import sys
from pathlib import Path

import bench_generation
from generation_rows import LLAMA_CPP, OURS, Model
from random_llama import SIZES

POSITIONS = [1, 512, 1024, 2048, 3072, 4096, 6144, 8000]
STEPS = 15  # steps at each position
NAMES = {"bfloat16": "bf16", "float32": "f32"}


class LongBench(bench_generation.Bench):
    """Folders whose config allows the longest position. The GGUF file stays: llama-bench goes past its context."""

    @property
    def room(self):
        """Tokens of the longest sequence, at least those of the worker's first prompt."""
        return max(256, max(self.args.positions) + 2 * STEPS + 32)

    def folder(self, model):
        folder = self.workdir / f"llama-{model.size}-{model.dtype}-{self.room}"
        self.call([sys.executable, bench_generation.HERE / "random_llama.py", folder, "--size", model.size, "--dtype",
                   model.dtype, "--positions", self.room], "random_llama.py")
        return folder


def measure(args):
    """{"ours": [[position, s, cache bytes per token]], "llama.cpp": [[position, s]], "bandwidth": {...}}."""
    bench = LongBench(args)
    bench.build_bandwidth()
    model = Model(args.size, args.dtype, None, NAMES[args.dtype])
    before = bench.bandwidth()
    found = {"size": args.size, "dtype": args.dtype, "threads": args.threads, OURS: [], LLAMA_CPP: []}
    runs = []
    for run in range(args.runs):
        measures = [{"kind": "context", "positions": args.positions, "count": STEPS}]
        runs.append(bench.worker(OURS, model, measures, max_tokens=bench.room)["results"][0])
        print(f"{OURS} {run + 1}/{args.runs}: " + ", ".join(f"{p:.0f}: {1e3 * s:.1f} ms" for p, s, _ in runs[-1]),
              flush=True)
    found[OURS] = [[points[0][0], statistics.median(s for _, s, _ in points), points[0][2]] for points in zip(*runs)]
    after = bench.bandwidth()
    found["bandwidth"] = {pages: (before[pages] + after[pages]) / 2 for pages in before}
    for position in args.positions if args.llama_bench else ():
        command = [args.llama_bench, "-m", bench.gguf(model), "-t", args.threads, "-p", 0, "-n", STEPS, "-d", position,
                   "-r", args.runs, "-o", "jsonl"]
        samples = json.loads(bench.call(command, "llama-bench").splitlines()[-1])["samples_ts"]
        found[LLAMA_CPP].append([position + STEPS / 2, 1 / statistics.median(samples)])
        print(f"{LLAMA_CPP} {position}: {1e3 / statistics.median(samples):.1f} ms", flush=True)
    return found


def explained(found):
    """Slope in s per token of context: measured (least squares) and what reading the cache alone costs."""
    points = found[OURS]
    mean_p = statistics.fmean(p for p, _, _ in points)
    mean_s = statistics.fmean(s for _, s, _ in points)
    slope = sum((p - mean_p) * (s - mean_s) for p, s, _ in points) / sum((p - mean_p) ** 2 for p, _, _ in points)
    return slope, points[0][2] / (max(found["bandwidth"].values()) * 1e9)


def draw(found, picture):
    """Write the picture: time per token over the position, every side, and the cache read."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=120)
    points = found[OURS]
    positions = [p for p, _, _ in points]
    axes.plot(positions, [1e3 * s for _, s, _ in points], "o-", label=OURS)
    if found[LLAMA_CPP]:
        axes.plot([p for p, _ in found[LLAMA_CPP]], [1e3 * s for _, s in found[LLAMA_CPP]], "s-", color="tab:gray",
                  label=LLAMA_CPP)
    cache = points[0][2] / (max(found["bandwidth"].values()) * 1e9)
    axes.plot(positions, [1e3 * (points[0][1] + cache * (p - positions[0])) for p in positions], "--",
              color="tab:orange", label=f"empty context + cache read at {max(found['bandwidth'].values()):.0f} GB/s")
    axes.set(xlabel="tokens in the context", ylabel="ms per token", ylim=(0, None),
             title=f"decode, {found['size']} {found['dtype']}, {found['threads']} threads")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    pyplot.close(figure)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="output/bench", help="models and results (default: %(default)s)")
    parser.add_argument("--picture", default="output/bench/decode_context.png", help="(default: %(default)s)")
    parser.add_argument("--from-json", action="store_true", help="draw what an earlier run measured")
    parser.add_argument("--size", choices=SIZES, default="134m", help="model (default: %(default)s)")
    parser.add_argument("--dtype", choices=NAMES, default="bfloat16", help="(default: %(default)s)")
    parser.add_argument("--positions", type=int, nargs="+", default=POSITIONS, help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="processes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--llama-bench", help="measure llama.cpp too")
    parser.add_argument("--llama-convert", help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--peer-python", help="interpreter that runs the converter")
    parser.add_argument("--compiler", default="g++", help="for the bandwidth loop (default: %(default)s)")
    parser.add_argument("--prefix", default="", help="put before every process")
    args = parser.parse_args(argv)
    if args.runs < 1 or min(args.positions) < 1:
        parser.error("--runs and --positions must be at least 1")
    return args


def main(argv=None):
    args = parse(argv)
    path = Path(args.workdir) / "plot_context.json"
    if not args.from_json:
        found = measure(args)
        path.write_text(json.dumps(found, indent=1) + "\n")
    found = json.loads(path.read_text())
    draw(found, args.picture)
    slope, cache = explained(found)
    print(f"each 1000 tokens of context cost {1e6 * slope:.2f} ms a token; reading their cache takes "
          f"{1e6 * cache:.2f} ms")


if __name__ == "__main__":
    main()
