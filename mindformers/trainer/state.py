"""Saving and restoring a training run: everything that makes the resumed run equal the uninterrupted one."""
import os
from dataclasses import dataclass

import mindspore as ms

from mindformers.checkpoint import find_resume, load_train_state, save_train_state
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.trainer import rng


@dataclass
class RunState:
    """The moving parts of a run, which a checkpoint holds.

    Attributes:
        network, optimizer (nn.Cell): their parameters are the bulk of it.
        step (TrainStep): holds the loss scale.
        steps_per_epoch, global_batch_size (int): tell where a step lies in the data.
        data_seed (int | None): seed of the order of the rows.
    """

    network: object
    optimizer: object
    step: object
    steps_per_epoch: int
    global_batch_size: int
    data_seed: int | None

    def extra(self, step_num):
        """Return the values beside the parameters, as JSON-able scalars, lists and dicts."""
        scale = self.step.state()
        return {"epoch_num": self.epoch_of(step_num), "step_num": step_num, "loss_scale": scale["scale_sense"],
                "global_batch_size": self.global_batch_size, "steps_per_epoch": self.steps_per_epoch,
                "data_seed": self.data_seed, "scale_state": scale, "rng": rng.get_state()}

    def epoch_of(self, step_num):
        """Return the epoch (from 1) that step `step_num` (from 1) belongs to."""
        return max(step_num - 1, 0) // self.steps_per_epoch + 1

    def step_in_epoch(self, step_num):
        """Return the number of step `step_num` within its epoch (from 1)."""
        return step_num - (self.epoch_of(step_num) - 1) * self.steps_per_epoch


class StateSaver:
    """Saves a run; given to CheckpointMonitor, which decides when and under which names.

    Args:
        state (RunState): what to save.
        output_dir (str): the files go to ``<output_dir>/checkpoint*/rank_N``.
        rank (int): this process.
    """

    def __init__(self, state, output_dir, rank):
        self._state, self._output_dir, self._rank = state, output_dir, rank
        self._options = {}
        self.last_step = None
        self.last_path = None

    @property
    def folder(self):
        """The folder to resume from: ``<output_dir>/checkpoint``."""
        return os.path.join(self._output_dir, "checkpoint")

    def configure(self, **options):
        """Set how `save_now` saves when nobody else says (the options of `save_train_state`)."""
        self._options.update(options)

    def __call__(self, step_num, prefix="CKP", keep_max=5, **options):
        """Save the state after step `step_num`, unless that is done; return the path of the checkpoint.

        Raises:
            OSError: the file system refused (a full disk); the checkpoints before are as they were.
        """
        if step_num == self.last_step:
            return self.last_path
        state = self._state
        try:
            path = save_train_state(self._output_dir, self._rank, prefix, state.epoch_of(step_num),
                                    state.step_in_epoch(step_num), state.network, state.optimizer,
                                    state.extra(step_num), keep_max, **options)
        except OSError as error:
            logger.error("saving the checkpoint of step %d failed: %s. The last good checkpoint is %s", step_num, error,
                         self.last_path or "the one this run started from, if any")
            raise
        self.last_step, self.last_path = step_num, str(path)
        return self.last_path

    def save_now(self, step_num):
        """Save with the configured options."""
        return self(step_num, **self._options)


def restore(state, config, rank, rank_size, default_folder):
    """Bring a run to where a checkpoint left it, when `resume_training` asks for it.

    With another global batch size than the checkpoint's, the step numbers (and the optimizer's) are scaled so that the
    same number of rows counts as done.

    Args:
        state (RunState): filled from the checkpoint.
        config (MindFormerConfig): reads resume_training, load_checkpoint, ignore_data_skip, data_skip_steps.
        default_folder (str): where to look when load_checkpoint is empty.

    Returns:
        (int, int): steps done, and the step of the data to go on with (both from 0).

    Raises:
        ConfigError: nothing to resume from.
    """
    first_step = 0
    if config.resume_training:
        folder = config.load_checkpoint or (default_folder if os.path.isdir(default_folder) else None)
        if not folder:
            raise ConfigError(f"resume_training: {config.resume_training} needs load_checkpoint: a folder with rank_N "
                              f"folders or a checkpoint file (there is none in {default_folder})")
        point = find_resume(folder, config.resume_training, rank_size)
        path = point.paths[rank]
        extra = load_train_state(path, state.network, state.optimizer)
        first_step = _apply(state, extra, path)
    if config.ignore_data_skip:
        return first_step, 0
    return first_step, first_step if config.data_skip_steps is None else config.data_skip_steps


def _apply(state, extra, path):
    """Take over the values beside the parameters; return the number of steps done."""
    step_num, old_batch = int(extra["step_num"]), int(extra.get("global_batch_size") or state.global_batch_size)
    if old_batch != state.global_batch_size:
        scaled = step_num * old_batch // state.global_batch_size
        logger.warning("the global batch size is %d, %d in the checkpoint: its step %d counts as step %d",
                       state.global_batch_size, old_batch, step_num, scaled)
        state.optimizer.global_step.set_data(ms.Tensor([scaled], state.optimizer.global_step.dtype))
        step_num = scaled
    if extra.get("data_seed", state.data_seed) != state.data_seed:
        logger.warning("the data is shuffled with seed %s, with %s before: rows may repeat or be missed in this epoch",
                       state.data_seed, extra["data_seed"])
    if extra.get("scale_state"):
        state.step.load_state(extra["scale_state"])
    if extra.get("rng"):
        rng.set_state(extra["rng"])
    logger.info("resumed from %s: %d steps done", path, step_num)
    return step_num
