"""From TrainingArguments to a configuration: one table of names, and the few sections that need more than a name."""
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.tools.register import MindFormerConfig
from mindformers.tools.register.readiness import machine_devices

# field -> key of the configuration
KEYS = {
    **{name: name for name in (
        "output_dir", "seed", "only_save_strategy", "auto_trans_ckpt", "transform_process_num", "resume_training",
        "ignore_data_skip", "data_skip_steps", "do_eval", "check_for_nan_in_loss_and_grad", "calculate_per_token_loss",
        "remote_save_url", "use_parallel", "layer_scale", "layer_decay", "lr_scale", "lr_scale_factor",
        "micro_batch_interleave_num", "auto_tune", "filepath_prefix", "autotune_per_step", "profile",
        "profile_start_step", "init_start_profile", "profile_communication", "profile_memory")},
    "src_strategy": "src_strategy_path_or_dir",
    "resume_from_checkpoint": "load_checkpoint",
    "profile_end_step": "profile_stop_step",
    "train_batch_size": "runner_config.batch_size",
    "num_train_epochs": "runner_config.epochs",
    **{name: f"runner_config.{name}" for name in ("sink_mode", "sink_size", "gradient_accumulation_steps")},
    **{name: f"context.{name}" for name in (
        "mode", "device_id", "device_target", "enable_graph_kernel", "max_call_depth", "max_device_memory",
        "save_graphs", "save_graphs_path")},
    **{name: f"parallel.{name}" for name in (
        "parallel_mode", "gradients_mean", "loss_repeated_mean", "enable_alltoall", "full_batch", "search_mode",
        "enable_parallel_optimizer", "strategy_ckpt_save_file")},
    **{name: f"parallel_config.{name}" for name in (
        "data_parallel", "model_parallel", "expert_parallel", "pipeline_stage", "micro_batch_num", "use_seq_parallel",
        "gradient_aggregation_group", "vocab_emb_dp")},
    **{name: f"recompute_config.{name}" for name in (
        "recompute", "select_recompute", "parallel_optimizer_comm_recompute", "mp_comm_recompute",
        "recompute_slice_activation")},
    **{name: f"moe_config.{name}" for name in (
        "expert_num", "capacity_factor", "aux_loss_factor", "num_experts_chosen")},
    **{name: f"runner_wrapper.{name}" for name in ("use_clip_grad", "max_grad_norm")},
}

# what each optimizer calls the moments' rates; those absent take neither
_BETAS = {"adamw": ("beta1", "beta2"), "adam": ("beta1", "beta2"), "AdamWeightDecay": ("beta1", "beta2"),
          "fused_adamw": ("beta1", "beta2"), "fp32_adamw": ("beta1", "beta2")}
_WITH_LR_END = ("cosine", "cosine_with_restarts", "polynomial")


def convert(args, task_config=None):
    """Return the MindFormerConfig of `args` (TrainingArguments) on top of `task_config` (MindFormerConfig or None)."""
    _report(args)
    config = MindFormerConfig() if task_config is None else task_config
    for field, key in KEYS.items():
        value = getattr(args, field)
        if value is not None:
            config.set_value(key, value)
    epochs = args.num_train_epochs
    if epochs != int(epochs):
        raise ConfigError(f"num_train_epochs must be a whole number, got {epochs}; for a part of an epoch set "
                          "runner_config.stop_step in a YAML")
    config.set_value("runner_config.epochs", int(epochs))
    config.set_value("context.device_target", _device(args))
    config["optimizer"] = _optimizer(args)
    config["lr_schedule"] = _lr_schedule(args)
    config.set_value("runner_wrapper", {"type": args.wrapper_type, "scale_sense": _scale_sense(args)})
    _dataset(config, args, "train")
    _dataset(config, args, "eval")
    if args.metric_type:
        types = [args.metric_type] if isinstance(args.metric_type, str) else args.metric_type
        config["metric"] = [{"type": kind} for kind in types]
    _evaluation(config, args)
    config["callbacks"] = _callbacks(config, args)
    config.forget_lines()
    return config


def _report(args):
    if args.overwrite_output_dir:
        logger.info("overwrite_output_dir has no effect: save_total_limit says which checkpoints are replaced")


