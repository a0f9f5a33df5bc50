"""Trainer: one object for training, fine-tuning, evaluation and prediction, from a YAML or from Python objects."""
import os

import yaml
from mindspore import nn
from mindspore.train.callback import Callback

from mindformers.core.context import build_context
from mindformers.models.config_sources import find_yaml
from mindformers.models.hub_sources import is_remote, weights_of
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write, get_output_root_path, get_real_rank, set_output_path
from mindformers.trainer import arguments
from mindformers.trainer.build_trainer import build_trainer
from mindformers.trainer.hub_push import HubPush, check_model
from mindformers.trainer.tasks import TASKS
from mindformers.trainer.training_args import TrainingArguments
from mindformers.trainer.utils import config2dict, get_last_checkpoint


class Trainer:
    """Trains, evaluates and predicts.

    Args:
        args (str | MindFormerConfig | TrainingArguments): a YAML's path, a configuration, or arguments. Default: None
            (the shipped configuration of `task` and `model_name`).
        task (str): "text_generation", or "general" for your own network and data. Default: "general".
        model (nn.Cell | str): a network, or the name of a known model. Default: None (built from the configuration).
        model_name (str): name of a known model, when `model` is not a name. Default: None.
        tokenizer (PreTrainedTokenizer): default None (built from the configuration).
        train_dataset, eval_dataset (str | Dataset | Iterable): a path for the configuration's data_loader, a dataset,
            or rows. Default: None (built from the configuration).
        data_collator (Callable): ``list of rows -> batch dict``, for datasets that are rows. Default: None.
        optimizers (nn.Optimizer): default None (built from the configuration).
        compute_metrics (dict | set): evaluation computes loss and perplexity ("PerplexityMetric"); others are refused
            by name. Default: None.
        callbacks (Callback | list[Callback]): more callbacks of the training. Default: None.
        eval_callbacks (Callback | list[Callback]): callbacks whose ``on_eval_*`` hooks each evaluation calls, also
            those during training. Default: None.
        pet_method (str): must be ""; adapters are described by `model_config.pet_config`. Default: "".
        image_processor, audio_processor: must be None: this suite is for text.
        save_config (bool): write the configuration in force to ``<output_dir>/config.yaml`` at once. Default: False
            (it is written when training starts).
        reset_model (bool): build the model anew for each call. Default: False.

    Raises:
        ValueError: unknown task or model name; nothing to go by; a path that does not exist; a bad callback.
        ConfigError: a configuration with faults (a ValueError that lists them all).
        UnsupportedError: a task, adapter or processor that is not carried.
    """

    def __init__(self, args=None, task="general", model=None, model_name=None, tokenizer=None, train_dataset=None,
                 eval_dataset=None, data_collator=None, optimizers=None, compute_metrics=None, callbacks=None,
                 eval_callbacks=None, pet_method="", image_processor=None, audio_processor=None, save_config=False,
                 reset_model=False):
        _refuse(pet_method, image_processor, audio_processor)
        if isinstance(model, str):
            arguments.check_model_name(task, model)
            model, model_name, task = None, model, "text_generation" if task == "general" else task
        if model is not None and not isinstance(model, nn.Cell):
            raise ValueError("model must be a network (nn.Cell) or the name of a known model, but got "
                             f"{type(model).__name__}")
        arguments.check_given(args, task, model, model_name, model is not None)
        arguments.check_objects(tokenizer, optimizers, data_collator)
        self.task, self.model_name = task, model_name
        self.config = arguments.load_config(args, task, model_name)
        self._name_trainer()
        if self.config.output_dir:
            set_output_path(self.config.output_dir)
        build_context(self.config.to_dict())
        self.trainer = build_trainer(self.config.trainer)
        self.task = task if task != "general" else self.trainer.task
        self.trainer.set_config(self.config)
        self.trainer.tokenizer = tokenizer
        self.tokenizer = tokenizer
        self.optimizers, self.compute_metrics, self.reset_model = optimizers, compute_metrics, reset_model
        self.callbacks, self.eval_callbacks = _callback_list(callbacks), _callback_list(eval_callbacks)
        self.model, self._given_model = model, model
        self.hub = HubPush(self, args if isinstance(args, TrainingArguments) else None)
        sizes = self.trainer.batch_sizes()
        self.train_dataset = arguments.dataset_object(train_dataset, self.config, "train_dataset", sizes.per_process,
                                                      data_collator)
        self.eval_dataset = arguments.dataset_object(eval_dataset, self.config, "eval_dataset", sizes.micro,
                                                     data_collator)
        # the task's own data belong to its own model
        self._lacks_data = (isinstance(args, TrainingArguments) and args.train_dataset is None and model is not None
                            and train_dataset is None)
        if save_config:
            self._save_config()

    def _name_trainer(self):
        """Fill in the trainer section when the configuration leaves it to the task."""
        if not (self.config.trainer or {}).get("type"):
            self.config["trainer"] = {"type": TASKS[self.task], "model_name": self.model_name}

    # ---- verbs ----

    def train(self, train_checkpoint=False, resume_from_checkpoint=None, resume_training=None, ignore_data_skip=None,
              data_skip_steps=None, auto_trans_ckpt=None, src_strategy=None, transform_process_num=None, do_eval=False):
        """Train.

        Args:
            train_checkpoint (bool | str): weights to start from: a path, or True for the last checkpoint of the output
                folder. Default: False (the configuration's load_checkpoint).
            resume_from_checkpoint (bool | str): the same for resuming; also sets `resume_training` when that is None.
            resume_training (bool | str): go on with the state at load_checkpoint; a name picks the file. Default: None
                (the configuration's).
            ignore_data_skip (bool): begin with the first row of the data. Default: None.
            data_skip_steps (int): begin with the data of this step. Default: None.
            auto_trans_ckpt, src_strategy, transform_process_num: of sharded weights; see the keys of the YAML.
            do_eval (bool): evaluate while training. Default: False.

        Returns:
            int, the number of the last step done.
        """
        return self._train("train", train_checkpoint, resume_from_checkpoint, resume_training=resume_training,
                           ignore_data_skip=ignore_data_skip, data_skip_steps=data_skip_steps, do_eval=do_eval or None,
                           auto_trans_ckpt=auto_trans_ckpt, src_strategy_path_or_dir=src_strategy,
                           transform_process_num=transform_process_num)

    def finetune(self, finetune_checkpoint=False, resume_from_checkpoint=None, resume_training=None,
                 ignore_data_skip=None, data_skip_steps=None, auto_trans_ckpt=None, src_strategy=None,
                 transform_process_num=None, do_eval=False):
        """Train from existing weights, which must be given (here, in the configuration, or as a network).

        Arguments and result are those of `train`.
        """
        return self._train("finetune", finetune_checkpoint, resume_from_checkpoint, resume_training=resume_training,
                           ignore_data_skip=ignore_data_skip, data_skip_steps=data_skip_steps, do_eval=do_eval or None,
                           auto_trans_ckpt=auto_trans_ckpt, src_strategy_path_or_dir=src_strategy,
                           transform_process_num=transform_process_num)

    def _train(self, run_mode, checkpoint, resume_from_checkpoint, **settings):
        """Set what is given in the configuration, write it down, and train.

        Raises:
            ConfigError: TrainingArguments and a network, but no data.
        """
        if self._lacks_data and self.trainer.chosen("train_dataset", None) is None:
            raise ConfigError("no data to train on: give Trainer(train_dataset=...), a dataset, rows or a path, or "
                              "name them as TrainingArguments(train_dataset=...)")
        self.config["run_mode"] = run_mode
        self._set_checkpoint(checkpoint if resume_from_checkpoint is None else resume_from_checkpoint)
        if settings["resume_training"] is None and resume_from_checkpoint and self.config.resume_training is None:
            settings["resume_training"] = True
        self._set(**settings)
        if self.config.do_eval and self.eval_dataset is not None:
            self.trainer.eval_dataset = self.eval_dataset
        self.trainer.eval_callbacks = self.eval_callbacks
        self._save_config()
        callbacks = [*self.callbacks, self.hub] if self.hub.active else self.callbacks
        done = self.trainer.train(config=self.config, network=self._network(), dataset=self.train_dataset,
                                  optimizer=self.optimizers, callbacks=callbacks, compute_metrics=self.compute_metrics)
        self.model = self.trainer.network
        if self.hub.active:
            self.hub.push()
        return done

    def evaluate(self, eval_dataset=None, eval_checkpoint=False, auto_trans_ckpt=None, src_strategy=None,
                 transform_process_num=None, **kwargs):
        """Evaluate; returns ``{"loss": float, "PPL": float}`` per token.

        Args:
            eval_dataset (str | Dataset | Iterable): default None (the one given before, or the configuration's).
            eval_checkpoint (bool | str): weights: a path, or True for the last checkpoint. Default: False.
        """
        self.config["run_mode"] = "eval"
        self._set_checkpoint(eval_checkpoint)
        self._set(auto_trans_ckpt=auto_trans_ckpt, src_strategy_path_or_dir=src_strategy,
                  transform_process_num=transform_process_num)
        if eval_dataset is not None:
            self.eval_dataset = arguments.dataset_object(eval_dataset, self.config, "eval_dataset",
                                                         self.trainer.batch_sizes().micro)
        return self.trainer.evaluate(config=self.config, network=self._network(eval_checkpoint),
                                     dataset=self.eval_dataset, callbacks=self.eval_callbacks,
                                     compute_metrics=self.compute_metrics, **kwargs)

    def predict(self, predict_checkpoint=None, auto_trans_ckpt=None, src_strategy=None, transform_process_num=None,
                input_data=None, batch_size=None, **kwargs):
        """Generate; returns ``[{"text_generation_text": [str]}, ...]``.

        Args:
            predict_checkpoint (bool | str): weights: a path, or True for the last checkpoint. Default: None.
            input_data (str | list[str]): prompt, prompts, or a file of prompts. Default: None (the configuration's).
            batch_size (int): prompts at once. Default: None (1).
            **kwargs: settings of `generate`.
        """
        self.config["run_mode"] = "predict"
        self._set_checkpoint(predict_checkpoint)
        self._set(auto_trans_ckpt=auto_trans_ckpt, src_strategy_path_or_dir=src_strategy,
                  transform_process_num=transform_process_num)
        kwargs.pop("adapter_id", None)
        return self.trainer.predict(config=self.config, input_data=input_data, tokenizer=self.tokenizer,
                                    network=self._network(predict_checkpoint), batch_size=batch_size, **kwargs)

    # ---- parts ----

    def _network(self, checkpoint=None):
        """Return the network to work with (None: the task's trainer builds it); load `checkpoint` into a given one."""
        network = self._given_model if self.reset_model else self.model
        if network is not None and checkpoint:
            self.trainer.load_network(network, self.trainer.weights_path())
        return network

    def _set(self, **values):
        for key, value in values.items():
            if value is not None:
                self.config[key] = value

    def _set_checkpoint(self, checkpoint):
        """Make `checkpoint` (a path, or True: the last one) the load_checkpoint; False and None change nothing.

        Raises:
            ConfigError: True, but nothing was saved.
        """
        if checkpoint is True:
            checkpoint = self.get_last_checkpoint()
            if checkpoint is None:
                raise ConfigError(f"there is no checkpoint in {get_output_root_path()} to start from; give the path of "
                                  "one")
        if checkpoint:
            self.config["load_checkpoint"] = self.get_load_checkpoint(checkpoint)

    def add_callback(self, callback):
        """Add a callback (object or class).

        Raises:
            ValueError: it is no mindspore Callback.
        """
        self.callbacks += _callback_list(callback)

    def pop_callback(self, callback):
        """Remove and return the first callback that is `callback` or of that class; None when there is none."""
        found = next((item for item in self.callbacks if _matches(item, callback)), None)
        if found is not None:
            self.callbacks.remove(found)
        return found

    def remove_callback(self, callback):
        """Remove the first callback that is `callback` or of that class."""
        self.pop_callback(callback)

    @property
    def callback_list(self):
        """Class names of the user's callbacks, one a line."""
        return "\n".join(type(item).__name__ for item in self.callbacks)

    def set_parallel_config(self, data_parallel=1, model_parallel=1, context_parallel=1, expert_parallel=1,
                            pipeline_stage=1, micro_batch_interleave_num=1, micro_batch_num=1, use_seq_parallel=False,
                            optimizer_shard=False, gradient_aggregation_group=4, vocab_emb_dp=True):
        """Set section `parallel_config`. Splits other than data_parallel are refused when the run starts."""
        self.config["parallel_config"] = {
            "data_parallel": data_parallel, "model_parallel": model_parallel, "context_parallel": context_parallel,
            "expert_parallel": expert_parallel, "pipeline_stage": pipeline_stage, "micro_batch_num": micro_batch_num,
            "use_seq_parallel": use_seq_parallel, "optimizer_shard": optimizer_shard,
            "gradient_aggregation_group": gradient_aggregation_group, "vocab_emb_dp": vocab_emb_dp}
        self.config["micro_batch_interleave_num"] = micro_batch_interleave_num

    def set_recompute_config(self, recompute=False, parallel_optimizer_comm_recompute=False, select_recompute=False,
                             mp_comm_recompute=True, recompute_slice_activation=False):
        """Set section `recompute_config`."""
        self.config["recompute_config"] = {
            "recompute": recompute, "parallel_optimizer_comm_recompute": parallel_optimizer_comm_recompute,
            "select_recompute": select_recompute, "mp_comm_recompute": mp_comm_recompute,
            "recompute_slice_activation": recompute_slice_activation}

    @staticmethod
    def get_task_config(task, model_name):
        """Return the shipped configuration (MindFormerConfig) of a task and model."""
        return arguments.task_config(task, model_name)

    def get_train_dataloader(self):
        """Return the training dataset, built when it was not given."""
        return self.train_dataset if self.train_dataset is not None else self.trainer.create_train_dataset()

    def get_eval_dataloader(self):
        """Return the evaluation dataset, built when it was not given."""
        return self.eval_dataset if self.eval_dataset is not None else self.trainer.create_eval_dataset()

    def get_last_checkpoint(self):
        """Return the path of the newest training checkpoint of this rank in the output folder, None without one."""
        folder = os.path.join(get_output_root_path(), "checkpoint", f"rank_{get_real_rank()}")
        return get_last_checkpoint(folder) if os.path.isdir(folder) else None

    def get_load_checkpoint(self, checkpoint):
        """Return the absolute path of `checkpoint`; of a known name or a repository of a hub, that of its weights.

        Raises:
            TypeError: it is no string.
            FileNotFoundError: it does not exist.
            ValueError: a file that is neither .ckpt nor .safetensors.
        """
        if not isinstance(checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint should be a str, but got {type(checkpoint).__name__}")
        path = os.path.realpath(os.path.expanduser(checkpoint))
        if not os.path.exists(path) and (is_remote(checkpoint) or find_yaml(checkpoint)):
            path = os.path.realpath(weights_of(checkpoint))
        if not os.path.exists(path):
            raise FileNotFoundError(f"checkpoint {str(checkpoint)!r} does not exist")
        if os.path.isfile(path) and not path.endswith((".ckpt", ".safetensors", ".json")):
            raise ValueError(f"checkpoint {str(checkpoint)!r} must be a .ckpt or .safetensors file, or a folder")
        return path

    def save_model(self, output_dir=None, internal_call=False):
        """Save the model (safetensors, config.json) and the tokenizer into a folder that `from_pretrained` reads.

        Args:
            output_dir (str): default None (``<output_dir>/model``).

        Raises:
            ConfigError: there is no model yet, or it has no `save_pretrained`.
        """
        model = self.trained_model()
        folder = output_dir or os.path.join(get_output_root_path(), "model")
        if get_real_rank() == 0:
            model.save_pretrained(folder)
            tokenizer = self.tokenizer or self.trainer.tokenizer
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            logger.info("model saved to %s", folder)
        return folder

    def trained_model(self):
        """Return the model that `save_model` saves: that of the last run, or of the one that runs.

        Raises:
            ConfigError: there is no model yet, or it has no `save_pretrained`.
        """
        return check_model(self.model if self.model is not None else self.trainer.network)

    def push_to_hub(self, commit_message="End of training", blocking=True):
        """Save the model and the tokenizer, and upload them with a model card, in one commit.

        Where to is what TrainingArguments say (hub_model_id, hub_token, hub_private_repo); without them the repository
        is called like the output folder.

        Args:
            commit_message (str): default "End of training".
            blocking (bool): False returns a Future while the upload runs. Default: True.

        Returns:
            str, the address of the commit; None on ranks other than 0.

        Raises:
            ConfigError: there is no model to save.
            OSError: of the hub, see `hub.resolve`.
        """
        return self.hub.push(commit_message, blocking)

    def _save_config(self):
        """Write the configuration in force to ``<output_dir>/config.yaml`` (rank 0)."""
        if get_real_rank() == 0:
            with atomic_write(os.path.join(get_output_root_path(), "config.yaml")) as path:
                path.write_text(yaml.safe_dump(config2dict(dict(self.config)), sort_keys=False, allow_unicode=True),
                                encoding="utf-8")


def _refuse(pet_method, image_processor, audio_processor):
    if pet_method:
        raise UnsupportedError(f"pet_method {pet_method!r}: it chose one of MindFormers' YAMLs; write "
                               "model.model_config.pet_config in yours, or give "
                               "Trainer(model=get_pet_model(model, LoraConfig(...)))")
    if image_processor is not None or audio_processor is not None:
        raise UnsupportedError("image_processor and audio_processor: this suite is for text; leave them None")


def _callback_list(callbacks):
    """Return `callbacks` as a list of Callback objects; classes are built.

    Raises:
        ValueError: something else.
    """
    if callbacks is None:
        return []
    items = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    items = [item() if isinstance(item, type) and issubclass(item, Callback) else item for item in items]
    for item in items:
        if not isinstance(item, Callback):
            raise ValueError(f"a callback must be a mindspore.train.Callback, but got {type(item).__name__}")
    return items


def _matches(item, callback):
    return isinstance(item, callback) if isinstance(callback, type) else item is callback
