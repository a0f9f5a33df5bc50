"""A job whose rank 1 fails after its second step; started by test_msrun.py: ``rank_dies.py FOLDER``."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))

from mindspore.train.callback import Callback
from trainer_helpers import tiny_config

from mindformers.tools.utils import get_real_rank
from mindformers.trainer import Trainer


class Dies(Callback):
    """Raises on rank 1."""

    def on_train_step_end(self, run_context):
        if get_real_rank() == 1 and run_context.original_args().cur_step_num == 2:
            raise RuntimeError("the disk of rank 1 is on fire")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Trainer(tiny_config(folder, str(folder / "tokens.npy"), use_parallel=True, runner_config__batch_size=2),
            callbacks=Dies()).train()
