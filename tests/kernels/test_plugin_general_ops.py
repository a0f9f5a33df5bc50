"""General ops of the op plugin, each in a process of its own mode: see plugin_general_cases.py."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.kernels import library

CASES = Path(__file__).with_name("plugin_general_cases.py")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not library.verdict().usable, reason=f"native library: {library.verdict().reason}")

# A view as the very first op: the library is then loaded from inside MindSpore's question for it (plugin/views.cpp).
FIRST_OP_IS_A_VIEW = """
import numpy as np, mindspore as ms
ms.set_context(mode=ms.PYNATIVE_MODE)
x = ms.Tensor(np.arange(6).reshape(3, 2).astype(np.float32)).T
print((x + x).asnumpy().tolist() == [[0, 4, 8], [2, 6, 10]])
"""


def run(*command, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MF_KERNELS": "fused", **environment}
    done = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["GRAPH", "PYNATIVE"])
def test_every_op_equals_numpy(mode):
    found = json.loads(run(str(CASES), mode))
    assert found["plugin"] == "this library" and found["cases"] > 40
    assert not found["failures"]


def test_views_reach_stock_kernels_contiguous_when_a_view_comes_first():
    assert run("-c", FIRST_OP_IS_A_VIEW, MS_OP_PLUGIN_PATH=library.path()) == "True"
