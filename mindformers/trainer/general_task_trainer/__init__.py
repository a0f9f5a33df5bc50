"""Training and evaluating the user's own network."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "GeneralTaskTrainer": "mindformers.trainer.general_task_trainer.general_task_trainer:GeneralTaskTrainer",
})
