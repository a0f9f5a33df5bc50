"""Predict: prompts from a text, a list or a file; streamed text, result file."""
import shutil
from pathlib import Path

import pytest
import yaml

from mindformers.models.build_model import build_model
from mindformers.tools.errors import ConfigError
from mindformers.trainer import Trainer
from mindformers.trainer.predict import read_prompts, write_results
from trainer_helpers import MODEL, tiny_config


@pytest.fixture
def predictor(tmp_path, tokenizer_file, monkeypatch):
    """A Trainer on random weights that predicts in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    sizes = {**MODEL, "vocab_size": 260, "seq_length": 64, "max_position_embedding": 64, "pad_token_id": 3,
             "eos_token_id": 2, "bos_token_id": 1}
    config = tiny_config(tmp_path, model__model_config=sizes)
    config["processor"] = {"type": "LlamaProcessor", "tokenizer": {"type": "LlamaTokenizerFast", "pad_token": "<pad>",
                                                                   "tokenizer_file": tokenizer_file}}
    return Trainer(config, model=build_model({**config.model, "model_config": sizes}))


def test_prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("def f():\\n    return\n\nzweite Zeile é\n", encoding="utf-8")
    assert read_prompts("one") == ["one"]
    assert read_prompts(["one", "two"]) == ["one", "two"]
    assert read_prompts(str(file)) == ["def f():\n    return", "zweite Zeile é"]
    assert read_prompts(["a", str(file)])[0] == "a" and len(read_prompts(["a", str(file)])) == 3
    assert read_prompts("x" * 5000) == ["x" * 5000]
    file.write_text("\n")
    for nothing in (None, [], str(file)):
        with pytest.raises(ConfigError):
            read_prompts(nothing)
    with pytest.raises(TypeError):
        read_prompts(3)


def test_results_are_utf8_lines(tmp_path):
    write_results([{"a": "é"}, {"a": "漢"}], tmp_path / "r.txt")
    assert (tmp_path / "r.txt").read_bytes().decode("utf-8") == "{'a': 'é'}\n{'a': '漢'}\n"


def test_one_prompt_is_streamed_and_several_are_printed(predictor, tmp_path, capsys):
    one = predictor.predict(input_data="def é(", max_new_tokens=5, do_sample=False)
    text = one[0]["text_generation_text"][0]
    assert text.startswith("def é(") and capsys.readouterr().out.rstrip("\n") == text.rstrip("\n")
    assert (tmp_path / "text_generation_result.txt").read_text(encoding="utf-8") == f"{one[0]}\n"
    predictor.config["save_file"] = str(tmp_path / "mine.txt")
    two = predictor.predict(input_data=["def é(", "class"], max_new_tokens=5, do_sample=False, batch_size=2)
    assert two[0] == one[0] and len(two) == 2
    assert capsys.readouterr().out == "".join(f"{answer['text_generation_text'][0]}\n" for answer in two)
    assert len((tmp_path / "mine.txt").read_text(encoding="utf-8").splitlines()) == 2


def test_weights_and_tokenizer_are_needed(predictor, tmp_path):
    with pytest.raises(ConfigError, match="predict needs weights"):
        Trainer(predictor.config).predict(input_data="x")
    del predictor.config["processor"]
    with pytest.raises(ConfigError, match="predict needs a tokenizer"):
        Trainer(predictor.config, model=predictor.model).predict(input_data="x")


SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "tiny"


def predict_yaml(tmp_path, weights):
    """The shipped model's YAML, whose tokenizer names no file, for weights in another place."""
    path = tmp_path / "predict.yaml"
    path.write_text(yaml.safe_dump({
        "base_config": str(SHIPPED / "predict_llama_tiny.yaml"), "output_dir": str(tmp_path / "output"),
        "load_checkpoint": str(weights), "context": {"mode": 1}, "model": {"model_config": {"max_decode_length": 16}},
        "processor": {"tokenizer": {"type": "LlamaTokenizerFast", "tokenizer_file": None}}}))
    return str(path)


@pytest.mark.parametrize("weights", ["", "model.safetensors"])
def test_a_tokenizer_without_files_is_that_of_the_weights_folder(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = Trainer(predict_yaml(tmp_path, SHIPPED / "llama_tiny" / weights)).predict(input_data="import os")
    assert result["text_generation_text"][0].startswith("import os") and len(result["text_generation_text"][0]) > 12


def test_a_weights_folder_without_a_tokenizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(SHIPPED / "llama_tiny" / name, tmp_path / "weights")
    with pytest.raises(ConfigError, match="names no vocabulary: set vocab_file .*tokenizer_file .*, or put it into the "
                                          "folder of the weights"):
        Trainer(predict_yaml(tmp_path, tmp_path / "weights")).predict(input_data="import os")
