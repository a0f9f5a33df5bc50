"""Uploading what a run saves to a hub: at its end, at each save, with or without the checkpoints to resume from."""
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

from mindspore.train.callback import Callback

from mindformers.hub import push_folder
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.tools.utils import get_output_root_path, get_real_rank
from mindformers.trainer.utils import HubStrategy, get_last_checkpoint

LAST = "last-checkpoint"  # folder of the repository for strategy "checkpoint"


class HubPush(Callback):
    """Uploads the model of a trainer; as a callback it does so whenever a checkpoint was saved.

    One upload runs beside the training. A save that comes while it runs is left out, or with `hub_always_push` waits
    for it. A fault of such an upload is logged and does not end the training; the upload at the end raises.

    Args:
        trainer (Trainer): gives the model and saves it.
        args (TrainingArguments | None): its hub_model_id (default: the name of the output folder), hub_strategy,
            hub_token, hub_private_repo, hub_always_push. Default: None, the defaults of these.
    """

    def __init__(self, trainer, args=None):
        super().__init__()
        self._trainer = trainer
        self.active = bool(args is not None and args.push_to_hub)
        self._repo_id = getattr(args, "hub_model_id", None)
        self._token = getattr(args, "hub_token", None)
        self._private = getattr(args, "hub_private_repo", False) or None
        self._always = getattr(args, "hub_always_push", False)
        self.strategy = HubStrategy(getattr(args, "hub_strategy", "end"))
        self._pool, self._running, self._seen = None, None, None

    @property
    def repo_id(self):
        """The repository."""
        return self._repo_id or os.path.basename(get_output_root_path())

    def push(self, message="End of training", blocking=True):
        """Save the model, and upload it; waits for an upload that runs.

        Args:
            message (str): of the commit. Default: "End of training".
            blocking (bool): False returns while the upload runs. Default: True.

        Returns:
            str, the address of the commit; with ``blocking=False`` a Future of it; None on ranks other than 0.

        Raises:
            ConfigError: there is no model. OSError: of the hub, see `hub.resolve`.
        """
        if get_real_rank() != 0:
            return None
        self._wait()
        job = self._job(message)
        if blocking:
            return job()
        self._start(job)
        return self._running

    # ---- while training ----

    def on_train_begin(self, run_context):
        """Checkpoints of earlier runs are no news."""
        self._seen = self._newest()

    def on_train_step_end(self, run_context):
        """Upload when a checkpoint has come, unless the strategy is to upload at the end."""
        if not self.active or self.strategy is HubStrategy.END or get_real_rank() != 0:
            return
        newest = self._newest()
        if newest == self._seen:
            return
        if self._running is not None and not self._running.done() and not self._always:
            logger.info("the upload of an earlier save still runs; this one is left out (hub_always_push=True waits)")
            return
        self._seen = newest
        self._wait()
        self._start(self._job(f"Training in progress, step {run_context.original_args().cur_step_num}"))

    # ---- parts ----

    def _newest(self):
        """What tells a new checkpoint from the one before: its path and time, None without one."""
        folder = self._checkpoints()
        path = get_last_checkpoint(folder) if os.path.isdir(folder) else None
        return path and (path, os.stat(path).st_mtime_ns)

    @staticmethod
    def _checkpoints():
        return os.path.join(get_output_root_path(), "checkpoint", "rank_0")

    def _job(self, message):
        """Save the model, keep hold of the files that belong to it, and return the upload as a callable."""
        model = self._trainer.trained_model()
        os.makedirs(get_output_root_path(), exist_ok=True)
        stage = tempfile.TemporaryDirectory(prefix=".push_", dir=get_output_root_path())
        self._trainer.save_model(stage.name)
        for target, path in self._chosen_checkpoints():
            _hold(path, os.path.join(stage.name, target))
        card, tags = model._card_facts(), model._card_tags()

        def upload():
            with stage:
                return push_folder(stage.name, self.repo_id, commit_message=message, token=self._token,
                                   private=self._private, card=card, tags=tags)
        return upload

    def _chosen_checkpoints(self):
        """[(path in the repository, local path)] of the checkpoints that the strategy wants."""
        folder = self._checkpoints()
        newest = get_last_checkpoint(folder) if os.path.isdir(folder) else None
        if newest is None or not self.active:
            return []
        if self.strategy is HubStrategy.CHECKPOINT:
            return [(f"{LAST}/last{os.path.splitext(newest)[1]}", newest)]
        if self.strategy is HubStrategy.ALL_CHECKPOINTS:
            return [(f"checkpoint/rank_0/{entry.name}", entry.path) for entry in os.scandir(folder)
                    if entry.is_file() and not entry.name.startswith(".")]
        return []

    def _start(self, job):
        self._pool = self._pool or ThreadPoolExecutor(1, "hub_push")
        self._running = self._pool.submit(job)

    def _wait(self):
        """Wait for the upload that runs; its fault is logged, as the next upload holds the same and more."""
        running, self._running = self._running, None
        if running is not None and running.exception() is not None:
            logger.error("an upload to %s failed: %s", self.repo_id, running.exception())


def _hold(path, target):
    """Keep a file that may be deleted meanwhile: a second name of it, or a copy on another file system."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def check_model(model):
    """Return `model` when it can be saved as a folder.

    Raises:
        ConfigError: there is none yet, or it has no `save_pretrained`.
    """
    if not hasattr(model, "save_pretrained"):
        raise ConfigError("there is no model to save: train first, or give a PreTrainedModel")
    return model
