"""Metrics."""
import math

import numpy as np
import pytest
from mindspore import Tensor

from mindformers.core.metric import EmF1Metric, EntityScore, PerplexityMetric, PromptAccMetric, build_metric
from mindformers.core.metric.text import find_lcs, mixed_segmentation
from mindformers.tools.errors import UnsupportedError


def test_perplexity_counts_tokens_not_batches():
    metric = PerplexityMetric()
    metric.update(Tensor(10.0), Tensor(2.0))
    metric.update(Tensor(8.0), Tensor(8.0))
    result = metric.eval()
    assert result["loss"] == 1.8
    assert result["PPL"] == math.exp(1.8)
    per_batch = PerplexityMetric()
    per_batch.update(Tensor(5.0))
    per_batch.update(Tensor(1.0))
    assert per_batch.eval()["loss"] == 3.0
    metric.clear()
    with pytest.raises(RuntimeError):
        metric.eval()


def test_perplexity_from_logits_shifts():
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(2, 4, 5)).astype(np.float32), rng.integers(0, 5, (2, 4))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    picked = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1)]
    want = -np.mean([math.log(probs[b, t, tokens[b, n]]) for b, t, n in picked])
    metric = PerplexityMetric()
    metric.update(Tensor(logits), Tensor(tokens), Tensor(mask))
    assert abs(metric.eval()["loss"] - want) < 1e-6
    with pytest.raises(ValueError):
        metric.update(1, 2, 3, 4)


def test_prompt_accuracy():
    metric = PromptAccMetric()
    tokens = np.array([[0, 1, 2], [0, 2, 1]])
    logits = np.zeros((2, 3, 3), np.float32)
    logits[1, 0, 2] = logits[1, 1, 1] = 5.0  # the second candidate is likely
    for label in (1, 0, 1, 1):
        metric.update(Tensor(logits), Tensor(tokens), Tensor(np.ones((2, 3))), Tensor([label]))
    assert metric.eval() == {"Acc": 0.75}


def test_em_and_f1():
    metric = EmF1Metric()
    metric.update(["I love Beijing, because it's beautiful", "Hello world。"], ["I love Beijing.", "Hello world"])
    result = metric.eval()
    assert abs(result["F1"] - 75.0) < 1e-9 and result["Em"] == 50.0
    metric.clear()
    metric.update(["今天天气好"], ["今天天气很好"])
    assert abs(metric.eval()["F1"] - 100 * 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)) < 1e-9
    assert EmF1Metric.calc_em_score(["no", "Yes。"], "yes") == 1.0


def test_segments_and_common_run():
    assert mixed_segmentation("Hello 世界, it's") == ["hello", "世", "界", ",", "it", "'s"]
    assert find_lcs("xabcy", "zabcq") == ("abc", 3)
    assert find_lcs([], [1])[1] == 0


def test_entities():
    metric = EntityScore()
    b_name, i_name, s_book = 1 + 6, 11 + 6, 21 + 1
    labels = np.array([[b_name, i_name, 0, s_book, 0]])
    found = np.array([[b_name, i_name, 0, 0, b_name]])
    metric.update(Tensor(np.eye(31)[found]), Tensor(labels))
    total, by_type = metric.eval()
    assert total == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert by_type["name"] == {"precision": 0.5, "recall": 1.0, "f1": 0.6667}
    assert by_type["book"]["f1"] == 0.0
    assert EntityScore.get_entities_bios(["B-a", "I-a", "I-b", "S-c", "B-a"]) == [["a", 0, 1], ["c", 3, 3], ["a", 4, 4]]


def test_names():
    assert isinstance(build_metric({"type": "PerplexityMetric"}), PerplexityMetric)
    for name in ("ADGENMetric", "SQuADMetric"):
        with pytest.raises(UnsupportedError, match="EmF1Metric"):
            build_metric({"type": name})
