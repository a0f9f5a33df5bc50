"""The benchmarks run on a tiny model, and their table says what was measured. No test reads a clock."""
import json
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_generation  # noqa: E402
import generation_rows  # noqa: E402
import make_gguf  # noqa: E402
import plot_context  # noqa: E402
import random_llama  # noqa: E402

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the bandwidth loop needs g++")
ROW = generation_rows.Row("r", "a row", "134m-bf16", "decode", arguments={"position": 128, "count": 64, "repeats": 1},
                          peers=("llama.cpp", "transformers"), times=1.15, share=0.8, bound_by_memory=True)


def runs_of(ours, llama, transformers, gbs):
    return {"row": "r", "failed": {}, "runs": [
        {"mindformers": o, "llama.cpp": p, "transformers": t, "bandwidth": {"small": gbs / 2, "huge": gbs},
         "others": 0.0}
        for o, p, t in zip(ours, llama, transformers)]}


def test_summary_takes_the_better_peer_and_pairs_the_runs():
    summary = bench_generation.summarise(ROW, runs_of([120, 60, 240], [100, 40, 200], [10, 10, 10], 30))
    assert summary["best"] == "llama.cpp"
    assert summary["mindformers"] == 120 and summary["llama.cpp"] == 100
    assert summary["ratio"] == pytest.approx(1.2)      # median of 1.2, 1.5, 1.2
    assert summary["share_huge"] == pytest.approx(120 * ROW.step_bytes / 30e9)
    assert summary["share_small"] == pytest.approx(2 * summary["share_huge"])


@pytest.mark.parametrize("ours, share, reached", [(120, 0.5, True), (110, 0.5, False), (120, 2.0, False)])
def test_reached_needs_ratio_and_share(ours, share, reached):
    record = runs_of([ours] * 3, [100] * 3, [10] * 3, 50)
    assert bench_generation.summarise(replace(ROW, share=share), record)["reached"] is reached


def test_without_one_of_its_peers_a_ratio_is_no_verdict():
    record = runs_of([120] * 3, [100] * 3, [10] * 3, 50)
    for run in record["runs"]:
        del run["llama.cpp"]
    summary = bench_generation.summarise(replace(ROW, share=None), record)
    assert "reached" not in summary and summary["best"] == "transformers"


def test_less_is_better_rows_turn_the_ratio():
    row = generation_rows.Row("r", "cold", "134m-bf16", "cold_start", "s", peers=("transformers",), times=1 / 0.6,
                              more_is_better=False)
    for ours, reached in ((5.9, True), (6.1, False)):
        record = runs_of([ours], [1], [10], 1)
        assert bench_generation.summarise(row, record)["reached"] is reached


def test_table_names_a_busy_machine_and_failures():
    record = runs_of([120] * 3, [100] * 3, [10] * 3, 50)
    setup = {"threads": 2, "cpus": 2, "cpu": "c", "system": "s", "versions": {}}
    page = bench_generation.markdown({"setup": setup, "rows": [record]}, [ROW])
    assert "| a row | 120 tok/s | 100 tok/s | 10 tok/s | 1.20 (llama.cpp) |" in page and "busy" not in page
    assert "Medians of 3 processes a side" in page
    assert "several calls" not in page and "started with" not in page
    later = {**record, "row": "s", "measured": "2026-01-02 04:00", "prefix": "chrt -r 20"}
    earlier = {**record, "measured": "2026-01-02 03:00"}
    page = bench_generation.markdown({"setup": setup, "rows": [earlier, later]}, [ROW])
    assert "several calls, 2026-01-02 03:00 to 2026-01-02 04:00" in page and "started with `chrt -r 20`" in page
    record["runs"][0]["others"] = record["runs"][1]["others"] = 1.3
    record["failed"] = {"llama.cpp": "it broke\nhere"}
    page = bench_generation.markdown({"setup": setup, "rows": [record]}, [ROW])
    assert "**The machine was busy**: other programs used 1.3 cores" in page and "r: llama.cpp: it broke\n" in page


def test_table_goes_between_the_markers_of_a_document(tmp_path):
    begin, end = bench_generation.MARKERS
    document = tmp_path / "page.md"
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    bench_generation.put_into(document, "\nnew table\n")
    assert document.read_text() == f"before\n{begin}\nnew table\n{end}\nafter\n"
    document.write_text("nothing here\n")
    with pytest.raises(SystemExit, match="page.md has no line"):
        bench_generation.put_into(document, "new")


