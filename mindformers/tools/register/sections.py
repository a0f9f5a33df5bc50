"""The tables of the schema: every section of a YAML, its keys, their kinds and defaults, and what happens to them here.

A key without remark is honoured. `ignored` and `refused` give the reason the user reads; `neutral` values ask for
nothing.
"""
from mindformers.tools.register.schema_engine import Key, ListOf, Section
from mindformers.tools.register.sections_parallel import CONTEXT, MOE, PARALLEL, PARALLEL_CONFIG, RECOMPUTE, SWAP

DEFAULT_DEVICE = "CPU"
RUN_MODES = ("train", "finetune", "eval", "predict")

_RESLICE = "every rank loads the whole weights, so nothing is re-sliced"
_OWN_READER = "rows are read by the suite's own loader; this changes speed only"
_PROFILE = "profiling works on Ascend"

_TRAINING = ("train_dataset", "train_dataset_task", "optimizer", "lr_schedule", "grouped_lr_schedule", "runner_wrapper",
             "callbacks")
_EVALUATION = ("eval_dataset", "eval_dataset_task", "eval_callbacks", "metric")


def unused_sections(config):
    """Return the names of the sections that the run_mode of `config` does not read."""
    mode = config.get("run_mode")
    if mode == "predict":
        return _TRAINING + _EVALUATION
    if mode == "eval":
        return _TRAINING
    return () if config.get("do_eval") or mode not in RUN_MODES else _EVALUATION


def flag(default=None, **effect):
    """A bool; False asks for nothing."""
    return Key("bool", default, neutral=(False,), **effect)


def text(**effect):
    """A string; an empty one asks for nothing."""
    return Key("str|null", neutral=("",), **effect)


def number(low=None, **more):
    """A float with a lower bound."""
    return Key("float|null", low=low, **more)


def count(default=None, low=1, **more):
    """An int with a lower bound."""
    return Key("int|null", default, low=low, **more)


TOKENIZER = Section({
    "type": Key("str"),
    "auto_register": Key("str|null"),
    **{name: Key("str|null", path=True) for name in ("vocab_file", "tokenizer_file", "merges_file")},
    **{name: Key("str|dict|null") for name in ("unk_token", "bos_token", "eos_token", "pad_token", "mask_token",
                                               "gmask_token", "end_token", "cls_token", "sep_token")},
    "additional_special_tokens": Key("list|null"),
    "chat_template": Key("str|null"),
    "padding_side": Key("str|null", choices=("left", "right")),
    "truncation_side": Key("str|null", choices=("left", "right")),
    **{name: count() for name in ("max_length", "model_max_length")},
    **{name: Key("bool|null") for name in ("add_bos_token", "add_eos_token", "legacy", "use_fast", "trust_remote_code",
                                           "clean_up_tokenization_spaces", "add_prefix_space", "tokenize_chinese_chars",
                                           "do_lower_case", "split_special_tokens")},
}, open=True, shelf="tokenizer")

PROCESSOR = Section({
    "type": Key("str"),
    "return_tensors": Key("str|null", choices=("ms", "np")),
    "max_length": count(),
    "padding": Key("str|bool|null"),
    "tokenizer": TOKENIZER,
    "image_processor": Key(refused="images are not carried; this suite is for text"),
    "audio_processor": Key(refused="audio is not carried; this suite is for text"),
}, shelf="processor")

DATA_LOADER = Section({
    "type": Key("str"),
    "dataset_dir": Key("str|null", path=True),
    "dataset_files": Key("str|list|null", path=True),
    "data_files": Key("str|list|null", path=True),
    "shuffle": Key("bool|null"),
    "num_samples": count(),
    "phase": Key("str|null"),
    "origin_columns": Key("list|null"),
}, shelf="dataset_loader")

DATASET = Section({
    "data_loader": DATA_LOADER,
    "tokenizer": TOKENIZER,
    **{name: Key("list|str|null") for name in ("input_columns", "output_columns", "construct_args_key",
                                               "net_input_columns")},
    "batch_size": count(),
    "drop_remainder": Key("bool|null"),
    "seed": count(low=0),
    "repeat": count(neutral=(1,), ignored="epochs are counted by runner_config.epochs"),
    "prefetch_size": count(ignored=_OWN_READER, neutral=(1,)),
    "num_parallel_workers": count(ignored=_OWN_READER, neutral=(1,)),
    "python_multiprocessing": flag(ignored=_OWN_READER),
    "numa_enable": flag(ignored=_OWN_READER),
    "auto_tune": flag(ignored=_OWN_READER),
    "filepath_prefix": Key("str|null", needs="auto_tune", ignored=_OWN_READER),
    "autotune_per_step": Key("int|null", needs="auto_tune", ignored=_OWN_READER),
    "profile": flag(ignored=_OWN_READER),
    **{name: count() for name in ("max_source_length", "max_target_length", "max_seq_length", "max_length",
                                  "seq_length")},
    "ignore_pad_token_for_loss": Key("bool|null"),
    "eod_reset": Key("bool|null"),
    "eod_token_id": Key("int|null"),
    "pad_token_id": Key("int|null"),
    "dynamic_batch": Key("bool|null"),
    "divisor": Key("int|null", needs="dynamic_batch"),
    "remainder": Key("int|null", needs="dynamic_batch"),
    "transforms": Key(refused="image transforms are not carried"),
    "sampler": Key(refused="order and share of the rows follow seed and rank; samplers are not carried"),
    "mixup_op": Key(refused="image mixing is not carried"),
    "token_monitor": flag(refused="the token monitor is not carried"),
    "token_monitor_config": Key("dict|null", needs="token_monitor"),
})