def _device(args):
    """The device asked for; CPU when this machine has none of that kind (the default asks for Ascend)."""
    if args.use_cpu or args.device_target == "CPU":
        return "CPU"
    if args.device_target not in machine_devices():
        logger.warning("this machine has no %s device: running on CPU; say so with use_cpu=True", args.device_target)
        return "CPU"
    return args.device_target


def _optimizer(args):
    section = {"type": args.optim, "weight_decay": args.weight_decay}
    if args.optim in _BETAS:
        first, second = _BETAS[args.optim]
        section.update({first: args.adam_beta1, second: args.adam_beta2, "eps": args.adam_epsilon})
    return section


def _lr_schedule(args):
    section = {"type": args.lr_scheduler_type, "learning_rate": args.learning_rate, "total_steps": args.total_steps,
               "warmup_lr_init": args.warmup_lr_init, "warmup_steps": args.warmup_steps}
    if args.lr_scheduler_type in _WITH_LR_END:
        section["lr_end"] = args.lr_end
    section.update({name: getattr(args, name) for name in ("warmup_epochs", "warmup_ratio")
                    if getattr(args, name) is not None})
    return section


def _scale_sense(args):
    if not isinstance(args.scale_sense, str):
        return args.scale_sense
    section = {"type": args.scale_sense, "loss_scale_value": args.loss_scale_value}
    if args.scale_sense != "FixedLossScaleUpdateCell":
        section.update(scale_factor=args.loss_scale_factor, scale_window=args.loss_scale_window)
    if args.scale_sense == "AdaptiveLossScaleUpdateCell":
        section.update(max_scale_window=args.max_scale_window, min_scale_window=args.min_scale_window)
    return section


def _dataset(config, args, phase):
    """Fill `<phase>_dataset` and its task when the arguments name data."""
    name = f"{phase}_dataset"
    path = getattr(args, name)
    if path is None and name not in config:
        return
    section = config.setdefault(name, {})
    loader = section.setdefault("data_loader", {})
    values = {"type": args.dataset_type or loader.get("type") or "MindDataset", "dataset_dir": path,
              "shuffle": args.shuffle if phase == "train" else False}
    loader.update({key: value for key, value in values.items() if value is not None})
    values = {"input_columns": getattr(args, f"{name}_in_columns"), "seed": args.data_seed,
              "output_columns": getattr(args, f"{name}_out_columns"), "drop_remainder": args.dataloader_drop_last,
              "num_parallel_workers": args.dataloader_num_workers, "prefetch_size": args.prefetch_size,
              "python_multiprocessing": args.python_multiprocessing, "numa_enable": args.numa_enable,
              "repeat": args.repeat}
    section.update({key: value for key, value in values.items() if value is not None})
    task = config.setdefault(f"{name}_task", {})
    task["type"] = args.dataset_task or task.get("type") or "CausalLanguageModelDataset"
    task["dataset_config"] = section


def _evaluation(config, args):
    if not args.do_eval:
        return
    by_epoch = args.evaluation_strategy == "epoch"
    steps = -1 if by_epoch else args.eval_steps or 100
    epochs = (args.eval_epochs or 1) if by_epoch else -1
    config["eval_epoch_interval"] = epochs
    config["eval_step_interval"] = -1 if isinstance(steps, float) else steps
    if isinstance(steps, float):  # a share of all steps: the callback itself is named
        config["callbacks"] = [*(config.get("callbacks") or []), {"type": "EvalCallBack", "step_interval": steps}]


def _callbacks(config, args):
    """The loss monitor and, unless save_strategy is "no", the checkpoint monitor; others of the task are kept."""
    kept = [section for section in config.get("callbacks") or []
            if section.get("type") not in ("MFLossMonitor", "CheckpointMonitor")]
    steps = args.logging_steps if args.logging_strategy == "steps" else None
    callbacks = [{"type": "MFLossMonitor", **({"per_print_times": steps} if steps else {})}]
    if args.save_strategy != "no":
        section = {"type": "CheckpointMonitor", "prefix": args.save_prefix, "async_save": args.async_save,
                   "keep_checkpoint_max": args.save_total_limit or 5, "save_network_params": args.save_network_params,
                   "save_trainable_params": args.save_trainable_params}
        if args.save_directory is not None:
            section["directory"] = args.save_directory
        if args.save_strategy == "seconds":
            section.update(save_checkpoint_steps=0, save_checkpoint_seconds=args.save_seconds or 600)
        else:
            section["save_checkpoint_steps"] = args.save_steps
        callbacks.append(section)
    return callbacks + kept
