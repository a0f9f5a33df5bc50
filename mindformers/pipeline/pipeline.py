"""pipeline(): from a task name, a model and a tokenizer to something that answers."""
from enum import Enum

from mindformers.pipeline.registry_constant import PIPELINE_REGISTRY
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.register.register import load_object

_LOADING = ("revision", "trust_remote_code", "token", "cache_dir", "local_files_only", "force_download")


class Backend(Enum):
    """Backends of `pipeline`."""

    MS = "ms"
    MINDIE = "mindie"


def pipeline(task=None, model=None, tokenizer=None, image_processor=None, audio_processor=None, backend="ms", *,
             config=None, framework=None, use_fast=None, model_kwargs=None, pipeline_class=None, **kwargs):
    """Return the pipeline of `task` for `model`.

    Args:
        task (str): "text_generation" (or "text-generation"); None is that for a model with `generate`. Default: None.
        model (object | str): a model, or the name or folder of one. Default: None.
        tokenizer (object | str): its tokenizer; None loads it beside a model given as a string. Default: None.
        image_processor, audio_processor: must be None; no task here reads images or sound.
        backend (str): "ms". Default: "ms".
        config (PretrainedConfig): used to load a model given as a string. Default: None.
        framework (str): "ms" or None. Default: None.
        use_fast (bool): passed to the tokenizer's loading. Default: None.
        model_kwargs (dict): further arguments of the model's `from_pretrained`. Default: None.
        pipeline_class (type): used instead of the task's own. Default: None.
        kwargs: `revision`, `trust_remote_code`, `token`, `cache_dir`, `local_files_only`, `force_download` for loading;
            the rest (`batch_size`, generation settings) become default arguments of the pipeline.

    Raises:
        RuntimeError: no model.
        KeyError: an unknown task. UnsupportedError: a task without a pipeline.
        ValueError: another backend, framework, or no tokenizer.
    """
    if backend != Backend.MS.value:
        raise ValueError(f"The given backend {backend!r} is not supported: the backend is 'ms'")
    if framework not in (None, "ms", "mindspore"):
        raise ValueError(f"framework must be 'ms', but is {framework!r}")
    for name, value in (("image_processor", image_processor), ("audio_processor", audio_processor)):
        if value is not None:
            raise UnsupportedError(f"pipeline() does not take {name}: its tasks work on text")
    name, entry, _ = PIPELINE_REGISTRY.check_task("text_generation" if task is None else task)
    if model is None:
        raise RuntimeError(f"pipeline({'' if task is None else repr(task)}) needs model=: a model, its name, or its "
                           f"folder" + ("; and task=, such as 'text_generation'" if task is None else ""))
    loading = {key: kwargs.pop(key) for key in _LOADING if key in kwargs}
    loaded_by_name = isinstance(model, str)
    if not loaded_by_name and (config is not None or model_kwargs):
        raise ValueError("config= and model_kwargs= are for a model given by name or folder, but model is an object")
    if isinstance(tokenizer, str) or (tokenizer is None and loaded_by_name):
        fast = {} if use_fast is None else {"use_fast": use_fast}
        tokenizer = load_tokenizer(tokenizer or model, **loading, **fast)
    if loaded_by_name:
        given = {} if config is None else {"config": config}
        model = load_model(model, name, **{**loading, **given, **(model_kwargs or {})})
    chosen = pipeline_class or entry["impl"]
    chosen = load_object(chosen) if isinstance(chosen, str) else chosen
    return chosen(model, tokenizer=tokenizer, task=name, **kwargs)


def load_tokenizer(name_or_path, **kwargs):
    """Load a tokenizer by name or folder."""
    from mindformers.models.auto import AutoTokenizer
    return AutoTokenizer.from_pretrained(name_or_path, **kwargs)


def load_model(name_or_path, task="text_generation", **kwargs):
    """Load a model by name or folder with the class of `task`."""
    classes = PIPELINE_REGISTRY.check_task(task)[1]["ms"]
    if not classes:
        raise ValueError(f"task {task!r} was registered without model classes, so it cannot load {name_or_path!r}: "
                         f"pass a model object")
    chosen = load_object(classes[0]) if isinstance(classes[0], str) else classes[0]
    return chosen.from_pretrained(name_or_path, **kwargs)


def check_task(task):
    """Return ``(task, its entry, None)``; see PipelineRegistry.check_task."""
    return PIPELINE_REGISTRY.check_task(task)
