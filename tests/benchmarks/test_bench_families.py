"""The comparison of families runs, and its models have as many parameters as each other but for GLM's biases."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import bench_families  # noqa: E402


def test_models_are_of_one_size():
    llama, glm = bench_families.build("tiny", 2, "float32")
    biases = sum(p.size for p in glm.get_parameters() if p.name.endswith("query_key_value.bias"))
    assert biases and glm.num_parameters() - biases == llama.num_parameters()


def test_it_prints_a_ratio(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_families.py", "--size", "tiny", "--rounds", "1", "--dtype", "float32"])
    bench_families.main()
    ratios = re.findall(r"(prefill|decode) float32: .* ratio (\d+\.\d+)", capsys.readouterr().out)
    assert [what for what, _ in ratios] == ["prefill", "decode"] and all(float(ratio) > 0 for _, ratio in ratios)
