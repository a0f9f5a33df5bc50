"""Optimizers and parameter groups."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "AdamW": "mindformers.core.optim.adamw:AdamW",
    "Came": "mindformers.core.optim.came:Came",
    "FP32StateAdamWeightDecay": "mindformers.core.optim.optim:FP32StateAdamWeightDecay",
    "FusedAdamWeightDecay": "mindformers.core.optim.optim:FusedAdamWeightDecay",
    "FusedCastAdamWeightDecay": "mindformers.core.optim.optim:FusedCastAdamWeightDecay",
    "build_optim": "mindformers.core.optim.build_optim:build_optim",
})
