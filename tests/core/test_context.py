"""The context: values that are checked, replaced openly, never silently ignored."""
import mindspore as ms
import numpy as np
import pytest

from mindformers.core.context import build_context, get_context, init_context, set_context
from mindformers.core.context.settings import read_settings
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.register import MindFormerConfig
from mindformers.tools.utils import MODE
from mindformers.trainer import TrainingArguments


def test_a_second_configuration_replaces_the_first():
    first = {"context": {"mode": "PYNATIVE_MODE"}, "run_mode": "train"}
    build_context(first)
    assert (get_context("mode"), get_context("run_mode")) == (ms.PYNATIVE_MODE, "train")
    assert first == {"context": {"mode": "PYNATIVE_MODE"}, "run_mode": "train"}
    context = build_context({"context": {"mode": 0, "max_device_memory": "58GB"}, "run_mode": "predict"})
    assert (get_context("mode"), get_context("run_mode")) == (ms.GRAPH_MODE, "predict")
    assert (context.rank, context.device_num) == (0, 1)


def test_every_kind_of_configuration_is_taken():
    """A MindFormerConfig answers None for any attribute, also for the method that TrainingArguments have."""
    for mode in ("PYNATIVE_MODE", "GRAPH_MODE"):
        context = build_context(MindFormerConfig(context={"mode": mode}, run_mode="eval"))
        assert context.settings.mode == MODE[mode] and get_context("run_mode") == "eval"
    build_context(TrainingArguments(use_cpu=True, mode=1))
    assert get_context("mode") == ms.PYNATIVE_MODE


def test_seed_zero_is_a_seed():
    build_context({"seed": 0})
    assert ms.get_seed() == 0
    first = np.random.rand()
    build_context({"seed": 0})
    assert np.random.rand() == first
    build_context({"seed": 1})
    assert np.random.rand() != first


def test_single_settings():
    set_context(run_mode="eval", mode="PYNATIVE_MODE")
    assert (get_context("run_mode"), get_context("mode")) == ("eval", ms.PYNATIVE_MODE)
    set_context(mode=0)
    assert get_context("run_mode") == "eval"
    assert init_context() == (0, 1)


@pytest.mark.parametrize("config, error, text", [
    ({"context": {"mode": 2}}, ConfigError, "context.mode must be one of 0, 1"),
    ({"context": {"mode": "GRAPH_MOD"}}, ConfigError, "GRAPH_MODE"),
    ({"context": {"device_target": "TPU"}}, ConfigError, "ASCEND"),
    ({"run_mode": "trian"}, ConfigError, "'train'"),
    ({"use_parallel": True, "parallel": {"parallel_mode": 1}}, UnsupportedError, "parallel_mode: 0"),
    ({"use_parallel": True, "parallel": {"parallel_mode": 7}}, ConfigError, "parallel_mode"),
    ({"context": {"jit_config": {"jit_level": "O2", "infer_boost": "on"}}}, ConfigError, "O0"),
])
def test_wrong_values(config, error, text):
    with pytest.raises(error, match=text):
        read_settings(config)


def test_another_device_needs_another_process():
    build_context({})
    with pytest.raises(ConfigError, match="CPU already"):
        build_context({"context": {"device_target": "Ascend"}})


def test_parallel_without_a_launcher_says_what_to_do(monkeypatch):
    monkeypatch.delenv("MS_ROLE", raising=False)
    with pytest.raises(RuntimeError, match="use_parallel=False"):
        init_context(use_parallel=True)
    assert get_context("device_num") == 1


def test_a_folder_for_graphs_is_made_only_for_graphs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save, made in ((False, []), (True, ["graph"])):
        build_context({"context": {"save_graphs": save, "save_graphs_path": "./graph"}})
        assert [path.name for path in tmp_path.iterdir()] == made
    build_context({"context": {"save_graphs": False}})
