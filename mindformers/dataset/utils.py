"""Small checks of the dataset room."""
import inspect


def check_dataset_config(config):
    """Copy ``train_dataset`` / ``eval_dataset`` of a job's configuration into the matching
    ``*_dataset_task.dataset_config``, where the builder looks (the anchors of a YAML are gone once a value was
    overridden)."""
    for name in ("train_dataset", "eval_dataset"):
        task = config.get(f"{name}_task")
        if task and config.get(name):
            task["dataset_config"] = config[name]


def check_dataset_iterable(dataset):
    """Whether `dataset` can be read as rows: it has __iter__, or __getitem__ and __len__, or is a generator function.

    Raises:
        ValueError: it cannot.
    """
    if hasattr(dataset, "__iter__") or (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        return True
    if is_generator_function(dataset):
        return True
    raise ValueError(f"{type(dataset).__name__} is no data set: it needs __iter__, or __getitem__ and __len__, or must "
                     f"be a generator function")


def is_generator_function(func):
    """Whether `func` is a function that yields."""
    return inspect.isgeneratorfunction(func)
