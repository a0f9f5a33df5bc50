"""One rank of the data-parallel checks; writes what it saw to ``<folder>/rank_<n>.npz``. Run by msrun."""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mindformers.core.context import init_context  # noqa: E402
from mindformers.core.optim import AdamW  # noqa: E402
from mindformers.core.optim.groups import decay_groups  # noqa: E402
from mindformers.wrapper import MFTrainOneStepCell, TrainStep  # noqa: E402
from tests.wrapper.networks import Poisoned, TinyLM, rows, values  # noqa: E402

STEPS, ROWS = 3, 8


def shard(ids, rank, size):
    """Rows of one rank: consecutive ones, as the loader deals them."""
    each = len(ids) // size
    return ids[rank * each:(rank + 1) * each]


def training(per_token, rank, size, pieces):
    """Weights and (loss, norm) of the steps on this rank's rows."""
    network = TinyLM(per_token).set_train()
    step = TrainStep(network, AdamW(decay_groups(network, 0.1), 0.01), grad_accumulation=pieces, max_grad_norm=0.5,
                     rank_size=size)
    outputs = [step(shard(rows(ROWS, seed=i), rank, size)) for i in range(STEPS)]
    return values(network), np.array([[out.loss, out.global_norm] for out in outputs])


def overflow_on_one_rank(rank, size):
    """(overflow seen here, whether the weights stayed) when only the last rank's loss is infinite."""
    network = TinyLM(True)
    step = TrainStep(Poisoned(network), AdamW(network.trainable_params(), 0.01), rank_size=size)
    before = values(network)
    gain = np.full(ROWS // size, np.inf if rank == size - 1 else 1.0, np.float32)
    out = step(shard(rows(ROWS), rank, size), gain)
    after = values(network)
    return [out.overflow, all((before[name] == after[name]).all() for name in before)]


def main(folder):
    """Run all checks of this rank."""
    import mindspore as ms
    rank, size = init_context(use_parallel=True)
    ms.set_context(mode=ms.GRAPH_MODE)
    found = {"size": size}
    for name, per_token, pieces in (("plain", True, 1), ("accumulated", True, 2), ("means", False, 1)):
        weights, outputs = training(per_token, rank, size, pieces)
        found[f"{name}.outputs"] = outputs
        found |= {f"{name}.{key}": value for key, value in weights.items()}
    network = TinyLM(True)
    cell = MFTrainOneStepCell(network, AdamW(network.trainable_params(), 0.01))
    found["cell.rank_size"] = cell.update.rank_size
    found["overflow"] = overflow_on_one_rank(rank, size)
    np.savez(Path(folder) / f"rank_{rank}.npz", **found)


if __name__ == "__main__":
    main(sys.argv[1])
