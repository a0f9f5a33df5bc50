"""Step cells: gradients, accumulation, data parallelism, loss scale, clipping, update."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "AdaptiveLossScaleUpdateCell": "mindformers.wrapper.adaptive_loss_scale:AdaptiveLossScaleUpdateCell",
    "DynamicLossScaleUpdateCell": "mindspore.nn:DynamicLossScaleUpdateCell",
    "FixedLossScaleUpdateCell": "mindspore.nn:FixedLossScaleUpdateCell",
    "MFPipelineWithLossScaleCell": "mindformers.wrapper.wrapper:MFPipelineWithLossScaleCell",
    "MFTrainOneStepCell": "mindformers.wrapper.wrapper:MFTrainOneStepCell",
    "StepOutput": "mindformers.wrapper.train_step:StepOutput",
    "TrainStep": "mindformers.wrapper.train_step:TrainStep",
    "build_wrapper": "mindformers.wrapper.build_wrapper:build_wrapper",
})
