"""CausalLanguageModelingTrainer: train, evaluate and predict with a language model."""
from mindformers.generation import TextStreamer
from mindformers.pipeline import pipeline
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.register import MindFormerModuleType, MindFormerRegister
from mindformers.trainer.base_trainer import BaseTrainer
from mindformers.trainer.predict import read_prompts, write_results


@MindFormerRegister.register(MindFormerModuleType.TRAINER)
class CausalLanguageModelingTrainer(BaseTrainer):
    """The trainer of task "text_generation".

    Args:
        model_name (str): name of the model, for messages. Default: None.
    """

    def __init__(self, model_name=None):
        super().__init__("text_generation", model_name)

    def train(self, config=None, network=None, dataset=None, wrapper=None, optimizer=None, callbacks=None, **kwargs):
        """Train; parts that are not given come from the configuration. See `BaseTrainer.training_process`.

        Raises:
            UnsupportedError: `wrapper` is given: steps are made by `wrapper.TrainStep` from runner_wrapper.
        """
        if wrapper is not None:
            raise UnsupportedError("a wrapper cell is not taken; set runner_wrapper (scale_sense, use_clip_grad, "
                                   "max_grad_norm) in the configuration")
        return self.training_process(config=config, network=network, dataset=dataset, optimizer=optimizer,
                                     callbacks=callbacks, **kwargs)

    def evaluate(self, config=None, network=None, dataset=None, callbacks=None, compute_metrics=None, **kwargs):
        """Loss and perplexity per token over the evaluation dataset. See `BaseTrainer.evaluate_process`."""
        return self.evaluate_process(config=config, network=network, dataset=dataset, callbacks=callbacks,
                                     compute_metrics=compute_metrics, **kwargs)

    def predict(self, config=None, input_data=None, network=None, tokenizer=None, **kwargs):
        """Generate a text for each prompt.

        Args:
            config (MindFormerConfig): the configuration. Default: the one set before.
            input_data (str | list[str]): a prompt, prompts, or the path of a file with one prompt per line.
            network (nn.Cell): model. Default: None (built from the configuration, weights loaded).
            tokenizer (PreTrainedTokenizer): default None (built from the configuration).
            **kwargs: batch_size, and arguments of `generate`.

        Returns:
            list[dict], ``[{"text_generation_text": [str]}, ...]``; also written to `save_file`, default
            ``text_generation_result.txt`` (rank 0). A single prompt is streamed on the console.

        Raises:
            ConfigError: no prompt, no weights or no tokenizer.
        """
        return self.predict_process(config=config, input_data=input_data, task="text_generation", network=network,
                                    tokenizer=tokenizer, **kwargs)

    def predict_process(self, config=None, input_data=None, task=None, network=None, tokenizer=None, **kwargs):
        """See `predict`."""
        config = self.set_config(config)
        self.set_seed()
        prompts = read_prompts(config.input_data if input_data is None else input_data)
        tokenizer = tokenizer or self.create_tokenizer()
        if tokenizer is None:
            raise ConfigError("predict needs a tokenizer: set processor.tokenizer (or give Trainer(tokenizer=...))")
        if network is None:
            network = self.network_with_weights("predict")
        network.set_train(False)
        arguments = {key: config[key] for key in ("top_k", "do_sample") if config.get(key) is not None}
        arguments.update({key: value for key, value in kwargs.items() if value is not None})
        results = self._generate(prompts, network, tokenizer, arguments)
        if self.rank == 0:
            write_results(results, config.save_file or f"{self.task}_result.txt")
        return results

    def _generate(self, prompts, network, tokenizer, arguments):
        """Run the pipeline; on rank 0 a single prompt is streamed, several answers are printed one after the other."""
        batch_size = arguments.pop("batch_size", None) or self.config.predict_batch_size or 1
        generate = pipeline(self.task, model=network, tokenizer=tokenizer)
        beams = arguments.get("num_beams") or network.generation_config.num_beams or 1
        streams = len(prompts) == 1 and beams == 1 and "streamer" not in arguments
        if streams and self.rank == 0:
            arguments["streamer"] = TextStreamer(tokenizer)
        results = generate(prompts, batch_size=batch_size, **arguments)
        if not streams and self.rank == 0:
            for result in results:
                print("\n".join(result["text_generation_text"]))
        return results
