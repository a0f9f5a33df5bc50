"""Keys of a configuration: misspelt, extra, of the hub, labels; and its form in a YAML."""
import json
import logging

import pytest
import yaml

from mindformers.models import config_keys
from mindformers.models.auto.auto_factory import as_model_config
from mindformers.models.auto.configuration_auto import AutoConfig
from mindformers.models.build_config import build_model_config
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.tools.errors import ConfigError

HF = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 2,
      "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128}


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(config_keys, "_reported", set())


def folder(path, **values):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**HF, **values}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("slip, meant", [("hidden_sizee", "hidden_size"), ("num_layer", "num_layers"),
                                         ("num_hidden_layer", "num_hidden_layers"), ("vocabsize", "vocab_size"),
                                         ("n_kv_head", "n_kv_heads"), ("temprature", "temperature"),
                                         ("rope_scalling", "rope_scaling"), ("pad_tokens_id", "pad_token_id")])
def test_misspelt_keys_are_refused_wherever_they_stand(tmp_path, slip, meant):
    for make in (lambda: LlamaConfig(**{slip: 3}), lambda: LlamaConfig.from_dict({**HF, slip: 3}),
                 lambda: LlamaConfig.from_dict(HF, **{slip: 3}),
                 lambda: AutoConfig.from_pretrained(folder(tmp_path / "x", **{slip: 3})),
                 lambda: AutoConfig.from_pretrained(folder(tmp_path / "y"), **{slip: 3}),
                 lambda: LlamaConfig.from_pretrained(folder(tmp_path / "y"), **{slip: 3}),
                 lambda: as_model_config(LlamaConfig(), **{slip: 3})):
        with pytest.raises(ConfigError, match=f"{slip}.*Did you mean '{meant}'"):
            make()


def test_other_keys_are_kept_and_reported_once(tmp_path, caplog):
    path = folder(tmp_path / "x", mystery=3, id2label={"0": "good", "1": "bad"}, label2id={"good": 0, "bad": 1},
                  _name_or_path="somewhere", use_bfloat16=False, num_return_sequences=1, max_sequence_length=2048,
                  auto_map={}, torchscript=False, typical_p=1.0)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            config = AutoConfig.from_pretrained(path)
        LlamaConfig(mystery=4)
    assert config.mystery == 3 and json.loads(config.to_json_string())["mystery"] == 3
    told = [record.getMessage() for record in caplog.records if "does not use" in record.getMessage()]
    assert told == ["LlamaConfig keeps keys that it does not use: mystery"]


@pytest.mark.parametrize("values, words", [
    ({"num_labels": 0}, "num_labels must be a positive integer, but is 0"),
    ({"batch_size": 0}, "batch_size must be a positive integer, but is 0"),
    ({"multiple_of": 0}, "multiple_of must be a positive integer"),
    ({"vocab_size": 96, "pad_token_id": 96}, "pad_token_id must be a token of the vocabulary, 0 to 95, or null, but"),
    ({"pad_token_id": -2}, "pad_token_id must be a token"),
    ({"pad_token_id": "0"}, "pad_token_id must be a token"),
    ({"temperature": -1}, "temperature must be more than 0.0, but is -1.0"),
    ({"top_p": 2.0}, "top_p must be at most 1.0, but is 2.0"),
    ({"top_k": -1}, "top_k must be at least 0"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be more than 0.0"),
    ({"do_sample": "no"}, "do_sample must be True or False"),
    ({"problem_type": "regresion"}, "Did you mean 'regression'"),
    ({"init_method_std": -0.1}, "init_method_std must be a number >= 0"),
    ({"num_labels": 3, "id2label": {0: "a", 1: "b"}}, "num_labels=3 but id2label names 2"),
    ({"id2label": ["a", "b"]}, "id2label must map numbers to names"),
])
def test_values_that_no_model_could_honour(values, words):
    with pytest.raises(ConfigError, match=words):
        LlamaConfig(**values)


def test_all_faults_come_at_once():
    with pytest.raises(ConfigError, match="(?s)num_labels.*pad_token_id.*temperature"):
        LlamaConfig(num_labels=0, pad_token_id=99999, temperature=-1)


def test_no_padding_token_has_two_spellings():
    assert LlamaConfig(pad_token_id=None).pad_token_id is None and LlamaConfig(pad_token_id=-1).pad_token_id == -1


def test_labels(tmp_path):
    path = folder(tmp_path / "x", id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2})
    config = AutoConfig.from_pretrained(path)
    assert config.num_labels == 3 and config.id2label == {0: "a", 1: "b", 2: "c"}
    config.save_pretrained(str(tmp_path / "y"))
    again = AutoConfig.from_pretrained(str(tmp_path / "y"))
    assert (again.num_labels, again.id2label, again.label2id) == (3, config.id2label, config.label2id)
    other = AutoConfig.from_pretrained(path, num_labels=5)  # another head: the names of the file do not apply
    assert other.num_labels == 5 and other.id2label is None and other.label2id is None
    assert LlamaConfig().num_labels == 2


def test_arguments_of_the_hubs_have_no_effect_on_a_folder(tmp_path):
    path = folder(tmp_path / "x")
    hub = {"revision": "main", "token": "t", "cache_dir": "c", "local_files_only": True, "force_download": True}
    assert AutoConfig.from_pretrained(path, **hub) == AutoConfig.from_pretrained(path)
    assert LlamaConfig.from_pretrained(path, **hub) == LlamaConfig.from_pretrained(path)
    for read in (AutoConfig, LlamaConfig):
        with pytest.raises(ValueError, match="give only token"):
            read.from_pretrained(path, token="a", use_auth_token="b")
    (tmp_path / "outer").mkdir()
    folder(tmp_path / "outer" / "inner", num_hidden_layers=7)
    assert AutoConfig.from_pretrained(str(tmp_path / "outer"), subfolder="inner").num_layers == 7


def test_overrides_of_an_object_go_by_either_spelling():
    config = LlamaConfig(num_layers=4)
    assert as_model_config(config, num_hidden_layers=2).num_layers == 2
    assert as_model_config(config, num_layers=3).num_layers == 3 and config.num_layers == 4


def test_saving_onto_a_file_is_one_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in ("file", "file/below"):
        with pytest.raises(NotADirectoryError, match="save_directory .* is a file or lies below one"):
            LlamaConfig().save_pretrained(str(tmp_path / target))
    assert (tmp_path / "file").read_text() == "x"
    with pytest.raises(TypeError, match="'repoid'. Did you mean 'repo_id'"):
        LlamaConfig().save_pretrained(str(tmp_path / "out"), push_to_hub=True, repoid="me/it")
    assert not (tmp_path / "out").exists()


def test_the_form_for_a_yaml_reads_back_and_changes_nothing():
    config = LlamaConfig(num_layers=3, extend_method="PI", scaling_factor=2.0, parallel_config={"data_parallel": 2})
    before = config.to_dict()
    section = config.inverse_parse_config()
    assert section["type"] == "LlamaConfig" and section["num_layers"] == 3 and "hidden_size" not in section
    assert build_model_config(yaml.safe_load(yaml.safe_dump(section))) == config
    assert config.to_dict() == before and "type" not in vars(config)


def test_remove_type_drops_what_a_yaml_put_beside_the_fields():
    config = LlamaConfig(type="LlamaConfig", num_layers=3)
    config.remove_type()
    config.type = "LlamaConfig"
    assert config.to_dict()["type"] == "LlamaConfig"
    config.remove_type()
    assert "type" not in config.to_dict() and config == LlamaConfig(num_layers=3)
