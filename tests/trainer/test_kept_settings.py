"""What a run was told stays told: load_checkpoint, eval_dataset, the caller's dict, the result file's encoding."""
import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mindformers.models.auto.modeling_auto import AutoModelForCausalLM
from mindformers.tools.errors import ConfigError
from mindformers.trainer import CausalLanguageModelingTrainer, Trainer, TrainingArguments
from trainer_helpers import MODEL, tiny_config, with_evaluation

BYTES = {**MODEL, "vocab_size": 260, "pad_token_id": 3, "eos_token_id": 2, "bos_token_id": 1}


def saved_weights(folder, sizes, seed):
    """Write random weights of `sizes`; return the folder."""
    import mindspore as ms
    ms.set_seed(seed)
    from mindformers.models.build_model import build_model
    build_model({"arch": {"type": "LlamaForCausalLM"}, "model_config": dict(sizes)}).save_pretrained(folder)
    return str(folder)


def test_load_checkpoint_of_the_yaml_is_used_by_every_verb(tmp_path, tokenizer_file, monkeypatch):
    """evaluate(), predict() and finetune() without a checkpoint load the configuration's."""
    monkeypatch.chdir(tmp_path)
    weights = saved_weights(tmp_path / "weights", BYTES, 11)
    loaded = AutoModelForCausalLM.from_pretrained(weights)

    def trainer(**overrides):
        config = with_evaluation(tmp_path, load_checkpoint=weights, model__model_config=BYTES, seed=5, **overrides)
        config["processor"] = {"type": "LlamaProcessor", "tokenizer": {
            "type": "LlamaTokenizerFast", "pad_token": "<pad>", "tokenizer_file": tokenizer_file}}
        return Trainer(config)

    random = CausalLanguageModelingTrainer()
    random.set_config(trainer().config)
    expected = trainer().trainer.evaluate(trainer().config, loaded)["loss"]
    assert trainer().evaluate()["loss"] == pytest.approx(expected, rel=1e-6)
    assert random.evaluate(network=random.create_network())["loss"] != pytest.approx(expected, rel=1e-3)

    answer = trainer().predict(input_data="def f", max_new_tokens=6, do_sample=False)
    same = Trainer(trainer().config, model=loaded).predict(input_data="def f", max_new_tokens=6, do_sample=False)
    assert answer == same

    frozen = trainer(runner_config__stop_step=1, lr_schedule__learning_rate=0.0)
    frozen.finetune()
    tuned = {parameter.name: parameter.asnumpy() for parameter in frozen.model.get_parameters()}
    for parameter in loaded.get_parameters():
        assert np.array_equal(tuned[parameter.name], parameter.asnumpy()), parameter.name


def test_a_given_checkpoint_wins_over_the_yaml(tmp_path):
    first, second = (saved_weights(tmp_path / name, MODEL, seed) for name, seed in (("first", 1), ("second", 2)))
    losses = [Trainer(with_evaluation(tmp_path, load_checkpoint=path)).evaluate()["loss"] for path in (first, second)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)
    trainer = Trainer(with_evaluation(tmp_path, load_checkpoint=first))
    assert trainer.evaluate(eval_checkpoint=second)["loss"] == losses[1]


def test_the_written_configuration_has_every_section_and_runs_again(tmp_path):
    config = with_evaluation(tmp_path, runner_config__stop_step=1, do_eval=True)
    Trainer(config, save_config=True)
    path = tmp_path / "out" / "config.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["eval_dataset"]["data_loader"]["dataset_dir"].endswith("eval.npy")
    assert written["train_dataset"]["data_loader"]["dataset_dir"].endswith("tokens.npy")
    assert written["eval_dataset_task"] == {"type": "CausalLanguageModelDataset"}
    assert set(config.to_dict()) <= set(written)
    again = Trainer(str(path))
    assert again.config.to_dict() == written
    assert again.train() == 1


@pytest.mark.parametrize("kind", ["dict", "MindFormerConfig", "TrainingArguments"])
def test_what_the_caller_gave_is_left_as_it_was(tmp_path, kind):
    config = with_evaluation(tmp_path, runner_config__stop_step=1)
    given = {"dict": config.to_dict(), "MindFormerConfig": config,
             "TrainingArguments": TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)}[kind]
    before = copy.deepcopy(vars(given) if kind == "TrainingArguments" else given)
    if kind == "TrainingArguments":
        Trainer(given, task="text_generation", model_name="llama_tiny")
        assert vars(given) == before
        return
    trainer = Trainer(given)
    trainer.train()
    trainer.evaluate(eval_checkpoint=trainer.get_last_checkpoint())
    assert given == before


def test_a_configuration_without_weights_says_so(tmp_path):
    with pytest.raises(ConfigError, match="eval needs weights: set load_checkpoint"):
        Trainer(with_evaluation(tmp_path)).evaluate()


def test_the_result_file_is_utf8_under_the_c_locale(tmp_path):
    """Python's UTF-8 mode is off here, so that the locale would decide."""
    code = ("from mindformers.trainer.predict import write_results; import locale; "
            "print(locale.getpreferredencoding(False)); write_results([{'a': '\\xe9\\u6f22'}], 'r.txt')")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
                   "PYTHONPATH": str(Path(__file__).parents[2])}
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert b"utf" not in out.stdout.splitlines()[0].lower()  # the locale's own encoding could not write it
    assert (tmp_path / "r.txt").read_bytes().decode("utf-8") == "{'a': 'é漢'}\n"


def test_only_the_first_rank_writes_the_result_file(tmp_path, tokenizer_file, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = saved_weights(tmp_path / "weights", BYTES, 11)
    config = tiny_config(tmp_path, load_checkpoint=weights, model__model_config=BYTES, run_mode="predict")
    config["processor"] = {"type": "LlamaProcessor", "tokenizer": {
        "type": "LlamaTokenizerFast", "pad_token": "<pad>", "tokenizer_file": tokenizer_file}}
    answers = []
    for rank, written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK_ID", rank)
        trainer = CausalLanguageModelingTrainer()
        answers.append(trainer.predict(config, "def é", max_new_tokens=4, do_sample=False))
        assert trainer.rank == int(rank) and (tmp_path / "text_generation_result.txt").exists() is written
    assert answers[0] == answers[1]
