"""The fixture `graph_mode`: graph mode on CPU for every test of the file or folder that imports it."""
import mindspore as ms
import pytest

if ms.get_context("device_target") != "CPU":
    ms.set_device("CPU")


@pytest.fixture(autouse=True)
def graph_mode():
    """Graph mode during the test and after it."""
    ms.set_context(mode=ms.GRAPH_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)
