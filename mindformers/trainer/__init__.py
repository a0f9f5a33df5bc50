"""Trainers: a whole run wired from a configuration. Names are imported on first use."""
from mindformers.tools.utils import lazy_exports

_ROOM = "mindformers.trainer"
_CAUSAL = f"{_ROOM}.causal_language_modeling.causal_language_modeling"

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "Trainer": f"{_ROOM}.trainer:Trainer",
    "TrainingArguments": f"{_ROOM}.training_args:TrainingArguments",
    "BaseTrainer": f"{_ROOM}.base_trainer:BaseTrainer",
    "CausalLanguageModelingTrainer": f"{_CAUSAL}:CausalLanguageModelingTrainer",
    "GeneralTaskTrainer": f"{_ROOM}.general_task_trainer.general_task_trainer:GeneralTaskTrainer",
    "build_trainer": f"{_ROOM}.build_trainer:build_trainer",
    "get_optimizer_grouped_parameters": f"{_ROOM}.optimizer_grouped_parameters:get_optimizer_grouped_parameters",
    **{name: f"{_ROOM}.config_args:{name}" for name in (
        "BaseArgsConfig", "CheckpointConfig", "CloudConfig", "ConfigArguments", "ContextConfig", "DataLoaderConfig",
        "DatasetConfig", "LRConfig", "OptimizerConfig", "ParallelContextConfig", "RunnerConfig",
        "WrapperConfig")},
    **{name: f"{_ROOM}.utils:{name}" for name in (
        "HubStrategy", "IntervalStrategy", "LoggingIntervalStrategy", "LrSchedulerType", "OptimizerType",
        "SaveIntervalStrategy", "WrapperType", "get_last_checkpoint", "set_seed")},
})
