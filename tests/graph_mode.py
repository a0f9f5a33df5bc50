"""Fixtures: `graph_mode`, on CPU for every test of the file or folder that imports it; `without_graphs` where asked.

`eagerly` is for what others are compared with: its values need no graph.
"""
from contextlib import contextmanager

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


@contextmanager
def eagerly():
    """PYNATIVE mode in this block."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


@pytest.fixture
def without_graphs():
    """For tests of values: compiling takes longer than all else, and others see that graphs give the same."""
    with eagerly():
        yield
