"""MindFormerBook: what the suite knows, read from configs/ and the registry (nothing is listed by hand)."""
import os

from mindformers.models.config_sources import known_names
from mindformers.tools.env import get_env, set_env
from mindformers.tools.errors import UnsupportedError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.utils import configs_dir

_TASK = "text_generation"


def _families():
    """Known model names by the part before the first underscore: ``{"llama2": ["llama2_7b", ...]}``."""
    families = {}
    for name in known_names():
        families.setdefault(name.split("_", maxsplit=1)[0], []).append(name)
    return families


def print_dict(input_dict):
    """Log each key of a dict with its value."""
    for key, value in input_dict.items():
        logger.info("   %s : %s", key, value)


def print_path_or_list(input_path_or_list):
    """Log a path, or a list of names."""
    logger.info("   %s", input_path_or_list)


class MindFormerBook:
    """Lists of tasks, models and folders; each `get_x` has a `show_x` that logs the list."""

    _config_names = {}

    @classmethod
    def get_trainer_support_task_list(cls):
        """Return ``{task: {model name: path of its YAML}}``."""
        from mindformers.models.config_sources import find_yaml
        return {"general": {}, _TASK: {name: find_yaml(name) for name in known_names()}}

    @classmethod
    def get_pipeline_support_task_list(cls):
        """Return ``{task: [model names]}``."""
        return {task: known_names() for task in MindFormerRegister.names("pipeline") if task == task.lower()}

    @classmethod
    def get_pipeline_support_input_data_list(cls):
        """Return ``{task: an input to try}``."""
        return {task: "def read_json(path):" for task in cls.get_pipeline_support_task_list()}

    @classmethod
    def get_model_config_to_name(cls):
        """Return ``{key: name}`` as `set_model_config_to_name` noted it.

        Nothing here reads it: a config says which class builds it (its type, and `architectures`).
        """
        return dict(cls._config_names)

    @classmethod
    def set_model_config_to_name(cls, model_config, model_name):
        """Note `model_name` under `model_config`, a hashable key such as ``id(config)``."""
        cls._config_names[model_config] = model_name

    @classmethod
    def get_config_support_list(cls):
        """Return the known names by family."""
        return _families()

    get_model_support_list = get_processor_support_list = get_tokenizer_support_list = get_config_support_list

    @classmethod
    def get_model_name_support_list(cls):
        """Return the sorted model names."""
        return known_names()

    @classmethod
    def get_model_name_support_list_for_task(cls, task_name):
        """Return the model names of a task.

        Raises:
            ValueError: the task is not known.
        """
        tasks = cls.get_trainer_support_task_list()
        if task_name not in tasks:
            raise ValueError(f"task {task_name!r} is not supported.{did_you_mean(task_name, tasks)} "
                             f"Known: {', '.join(tasks)}")
        return sorted(tasks[task_name])

    @classmethod
    def get_tokenizer_name_to_processor(cls):
        """Return ``{tokenizer class: processor class}``."""
        families = {"Llama": "LlamaProcessor", "ChatGLM": "GLMProcessor"}
        return {name: processor for name in MindFormerRegister.names("tokenizer")
                for prefix, processor in families.items() if name.startswith(prefix)}

    @classmethod
    def get_project_path(cls):
        """Return the folder that holds configs/."""
        return str(configs_dir().parent)

    @classmethod
    def get_default_checkpoint_download_folder(cls):
        """Return the folder where named checkpoints are kept."""
        return get_env("CHECKPOINT_DOWNLOAD_FOLDER")

    @classmethod
    def get_xihe_checkpoint_download_folder(cls):
        """Refused: names "mindspore/..." mean the shipped configurations, nothing is downloaded for them.

        Raises:
            UnsupportedError: always; it names the folder that is used.
        """
        raise UnsupportedError("there is no folder for xihe: \"mindspore/<name>\" is the shipped configuration <name>, "
                               "and nothing is downloaded; see get_default_checkpoint_download_folder")

    @classmethod
    def set_default_checkpoint_download_folder(cls, download_folder):
        """Set that folder for this process."""
        set_env("CHECKPOINT_DOWNLOAD_FOLDER", os.fspath(download_folder))

    @classmethod
    def get_default_checkpoint_save_folder(cls):
        """Return the default folder of save_pretrained."""
        return get_env("CHECKPOINT_SAVE_FOLDER")

    @classmethod
    def set_default_checkpoint_save_folder(cls, save_folder):
        """Set that folder for this process."""
        set_env("CHECKPOINT_SAVE_FOLDER", os.fspath(save_folder))

    @classmethod
    def get_model_ckpt_url_list(cls):
        """Return ``{}``: no weights are downloaded from a list of addresses."""
        return {}

    get_model_config_url_list = get_tokenizer_url_support_list = get_model_ckpt_url_list

    @classmethod
    def get_downloadable_model_name_list(cls):
        """Return ``[]``: see get_model_ckpt_url_list."""
        return []

    @classmethod
    def show_trainer_support_model_list(cls, task=None):
        """Log the models of a task, or of all tasks."""
        for name in [task] if task else cls.get_trainer_support_task_list():
            logger.info("Trainer supports for task %s: %s", name, cls.get_model_name_support_list_for_task(name))

    @classmethod
    def show_pipeline_support_model_list(cls, task=None):
        """Log the models of a task, or of all tasks.

        Raises:
            ValueError: the task is not known.
        """
        tasks = cls.get_pipeline_support_task_list()
        if task is not None and task not in tasks:
            raise ValueError(f"task {task!r} is not supported.{did_you_mean(task, tasks)} Known: {', '.join(tasks)}")
        for name in [task] if task else tasks:
            logger.info("pipeline supports for task %s: %s", name, tasks[name])


def _show(name):
    def show(cls):
        content = getattr(cls, f"get_{name}")()
        logger.info("%s:", name)
        (print_dict if isinstance(content, dict) else print_path_or_list)(content)
    show.__name__ = f"show_{name}"
    show.__doc__ = f"Log what get_{name} returns."
    return classmethod(show)


for _name in ("trainer_support_task_list", "pipeline_support_task_list", "pipeline_support_input_data_list",
              "model_config_to_name", "config_support_list", "model_support_list", "processor_support_list",
              "tokenizer_support_list", "tokenizer_name_to_processor", "project_path",
              "default_checkpoint_download_folder", "default_checkpoint_save_folder", "model_ckpt_url_list",
              "model_config_url_list", "tokenizer_url_support_list"):
    setattr(MindFormerBook, f"show_{_name}", _show(_name))
