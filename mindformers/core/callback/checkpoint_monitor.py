"""CheckpointMonitor: decides when a run is saved; how is the business of the `save` callable it is given."""
import time

from mindspore.train import Callback

from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger


class CheckpointMonitor(Callback):
    """Save every so many steps or seconds, and at the end of the run.

    Args:
        prefix (str): start of the file names. Default: "CKP".
        save_checkpoint_steps (int): steps between two saves; 0 or None: by time only. Default: 1.
        save_checkpoint_seconds (int): seconds between two saves, used when save_checkpoint_steps is 0. Default: 0.
        keep_checkpoint_max (int): how many stay; 0 keeps all. Default: 5.
        integrated_save (bool): merge slices of a parameter over ranks; there are none here, both values do the same.
        save_network_params (bool): also write the weights alone. Default: True.
        save_trainable_params (bool): also write the trainable weights alone. Default: False.
        checkpoint_format (str): "ckpt" or "safetensors". Default: "ckpt".
        global_batch_size (int): recorded by the saver; accepted for MindFormers' signature.
        save (Callable): ``save(step_num, prefix=, keep_max=, format=, save_network=, save_trainable=)``, step_num
            counted over the whole run. The trainer gives it.
        directory, config, keep_checkpoint_per_n_minutes, async_save, saved_network, append_info, enc_key, enc_mode,
            exception_save, remove_redundancy: MindFormers' other settings; only their defaults are carried.

    Raises:
        UnsupportedError: one of those set to something else; the message names the way out.
        ValueError: negative numbers, unknown format. ConfigError: time to save, but no `save`.
    """

    def __init__(self, prefix="CKP", directory=None, config=None, save_checkpoint_steps=1, save_checkpoint_seconds=0,
                 keep_checkpoint_max=5, keep_checkpoint_per_n_minutes=0, integrated_save=True,
                 save_network_params=True, save_trainable_params=False, async_save=False, saved_network=None,
                 append_info=None, enc_key=None, enc_mode="AES-GCM", exception_save=False, global_batch_size=None,
                 checkpoint_format="ckpt", remove_redundancy=False, save=None):
        super().__init__()
        self._refuse(
            (directory, "directory", "checkpoints go to <output_dir>/checkpoint; set output_dir"),
            (config, "config", "give the settings of CheckpointConfig to CheckpointMonitor itself"),
            (keep_checkpoint_per_n_minutes, "keep_checkpoint_per_n_minutes", "use keep_checkpoint_max"),
            (async_save, "async_save", "saving is atomic and synchronous"),
            (saved_network, "saved_network", "the network that is trained is saved"),
            (append_info, "append_info", "epoch, step, loss scale, random state and data position are always saved"),
            (enc_key, "enc_key", "checkpoints are not encrypted; encrypt the folder"),
            (exception_save, "exception_save", "a signal (Ctrl-C) saves in any case"),
            (remove_redundancy, "remove_redundancy", "each rank saves its own whole checkpoint"))
        del integrated_save, global_batch_size, enc_mode
        for name, value in (("save_checkpoint_steps", save_checkpoint_steps),
                            ("save_checkpoint_seconds", save_checkpoint_seconds),
                            ("keep_checkpoint_max", keep_checkpoint_max)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"CheckpointMonitor.{name} must be an int, but got {value!r}")
            if value is not None and value < 0:
                raise ValueError(f"CheckpointMonitor.{name} must be at least 0, but got {value}")
        if checkpoint_format not in ("ckpt", "safetensors"):
            raise ValueError(f"checkpoint_format must be 'ckpt' or 'safetensors', but got {checkpoint_format!r}")
        self.steps, self.seconds = save_checkpoint_steps or 0, save_checkpoint_seconds or 0
        self.save = save
        self.options = {"prefix": prefix, "keep_max": keep_checkpoint_max, "format": checkpoint_format,
                        "save_network": save_network_params, "save_trainable": save_trainable_params}
        if hasattr(save, "configure"):
            save.configure(**self.options)
        self._last_step = None
        self._last_time = time.time()

    @staticmethod
    def _refuse(*settings):
        for value, name, instead in settings:
            if value:
                raise UnsupportedError(f"CheckpointMonitor({name}={value!r}) is not carried: {instead}")

    def begin(self, run_context):
        """Steps done by the run that is resumed are saved already."""
        self._last_step = run_context.original_args().get("cur_step_num") or 0
        self._last_time = time.time()

    def step_end(self, run_context):
        """Save when it is time."""
        step = run_context.original_args()["cur_step_num"]
        # counted over the whole run, so that a resumed run saves at the same steps
        due = step % self.steps == 0 if self.steps else (
            self.seconds > 0 and time.time() - self._last_time >= self.seconds)
        if due:
            self._save(step)

    def end(self, run_context):
        """Save the last step, unless it is saved."""
        step = run_context.original_args()["cur_step_num"]
        if step and step != self._last_step:
            self._save(step)

    def _save(self, step):
        if self.save is None:
            raise ConfigError("CheckpointMonitor has no `save` callable; the trainer gives it one, a loop of your own "
                              "passes CheckpointMonitor(save=...)")
        start = time.time()
        path = self.save(step, **self.options)
        self._last_step, self._last_time = step, time.time()
        logger.info("step %d saved to %s in %.1f s", step, path, self._last_time - start)
