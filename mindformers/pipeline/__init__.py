"""Pipelines: tokenizer + model + generation -> answers to a task. Nothing is imported until it is used."""
from mindformers.pipeline.registry_constant import PIPELINES_NOT_CARRIED
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.utils import lazy_exports

_lazy_getattr, __dir__, __all__ = lazy_exports(__name__, {
    "pipeline": "mindformers.pipeline.pipeline:pipeline",
    "build_pipeline": "mindformers.pipeline.build_pipeline:build_pipeline",
    "Pipeline": "mindformers.pipeline.base_pipeline:Pipeline",
    "TextGenerationPipeline": "mindformers.pipeline.text_generation_pipeline:TextGenerationPipeline",
    "PipelineRegistry": "mindformers.pipeline.pipeline_registry:PipelineRegistry",
})


def __getattr__(name):
    if name in PIPELINES_NOT_CARRIED:
        raise UnsupportedError(f"{name} is not carried; TextGenerationPipeline is. For other tasks load the model with "
                               f"the AutoModel class of that task and call it")
    return _lazy_getattr(name)
