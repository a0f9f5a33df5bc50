"""The callbacks of a run: those every run has, the configuration's, the user's."""
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.trainer import build
from mindformers.trainer.data import TrainData

# a value below 1 of these settings is a share of all steps
_STEP_SETTINGS = ("per_print_times", "save_checkpoint_steps", "step_interval")


def run_callbacks(trainer, data, sizes, saver, extra, first_step):
    """Return the callbacks of a training run, in the order they are called.

    The loss monitor comes first, so that a loss that is no number ends the run before it is saved; then the loss curve
    and the live line, the configuration's (CheckpointMonitor, ...), evaluation, and the user's.

    Args:
        trainer (BaseTrainer): gives the configuration, the optimizer, the evaluator and the number of all steps.
        data (TrainData), sizes (BatchSizes): of the run.
        saver (StateSaver): what CheckpointMonitor calls.
        extra (list[Callback]): the user's.
        first_step (int): steps done before.
    """
    config, total_steps = trainer.config, trainer.total_steps
    sections = [_steps_of_shares(section, total_steps) for section in _sections(config, trainer.rank)]
    if not any(_name(section) == "CheckpointMonitor" for section in sections):
        logger.warning("callbacks has no CheckpointMonitor: nothing is saved unless the run is interrupted")
    evaluate = None
    if any(_name(section) == "EvalCallBack" for section in sections):
        evaluate = eval_function(trainer)
    built = build.callbacks(
        sections, "callbacks", learning_rate=trainer.optimizer.learning_rate, save=saver, eval_func=evaluate,
        origin_epochs=-(-total_steps // data.steps_per_epoch), dataset_size=data.steps_per_epoch,
        initial_epoch=first_step // data.steps_per_epoch, initial_step=first_step % data.steps_per_epoch,
        global_batch_size=sizes.global_, total_steps=total_steps,
        check_for_nan_in_loss_and_grad=bool(config.check_for_nan_in_loss_and_grad))
    return built + list(extra or [])


def eval_function(trainer):
    """Return a callable that evaluates the network being trained on the evaluation dataset, all ranks together.

    Raises:
        ConfigError: there is no evaluation dataset.
    """
    if trainer.eval_dataset is None:
        if not trainer.config.eval_dataset:
            raise ConfigError("do_eval: True needs eval_dataset and eval_dataset_task (or Trainer(eval_dataset=...))")
        trainer.create_eval_dataset()
    data = TrainData(trainer.eval_dataset)
    data.check(vocab_size=getattr(getattr(trainer.network, "config", None), "vocab_size", None))
    return trainer.evaluator(trainer.network, data, trainer.eval_callbacks)


def _sections(config, rank):
    """The configuration's callbacks with those that every run has."""
    given = list(config.callbacks or [])
    names = [_name(section) for section in given]
    first = [section for section in given if _name(section) == "MFLossMonitor"] or [{"type": "MFLossMonitor"}]
    own = [{"type": "LossCurve"}, {"type": "ProgressMonitor", **({} if rank == 0 else {"enabled": False})}]
    first += [section for section in own if section["type"] not in names]
    last = []
    if config.do_eval and "EvalCallBack" not in names:
        steps, epochs = config.eval_step_interval, config.eval_epoch_interval
        last.append({"type": "EvalCallBack", "step_interval": 100 if steps is None else steps,
                     "epoch_interval": -1 if epochs is None else epochs})
    return first + [section for section in given if _name(section) != "MFLossMonitor"] + last


def _name(section):
    return section.get("type") if isinstance(section, dict) else type(section).__name__


def _steps_of_shares(section, total_steps):
    """Return the section with shares of all steps (0.1) as numbers of steps."""
    if not isinstance(section, dict):
        return section
    shares = {key: max(1, int(section[key] * total_steps)) for key in _STEP_SETTINGS
              if isinstance(section.get(key), float) and 0 < section[key] < 1}
    return {**section, **shares}
