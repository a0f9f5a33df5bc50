"""The AutoModel family."""
from mindformers.models.auto.auto_factory import BaseAutoModel, not_carried
from mindformers.models.auto.lazy_mapping import LazyMapping

_LLAMA, _GLM = "mindformers.models.llama.llama:", "mindformers.models.glm2."

MODEL_MAPPING = LazyMapping("MODEL_MAPPING", {
    "LlamaConfig": _LLAMA + "LlamaModel", "ChatGLM2Config": _GLM + "glm2:ChatGLM2Model",
    "GlmConfig": _GLM + "glm:GlmModel"})
MODEL_FOR_CAUSAL_LM_MAPPING = LazyMapping("MODEL_FOR_CAUSAL_LM_MAPPING", {
    "LlamaConfig": _LLAMA + "LlamaForCausalLM", "ChatGLM2Config": _GLM + "glm2:ChatGLM2ForConditionalGeneration",
    "GlmConfig": _GLM + "glm:GlmForCausalLM"})
MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING = LazyMapping(
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", {"LlamaConfig": _LLAMA + "LlamaForSequenceClassification"})


class AutoModel(BaseAutoModel):
    """The backbone of a configuration: answers hidden states."""

    mapping = MODEL_MAPPING


class AutoModelForCausalLM(BaseAutoModel):
    """The model with a next-token head: generation, chat, pretraining."""

    mapping = MODEL_FOR_CAUSAL_LM_MAPPING


class AutoModelForPreTraining(AutoModelForCausalLM):
    """The head that a family is pretrained with; for decoders the next-token head."""


class AutoModelWithLMHead(AutoModelForCausalLM):
    """Older name of `AutoModelForCausalLM`."""


class AutoModelForSequenceClassification(BaseAutoModel):
    """The model that labels a text."""

    mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING


AutoModelForMaskedLM = not_carried("AutoModelForMaskedLM", "BERT, DistilBERT")
AutoModelForSeq2SeqLM = not_carried("AutoModelForSeq2SeqLM", "T5, Marian")
AutoModelForQuestionAnswering = not_carried("AutoModelForQuestionAnswering", "BERT, DistilBERT")
AutoModelForTokenClassification = not_carried("AutoModelForTokenClassification", "BERT")
AutoModelForMultipleChoice = not_carried("AutoModelForMultipleChoice", "BERT")
AutoModelForImageClassification = not_carried("AutoModelForImageClassification", "ViT, Swin")
AutoModelForZeroShotImageClassification = not_carried("AutoModelForZeroShotImageClassification", "CLIP")
AutoModelForVisualQuestionAnswering = not_carried("AutoModelForVisualQuestionAnswering", "BLIP-2")
AutoModelForMaskedImageModeling = not_carried("AutoModelForMaskedImageModeling", "MAE")
AutoModelForVision2Seq = not_carried("AutoModelForVision2Seq", "BLIP-2")
