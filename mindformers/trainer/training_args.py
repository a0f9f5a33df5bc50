"""TrainingArguments: a run described by keyword arguments instead of a YAML."""
import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from numbers import Real
from typing import List, Optional, Union

from mindformers.tools.errors import did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.utils import get_real_group_size, get_real_rank
from mindformers.trainer.utils import (HubStrategy, IntervalStrategy, LoggingIntervalStrategy, LrSchedulerType,
                                       OptimizerType, SaveIntervalStrategy, WrapperType)

_ENUMS = {"lr_scheduler_type": LrSchedulerType, "optim": OptimizerType, "logging_strategy": LoggingIntervalStrategy,
          "save_strategy": SaveIntervalStrategy, "evaluation_strategy": IntervalStrategy, "hub_strategy": HubStrategy}

_STEPS = ("logging_steps", "save_steps", "eval_steps")  # also a share of all steps, see `check_step_rules`


@dataclass
class TrainingArguments:
    """The settings of a run, with MindFormers' names and defaults; `convert_args_to_mindformers_config` makes the
    configuration that the trainer reads. What a field does is said where the configuration key it becomes is
    described; `args_to_config.KEYS` has the table.

    Raises:
        ValueError: a strategy, optimizer or scheduler that does not exist; steps that are no steps; text where a number
            is meant.
    """

    # where, and reproducibility
    output_dir: str = "./output"
    overwrite_output_dir: bool = False
    seed: int = 42
    data_seed: Optional[int] = None
    # weights of sharded models (refused or without effect: models are not sharded)
    only_save_strategy: bool = False
    auto_trans_ckpt: bool = False
    src_strategy: Optional[str] = None
    transform_process_num: int = 1
    # resuming
    resume_from_checkpoint: Optional[str] = None
    resume_training: Optional[Union[bool, str]] = None
    ignore_data_skip: bool = False
    data_skip_steps: Optional[int] = None
    # what to do
    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    check_for_nan_in_loss_and_grad: bool = False
    calculate_per_token_loss: bool = False
    remote_save_url: Optional[str] = None
    # the run
    batch_size: Optional[int] = None
    num_train_epochs: float = 3.0
    sink_mode: bool = True
    sink_size: int = 2
    gradient_accumulation_steps: int = 1
    # MindSpore's context
    mode: int = 0
    use_cpu: bool = False
    device_id: int = 0
    device_target: str = "Ascend"
    enable_graph_kernel: bool = False
    max_call_depth: int = 10000
    max_device_memory: str = "1024GB"
    save_graphs: bool = False
    save_graphs_path: str = "./graph"
    # several processes
    use_parallel: bool = False
    parallel_mode: int = 1
    gradients_mean: bool = False
    loss_repeated_mean: bool = False
    enable_alltoall: bool = False
    full_batch: bool = True
    dataset_strategy: Union[str, tuple] = "full_batch"
    search_mode: str = "sharding_propagation"
    enable_parallel_optimizer: bool = False
    gradient_accumulation_shard: bool = False
    parallel_optimizer_threshold: int = 64
    optimizer_weight_shard_size: int = -1
    strategy_ckpt_save_file: str = "./ckpt_strategy.ckpt"
    # splits of the model
    data_parallel: int = 1
    model_parallel: int = 1
    expert_parallel: int = 1
    pipeline_stage: int = 1
    micro_batch_num: int = 1
    gradient_aggregation_group: int = 4
    micro_batch_interleave_num: int = 1
    use_seq_parallel: bool = False
    vocab_emb_dp: bool = True
    # mixture of experts
    expert_num: int = 1
    capacity_factor: float = 1.05
    aux_loss_factor: float = 0.05
    num_experts_chosen: int = 1
    # recompute
    recompute: bool = False
    select_recompute: bool = False
    parallel_optimizer_comm_recompute: bool = False
    mp_comm_recompute: bool = True
    recompute_slice_activation: bool = False
    # optimizer
    optim: Union[OptimizerType, str] = "fp32_adamw"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-08
    weight_decay: float = 0.0
    layer_scale: bool = False
    layer_decay: float = 0.65
    # learning rate
    lr_scheduler_type: Union[LrSchedulerType, str] = "cosine"
    learning_rate: float = 5e-05
    lr_end: float = 1e-06
    warmup_lr_init: float = 0.0
    warmup_epochs: Optional[int] = None
    warmup_ratio: Optional[float] = None
    warmup_steps: int = 0
    total_steps: int = -1
    lr_scale: bool = False
    lr_scale_factor: int = 256
    # data
    dataset_task: Optional[str] = None
    dataset_type: Optional[str] = None
    train_dataset: Optional[str] = None
    train_dataset_in_columns: Optional[List[str]] = None
    train_dataset_out_columns: Optional[List[str]] = None
    eval_dataset: Optional[str] = None
    eval_dataset_in_columns: Optional[List[str]] = None
    eval_dataset_out_columns: Optional[List[str]] = None
    shuffle: bool = True
    dataloader_drop_last: bool = True
    repeat: int = 1
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    dataloader_num_workers: int = 8
    python_multiprocessing: bool = False
    numa_enable: bool = False
    prefetch_size: int = 1
    # the step: loss scale and clipping
    wrapper_type: str = "MFTrainOneStepCell"
    scale_sense: Union[str, float] = "DynamicLossScaleUpdateCell"
    loss_scale_value: int = 65536
    loss_scale_factor: int = 2
    loss_scale_window: int = 1000
    use_clip_grad: bool = True
    max_grad_norm: float = 1.0
    max_scale_window: int = 1000
    min_scale_window: int = 20
    # evaluation metric
    metric_type: Optional[Union[List[str], str]] = None
    # logging
    logging_strategy: Union[LoggingIntervalStrategy, str] = "steps"
    logging_steps: int = 1
    # checkpoints
    save_prefix: str = "CKP"
    save_directory: Optional[str] = None
    save_strategy: Union[SaveIntervalStrategy, str] = "steps"
    save_steps: int = 500
    save_seconds: Optional[int] = None
    save_total_limit: Optional[int] = 5
    keep_checkpoint_per_n_minutes: int = 0
    save_on_each_node: bool = True
    integrated_save: Optional[bool] = None
    save_network_params: bool = True
    save_trainable_params: bool = False
    async_save: bool = False
    # evaluation while training
    evaluation_strategy: Union[IntervalStrategy, str] = "no"
    eval_steps: Optional[float] = None
    eval_epochs: Optional[int] = None
    # measuring (Ascend) and data tuning
    profile: bool = False
    profile_start_step: int = 1
    profile_end_step: int = 10
    init_start_profile: bool = False
    profile_communication: bool = False
    profile_memory: bool = True
    auto_tune: bool = False
    filepath_prefix: str = "./autotune"
    autotune_per_step: int = 10
    # hub: what Trainer uploads, see trainer.hub_push
    push_to_hub: bool = False
    hub_model_id: Optional[str] = None
    hub_strategy: Union[HubStrategy, str] = "every_save"
    hub_token: Optional[str] = None
    hub_private_repo: bool = False
    hub_always_push: bool = False

    def __post_init__(self):
        faults = [fault for fault in map(self._number_fault, dataclasses.fields(self)) if fault]
        if faults:
            raise ValueError("TrainingArguments: " + "; ".join(faults))
        for name, enum in _ENUMS.items():
            setattr(self, name, enum(getattr(self, name)).value)
        if self.wrapper_type in [member.value for member in WrapperType]:
            self.wrapper_type = {"mf_wrapper": "MFTrainOneStepCell", "wrapper": "TrainOneStepCell",
                                 "loss_scale_wrapper": "TrainOneStepWithLossScaleCell"}[self.wrapper_type]
        for name in _STEPS:
            if getattr(self, name) is not None:
                setattr(self, name, self.check_step_rules(getattr(self, name), name))
        if self.evaluation_strategy != "no":
            self.do_eval = True
        if self.evaluation_strategy == "steps" and not self.eval_steps:
            self.eval_steps = self.logging_steps

    def _number_fault(self, field):
        """What is wrong with a field that holds a number, "" for nothing."""
        value, whole = getattr(self, field.name), field.type in (int, Optional[int])
        if value is None or field.name in _STEPS or not whole and field.type not in (float, Optional[float]):
            return ""
        number = isinstance(value, Real) and not isinstance(value, bool)
        if number and (not whole or float(value).is_integer()):  # infinity is none
            return ""
        return f"{field.name} must be a {'whole ' * whole}number, but is {value!r}"

    @staticmethod
    def check_step_rules(steps, info="steps"):
        """Return `steps` as an int, or as the float below 1 that means a share of all steps.

        Raises:
            ValueError: negative, or a fraction above 1.
        """
        if isinstance(steps, bool) or not isinstance(steps, (int, float)) or steps < 0:
            raise ValueError(f"{info} must be an integer >= 0 or a share of all steps in [0, 1), but got {steps!r}")
        if steps >= 1 and steps != int(steps):
            raise ValueError(f"{info} must be an integer if bigger than 1, but got {steps}")
        return int(steps) if steps >= 1 or steps == 0 else steps

    @property
    def train_batch_size(self):
        """Rows of one forward pass of training on one process."""
        return self.batch_size or self.per_device_train_batch_size

    @property
    def eval_batch_size(self):
        """Rows of one forward pass of evaluation on one process."""
        return self.batch_size or self.per_device_eval_batch_size

    @property
    def world_size(self):
        """Number of processes."""
        return get_real_group_size()

    @property
    def process_index(self):
        """Rank of this process."""
        return get_real_rank()

    @property
    def local_process_index(self):
        """Device of this process on its machine."""
        return self.device_id

    @property
    def get_device_num(self):
        """Number of processes."""
        return get_real_group_size()

    @property
    def get_device_id(self):
        """Device number."""
        return self.device_id

    @property
    def get_rank_id(self):
        """Rank of this process."""
        return get_real_rank()

    def get_warmup_steps(self, num_training_steps):
        """Return the warm-up steps: `warmup_steps` when positive, else the share `warmup_ratio` of all steps."""
        if self.warmup_steps > 0:
            return self.warmup_steps
        return int(num_training_steps * (self.warmup_ratio or 0))

    def get_recompute_config(self):
        """Return the recompute settings as a dict."""
        return self._pick("recompute", "select_recompute", "parallel_optimizer_comm_recompute", "mp_comm_recompute",
                          "recompute_slice_activation")

    def get_parallel_config(self):
        """Return the splits of the model as a dict."""
        return self._pick("data_parallel", "model_parallel", "expert_parallel", "pipeline_stage", "micro_batch_num",
                          "use_seq_parallel", "gradient_aggregation_group", "vocab_emb_dp")

    def get_moe_config(self):
        """Return the settings of experts as a dict."""
        return self._pick("expert_num", "capacity_factor", "aux_loss_factor", "num_experts_chosen")

    def _pick(self, *names):
        return {name: getattr(self, name) for name in names}

    def to_dict(self):
        """Return all fields as a dict; enumerations as strings, the hub token hidden."""
        values = dataclasses.asdict(self)
        values = {name: value.value if isinstance(value, Enum) else value for name, value in values.items()}
        if values["hub_token"] is not None:
            values["hub_token"] = "<HUB_TOKEN>"
        return values

    def to_json_string(self):
        """Return `to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def _set(self, unknown=(), **values):
        """Set fields, warn about `unknown` ones, and check all again."""
        self.print_kwargs_unused(**dict(unknown))
        for name, value in values.items():
            setattr(self, name, value)
        self.__post_init__()
        return self

    def set_training(self, learning_rate=5e-5, batch_size=8, weight_decay=0, num_epochs=3.0,
                     gradient_accumulation_steps=1, seed=42, **kwargs):
        """Set the basics of training; returns self."""
        return self._set(kwargs, do_train=True, learning_rate=learning_rate, per_device_train_batch_size=batch_size,
                         weight_decay=weight_decay, num_train_epochs=num_epochs, seed=seed,
                         gradient_accumulation_steps=gradient_accumulation_steps)

    def set_evaluate(self, strategy="no", steps=500, batch_size=8, **kwargs):
        """Set evaluation while training; returns self.

        Raises:
            ValueError: strategy "steps" with 0 steps.
        """
        strategy = IntervalStrategy(strategy).value
        if strategy == "steps" and steps == 0:
            raise ValueError("Setting `strategy` as 'steps' requires a positive value for `steps`.")
        return self._set(kwargs, evaluation_strategy=strategy, do_eval=strategy != "no", eval_steps=steps,
                         per_device_eval_batch_size=batch_size)

    def set_testing(self, batch_size=8, loss_only=False, **kwargs):
        """Set prediction; returns self. Evaluation always computes loss and perplexity only (`loss_only`)."""
        return self._set(kwargs, do_predict=True, per_device_eval_batch_size=batch_size)

    def set_save(self, strategy="steps", steps=500, total_limit=None, on_each_node=True, **kwargs):
        """Set when checkpoints are saved and how many are kept; returns self."""
        strategy = SaveIntervalStrategy(strategy).value
        if strategy == "steps" and steps == 0:
            raise ValueError("Setting `strategy` as 'steps' requires a positive value for `steps`.")
        return self._set(kwargs, save_strategy=strategy, save_steps=steps, save_total_limit=total_limit,
                         save_on_each_node=on_each_node)

    def set_logging(self, strategy="steps", steps=500, **kwargs):
        """Set how often the loss is logged; returns self."""
        strategy = LoggingIntervalStrategy(strategy).value
        if strategy == "steps" and steps == 0:
            raise ValueError("Setting `strategy` as 'steps' requires a positive value for `steps`.")
        return self._set(kwargs, logging_strategy=strategy, logging_steps=steps)

    def set_push_to_hub(self, model_id, strategy="every_save", token=None, private_repo=False, always_push=False,
                        **kwargs):
        """Set the hub fields; returns self."""
        return self._set(kwargs, push_to_hub=True, hub_model_id=model_id, hub_strategy=strategy, hub_token=token,
                         hub_private_repo=private_repo, hub_always_push=always_push)

    def set_optimizer(self, name="adamw", learning_rate=5e-5, lr_end=1e-6, weight_decay=0, beta1=0.9, beta2=0.999,
                      epsilon=1e-8, **kwargs):
        """Set the optimizer; returns self."""
        return self._set(kwargs, optim=name, learning_rate=learning_rate, lr_end=lr_end, weight_decay=weight_decay,
                         adam_beta1=beta1, adam_beta2=beta2, adam_epsilon=epsilon)

    def set_lr_scheduler(self, name="linear", num_epochs=3.0, warmup_lr_init=0.0, warmup_epochs=None,
                         warmup_ratio=None, warmup_steps=0, total_steps=-1, **kwargs):
        """Set the learning rate schedule; returns self."""
        return self._set(kwargs, lr_scheduler_type=name, num_train_epochs=num_epochs, warmup_lr_init=warmup_lr_init,
                         warmup_epochs=warmup_epochs, warmup_ratio=warmup_ratio, warmup_steps=warmup_steps,
                         total_steps=total_steps)

    def set_dataloader(self, train_batch_size=8, eval_batch_size=8, drop_last=False, num_workers=0,
                       ignore_data_skip=False, data_skip_steps=None, sampler_seed=None, **kwargs):
        """Set the reading of data; returns self."""
        return self._set(kwargs, per_device_train_batch_size=train_batch_size, dataloader_drop_last=drop_last,
                         per_device_eval_batch_size=eval_batch_size, dataloader_num_workers=num_workers,
                         ignore_data_skip=ignore_data_skip, data_skip_steps=data_skip_steps, data_seed=sampler_seed)

    @staticmethod
    def print_kwargs_unused(**kwargs):
        """Warn about keyword arguments that no setter takes."""
        names = [field.name for field in dataclasses.fields(TrainingArguments)]
        for name, value in kwargs.items():
            logger.warning("%s=%r is not used.%s", name, value, did_you_mean(name, names))

    def convert_args_to_mindformers_config(self, task_config=None):
        """Return the configuration (MindFormerConfig) of these arguments, on top of `task_config` when given.

        Raises:
            UnsupportedError: a field asks for what is not carried (sharded weights).
        """
        from mindformers.trainer.args_to_config import convert
        return convert(self, task_config)
