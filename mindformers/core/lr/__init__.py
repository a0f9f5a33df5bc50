"""Learning rate schedules."""
from mindformers.tools.utils import lazy_exports

_SCHEDULES = (
    "ConstantWarmUpLR", "ConstantWithCoolDownLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts",
    "CosineWithRestartsAndWarmUpLR", "CosineWithWarmUpLR", "LearningRateWiseLayer", "LinearWithWarmUpLR",
    "PolynomialWithWarmUpLR", "WarmUpStableDecayLR",
)
__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    **{name: f"mindformers.core.lr.lr_schedule:{name}" for name in _SCHEDULES},
    "build_lr": "mindformers.core.lr.build_lr:build_lr",
})
