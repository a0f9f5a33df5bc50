"""Runs tests/kernels/with_plugin in a process that has the op plugin from its first op on."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers.kernels import library

FOLDER = Path(__file__).with_name("with_plugin")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not library.verdict().usable, reason=f"native library: {library.verdict().reason}")


@pytest.mark.slow
@pytest.mark.parametrize("file, least", [("test_fused.py", 8), ("test_plugin_attention.py", 10),
                                         ("test_plugin_llm_ops.py", 10)])
def test_fused_primitives_on_cpu(file, least):
    env = {**os.environ, "MF_KERNELS": "fused", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(FOLDER / file)], cwd=ROOT,
                          env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least, done.stdout
