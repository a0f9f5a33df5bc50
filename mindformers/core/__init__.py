"""Losses, optimizers, schedules, metrics, callbacks, context: what a training run is made of, below any model."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "ClipGradNorm": "mindformers.core.clip_grad:ClipGradNorm",
    "build_callback": "mindformers.core.callback:build_callback",
    "build_context": "mindformers.core.context:build_context",
    "build_loss": "mindformers.core.loss:build_loss",
    "build_lr": "mindformers.core.lr:build_lr",
    "build_metric": "mindformers.core.metric:build_metric",
    "build_optim": "mindformers.core.optim:build_optim",
    "build_parallel_config": "mindformers.core.parallel_config:build_parallel_config",
    "get_context": "mindformers.core.context:get_context",
    "init_context": "mindformers.core.context:init_context",
    "reset_parallel_config": "mindformers.core.parallel_config:reset_parallel_config",
    "set_context": "mindformers.core.context:set_context",
})
