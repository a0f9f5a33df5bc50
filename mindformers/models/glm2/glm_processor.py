"""GLMProcessor: texts to ids for ChatGLM2, ChatGLM3 and GLM-4."""
from mindformers.models.processing_utils import ProcessorMixin
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

__all__ = ["GLMProcessor"]


@MindFormerRegister.register(MindFormerModuleType.PROCESSOR)
class GLMProcessor(ProcessorMixin):
    """A GLM tokenizer with its options; a call returns ``{"text": ids}``, see ProcessorMixin."""
