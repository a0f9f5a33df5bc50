"""Graph mode on CPU, whatever ran before."""
import mindspore as ms
import pytest


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)
