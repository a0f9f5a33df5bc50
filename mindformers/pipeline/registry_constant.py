"""Task names: what has a pipeline, other names of it, and MindFormers' tasks that have none here."""
from mindformers.pipeline.pipeline_registry import PipelineRegistry

SUPPORTED_TASKS = {
    "text_generation": {
        "impl": "mindformers.pipeline.text_generation_pipeline:TextGenerationPipeline",
        "ms": ("mindformers.models.auto.modeling_auto:AutoModelForCausalLM",),
        "type": "text",
    },
}
TASK_ALIASES = {"text-generation": "text_generation", "chat": "text_generation"}

TASKS_NOT_CARRIED = ("fill_mask", "image_classification", "image_to_text_generation", "masked_image_modeling",
                     "multi_modal_to_text_generation", "question_answering", "segment_anything", "text_classification",
                     "token_classification", "translation", "zero_shot_image_classification")
PIPELINES_NOT_CARRIED = ("FillMaskPipeline", "ImageClassificationPipeline", "ImageToTextPipeline",
                         "MaskedImageModelingPipeline", "MultiModalToTextPipeline", "QuestionAnsweringPipeline",
                         "SegmentAnythingPipeline", "TextClassificationPipeline", "TokenClassificationPipeline",
                         "TranslationPipeline", "ZeroShotImageClassificationPipeline")

PIPELINE_REGISTRY = PipelineRegistry(SUPPORTED_TASKS, TASK_ALIASES, TASKS_NOT_CARRIED)
