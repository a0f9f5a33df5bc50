"""BaseTrainer: builds every part of a run from a configuration and drives the loop."""
from mindformers.checkpoint import load as load_weights
from mindformers.models.config_sources import find_yaml
from mindformers.models.hub_sources import is_remote, weights_of
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.logger import logger, set_log_dir
from mindformers.tools.utils import get_log_path, get_output_root_path, get_rank_info, resolve_path, set_output_path
from mindformers.trainer import adapters, arguments, build, parallel, rng, run_plan
from mindformers.trainer.callbacks import run_callbacks
from mindformers.trainer.data import TrainData
from mindformers.trainer.evaluation import Evaluator
from mindformers.trainer.hooks import TrainerHooks, check_metrics
from mindformers.trainer.interrupt import StopRequest, TrainingInterrupted
from mindformers.trainer.loop import Loop
from mindformers.trainer.state import RunState, StateSaver, restore
from mindformers.wrapper.train_step import TrainStep


class BaseTrainer(TrainerHooks):
    """Builds the parts of a run (`create_*`) and runs it (`training_process`, `evaluate_process`, `predict_process`).

    A subclass may replace any of them, and the hooks of `TrainerHooks`.

    Args:
        task (str): name of the task, such as "text_generation". Default: None ("general").
        model_name (str): name of the model. Default: None ("common").
    """

    def __init__(self, task=None, model_name=None):
        super().__init__()
        self.task = task or "general"
        self.model_name = model_name or "common"
        self.config = None
        self.network = None
        self.optimizer = None
        self.train_dataset = None
        self.eval_dataset = None
        self.tokenizer = None
        self.eval_callbacks = []
        self.rank, self.rank_size = 0, 1
        self.total_steps, self.steps_per_epoch = None, None

    # ---- configuration ----

    def set_config(self, config=None):
        """Take `config` (MindFormerConfig) as the configuration of the run; sets ranks and the output folder."""
        if config is not None:
            self.config = config
        if self.config is None:
            raise ConfigError("the trainer has no configuration; give `config`")
        self.rank, self.rank_size = get_rank_info()
        if self.config.output_dir:
            set_output_path(self.config.output_dir)
        set_log_dir(get_log_path())
        return self.config

    def set_seed(self, seed=None):
        """Seed all generators with `seed`, or with the configuration's; 0 counts. None: no seed."""
        seed = self.config.seed if seed is None else seed
        if seed is not None:
            rng.set_seed(seed)

    def parallel_mode(self):
        """Return "stand_alone", "data_parallel", ... of this run."""
        if not self.config.use_parallel:
            return "stand_alone"
        return run_plan.parallel_mode_name((self.config.parallel or {}).get("parallel_mode"))

    def batch_sizes(self):
        """Return the `BatchSizes` of this run (spec of the batch rules: `run_plan.batch_sizes`)."""
        mode, parallel_config = self.parallel_mode(), self.config.parallel_config
        device = (self.config.context or {}).get("device_target") or "CPU"
        run_plan.check_runnable(mode, parallel_config, device)
        full_batch = (self.config.parallel or {}).get("full_batch")
        return run_plan.batch_sizes(self.config.runner_config or {}, mode, self.rank_size, parallel_config,
                                    full_batch is not False, self.config.micro_batch_interleave_num or 1)

    # ---- parts ----

    def create_tokenizer(self):
        """Return the tokenizer of the configuration, built once; None when it has none."""
        if self.tokenizer is None:
            self.tokenizer = build.tokenizer(self.config)
        return self.tokenizer

    def create_train_dataset(self, default_args=None):
        """Build the training dataset with the batch size of this process."""
        self.train_dataset = build.dataset(self.config, "train_dataset", self.batch_sizes().per_process,
                                           self.create_tokenizer)
        return self.train_dataset

    def create_eval_dataset(self, default_args=None):
        """Build the evaluation dataset; batches of runner_config.batch_size rows."""
        self.eval_dataset = build.dataset(self.config, "eval_dataset", self.batch_sizes().micro,
                                          self.create_tokenizer)
        return self.eval_dataset

    def create_network(self, default_args=None):
        """Build the network with random weights; `default_args` fill fields of its configuration that are not set."""
        self.network = build.network(self.config, **(default_args or {}))
        return self.network

    def loss_settings(self):
        """Return the model's fields for a loss that counts every token the same over micro batches and ranks.

        It is the default; `calculate_per_token_loss: False` averages means instead.
        """
        wrapper = self.config.runner_wrapper or {}
        given = [self.config.calculate_per_token_loss, wrapper.get("calculate_per_token_loss")]
        return {"calculate_per_token_loss": next((value for value in given if value is not None), True)}

    def create_lr_scheduler(self, learning_scale=False, scale_factor=256):
        """Return the learning rate schedule (or number); the steps of the run must be known (`training_process`).

        Args:
            learning_scale (bool): multiply the rate by global batch size / `scale_factor`. Default: False.
            scale_factor (int): default 256.
        """
        scale = self.batch_sizes().global_ / scale_factor if learning_scale else 1.0
        return build.learning_rate(self.config, self.total_steps, self.steps_per_epoch, scale)

    def create_optimizer_scheduler(self, network, layer_scale=False):
        """Build the optimizer with its schedule and its groups of parameters."""
        rate = self.create_lr_scheduler(bool(self.config.lr_scale), self.config.lr_scale_factor or 256)
        self.optimizer = build.optimizer(self.config, network, rate, layer_scale)
        return self.optimizer

    def create_model_wrapper(self, network, optimizer):
        """Build the TrainStep: accumulation, clipping, loss scale, gradient checkpointing, and the sum over ranks."""
        build.recompute(self.config, network)
        return TrainStep(network, optimizer, grad_accumulation=self.batch_sizes().accumulation,
                         max_grad_norm=build.max_grad_norm(self.config), scale_sense=build.scale_sense(self.config),
                         rank_size=self.rank_size)

    def count_parameters(self, network=None):
        """Log and return the number of trainable parameters."""
        network = network or self.network
        count = sum(parameter.size for parameter in network.trainable_params())
        logger.info("network %s: %s trainable parameters", type(network).__name__, f"{count:,}")
        return count

    # ---- weights ----

    def weights_path(self):
        """Return the path of the weights to load (load_checkpoint, else checkpoint_name_or_path), or None.

        Raises:
            FileNotFoundError: it does not exist.
            OSError: of a hub, see `hub.resolve`.
        """
        model = (self.config.get("model") or {}).get("model_config") or {}
        named = self.config.load_checkpoint or (model.get("checkpoint_name_or_path")
                                                if self.config.run_mode != "train" else None)
        if not named:
            return None
        path = resolve_path(named, self.config.config_dir)
        if not path.exists() and (is_remote(named) or find_yaml(named)):
            return weights_of(named)
        if not path.exists():
            raise FileNotFoundError(f"load_checkpoint {str(named)!r} does not exist; give a .ckpt or .safetensors "
                                    "file, a folder with weights, or the owner/name of a repository on a hub")
        return str(path)

    def load_network(self, network, path):
        """Load the weights at `path` into `network`, strictly; a network with adapters also takes those of its base.

        Raises:
            CheckpointMismatchError: missing, unexpected or mis-shaped names; the message lists them all.
        """
        weight_map = network.weight_map() if hasattr(network, "weight_map") else None
        with_adapters = getattr(network, "has_adapter", False)
        load_weights(network, path, weight_map, getattr(network, "config", None),
                     allow_missing=adapters.missing_in(network, path) if with_adapters else ())
        if with_adapters:
            adapters.start(network, self.config)

    def network_with_weights(self, run_mode, **overrides):
        """Build the network and load its weights.

        Raises:
            ConfigError: the configuration names no weights.
        """
        path = self.weights_path()
        if path is None:
            raise ConfigError(f"{run_mode} needs weights: set load_checkpoint (or model.model_config."
                              "checkpoint_name_or_path), or give the network")
        network = self.create_network(overrides)
        self.load_network(network, path)
        return network

    # ---- runs ----

    def training_process(self, config=None, network=None, dataset=None, optimizer=None, callbacks=None,
                         compute_metrics=None, **kwargs):
        """Train; parts that are not given are built from the configuration. The network is left in evaluation mode.

        Args:
            config (MindFormerConfig): the configuration. Default: the one set before.
            network (nn.Cell): returns a mean loss, or (sum of losses, number of tokens). Default: None (built).
            dataset: see `TrainData`. Default: None (built).
            optimizer (nn.Optimizer): default None (built).
            callbacks (list): more callbacks, after the configuration's. Default: None.
            compute_metrics (dict | set): see `evaluate_process`. Default: None.

        Returns:
            int, the number of the last step done.

        Raises:
            TrainingInterrupted: SIGINT or SIGTERM arrived; the state was saved.
        """
        config = self.set_config(config)
        check_metrics(None, compute_metrics)
        self.set_seed()
        sizes = self.batch_sizes()
        run_plan.check_sink_size(config.runner_config or {})
        dataset = self.chosen("train_dataset", dataset)
        data = TrainData(dataset if dataset is not None else self.create_train_dataset())
        self.steps_per_epoch = data.steps_per_epoch
        self.total_steps, last_step = run_plan.planned_steps(config.runner_config or {}, data.steps_per_epoch)
        self.network = self._network_for_training(self.chosen("network", network), data)
        trained = self.wrap_network_with_tool_cells(self.network)
        data.feed(trained)
        self.optimizer = optimizer or self.create_optimizer_scheduler(self.network, bool(config.layer_scale))
        arguments.check_optimizer(self.optimizer, self.network)
        step = self.create_model_wrapper(trained, self.optimizer)
        state = RunState(self.network, self.optimizer, step, data.steps_per_epoch, sizes.global_, data.seed)
        saver = StateSaver(state, get_output_root_path(), self.rank)
        first_step, data_step = restore(state, config, self.rank, self.rank_size, saver.folder)
        self._log_plan(sizes, data, first_step, last_step)
        with StopRequest(self.rank_size) as stop:
            loop = Loop(step=step, batches=lambda _: data(data_step), last_step=last_step,
                        steps_per_epoch=data.steps_per_epoch, first_step=first_step, should_stop=stop.asked,
                        callbacks=run_callbacks(self, data, sizes, saver, callbacks, first_step),
                        params={"network": self.network, "train_network": step, "optimizer": self.optimizer,
                                "mode": "train", "train_dataset": data.dataset, "dataset_sink_mode": False,
                                "parallel_mode": self.parallel_mode(), "device_number": self.rank_size})
            done = loop.run()
            if stop.signum is not None:
                self._leave(saver, stop.signum, done)
        self.network.set_train(False)
        adapters.save(self.network, get_output_root_path(), self.rank)
        return done

    def _network_for_training(self, network, data):
        """Build the network (or take the user's), load its weights and check it against the data."""
        built = network is None
        if built:
            network = self.create_network(self.loss_settings())
        if hasattr(network, "refuse_quantised_training"):
            network.refuse_quantised_training()
        model_config = getattr(network, "config", None)
        data.check(getattr(model_config, "seq_length", None), getattr(model_config, "vocab_size", None),
                   bool(getattr(model_config, "labels_shifted", False)))
        if not self.config.resume_training:
            path = self.weights_path()
            if path:
                self.load_network(network, path)
            elif self.config.run_mode == "finetune" and built:
                raise ConfigError("finetune needs weights: set load_checkpoint (from random weights: run_mode: train)")
        if self.rank_size > 1:
            parallel.broadcast_parameters(network, self.rank)
        network.set_train(True)
        self.count_parameters(network)
        return network

    def _log_plan(self, sizes, data, first_step, last_step):
        logger.info("training: %d steps an epoch, steps %d to %d, %d rows a step (%d x %d accumulated x %d processes)",
                    data.steps_per_epoch, first_step + 1, last_step, sizes.global_, sizes.micro, sizes.accumulation,
                    sizes.global_ // (sizes.micro * sizes.accumulation))
        if first_step >= last_step:
            logger.warning("nothing to train: step %d of %d is done already; raise runner_config.epochs (or stop_step)",
                           first_step, last_step)

    def _leave(self, saver, signum, step_num):
        """Save after a signal, say how to go on, and wait: msrun kills the other ranks when the first one leaves."""
        saver.save_now(step_num)
        logger.warning("stopped after step %d; saved %s. To go on: the same command with --load_checkpoint %s "
                       "--resume_training True", step_num, saver.last_path, saver.folder)
        if self.rank_size > 1:
            parallel.barrier()
        raise TrainingInterrupted(signum)

    def evaluate_process(self, config=None, network=None, dataset=None, callbacks=None, compute_metrics=None, **kwargs):
        """Evaluate over the whole evaluation dataset; returns ``{"loss": ..., "PPL": ...}`` per token.

        Args:
            callbacks (list[Callback]): their ``on_eval_*`` hooks are called, after those of section `eval_callbacks`.
                Default: None.
            compute_metrics (dict | set): metrics; only PerplexityMetric, which is computed anyway. Default: None.

        Raises:
            ConfigError: no weights to evaluate; data that does not fit the model.
            UnsupportedError: another metric.
            TypeError: an argument that does not exist.
        """
        for name in kwargs:
            raise TypeError(f"evaluate() got an unexpected argument {name!r}."
                            f"{did_you_mean(name, ('eval_dataset', 'eval_checkpoint', 'dataset', 'network'))}")
        config = self.set_config(config)
        self.set_seed()
        check_metrics(config.metric, compute_metrics)
        dataset = self.chosen("eval_dataset", dataset)
        data = TrainData(dataset if dataset is not None else self.create_eval_dataset())
        network = self.chosen("network", network)
        if network is None:
            network = self.network_with_weights("eval", calculate_per_token_loss=True)
        data.check(vocab_size=getattr(getattr(network, "config", None), "vocab_size", None))
        result = self.evaluator(network, data, callbacks)()
        logger.info("eval result: loss %.6f, PPL %.4f per token", result["loss"], result["PPL"])
        return result

    def evaluator(self, network, data, callbacks=None):
        """Return a callable that evaluates `network` on one pass over `data` (TrainData).

        `callbacks` are called after those of the configuration.
        """
        network = self.wrap_eval_network_with_tool_cells(network)
        callbacks = self.create_eval_callbacks() + list(callbacks or [])
        evaluate = Evaluator(network, parallel.all_reduce if self.rank_size > 1 else None, callbacks)
        data.feed(network)
        return lambda: evaluate(data.epoch(), data.steps_per_epoch)

    def predict_process(self, config=None, input_data=None, task=None, network=None, tokenizer=None, **kwargs):
        """Generate for each prompt; see `CausalLanguageModelingTrainer.predict`."""
        raise UnsupportedError(f"{type(self).__name__} does not predict; use CausalLanguageModelingTrainer (task "
                               "text_generation)")
