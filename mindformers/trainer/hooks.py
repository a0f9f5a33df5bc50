"""The parts of a run that a subclass of BaseTrainer may replace, under MindFormers' names."""
from mindformers.core.metric import build_metric
from mindformers.tools.errors import UnsupportedError
from mindformers.trainer import arguments, build
from mindformers.trainer.data import TrainData

EVALUATED = ("PerplexityMetric",)  # what an evaluation computes: loss and perplexity


class TrainerHooks:
    """Objects that are set instead of built, and the `create_*` and `wrap_*` hooks that a run calls.

    What is set here is used by the next runs of this trainer; an argument of the run wins over it.
    """

    def __init__(self):
        self._set = {}  # "network", "train_dataset", "eval_dataset" that were set by hand

    def setup_task_config(self):
        """Take the shipped configuration of the task and model as the configuration of the run; returns it."""
        self.config = arguments.task_config(self.task, self.model_name)
        return self.config

    # ---- set instead of built ----

    def set_network(self, network, is_train=True):
        """Work with `network` (nn.Cell) instead of building one; it is put into training or evaluation mode."""
        network.set_train(is_train)
        self.network = self._set["network"] = network

    def set_train_dataset(self, dataset):
        """Train on `dataset`."""
        self.train_dataset = self._set["train_dataset"] = dataset

    def set_eval_dataset(self, dataset):
        """Evaluate on `dataset`."""
        self.eval_dataset = self._set["eval_dataset"] = dataset

    def chosen(self, name, given):
        """Return what a run works with: `given`, else the `name` that was set, else None."""
        return self._set.get(name) if given is None else given

    # ---- hooks of a run ----

    def wrap_network_with_tool_cells(self, network):
        """Return the cell that is trained; the network itself here.

        A cell around it must be built with ``auto_prefix=False``, or the parameters change their names.
        """
        return network

    def wrap_eval_network_with_tool_cells(self, network):
        """Return the cell that is evaluated; the network itself here."""
        return network

    def create_dataset(self, is_train=True, default_args=None):
        """Build the training or the evaluation dataset."""
        return self.create_train_dataset(default_args) if is_train else self.create_eval_dataset(default_args)

    def create_network_without_param_init(self, default_args=None):
        """The same as `create_network`: parameters whose values are loaded are not drawn at random first."""
        return self.create_network(default_args)

    def create_callbacks(self, default_args=None):
        """Build the callbacks of section `callbacks`; `default_args` reach those that take them."""
        return build.callbacks(self.config.callbacks, "callbacks", **(default_args or {}))

    def create_eval_callbacks(self, default_args=None):
        """Build the callbacks of section `eval_callbacks`, which an evaluation calls."""
        return build.callbacks(self.config.eval_callbacks, "eval_callbacks", **(default_args or {}))

    def create_metrics(self, metric_name=None):
        """Build the metrics of section `metric` as ``{name: metric}``.

        Args:
            metric_name (str): name of the first metric; the others, and None, go by their type. Default: None.
        """
        sections = self.config.metric or []
        sections = sections if isinstance(sections, list) else [sections]
        names = [section.get("type") for section in sections]
        if metric_name is not None:
            names[:1] = [metric_name]
        return {name: build_metric(section) for name, section in zip(names, sections)}

    def create_image_processor(self, default_args=None):
        """Refused: this suite is for text."""
        raise UnsupportedError("image processors are not carried; use create_tokenizer")

    # ---- numbers ----

    def get_train_data_size(self):
        """Number of batches of one pass over the training data."""
        return TrainData(self.train_dataset if self.train_dataset is not None
                         else self.create_train_dataset()).steps_per_epoch

    def get_eval_data_size(self):
        """Number of batches of the evaluation data."""
        return TrainData(self.eval_dataset if self.eval_dataset is not None
                         else self.create_eval_dataset()).steps_per_epoch

    def get_pipeline_stages(self):
        """Number of pipeline stages of the configuration."""
        return (self.config.parallel_config or {}).get("pipeline_stage") or 1

    def learning_rate_scale(self, base_learning_rate=0.0, scale_factor=256.0):
        """Return the rate times the rows of a step over `scale_factor`."""
        return base_learning_rate * self.batch_sizes().global_ / scale_factor


def check_metrics(sections, compute_metrics):
    """Refuse metrics that an evaluation does not compute; loss and perplexity are computed in any case.

    Args:
        sections (dict | list | None): section `metric`.
        compute_metrics (dict | set | list | str | None): names, or ``{name: metric}``, given to a run.

    Raises:
        UnsupportedError: another metric.
    """
    sections = sections if isinstance(sections, list) else [sections] if sections else []
    names = [section.get("type") for section in sections]
    given = [compute_metrics] if isinstance(compute_metrics, str) else compute_metrics or ()
    items = given.values() if isinstance(given, dict) else given
    names += [item if isinstance(item, str) else type(item).__name__ for item in items]
    for name in names:
        if name not in (None, *EVALUATED):
            raise UnsupportedError(f"metric {name} is not evaluated here; use {' or '.join(EVALUATED)}")
