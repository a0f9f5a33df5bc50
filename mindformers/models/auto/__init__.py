"""Auto classes."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "AutoConfig": "mindformers.models.auto.configuration_auto:AutoConfig",
    "CONFIG_MAPPING": "mindformers.models.auto.configuration_auto:CONFIG_MAPPING",
    "CONFIG_MAPPING_NAMES": "mindformers.models.auto.configuration_auto:CONFIG_MAPPING_NAMES",
    "AutoModel": "mindformers.models.auto.modeling_auto:AutoModel",
    "AutoModelForCausalLM": "mindformers.models.auto.modeling_auto:AutoModelForCausalLM",
    "AutoModelForPreTraining": "mindformers.models.auto.modeling_auto:AutoModelForPreTraining",
    "AutoModelWithLMHead": "mindformers.models.auto.modeling_auto:AutoModelWithLMHead",
    "AutoModelForSequenceClassification": "mindformers.models.auto.modeling_auto:AutoModelForSequenceClassification",
    "AutoModelForMaskedLM": "mindformers.models.auto.modeling_auto:AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM": "mindformers.models.auto.modeling_auto:AutoModelForSeq2SeqLM",
    "AutoModelForQuestionAnswering": "mindformers.models.auto.modeling_auto:AutoModelForQuestionAnswering",
    "AutoModelForTokenClassification": "mindformers.models.auto.modeling_auto:AutoModelForTokenClassification",
    "AutoModelForMultipleChoice": "mindformers.models.auto.modeling_auto:AutoModelForMultipleChoice",
    "AutoModelForImageClassification": "mindformers.models.auto.modeling_auto:AutoModelForImageClassification",
    "AutoModelForZeroShotImageClassification":
        "mindformers.models.auto.modeling_auto:AutoModelForZeroShotImageClassification",
    "AutoModelForVisualQuestionAnswering": "mindformers.models.auto.modeling_auto:AutoModelForVisualQuestionAnswering",
    "AutoModelForMaskedImageModeling": "mindformers.models.auto.modeling_auto:AutoModelForMaskedImageModeling",
    "AutoModelForVision2Seq": "mindformers.models.auto.modeling_auto:AutoModelForVision2Seq",
    "MODEL_MAPPING": "mindformers.models.auto.modeling_auto:MODEL_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING": "mindformers.models.auto.modeling_auto:MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING":
        "mindformers.models.auto.modeling_auto:MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "AutoTokenizer": "mindformers.models.auto.tokenization_auto:AutoTokenizer",
    "TOKENIZER_MAPPING": "mindformers.models.auto.tokenization_auto:TOKENIZER_MAPPING",
    "TOKENIZER_MAPPING_NAMES": "mindformers.models.auto.tokenization_auto:TOKENIZER_MAPPING_NAMES",
    "AutoProcessor": "mindformers.models.auto.processing_auto:AutoProcessor",
    "PROCESSOR_MAPPING": "mindformers.models.auto.processing_auto:PROCESSOR_MAPPING",
    "AutoImageProcessor": "mindformers.models.auto.image_processing_auto:AutoImageProcessor",
    "IMAGE_PROCESSOR_MAPPING": "mindformers.models.auto.image_processing_auto:IMAGE_PROCESSOR_MAPPING",
})