DATASET_TASK = Section({
    "type": Key("str"),
    "dataset_config": Section({}, open=True),
}, shelf="dataset")

TRAINER = Section({
    "type": Key("str"),
    "model_name": Key("str|null"),
}, shelf="trainer")

RUNNER_CONFIG = Section({
    "epochs": count(1),
    "batch_size": count(1),
    "gradient_accumulation_steps": count(1),
    "stop_step": count(0, low=0),
    "sink_mode": flag(ignored="steps run one at a time on CPU, the result is the same", only="Ascend"),
    "sink_size": Key("int|null", low=-1, needs="sink_mode"),
    "num_classes": Key("int|null", neutral=(0, 1), ignored="only image classification reads it"),
    **{name: Key("int|float|null") for name in ("initial_epoch", "initial_step", "origin_epochs", "global_batch_size",
                                                "step_scale")},
}, fill=True)

SCALE_SENSE = Section({
    "type": Key("str"),
    "loss_scale_value": number(above=0),
    "scale_factor": number(low=1),
    "scale_window": count(),
    "max_scale_window": count(),
    "min_scale_window": count(),
}, shelf="wrapper", also="float|str")

RUNNER_WRAPPER = Section({
    "type": Key("str"),
    "scale_sense": SCALE_SENSE,
    "use_clip_grad": Key("bool|null"),
    "max_grad_norm": number(above=0),
    "local_norm": Key("bool|null"),
    "calculate_per_token_loss": Key("bool|null"),
    "micro_batch_num": count(neutral=(1,), ignored="it takes effect with pipeline stages"),
    "enable_check_overflow": Key("bool|null", ignored="a step whose gradient norm is not finite is always skipped"),
    "sens": Key("float|null", ignored="write scale_sense"),
    "loss_scale_value": Key("float|null", ignored="write scale_sense"),
}, shelf="wrapper")

LR_SCHEDULE = Section({
    "type": Key("str"),
    **{name: number(0) for name in ("learning_rate", "base_lr", "lr_end", "eta_min", "warmup_lr_init", "power",
                                    "num_cycles", "decay_ratio", "lr_decay_ratio")},
    "warmup_ratio": number(0, high=1),
    "warmup_epochs": number(0),
    "warmup_steps": count(low=0),
    "total_steps": Key("int|null", low=-1),
    "decay_steps": count(),
}, shelf="lr", handled=("type", "learning_rate", "total_steps", "warmup_ratio", "warmup_epochs"))

OPTIMIZER = Section({
    "type": Key("str"),
    "learning_rate": Section(LR_SCHEDULE.keys, shelf="lr", handled=LR_SCHEDULE.handled, also="float"),
    "betas": Key("list|null"),
    "beta1": number(0, high=1),
    "beta2": number(0, high=1),
    "eps": Key("float|list|null"),
    "weight_decay": number(0),
}, shelf="optimizer", handled=("type", "learning_rate", "weight_decay", "betas", "beta1", "beta2"))

CALLBACK = Section({"type": Key("str")}, shelf="callback")

METRIC = Section({"type": Key("str")}, shelf="metric")

MODEL = Section({
    "arch": Section({"type": Key("str"), "auto_register": Key("str|null")}),
    "model_config": Section({"type": Key("str")}, open=True),
    "pretrained_model_dir": text(refused="give the folder as load_checkpoint"),
    "generation_config": Key("dict|null", refused="write the fields into model.model_config"),
})

