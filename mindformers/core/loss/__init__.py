"""Losses."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "CompareLoss": "mindformers.core.loss.loss:CompareLoss",
    "CrossEntropyLoss": "mindformers.core.loss.loss:CrossEntropyLoss",
    "L1Loss": "mindformers.core.loss.loss:L1Loss",
    "MSELoss": "mindformers.core.loss.loss:MSELoss",
    "SoftTargetCrossEntropy": "mindformers.core.loss.loss:SoftTargetCrossEntropy",
    "build_loss": "mindformers.core.loss.build_loss:build_loss",
})
