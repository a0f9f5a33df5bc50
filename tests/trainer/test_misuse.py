"""A Trainer that is used wrongly: each time one error that says what to do."""
import numpy as np
import pytest
from mindspore import nn

from mindformers.models.build_model import build_model
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.register import MindFormerConfig
from mindformers.trainer import Trainer, TrainingArguments
from trainer_helpers import MODEL, tiny_config, with_evaluation


def network(**sizes):
    return build_model({"arch": {"type": "LlamaForCausalLM"}, "model_config": {**MODEL, **sizes}})


def rows(*values, dtype=np.int32, **columns):
    """Eight rows of 13 tokens, each column as given."""
    columns = columns or {"input_ids": values[0], "labels": values[0]}
    return [{name: np.full(13, value, dtype) for name, value in columns.items()}] * 8


@pytest.mark.parametrize("given, error, words", [
    ({"train_dataset": 5}, ValueError, "int is no data set"),
    ({"train_dataset": []}, ConfigError, "the data set is empty"),
    ({"train_dataset": rows(tokens=1)}, ConfigError, "row 0 has no column 'input_ids'; its columns are .'tokens'"),
    ({"train_dataset": rows(99)}, ConfigError, "token ids up to 99, the model a vocab_size of 40"),
    ({"train_dataset": rows(-5)}, ConfigError, "negative token id -5"),
    ({"train_dataset": rows(1.5, dtype=np.float32)}, ConfigError, "input_ids must be rows of whole numbers"),
    ({"train_dataset": [{"input_ids": np.int32(3), "labels": np.int32(3)}] * 8}, ConfigError, "must be rows of whole"),
    ({"train_dataset": [{"input_ids": np.arange(5), "labels": np.arange(5)}] * 8}, ConfigError,
     "rows have 5 tokens, shorter than the model's seq_length . 1 = 13"),
    ({"train_dataset": rows(1), "data_collator": 5}, ValueError, "data_collator must be callable, but got int"),
    ({"optimizers": 5}, ValueError, "optimizers must be a mindspore.nn.Optimizer, but got int"),
    ({"optimizers": nn.SGD}, ValueError, "optimizers must be a mindspore.nn.Optimizer, but got "),
    ({"tokenizer": "name"}, ValueError, "load one with AutoTokenizer.from_pretrained"),
    ({"compute_metrics": {"EmF1Metric"}}, NotImplementedError, "EmF1Metric is not evaluated here"),
])
def test_what_is_given(tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        Trainer(tiny_config(tmp_path), **given).train()


def test_an_optimizer_of_another_network(tmp_path):
    other = network()
    with pytest.raises(ConfigError, match="11 parameters that are not those of the network, such as model"):
        Trainer(tiny_config(tmp_path), optimizers=nn.SGD(other.trainable_params(), 0.1)).train()
    mine = nn.SGD(other.trainable_params(), 0.1)
    config = tiny_config(tmp_path, context__mode=1, runner_config__stop_step=1)
    assert Trainer(config, model=other, optimizers=mine).train() == 1


def test_no_model_or_no_data(tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"give Trainer\(train_dataset=...\)"):
        Trainer(TrainingArguments(use_cpu=True, output_dir=out), model=network()).train()
    with pytest.raises(ConfigError, match=r"give Trainer\(train_dataset=...\)"):  # not those of the task's own model
        Trainer(TrainingArguments(use_cpu=True, output_dir=out), "text_generation", model=network()).train()
    with pytest.raises(ConfigError, match=r"give Trainer\(model=...\)"):
        Trainer(MindFormerConfig(output_dir=out, trainer={"type": "GeneralTaskTrainer"}), train_dataset=rows(1)).train()
    config = tiny_config(tmp_path)
    del config["train_dataset"], config["train_dataset_task"]
    with pytest.raises(ConfigError, match="no train_dataset_task.type"):
        Trainer(config).train()
    with pytest.raises(ConfigError, match="no eval_dataset_task.type"):
        Trainer(tiny_config(tmp_path), model=network()).evaluate()
    with pytest.raises(ConfigError, match="there is no model to save"):
        Trainer(tiny_config(tmp_path)).save_model()


def test_data_that_does_not_fit_the_model_to_evaluate(tmp_path):
    with pytest.raises(ConfigError, match="token ids up to 37, the model a vocab_size of 30"):
        Trainer(with_evaluation(tmp_path), model=network(vocab_size=30, pad_token_id=29)).evaluate()
    config = with_evaluation(tmp_path, do_eval=True)
    with pytest.raises(ConfigError, match="token ids up to 99, the model a vocab_size of 40"):
        Trainer(config, eval_dataset=rows(99)).train()


def test_checkpoints_that_are_not_there(tmp_path):
    for call, words in ((lambda t: t.train(train_checkpoint=True), "there is no checkpoint in .* to start from"),
                        (lambda t: t.evaluate(eval_checkpoint=True), "there is no checkpoint in"),
                        (lambda t: t.train(resume_training=True), "resume_training: True needs load_checkpoint"),
                        (lambda t: t.evaluate(eval_checkpoint="/nowhere"), "checkpoint '/nowhere' does not exist"),
                        (lambda t: t.finetune(), "finetune needs weights")):
        with pytest.raises((ConfigError, FileNotFoundError), match=words):
            call(Trainer(tiny_config(tmp_path)))


def test_arguments_that_do_not_exist(tmp_path):
    with pytest.raises(TypeError, match="'eval_datset'. Did you mean 'eval_dataset'"):
        Trainer(with_evaluation(tmp_path), model=network()).evaluate(eval_datset=3)


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="output_dir .*file' is a file; give a folder"):
        Trainer(tiny_config(tmp_path, output_dir=str(tmp_path / "file")))
    assert (tmp_path / "file").read_text() == "x"


def test_int8_weights_are_not_trained(tmp_path):
    with pytest.raises(UnsupportedError, match="quantised to 'int8' is not trained"):
        Trainer(tiny_config(tmp_path), model=network().quantize("int8")).train()
