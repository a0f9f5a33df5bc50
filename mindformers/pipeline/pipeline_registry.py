"""PipelineRegistry: task name -> pipeline class, model classes."""
from mindformers.tools.errors import UnsupportedError, did_you_mean


class PipelineRegistry:
    """The tasks of `pipeline`.

    Args:
        supported_tasks (dict): task -> {"impl": pipeline class, "ms": tuple of model classes, ...}; a class may be
            given as "package.module:Class" and is imported when it is used.
        task_aliases (dict): other name -> task.
        not_carried (tuple): names of tasks that are known, but have no pipeline. Default: ().
    """

    def __init__(self, supported_tasks, task_aliases, not_carried=()):
        self.supported_tasks = supported_tasks
        self.task_aliases = task_aliases
        self.not_carried = not_carried

    def get_supported_tasks(self):
        """Return the sorted names of all tasks and aliases."""
        return sorted({*self.supported_tasks, *self.task_aliases})

    def check_task(self, task):
        """Return ``(task, its entry, None)`` for a task or alias.

        Raises:
            UnsupportedError: a task of MindFormers that is not carried.
            KeyError: an unknown name; the message names the known ones.
        """
        name = self.task_aliases.get(task, task)
        if name in self.supported_tasks:
            return name, self.supported_tasks[name], None
        known = ", ".join(self.get_supported_tasks())
        if str(name).replace("-", "_") in self.not_carried:
            raise UnsupportedError(f"task {task!r} has no pipeline here. Tasks with one: {known}. Load the model with "
                                   f"the AutoModel class of that task and call it")
        raise KeyError(f"unknown task {task!r}.{did_you_mean(task, self.get_supported_tasks())} Known: {known}")

    def register_pipeline(self, task, pipeline_class, ms_model=None, default=None, task_type=None):
        """Add or replace a task.

        Args:
            task (str): its name.
            pipeline_class (type): subclass of Pipeline.
            ms_model (class | tuple): classes with `from_pretrained` that load its models. Default: None.
            default (dict): kept in the entry. Default: None.
            task_type (str): "text", "image", ...; kept in the entry. Default: None.
        """
        models = () if ms_model is None else ms_model if isinstance(ms_model, tuple) else (ms_model,)
        entry = {"impl": pipeline_class, "ms": models}
        if default is not None:
            entry["default"] = default
        if task_type is not None:
            entry["type"] = task_type
        self.supported_tasks[task] = entry

    def to_dict(self):
        """Return the table of tasks."""
        return self.supported_tasks
