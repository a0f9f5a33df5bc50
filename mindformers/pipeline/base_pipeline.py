"""Pipeline: the frame of all pipelines, preprocess -> forward -> postprocess."""
from abc import ABC, abstractmethod

from mindformers.tools.errors import UnsupportedError


class Pipeline(ABC):
    """Answers a task for one input, a list, or a stream of inputs.

    A subclass writes `preprocess` (inputs -> what the model takes), `forward`, `postprocess` (-> one answer per input),
    and `_sanitize_parameters`, which sorts keyword arguments to the three.

    Args:
        model: the model.
        tokenizer: its tokenizer. Default: None.
        feature_extractor, image_processor: must be None; no task here reads images.
        framework (str): "ms". Default: "ms".
        task (str): name of the task. Default: "".
        batch_size (int): inputs per model call. Default: 1.
        kwargs: default arguments of every call.

    Raises:
        ValueError: another framework, or a batch_size that is not positive.
        UnsupportedError: a feature extractor or image processor.
    """

    def __init__(self, model, tokenizer=None, feature_extractor=None, image_processor=None, framework="ms", task="",
                 batch_size=1, **kwargs):
        for name, value in (("feature_extractor", feature_extractor), ("image_processor", image_processor)):
            if value is not None:
                raise UnsupportedError(f"{type(self).__name__} does not take {name}: it works on text")
        if framework not in ("ms", "mindspore"):
            raise ValueError(f"framework must be 'ms', but is {framework!r}")
        self.model, self.tokenizer = model, tokenizer
        self.framework, self.task = "ms", task
        self.batch_size = 1 if batch_size is None else batch_size
        self._defaults = kwargs
        self._sanitize_parameters(**kwargs)  # faults show now, not at the first call

    @property
    def batch_size(self):
        """Inputs per model call."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, batch_size):
        self._batch_size = check_batch_size(batch_size)

    def __call__(self, inputs, batch_size=None, **kwargs):
        """Return the answers.

        Args:
            inputs: one input, a list or tuple of inputs, or an iterator of them.
            batch_size (int): inputs per model call. Default: None (that of the pipeline).
            kwargs: arguments of this call; they win over those of the pipeline.

        Returns:
            list with one answer per input; for an iterator a generator of the answers, which reads its inputs a
            batch at a time.
        """
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        parameters = self._sanitize_parameters(**{**self._defaults, **kwargs})
        if hasattr(inputs, "__next__"):
            return self.run_stream(inputs, size, *parameters)
        if isinstance(inputs, (list, tuple)):
            return self.run_multi(inputs, size, *parameters)
        return self.run_single(inputs, *parameters)

    def transform(self, *args, **kwargs):
        """Same as calling the pipeline."""
        return self(*args, **kwargs)

    def predict(self, *args, **kwargs):
        """Same as calling the pipeline."""
        return self(*args, **kwargs)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        """Return the list with the answer to one input."""
        return self.run_multi([inputs], 1, preprocess_params, forward_params, postprocess_params)

    def run_multi(self, inputs, batch_size, preprocess_params, forward_params, postprocess_params):
        """Return the list of answers to a list of inputs."""
        return list(self.run_stream(iter(inputs), batch_size, preprocess_params, forward_params, postprocess_params))

    def run_stream(self, inputs, batch_size, preprocess_params, forward_params, postprocess_params):
        """Yield the answers to the inputs of an iterator, a batch at a time."""
        done = 0
        for batch in batches_of(inputs, batch_size):
            model_inputs = self.preprocess(batch, **preprocess_params)
            outputs = self.forward(model_inputs, **self.batch_parameters(forward_params, done, len(batch)))
            yield from self.postprocess(outputs, **postprocess_params)
            done += len(batch)

    def batch_parameters(self, forward_params, start, count):
        """Return the arguments of `forward` for the inputs ``[start, start + count)``; the same for all by default."""
        return forward_params

    @abstractmethod
    def _sanitize_parameters(self, **kwargs):
        """Return ``(preprocess_params, forward_params, postprocess_params)``, three dicts; refuse unknown names."""

    @abstractmethod
    def preprocess(self, inputs, **preprocess_params):
        """Return what `forward` takes for a list of inputs."""

    @abstractmethod
    def forward(self, model_inputs, **forward_params):
        """Run the model."""

    @abstractmethod
    def postprocess(self, model_outputs, **postprocess_params):
        """Return the list of answers, one per input."""

    def save_pretrained(self, save_directory, **kwargs):
        """Write model and tokenizer to a folder that `pipeline(task, model=folder)` reads; `kwargs` go to the model."""
        self.model.save_pretrained(save_directory, **kwargs)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def show_support_list(cls):
        """Print the tasks that have a pipeline."""
        from mindformers.pipeline.registry_constant import PIPELINE_REGISTRY
        print("\n".join(PIPELINE_REGISTRY.get_supported_tasks()))


def check_batch_size(batch_size):
    """Return `batch_size`; TypeError or ValueError when it is no positive int."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(f"batch_size must be an int, but is {batch_size!r} ({type(batch_size).__name__})")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
    return batch_size


def batches_of(inputs, size):
    """Yield lists of `size` items of the iterator `inputs`; the last may be shorter."""
    batch = []
    for item in inputs:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
