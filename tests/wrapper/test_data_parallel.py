"""Two ranks equal one: all checks share one launch of msrun."""
import os
import socket
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from tests.wrapper import dp_worker

pytestmark = pytest.mark.distributed
WEIGHTS = ("table", "dense", "bias", "head")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data_parallel")
    binaries = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "MS_NODE_TIMEOUT": "10",
                   "MS_RECEIVE_MSG_TIMEOUT": "20"}
    done = subprocess.run(
        [f"{binaries}/msrun", "--worker_num=2", "--local_worker_num=2", "--master_addr=127.0.0.1",
         f"--master_port={free_port()}", f"--log_dir={folder}/log", "--join=True", "--cluster_time_out=120",
         dp_worker.__file__, str(folder)],
        env=environment, capture_output=True, text=True, timeout=400, check=False, cwd=folder)
    logs = "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted((folder / "log").glob("worker_*.log")))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + logs
    found = []
    for rank in range(2):
        with np.load(folder / f"rank_{rank}.npz") as file:
            found.append(dict(file))
    return found


@pytest.fixture(scope="module")
def alone():
    """One process on the joint batch."""
    ms.set_context(mode=ms.GRAPH_MODE)
    return dp_worker.training(True, 0, 1, 1)


def distance(found, name, weights):
    return max(abs(found[f"{name}.{key}"] - weights[key]).max() for key in WEIGHTS)


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_ranks_equal_the_joint_batch(ranks, alone, name):
    weights, outputs = alone
    for found in ranks:
        assert distance(found, name, weights) < 1e-6
        np.testing.assert_allclose(found[f"{name}.outputs"], outputs, atol=1e-5)


def test_means_over_uneven_ranks_do_not(ranks, alone):
    assert distance(ranks[0], "means", alone[0]) > 1e-3


def test_ranks_agree_bit_for_bit(ranks):
    for name in ("plain", "accumulated", "means"):
        for key in WEIGHTS:
            assert (ranks[0][f"{name}.{key}"] == ranks[1][f"{name}.{key}"]).all()


def test_overflow_of_one_rank_stops_all(ranks):
    for found in ranks:
        assert found["overflow"].tolist() == [True, True]


def test_the_context_tells_the_step_cell_its_ranks(ranks):
    assert [int(found["size"]) for found in ranks] == [2, 2]
    assert [int(found["cell.rank_size"]) for found in ranks] == [2, 2]
