"""The tasks a Trainer knows, the trainers that do them, and those of MindFormers that are refused by name."""
from mindformers.tools.errors import UnsupportedError

# task -> (trainer class, models whose shipped configuration has it)
TASKS = {
    "text_generation": "CausalLanguageModelingTrainer",
    "general": "GeneralTaskTrainer",
}

REFUSED_TASKS = ("image_classification", "zero_shot_image_classification", "fill_mask", "masked_image_modeling",
                 "question_answering", "text_classification", "token_classification", "translation",
                 "contrastive_language_image_pretrain", "image_to_text_retrieval", "image_to_text_generation",
                 "multi_modal_to_text_generation", "segment_anything", "reward_model")
REFUSED_TRAINERS = ("ContrastiveLanguageImagePretrainTrainer", "ImageClassificationTrainer",
                    "ImageToTextRetrievalTrainer", "MaskedImageModelingTrainer", "MaskedLanguageModelingTrainer",
                    "MultiModalToTextGenerationTrainer", "QuestionAnsweringTrainer", "TextClassificationTrainer",
                    "TokenClassificationTrainer", "TranslationTrainer", "ZeroShotImageClassificationTrainer",
                    "RewardModelTrainer")


def refuse_trainer(name):
    """Raise UnsupportedError when `name` is a trainer of MindFormers that is not carried here."""
    if name in REFUSED_TRAINERS:
        raise UnsupportedError(f"trainer {name} is not carried here; use CausalLanguageModelingTrainer, or "
                               "GeneralTaskTrainer with your own network")


def refuse_task(name):
    """Raise UnsupportedError when `name` is a task of MindFormers that is not carried here."""
    if name in REFUSED_TASKS:
        raise UnsupportedError(f"task {name!r} is not carried here; use 'text_generation', or 'general' with your own "
                               "network")