def test_random_llama_is_a_safetensors_folder(tmp_path):
    random_llama.make_model(tmp_path, "tiny", "float32")
    config = json.loads((tmp_path / "config.json").read_text())
    tensors = load_file(tmp_path / "model.safetensors")
    assert {name: t.shape for name, t in tensors.items()} == random_llama.shapes_of(config)
    assert abs(float(tensors["lm_head.weight"].std()) - 0.02) < 0.001
    assert np.all(tensors["model.norm.weight"] == 1)
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    random_llama.make_model(tmp_path, "tiny", "float32")
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written
    random_llama.make_model(tmp_path, "tiny", "float32", max_position_embeddings=4096)
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 4096


def test_sizes_are_those_of_the_table():
    assert random_llama.weights_per_token(random_llama.config_of("134m", "bfloat16")) == 109_510_656
    assert random_llama.weights_per_token(random_llama.config_of("1.1b", "bfloat16")) == 1_038_614_528
    assert generation_rows.MODELS["134m-bf16"].cache_bytes(1) == 36_864


def test_dummy_vocabulary_has_the_model_s_size():
    vocab = make_gguf.dummy_tokenizer(512)["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(512)) and vocab["<s>"] == 1


def test_converter_that_fails_is_quoted(tmp_path):
    random_llama.make_model(tmp_path / "m", "tiny", "float32")
    broken = tmp_path / "convert.py"
    broken.write_text("raise SystemExit('no such architecture')\n")
    with pytest.raises(SystemExit, match="no such architecture"):
        make_gguf.make_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32", str(broken), sys.executable)
    assert not (tmp_path / "m.gguf").exists()


def test_context_slope_of_a_straight_line():
    points = [[p, 0.01 + 2e-6 * p, 36_864] for p in (10, 1000, 4000)]
    slope, cache = plot_context.explained({"mindformers": points, "bandwidth": {"small": 10, "huge": 36.864}})
    assert slope == pytest.approx(2e-6) and cache == pytest.approx(1e-6)


@pytest.mark.parametrize("argv, message", [
    (["--rows", "decode-9b"], "no row 'decode-9b'"), (["--runs", "0"], "at least 1"),
    (["--llama-convert", "c.py"], "needs --peer-python")])
def test_bad_arguments_are_named(argv, message, capsys):
    with pytest.raises(SystemExit):
        bench_generation.parse(argv)
    assert message in capsys.readouterr().err


@needs_compiler
def test_tiny_run_beside_a_llama_bench(tmp_path, capsys):
    llama_bench = tmp_path / "llama-bench"
    llama_bench.write_text(f"#!{sys.executable}\nprint('noise')\nprint('{{\"samples_ts\": [10, 20, 30]}}')\n")
    llama_bench.chmod(llama_bench.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "llama-tiny-bf16.gguf").write_bytes(b"GGUF")
    rows = "decode-134m-bf16,prefill-134m-bf16-128,cold-start,sampling"
    code = bench_generation.main(["--size", "tiny", "--runs", "1", "--workdir", str(tmp_path), "--llama-bench",
                                  str(llama_bench), "--rows", rows])
    out = capsys.readouterr().out
    assert code == 0, out
    result = json.loads((tmp_path / "bench_generation.json").read_text())
    found = {record["row"]: record["runs"][0] for record in result["rows"]}
    assert set(found) == set(rows.split(","))
    assert found["decode-134m-bf16"]["llama.cpp"] == 20 and found["decode-134m-bf16"]["mindformers"] > 0
    assert found["cold-start"]["mindformers"] > 0 and found["cold-start"]["bandwidth"]["huge"] > 0
    assert (tmp_path / "bench_generation.md").read_text() in out


@needs_compiler
def test_read_ways(tmp_path):
    program = tmp_path / "read_ways"
    source = Path(bench_generation.__file__).with_name("read_ways.cpp")
    subprocess.run(["g++", "-O1", "-pthread", source, "-o", program], check=True)
    lines = subprocess.run([program, "2", "4", "3"], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [tuple(map(float, re.search(r"median +([\d.]+) best +([\d.]+)$", line).groups())) for line in lines]
    assert len(found) == 13 and all(0 < median <= best for median, best in found)
    assert subprocess.run([program, "0"], check=False, capture_output=True).returncode == 2


@needs_compiler
def test_tiny_context_picture(tmp_path):
    picture = tmp_path / "images" / "context.png"
    plot_context.main(["--size", "tiny", "--runs", "1", "--positions", "1", "40", "--workdir", str(tmp_path),
                       "--picture", str(picture)])
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "plot_context.json").read_text())
    assert [p for p, _, _ in found["mindformers"]] == [11.5, 50.5]
