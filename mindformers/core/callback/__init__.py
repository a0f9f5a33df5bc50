"""Callbacks: when to print, save, evaluate, stop."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "CheckpointMonitor": "mindformers.core.callback.checkpoint_monitor:CheckpointMonitor",
    "ColdHotExpertMointor": "mindformers.core.callback.accelerator:ColdHotExpertMointor",
    "EvalCallBack": "mindformers.core.callback.simple:EvalCallBack",
    "LossCurve": "mindformers.core.callback.loss_curve:LossCurve",
    "MFLossMonitor": "mindformers.core.callback.loss_monitor:MFLossMonitor",
    "ObsMonitor": "mindformers.core.callback.accelerator:ObsMonitor",
    "ProfileMonitor": "mindformers.core.callback.accelerator:ProfileMonitor",
    "ProgressMonitor": "mindformers.core.callback.progress:ProgressMonitor",
    "SummaryMonitor": "mindformers.core.callback.accelerator:SummaryMonitor",
    "TrainCallBack": "mindformers.core.callback.simple:TrainCallBack",
    "build_callback": "mindformers.core.callback.build_callback:build_callback",
})
