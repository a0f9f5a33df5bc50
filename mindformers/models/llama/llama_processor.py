"""LlamaProcessor: texts to ids for Llama."""
from mindformers.models.processing_utils import ProcessorMixin
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["LlamaProcessor"]


@MindFormerRegister.register(MindFormerModuleType.PROCESSOR)
class LlamaProcessor(ProcessorMixin):
    """A Llama tokenizer with its options; a call returns ``{"text": ids}``, see ProcessorMixin."""
