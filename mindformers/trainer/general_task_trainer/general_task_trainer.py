"""GeneralTaskTrainer: any network whose construct returns a loss, on any dataset."""
from mindformers.tools.errors import ConfigError
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.trainer.base_trainer import BaseTrainer


@MindFormerRegister.register(MindFormerModuleType.TRAINER)
class GeneralTaskTrainer(BaseTrainer):
    """Trains and evaluates a network given as an object; the configuration brings the rest (see `BaseTrainer`).

    Args:
        model_name (str): name of the model. Default: None.
    """

    def __init__(self, model_name=None):
        super().__init__("general", model_name)

    def train(self, config=None, network=None, dataset=None, optimizer=None, callbacks=None, **kwargs):
        """Train `network` on `dataset`; see `BaseTrainer.training_process`.

        Raises:
            ConfigError: no network or no dataset, here or in the configuration.
        """
        self._require(config, network=network, train_dataset=dataset)
        return self.training_process(config=config, network=network, dataset=dataset, optimizer=optimizer,
                                     callbacks=callbacks, **kwargs)

    def evaluate(self, config=None, network=None, dataset=None, callbacks=None, compute_metrics=None, **kwargs):
        """Mean loss of `network` over `dataset`; see `BaseTrainer.evaluate_process`."""
        self._require(config, network=network, eval_dataset=dataset)
        return self.evaluate_process(config=config, network=network, dataset=dataset, callbacks=callbacks,
                                     compute_metrics=compute_metrics, **kwargs)

    def predict(self, **kwargs):
        """Refused: a network of your own is called by your own code.

        Raises:
            UnsupportedError: always.
        """
        return self.predict_process(**kwargs)

    def _require(self, config, network, **datasets):
        config = config or self.config or {}
        if network is None and not (config.get("model") or {}).get("arch"):
            raise ConfigError("the general task trains your own network: give Trainer(model=...)")
        for section, given in datasets.items():
            if given is None and not config.get(section):
                raise ConfigError(f"the general task works on your own data: give Trainer({section}=...)")