ROOT = Section({
    "seed": count(low=0, high=2**32 - 1),
    "output_dir": Key("str", "./output"),
    "run_mode": Key("str", choices=RUN_MODES),
    "config_dir": Key("str|null"),
    "trainer": TRAINER,
    "model": MODEL,
    "runner_config": RUNNER_CONFIG,
    "runner_wrapper": RUNNER_WRAPPER,
    "optimizer": OPTIMIZER,
    "lr_schedule": LR_SCHEDULE,
    "grouped_lr_schedule": Key(refused="one schedule serves all parameters; use lr_schedule"),
    "layer_scale": flag(),
    "layer_decay": number(0, needs="layer_scale"),
    "lr_scale": flag(),
    "lr_scale_factor": count(needs="lr_scale"),
    "train_dataset": DATASET,
    "train_dataset_task": DATASET_TASK,
    "eval_dataset": DATASET,
    "eval_dataset_task": DATASET_TASK,
    "processor": PROCESSOR,
    "metric": Section(METRIC.keys, shelf="metric", also="list"),
    "callbacks": ListOf(CALLBACK),
    "eval_callbacks": ListOf(CALLBACK),
    "context": CONTEXT,
    "use_parallel": Key("bool", False),
    "parallel": PARALLEL,
    "parallel_config": PARALLEL_CONFIG,
    "recompute_config": RECOMPUTE,
    "swap_config": SWAP,
    "moe_config": MOE,
    "micro_batch_interleave_num": count(
        neutral=(1,), refused="copies of a micro batch overlap communication of sharded models, which are not carried; "
        "set it to 1"),
    # weights
    "load_checkpoint": Key("str|null", path=True),
    "hub": Section({"huggingface": Key("str|null"), "openmind": Key("str|null")}),  # owner/name of these weights
    "load_ckpt_format": Key("str|null", choices=("ckpt", "safetensors"), neutral=("ckpt", "safetensors")),
    "load_ckpt_async": flag(ignored="weights are read before the run starts"),
    "src_strategy_path_or_dir": text(refused="weights sliced by a strategy are not merged here; merge them into one "
                                     "checkpoint first"),
    "auto_trans_ckpt": flag(ignored=_RESLICE),
    "transform_process_num": count(neutral=(1,), ignored=_RESLICE),
    "transform_by_rank": flag(ignored=_RESLICE),
    "npu_num_per_node": Key("int|null", ignored=_RESLICE),
    "only_save_strategy": flag(refused="there is no sharding strategy to save: models are not sharded"),
    "remove_redundancy": flag(refused="each rank keeps a complete checkpoint"),
    "pretrained_model_dir": text(refused="give the folder as load_checkpoint"),
    "generation_config": Key("dict|null", refused="write the fields into model.model_config"),
    "trust_remote_code": flag(refused="code from a checkpoint folder is never run here; use --register_path"),
    "use_legacy": Key("bool|null", neutral=(True,), refused="there is one kind of model here; leave it True"),
    # resume
    "resume_training": Key("bool|str|null"),
    "resume_by_last_timestamp_ckpt": flag(refused="resuming follows meta.json; name a file with resume_training"),
    "ignore_data_skip": Key("bool|null"),
    "data_skip_steps": count(low=0),
    "use_graceful_exit": flag(ignored="Ctrl-C always ends a run after its step, with a checkpoint"),
    # evaluation and prediction
    "do_eval": Key("bool", False),
    "eval_step_interval": Key("int|null", low=-1),
    "eval_epoch_interval": Key("int|null", low=-1),
    "input_data": Key("str|list|null"),
    "predict_batch_size": count(),
    "save_file": Key("str|null"),
    "adapter_id": Key("str|list|null", neutral=("",), refused="several adapters beside one model are not carried"),
    "top_k": count(low=0),
    "do_sample": Key("bool|null"),
    "postprocess_use_numpy": flag(ignored="logits are always processed in numpy"),
    "modal_type": Key("list|null", refused="this suite is for text"),
    # checks and measures
    "check_for_nan_in_loss_and_grad": Key("bool|null"),
    "calculate_per_token_loss": Key("bool|null"),
    "print_separate_loss": Key("bool|null", neutral=(False, True)),
    "train_precision_sync": flag(ignored="runs on CPU repeat bit for bit without it", only="Ascend"),
    "infer_precision_sync": flag(ignored="runs on CPU repeat bit for bit without it", only="Ascend"),
    "exclude_cann_cpu": flag(ignored="there are no CANN processes on CPU", only="Ascend"),
    "auto_tune": flag(ignored=_OWN_READER),
    "filepath_prefix": Key("str|null", needs="auto_tune", ignored=_OWN_READER),
    "autotune_per_step": Key("int|null", needs="auto_tune", ignored=_OWN_READER),
    "profile": flag(ignored=_PROFILE, only="Ascend"),
    **{name: Key(needs="profile", ignored=_PROFILE, only="Ascend") for name in (
        "profile_start_step", "profile_stop_step", "init_start_profile", "profile_communication", "profile_memory",
        "profile_rank_ids", "profile_pipeline", "profiler_level", "profile_level", "profile_output", "with_stack",
        "data_simplification", "mstx")},
    "remote_save_url": text(ignored="nothing is uploaded; results stay in output_dir"),
    "monitor_config": Section({"monitor_on": flag(refused="the training state monitor is not carried; loss, learning "
                                                  "rate and gradient norm are in loss.csv")}, open=True),
    "tensorboard": Key("dict|null", refused="curves are written to loss.csv and loss_curve.png"),
    "infer": Section({name: Key(ignored="serving of MindIR files is not carried") for name in (
        "prefill_model_path", "increment_model_path", "infer_seq_length")}),
    "quantization_config": Key("dict|null", refused="quantised weights are not carried"),
})
