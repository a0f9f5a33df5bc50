"""GenerationConfig: defaults, checks, names, files."""
import copy
import json
import types

import pytest

from mindformers.generation.generation_config import GenerationConfig
from mindformers.generation.generation_fields import FIELDS, REFUSED
from mindformers.tools.errors import ConfigError, UnsupportedError

MINDFORMERS_DEFAULTS = dict(
    max_length=20, max_new_tokens=None, min_length=0, min_new_tokens=None, num_beams=1, do_sample=False,
    temperature=1.0, top_k=50, top_p=1.0, repetition_penalty=1.0, encoder_repetition_penalty=1.0,
    renormalize_logits=False, return_dict_in_generate=False, output_scores=False, output_logits=False,
    pad_token_id=None, bos_token_id=None, eos_token_id=[], parallel_decoding=False, window_size=5, level=5,
    guess_set_size=3)


def test_defaults_are_those_of_mindformers():
    config = GenerationConfig()
    assert {name: getattr(config, name) for name in MINDFORMERS_DEFAULTS} == MINDFORMERS_DEFAULTS


def test_configs_do_not_share_lists():
    first, second = GenerationConfig(), GenerationConfig()
    first.eos_token_id.append(5)
    assert second.eos_token_id == [] and GenerationConfig().eos_token_id == []


