"""Generation on CPU beside llama.cpp and transformers: decode, prefill, batches, cold start, memory, bandwidth.

    python benchmarks/bench_generation.py --llama-bench BUILD/bin/llama-bench \
        --llama-convert llama.cpp/convert_hf_to_gguf.py --peer-python PYTHON_WITH_TRANSFORMERS

Each model is measured in processes of their own, which take turns (A B C A B C ...). Writes bench_generation.json
(every value) and .md into --workdir; `--rows NAME,NAME` measures some rows anew and keeps the others. See README.md.
"""
import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import generation_rows as table
from generation_rows import LLAMA_CPP, OURS, TRANSFORMERS
from make_gguf import make_gguf
from random_llama import SIZES

HERE = Path(__file__).resolve().parent
MARKERS = ("<!-- bench_generation.md begins -->", "<!-- bench_generation.md ends -->")
BUSY_CORES = 0.15  # other programs' share of the machine from which on the result says so


class Bench:
    """The tools of one run: where programs and files are, and how each side is measured."""

    def __init__(self, args):
        self.args = args
        self.workdir = Path(args.workdir).resolve()
        self.models = table.tiny_models() if args.size == "tiny" else table.MODELS
        self.prefix = shlex.split(args.prefix)
        self.versions = {}
        self.environment = {**os.environ, "MF_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}

    # -- programs and files ------------------------------------------------------------------------------------------

    def call(self, command, what):
        """Standard output of a program; RuntimeError with its last words when it fails."""
        done = subprocess.run([*self.prefix, *map(str, command)], capture_output=True, text=True, check=False,
                              env=self.environment)
        if done.returncode:
            raise RuntimeError(f"{what} failed ({done.returncode}):\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done.stdout

    def folder(self, model):
        """The model's folder, written by a process of its own when it is not there: its memory is not ours."""
        folder = self.workdir / f"llama-{model.size}-{model.dtype}"
        self.call([sys.executable, HERE / "random_llama.py", folder, "--size", model.size, "--dtype", model.dtype],
                  "random_llama.py")
        return folder

    def gguf(self, model):
        """The model's GGUF file."""
        file = self.workdir / f"llama-{model.size}-{model.gguf}.gguf"
        if not file.exists() and not self.args.llama_convert:
            raise SystemExit(f"{file} is not there: --llama-convert says where llama.cpp's convert_hf_to_gguf.py is")
        if self.args.llama_convert:
            make_gguf(self.folder(model), file, model.gguf, self.args.llama_convert, self.args.peer_python)
        return file

    def build_bandwidth(self):
        """Compile the read loop."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        program = self.workdir / "bandwidth"
        self.call([self.args.compiler, "-O3", "-march=native", "-pthread", HERE / "bandwidth.cpp", "-o", program],
                  "compiling bandwidth.cpp")

    def bandwidth(self):
        """GB/s that the threads read, with small and with huge pages."""
        small, huge = self.call([self.workdir / "bandwidth", self.args.threads], "bandwidth").split()
        return {"small": float(small), "huge": float(huge)}

    # -- sides -------------------------------------------------------------------------------------------------------

    def measure(self, side, model, rows):
        """{row name: value} of one process of this side (llama.cpp: one per row)."""
        if side == LLAMA_CPP:
            return {row.name: self.measure_llama_cpp(model, row) for row in rows}
        timed = [row for row in rows if row.kind not in ("cold_start", "peak_memory")]
        measures = [{"kind": row.kind, **row.arguments} for row in timed]
        longest = max([row.arguments.get("position", 0) + row.arguments.get("count", 0) for row in timed], default=0)
        found = self.worker(side, model, measures, max(1024, longest + 64),
                            generated=64 if any(row.kind == "peak_memory" for row in rows) else 0)
        values = {row.name: found[row.kind] for row in rows if row.kind in ("cold_start", "peak_memory")}
        return {**values, **{row.name: statistics.median(v) for row, v in zip(timed, found["results"])}}

    def worker(self, side, model, measures=(), max_tokens=1024, generated=0):
        """What generation_worker.py prints."""
        python = sys.executable if side == OURS else self.args.peer_python
        command = [python, HERE / "generation_worker.py", "ours" if side == OURS else "transformers",
                   self.folder(model), "--measures", json.dumps(list(measures)), "--threads", self.args.threads,
                   "--max-tokens", max_tokens, "--generated", generated]
        if side == OURS and model.quantization:
            command += ["--quantization", model.quantization]
        out = self.call([*command, "--spawned", repr(time.monotonic())], f"{side} on {model}")
        found = json.loads(out.strip().splitlines()[-1])
        self.versions.update(found["versions"])
        return found

    def measure_llama_cpp(self, model, row):
        """tok/s of llama-bench, or of llama-batched-bench beside it for batches."""
        program, a, common = Path(self.args.llama_bench), row.arguments, ["-m", self.gguf(model), "-t",
                                                                          self.args.threads]
        if row.kind == "prefill":
            command = [program, *common, "-p", a["tokens"], "-n", 0, "-r", a["repeats"], "-o", "jsonl"]
        elif a["batch"] == 1:
            command = [program, *common, "-p", 0, "-n", a["count"], "-d", a["position"], "-r", a["repeats"],
                       "-o", "jsonl"]
        else:
            room = a["batch"] * (a["position"] + a["count"]) + 512
            command = [program.with_name("llama-batched-bench"), *common, "-c", room, "-npp", a["position"],
                       "-ntg", a["count"], "-npl", a["batch"], "--output-format", "jsonl"]
        found = [json.loads(line) for line in self.call(command, f"{program.name} on {row.name}").splitlines()
                 if line.startswith("{")][-1]
        return statistics.median(found["samples_ts"]) if "samples_ts" in found else found["speed_tg"]

    def sides(self, row):
        """The sides of a row that this run has."""
        there = {LLAMA_CPP: self.args.llama_bench, TRANSFORMERS: self.args.peer_python}
        return [OURS, *(peer for peer in row.peers if there[peer])]


# -- measuring -------------------------------------------------------------------------------------------------------


class OtherWork:
    """CPU cores that other programs used since it was made (Linux; None elsewhere)."""

    def __init__(self):
        self.start = self._read()

    @staticmethod
    def _read():
        try:
            fields = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return None
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        own = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
        return time.monotonic(), busy - sum(u.ru_utime + u.ru_stime for u in own)

    def cores(self):
        end = self._read()
        return None if end is None else max(0.0, (end[1] - self.start[1]) / (end[0] - self.start[0]))


def measure_model(bench, name, rows, runs):
    """Measure the rows of one model.

    Returns [{"row": name, "measured": time, "prefix": "...", "failed": {side: why},
              "runs": [{side: value, ..., "bandwidth": GB/s, "others": cores}]}].
    """
    model, failed = bench.models[name], {}
    sides = [side for side in (OURS, LLAMA_CPP, TRANSFORMERS) if any(side in bench.sides(row) for row in rows)]
    mine = {side: [row for row in rows if side in bench.sides(row)] for side in sides}
    about = {"measured": time.strftime("%Y-%m-%d %H:%M"), "prefix": bench.args.prefix}
    records = {row.name: {"row": row.name, **about, "runs": [], "failed": failed} for row in rows}
    for side in sides if bench.args.size != "tiny" else ():     # disk cache, byte code, GGUF files
        if side == LLAMA_CPP:
            bench.gguf(model).read_bytes()
            continue
        try:
            bench.worker(side, model)
        except RuntimeError as error:
            failed[side] = str(error)
            print(f"{name} {error}", flush=True)
    for run in range(runs):
        others, now = OtherWork(), {row.name: {} for row in rows}
        for side in sides:
            if side in failed:
                continue
            before = bench.bandwidth()
            try:
                found = bench.measure(side, model, mine[side])
            except RuntimeError as error:
                failed[side] = str(error)
                print(f"{name} {error}", flush=True)
                continue
            for row, value in found.items():
                now[row][side] = value
            if side == OURS:
                after = bench.bandwidth()
                limit = {pages: (before[pages] + after[pages]) / 2 for pages in before}
                for row in now.values():
                    row["bandwidth"] = limit
            print(f"{name} run {run + 1}/{runs} {side}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()),
                  flush=True)
        for row, values in now.items():
            records[row]["runs"].append({**values, "others": others.cores()})
    return list(records.values())


# -- the table -------------------------------------------------------------------------------------------------------


def summarise(row, record):
    """Medians of each side, median of the runs' ratios against the best peer, share of the limit, reached or not."""
    runs = record["runs"]
    summary = {side: statistics.median([run[side] for run in runs if side in run])
               for side in (OURS, *row.peers) if any(side in run for run in runs)}
    if OURS not in summary:
        return summary
    pick = max if row.more_is_better else min
    peers = {peer: summary[peer] for peer in row.peers if peer in summary}
    verdicts = []
    if peers:
        best = pick(peers, key=peers.get)
        both = [run for run in runs if OURS in run and best in run]
        ratios = [run[OURS] / run[best] if row.more_is_better else run[best] / run[OURS] for run in both]
        summary.update(best=best, ratio=statistics.median(ratios))
        if row.times and len(peers) == len(row.peers):
            verdicts.append(summary["ratio"] >= row.times)
    if row.step_bytes:
        for pages in ("small", "huge"):
            summary[f"share_{pages}"] = statistics.median(
                [run[OURS] * row.step_bytes / 1e9 / run["bandwidth"][pages] for run in runs if "bandwidth" in run])
        if row.share:
            verdicts.append(max(summary["share_small"], summary["share_huge"]) >= row.share)
    if row.at_most is not None:
        verdicts.append(summary[OURS] <= row.at_most)
    if verdicts:
        summary["reached"] = all(verdicts)
    return summary


def goal(row):
    """What a row has to reach, in words."""
    parts = []
    if row.times:
        parts.append(f">= {row.times:.2f}x {'the better one' if len(row.peers) > 1 else row.peers[0]}"
                     if row.more_is_better else f"<= {1 / row.times:.2f} of {row.peers[0]}'s")
    if row.share:
        parts.append(f">= {row.share:.0%} of the limit")
    if row.at_most is not None:
        parts.append(f"<= {row.at_most:.4g} {row.unit}")
    return ", ".join(parts) or "-"


def markdown(result, rows):
    """The result as a Markdown page."""
    setup = result["setup"]
    records = {record["row"]: record for record in result["rows"]}
    every = [run for record in records.values() for run in record["runs"]]
    counts = sorted({len(record["runs"]) for record in records.values()})
    counted = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    lines = [f"Medians of {counted} processes a side that took turns; {setup['threads']} threads of "
             f"{setup['cpus']} CPUs ({setup['cpu']}, {setup['system']}); "
             + ", ".join(f"{k} {v}" for k, v in setup["versions"].items()) + ".", ""]
    measured = sorted({record.get("measured", "") for record in records.values()} - {""})
    if len(measured) > 1:
        lines += [f"The rows come from several calls, {measured[0]} to {measured[-1]}.", ""]
    prefixes = sorted({record.get("prefix", "") for record in records.values()} - {""})
    if prefixes:
        lines += ["Processes were started with " + ", ".join(f"`{prefix}`" for prefix in prefixes) + ".", ""]
    read = {pages: [run["bandwidth"][pages] for run in every if "bandwidth" in run] for pages in ("small", "huge")}
    if read["small"]:
        lines += [f"Memory read by {setup['threads']} threads in the same run: "
                  + ", ".join(f"{statistics.median(v):.1f} GB/s ({min(v):.1f} to {max(v):.1f}) with {pages} pages"
                              for pages, v in read.items()) + ".", ""]
    others = [run["others"] for run in every if run.get("others") is not None]
    if others and statistics.median(others) > BUSY_CORES:
        lines += [f"**The machine was busy**: other programs used {statistics.median(others):.1f} cores (median).", ""]
    lines += [f"| measure | {OURS} | {LLAMA_CPP} | {TRANSFORMERS} | ratio | share of the limit, small / huge pages | "
              "to reach | reached |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.name not in records:
            continue
        s = summarise(row, records[row.name])
        cells = [f"{s[side]:.4g} {row.unit}" if side in s else "-" for side in (OURS, LLAMA_CPP, TRANSFORMERS)]
        ratio = f"{s['ratio']:.2f} ({s['best']})" if "ratio" in s else "-"
        share = f"{s['share_small']:.0%} / {s['share_huge']:.0%}" if "share_small" in s else "-"
        reached = {True: "yes", False: "**no**"}.get(s.get("reached"), "-")
        lines.append(f"| {row.title} | " + " | ".join([*cells, ratio, share, goal(row), reached]) + " |")
    failures = {f"{r}: {side}: {why.splitlines()[0]}" for r, record in records.items()
                for side, why in record["failed"].items()}
    return "\n".join([*lines, "", *sorted(failures), ""])


def put_into(path, page):
    """Replace what stands between the two markers of a Markdown file by `page`.

    Raises:
        SystemExit: the file has no such markers.
    """
    text = Path(path).read_text()
    begin, end = text.find(MARKERS[0]), text.find(MARKERS[1])
    if begin < 0 or end < begin:
        raise SystemExit(f"{path} has no line {MARKERS[0]} followed by {MARKERS[1]}")
    Path(path).write_text(text[:begin + len(MARKERS[0])] + "\n" + page.strip() + "\n" + text[end:])


def cpu_name():
    """The processor as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor()
    return platform.processor()


def run(args, rows):
    """Measure, write JSON and Markdown after each model, print the table; True when nothing failed."""
    bench = Bench(args)
    bench.build_bandwidth()
    path = bench.workdir / "bench_generation.json"
    old = json.loads(path.read_text()) if path.exists() else {"setup": {}, "rows": []}
    if old["setup"].get("size") != args.size:
        old = {"setup": {}, "rows": []}
    records = {record["row"]: record for record in old["rows"]}
    bench.versions.update(old["setup"].get("versions", {}))
    chosen = [row for row in rows if args.rows is None or row.name in args.rows]
    started = time.monotonic()
    for name in dict.fromkeys(row.model for row in chosen):
        found = measure_model(bench, name, [row for row in chosen if row.model == name], args.runs)
        records.update({record["row"]: record for record in found})
        setup = {"size": args.size, "threads": args.threads, "cpus": os.cpu_count(),
                 "cpu": cpu_name(), "system": f"{platform.system()} {platform.machine()}", "versions": bench.versions}
        result = {"setup": setup, "rows": list(records.values())}
        path.write_text(json.dumps(result, indent=1) + "\n")
        path.with_suffix(".md").write_text(markdown(result, rows))
    print(f"\n{markdown(result, rows)}\n{time.monotonic() - started:.0f} s")
    for document in args.into:
        put_into(document, markdown(result, rows))
    return not any(records[row.name]["failed"] for row in chosen)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="output/bench", help="models and results (default: %(default)s)")
    parser.add_argument("--llama-bench", help="llama.cpp's llama-bench; llama-batched-bench is expected beside it")
    parser.add_argument("--llama-convert", help="llama.cpp's convert_hf_to_gguf.py, run with --peer-python")
    parser.add_argument("--peer-python", help="interpreter with torch, transformers and sentencepiece")
    parser.add_argument("--runs", type=int, default=5, help="processes a side (default: %(default)s)")
    parser.add_argument("--rows", help="names separated by commas (default: all): " +
                        ", ".join(row.name for row in table.ROWS))
    parser.add_argument("--size", choices=("full", *(size for size in SIZES if size == "tiny")), default="full",
                        help="tiny: whether everything runs, with a tiny model (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of every side (default: %(default)s)")
    parser.add_argument("--compiler", default="g++", help="for the bandwidth loop (default: %(default)s)")
    parser.add_argument("--into", nargs="+", default=[], metavar="FILE", help="Markdown files whose table (between "
                        "markers) is replaced by the new one")
    parser.add_argument("--prefix", default="", help='put before every process, for example "chrt -r 20"')
    args = parser.parse_args(argv)
    if args.runs < 1 or args.threads < 1:
        parser.error(f"--runs and --threads must be at least 1, but are {args.runs} and {args.threads}")
    if args.llama_convert and not args.peer_python:
        parser.error("--llama-convert needs --peer-python, which runs it")
    if args.rows is not None:
        args.rows = args.rows.split(",")
        for name in args.rows:
            if name not in {row.name for row in table.ROWS}:
                parser.error(f"--rows: there is no row {name!r}")
    return args


def main(argv=None):
    args = parse(argv)
    rows = table.tiny_rows(table.ROWS) if args.size == "tiny" else table.ROWS
    return 0 if run(args, rows) else 1


if __name__ == "__main__":
    sys.exit(main())
