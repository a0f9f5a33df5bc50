"""Graph mode on CPU, whatever ran before."""
import mindspore as ms
import pytest

if ms.get_context("device_target") != "CPU":
    ms.set_device("CPU")


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)