@pytest.mark.parametrize("name, value, error, words", [
    ("max_length", "20", TypeError, "max_length must be an int"),
    ("max_length", True, TypeError, "max_length"),
    ("max_new_tokens", 0, ValueError, "at least 1, but is 0"),
    ("do_sample", 1, TypeError, "True or False"),
    ("temperature", 0.0, ValueError, "do_sample=False"),
    ("temperature", "hot", TypeError, "temperature"),
    ("temperature", float("nan"), ValueError, "finite"),
    ("top_k", -1, ValueError, "at least 0"),
    ("top_k", 1.5, TypeError, "top_k"),
    ("top_p", 1.2, ValueError, "at most 1.0, but is 1.2"),
    ("min_p", -0.1, ValueError, "at least 0.0"),
    ("repetition_penalty", 0, ValueError, "more than 0"),
    ("eos_token_id", "</s>", TypeError, "eos_token_id"),
    ("eos_token_id", [2, "x"], TypeError, "each id of eos_token_id"),
    ("bad_words_ids", [3, 4], TypeError, "list of lists"),
    ("bad_words_ids", [[]], ValueError, "empty"),
    ("stop_strings", 5, TypeError, "stop_strings"),
    ("stop_strings", [""], ValueError, "empty string"),
    ("early_stopping", "sometimes", ValueError, "'never'"),
    ("early_stopping", 3, TypeError, "'never'"),
    ("seed", 1.5, TypeError, "seed"),
    ("num_beams", 0, ValueError, "num_beams"),
    ("max_tokens", 5, ConfigError, "no generation setting"),
    ("repetition_penality", 1.1, ConfigError, "Did you mean 'repetition_penalty'"),
])
def test_faulty_values_are_named(name, value, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        GenerationConfig(**{name: value})
    with pytest.raises(error):
        setattr(GenerationConfig(), name, value)


@pytest.mark.parametrize("name, value", [
    ("num_beam_groups", 2), ("parallel_decoding", True), ("penalty_alpha", 0.6), ("typical_p", 0.9),
    ("guidance_scale", 1.5), ("constraints", ["x"]), ("assistant_model", object()), ("window_size", 8),
    ("encoder_repetition_penalty", 1.2), ("output_attentions", True), ("cache_implementation", "static")])
def test_settings_that_are_not_carried_are_refused_by_name(name, value):
    with pytest.raises(UnsupportedError, match=name):
        GenerationConfig(**{name: value})


def test_every_refused_setting_accepts_its_default():
    config = GenerationConfig(**{name: refused.default for name, refused in REFUSED.items()})
    assert config == GenerationConfig()


def test_values_are_normalised():
    config = GenerationConfig(eos_token_id=(5, 6, 5), stop_strings="x", top_k=None, top_p=None, num_beams=None,
                              max_decode_length=7, use_past=False, pad_token_id=None)
    assert (config.eos_token_id, config.stop_strings, config.top_k, config.top_p) == ([5, 6], ["x"], 0, 1.0)
    assert (config.num_beams, config.max_length, config.max_decode_length, config.use_cache) == (1, 7, 7, False)
    assert GenerationConfig(eos_token_id=2).eos_token_id == [2]
    assert GenerationConfig(max_length=9, max_decode_length=7).max_length == 9
    assert GenerationConfig(max_decode_length=7, max_length=9).max_length == 9


@pytest.mark.parametrize("settings, words", [
    (dict(min_new_tokens=5, max_new_tokens=4), "min_new_tokens=5 is more than max_new_tokens=4"),
    (dict(min_length=30), "min_length=30 is more than max_length=20"),
    (dict(num_beams=2, num_return_sequences=3), "num_return_sequences=3 is more than num_beams=2"),
    (dict(num_return_sequences=2), "do_sample=True"),
])
def test_contradictions_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        GenerationConfig(**settings).validate()


def test_update_sets_all_or_nothing_and_returns_the_rest():
    config = GenerationConfig()
    assert config.update(top_k=3, hidden_size=8) == {"hidden_size": 8}
    assert config.top_k == 3
    with pytest.raises(ValueError):
        config.update(temperature=2.0, top_p=7.0)
    assert config.temperature == 1.0


def test_dict_round_trip_and_copy():
    config = GenerationConfig(max_new_tokens=5, eos_token_id=[1, 2], stop_strings=["a"], seed=[1, 2])
    again = GenerationConfig.from_dict(config.to_dict())
    assert again == config and set(config.to_dict()) == {*FIELDS, *REFUSED}
    twin = copy.deepcopy(config)
    twin.eos_token_id.append(3)
    assert config.eos_token_id == [1, 2] and twin != config
    assert "max_new_tokens" in repr(config)


def test_from_dict():
    config, unused = GenerationConfig.from_dict({"top_k": 4, "color": 1}, return_unused_kwargs=True, top_p=0.5)
    assert (config.top_k, config.top_p, unused) == (4, 0.5, {"color": 1})
    with pytest.raises(ConfigError, match="color"):
        GenerationConfig.from_dict({"color": 1})
    with pytest.raises(TypeError):
        GenerationConfig.from_dict([("top_k", 4)])


def test_from_model_config_takes_what_concerns_generation():
    model = types.SimpleNamespace(hidden_size=8, top_k=5, max_decode_length=64, use_past=False, use_cache=False,
                                  eos_token_id=[2, 3], pad_token_id=-1, bos_token_id=None, output_attentions=True,
                                  repetition_penalty=1.1, window_size=4096, num_beam_groups=1)
    config = GenerationConfig.from_model_config(model)
    assert (config.top_k, config.max_length, config.eos_token_id, config.pad_token_id) == (5, 64, [2, 3], None)
    assert config.use_cache is True and config.repetition_penalty == 1.1
    assert GenerationConfig.from_model_config({"top_k": 7, "vocab_size": 3}).top_k == 7
    with pytest.raises(UnsupportedError, match="parallel_decoding"):
        GenerationConfig.from_model_config({"parallel_decoding": True})
    with pytest.raises(ValueError, match="model config.*top_p"):
        GenerationConfig.from_model_config({"top_p": 3})


def test_files(tmp_path):
    config = GenerationConfig(max_new_tokens=5, do_sample=True, eos_token_id=[1, 2], frequency_penalty=0.5)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {
        "do_sample": True, "eos_token_id": [1, 2], "frequency_penalty": 0.5, "max_new_tokens": 5}
    assert GenerationConfig.from_pretrained(tmp_path) == config
    assert GenerationConfig.from_pretrained(tmp_path, max_new_tokens=9).max_new_tokens == 9
    (tmp_path / "hf.json").write_text(json.dumps(
        {"_from_model_config": True, "transformers_version": "4.40.0", "bos_token_id": 1, "eos_token_id": None,
         "temperature": 0.6, "max_length": 4096, "chat_format": "x"}))
    read = GenerationConfig.from_pretrained(tmp_path / "hf.json")
    assert (read.temperature, read.max_length, read.is_explicit("eos_token_id")) == (0.6, 4096, False)
    with pytest.raises(FileNotFoundError, match="generation_config.json"):
        GenerationConfig.from_pretrained(tmp_path / "absent")
    for text, words in (("{", "not valid JSON"), ("[1]", "JSON object"), ('{"top_p": 3}', "top_p")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            GenerationConfig.from_pretrained(tmp_path / "bad.json")
