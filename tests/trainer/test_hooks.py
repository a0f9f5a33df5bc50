"""Callbacks of an evaluation, and the hooks of BaseTrainer that a subclass replaces."""
import numpy as np
import pytest
from mindspore import nn
from mindspore.train.callback import Callback

from mindformers.core.metric import PerplexityMetric
from mindformers.tools.errors import UnsupportedError
from mindformers.trainer import CausalLanguageModelingTrainer, Trainer
from trainer_helpers import with_evaluation


class Diary(Callback):
    """Writes down which hooks were called, with the step."""

    def __init__(self):
        super().__init__()
        self.entries, self.metrics = [], None

    def note(self, hook, context):
        params = context.original_args()
        self.entries.append((hook, params.cur_step_num))
        self.metrics = params.metrics if hook == "eval_end" else self.metrics


def _hook(name):
    return lambda self, run_context: self.note(name, run_context)


for _phase in ("train", "eval"):
    for _moment in ("begin", "epoch_begin", "step_begin", "step_end", "epoch_end", "end"):
        setattr(Diary, f"on_{_phase}_{_moment}", _hook(f"{_phase}_{_moment}"))


EVALUATION = [("eval_begin", 0), ("eval_epoch_begin", 0), ("eval_step_begin", 1), ("eval_step_end", 1),
              ("eval_step_begin", 2), ("eval_step_end", 2), ("eval_epoch_end", 2), ("eval_end", 2)]


def test_callbacks_of_an_evaluation_are_called(tmp_path):
    given, in_config = Diary(), Diary()
    config = with_evaluation(tmp_path)
    trainer = Trainer(config, eval_callbacks=given)
    trainer.config["eval_callbacks"] = [in_config]
    trainer.trainer.set_network(trainer.trainer.create_network(), is_train=False)
    result = trainer.evaluate()
    assert given.entries == EVALUATION and in_config.entries == EVALUATION
    assert given.metrics == result and set(result) == {"loss", "PPL"}


def test_callbacks_of_evaluations_during_training(tmp_path):
    diary, train_only = Diary(), Diary()
    config = with_evaluation(tmp_path, context__mode=0, do_eval=True, eval_step_interval=2)
    Trainer(config, eval_callbacks=[diary], callbacks=train_only).train()
    assert diary.entries == EVALUATION * 2  # after steps 2 and 4
    assert train_only.entries[0] == ("train_begin", 0) and ("train_step_end", 5) in train_only.entries
    assert not [hook for hook, _ in train_only.entries if "eval" in hook]


def test_a_callback_may_end_an_evaluation_and_one_that_fails_leaves_training_mode(tmp_path):
    class Stop(Diary):
        def note(self, hook, context):
            super().note(hook, context)
            if hook == "eval_step_end":
                context.request_stop()

    class Fail(Callback):
        def on_eval_begin(self, run_context):
            raise RuntimeError("mine")

    trainer = CausalLanguageModelingTrainer()
    config = trainer.set_config(with_evaluation(tmp_path))
    network = trainer.create_network()
    stop = Stop()
    trainer.evaluate(config, network, callbacks=[stop])
    assert ("eval_step_end", 1) in stop.entries and ("eval_step_begin", 2) not in stop.entries
    network.set_train(True)
    with pytest.raises(RuntimeError, match="mine"):
        trainer.evaluate(config, network, callbacks=[Fail()])
    assert network.training


def test_metrics_by_name(tmp_path):
    trainer = CausalLanguageModelingTrainer()
    sections = [{"type": "PerplexityMetric"}, {"type": "EmF1Metric"}]
    config = trainer.set_config(with_evaluation(tmp_path, metric=sections))
    metrics = trainer.create_metrics()
    assert list(metrics) == ["PerplexityMetric", "EmF1Metric"]
    assert isinstance(metrics["PerplexityMetric"], PerplexityMetric)
    assert list(trainer.create_metrics("mine")) == ["mine", "EmF1Metric"]
    with pytest.raises(UnsupportedError, match="EmF1Metric is not evaluated here; use PerplexityMetric"):
        trainer.evaluate(config)
    del config["metric"]
    for given in ({"EmF1Metric"}, {"f1": PerplexityMetric(), "x": nn.Accuracy()}, "PromptAccMetric"):
        with pytest.raises(UnsupportedError, match="use PerplexityMetric"):
            trainer.evaluate(config, compute_metrics=given)
    network = trainer.create_network()
    for given in (None, "PerplexityMetric", {"ppl": PerplexityMetric()}):
        assert trainer.evaluate(config, network, compute_metrics=given)["PPL"] > 1


def test_what_is_set_is_used_and_hooks_are_called(tmp_path):
    class Doubled(nn.Cell):
        """Twice the loss of a network."""

        def __init__(self, network):
            super().__init__(auto_prefix=False)
            self.network, self.config = network, network.config

        def construct(self, input_ids, labels):
            total, count = self.network.construct(input_ids, labels)
            return total * 2, count

    class Mine(CausalLanguageModelingTrainer):
        def wrap_network_with_tool_cells(self, network):
            return Doubled(network)

        wrap_eval_network_with_tool_cells = wrap_network_with_tool_cells

    config = with_evaluation(tmp_path, runner_config__stop_step=1, lr_schedule__learning_rate=0.0)
    plain, mine = CausalLanguageModelingTrainer(), Mine()
    losses = []
    for trainer in (plain, mine):
        trainer.set_config(config)
        trainer.set_seed()
        network = trainer.create_network({"calculate_per_token_loss": True})
        trainer.set_network(network)
        trainer.set_train_dataset(trainer.create_dataset())
        trainer.set_eval_dataset(trainer.create_dataset(is_train=False))
        first = trainer.evaluate(config)["loss"]
        trainer.train(config)
        assert trainer.network is network  # not the cell around it
        assert [parameter.name for parameter in network.get_parameters()][0] == "model.tok_embeddings.embedding_weight"
        losses.append((first, np.loadtxt(tmp_path / "out" / "loss.csv", delimiter=",", skiprows=1, ndmin=2)[-1, 1]))
    np.testing.assert_allclose(losses[1], 2 * np.array(losses[0]), rtol=1e-5)


def test_numbers_of_a_run(tmp_path):
    trainer = CausalLanguageModelingTrainer(model_name="llama_tiny")
    assert trainer.setup_task_config().model.model_config.type == "LlamaConfig"
    trainer.set_config(with_evaluation(tmp_path))
    assert (trainer.get_train_data_size(), trainer.get_eval_data_size(), trainer.get_pipeline_stages()) == (5, 2, 1)
    assert trainer.learning_rate_scale(0.1, 2) == pytest.approx(0.2)  # 4 rows a step
    assert [type(item).__name__ for item in trainer.create_callbacks()] == ["MFLossMonitor", "CheckpointMonitor"]
    with pytest.raises(UnsupportedError, match="image processors"):
        trainer.create_image_processor()
