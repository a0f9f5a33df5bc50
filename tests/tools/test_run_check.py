"""run_check(): what it says when all is well, and when something is not."""
import logging

import mindspore
import pytest

from mindformers import run_check as public
from mindformers import version_control


def module():
    import importlib
    return importlib.import_module("mindformers.run_check")


def test_a_working_installation_passes(caplog):
    assert (mindspore.Tensor([1.0]) + 1).asnumpy() == 2  # a check in the middle of a session
    with caplog.at_level(logging.INFO):
        assert public() is None
    told = caplog.text
    assert "check passed: MindSpore runs (mindspore 2." in told
    assert "check passed: a tiny Llama trains and generates (loss " in told and "All checks passed." in told
    assert "check failed" not in told


@pytest.mark.parametrize("step", ["_mindspore", "_llama"])
def test_a_step_that_fails_is_named_and_raised(step, caplog, monkeypatch):
    def broken():
        raise RuntimeError("the wheel is torn")

    for name in ("_mindspore", "_llama"):
        monkeypatch.setattr(module(), name, broken if name == step else lambda: "fine")
    what = {"_mindspore": "MindSpore runs", "_llama": "a tiny Llama trains and generates"}[step]
    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="the wheel is torn"):
        public()
    assert f"check failed: {what}: the wheel is torn" in caplog.text and "All checks passed" not in caplog.text


def test_a_wrong_version_is_a_warning(caplog, monkeypatch):
    for name in ("_mindspore", "_llama"):
        monkeypatch.setattr(module(), name, lambda: "fine")
    monkeypatch.setattr(module(), "version_faults", lambda: ["numpy 2.1.0 is not in >=1.26,<2"])
    with caplog.at_level(logging.INFO):
        public()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == "version: numpy 2.1.0 is not in >=1.26,<2"


def test_a_network_that_does_not_learn_is_found(monkeypatch):
    """The check is not satisfied by a step that runs: the loss must fall."""
    import mindspore as ms
    sgd = ms.nn.SGD
    monkeypatch.setattr(ms.nn, "SGD", lambda params, learning_rate: sgd(params, learning_rate=0.0))
    with pytest.raises(RuntimeError, match="the loss did not fall"):
        module()._llama()


def test_versions_of_this_installation_are_right():
    assert version_control.version_faults() == []
