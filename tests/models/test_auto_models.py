"""AutoConfig, AutoModel and friends, from_pretrained, save_pretrained and convert, on tiny folders."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mindformers import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM,
                         AutoModelForSequenceClassification, ChatGLM2Config, ChatGLM2ForConditionalGeneration,
                         LlamaConfig, LlamaForCausalLM, MindFormerConfig)
from mindformers.models.auto.convert import convert_checkpoint
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError

SIZES = dict(hidden_size=32, num_layers=2, num_heads=4, n_kv_heads=2, intermediate_size=48, vocab_size=64,
             seq_length=64, param_init_type="float32", compute_dtype="float32", pad_token_id=None)
GLM = dict(model_type="chatglm", num_layers=2, padded_vocab_size=64, hidden_size=32, ffn_hidden_size=48, kv_channels=8,
           num_attention_heads=4, multi_query_attention=True, multi_query_group_num=2, seq_length=64,
           torch_dtype="float32", eos_token_id=2, pad_token_id=0)
IDS = np.array([[1, 5, 9, 33, 2, 7]], np.int32)


@pytest.fixture(scope="module")
def model():
    return LlamaForCausalLM(LlamaConfig(**SIZES)).set_train(False)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path


def same_weights(a, b):
    ours, theirs = ({p.name: p.asnumpy() for p in m.get_parameters()} for m in (a, b))
    return ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.parametrize("options, files", [
    ({}, {"config.json", "model.safetensors"}),
    ({"max_shard_size": "20KB"}, {"config.json", "model.safetensors.index.json"}),
    ({"names": "mindformers"}, {"mindspore_model.yaml", "mindspore_model.safetensors"}),
    ({"format": "ckpt"}, {"mindspore_model.yaml", "mindspore_model.ckpt"}),
    ({"safe_serialization": False, "save_name": "mine"}, {"mine.yaml", "mine.ckpt"}),
    ({"variant": "fp32"}, {"model.fp32.safetensors"}),
])
def test_save_then_load_gives_the_same_model(model, tmp_path, options, files):
    model.save_pretrained(tmp_path, **options)
    assert files <= {path.name for path in tmp_path.iterdir()}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, variant=options.get("variant"))
    assert same_weights(model, loaded) and not loaded.training
    derived = {"architectures", "head_dim", "max_position_embedding"}  # written out where they were left to a rule
    assert {key: value for key, value in loaded.config.to_dict().items() if key not in derived} == {
        key: value for key, value in model.config.to_dict().items() if key not in derived}
    assert loaded.config.head_size == model.config.head_size


def test_loading_info_dtype_and_fewer_layers(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, num_layers=1)
    assert model.config.num_layers == 1 and info["missing_keys"] == []
    assert any("layers.1." in name for name in info["unexpected_keys"])
    half = AutoModelForCausalLM.from_pretrained(folder, torch_dtype="bfloat16")
    assert half.config.param_init_type == "bfloat16" and half.get_memory_footprint() == 2 * half.num_parameters()


def test_state_dict_in_place_of_the_files(folder, model):
    weights = {p.name: p.asnumpy() + 1 for p in model.get_parameters()}
    loaded = AutoModelForCausalLM.from_pretrained(folder, state_dict=weights)
    assert (loaded.lm_head.weight.asnumpy() == weights["lm_head.weight"]).all()


def test_backbone_and_classifier_of_a_causal_folder(folder):
    backbone = AutoModel.from_pretrained(folder)
    assert backbone(IDS).last_hidden_state.shape == (1, 6, 32)
    classifier, info = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3,
                                                                          output_loading_info=True)
    assert info["missing_keys"] == ["score.weight"]
    out = classifier(IDS, labels=[2])
    assert out.logits.shape == (1, 3) and out.loss.asnumpy() > 0
    classifier.set_train()
    from mindspore import Tensor
    assert np.isfinite(classifier(Tensor(IDS), Tensor(np.array([2], np.int32))).asnumpy())


def test_mismatches_are_one_error_and_may_be_ignored(folder):
    with pytest.raises(CheckpointMismatchError, match="lm_head.weight"):
        AutoModelForCausalLM.from_pretrained(folder, vocab_size=60)
    _, info = AutoModelForCausalLM.from_pretrained(folder, vocab_size=60, ignore_mismatched_sizes=True,
                                                   output_loading_info=True)
    assert len(info["mismatched_keys"]) == 2


@pytest.mark.parametrize("call, error, message", [
    (lambda f: AutoModelForCausalLM(), EnvironmentError, "from_pretrained"),
    (lambda f: AutoConfig(), EnvironmentError, "from_pretrained"),
    (lambda f: AutoModelForCausalLM.from_pretrained(f, dtpe="x"), TypeError, "Did you mean 'dtype'"),
    (lambda f: AutoModelForCausalLM.from_pretrained(f, dtype="float8"), ConfigError, "param_init_type"),
    (lambda f: AutoModelForCausalLM.from_pretrained(3), TypeError, "should be a str"),
    (lambda f: AutoModelForCausalLM.from_pretrained("llama2_7"), FileNotFoundError, "llama2_7b"),
    (lambda f: AutoModelForCausalLM.from_pretrained("llama_tiny", load_checkpoint="x"), TypeError, "load_checkpoint"),
    (lambda f: AutoModelForCausalLM.from_pretrained("llama2_7b", local_files_only=True, cache_dir=f), OSError,
     "meta-llama/Llama-2-7b-hf"),
    (lambda f: AutoModelForCausalLM.from_pretrained(f, from_tf=True), UnsupportedError, "TensorFlow"),
    (lambda f: AutoModelForMaskedLM.from_pretrained(f), UnsupportedError, "BERT"),
    (lambda f: AutoModelForCausalLM.from_config(3), ValueError, "PretrainedConfig"),
    (lambda f: AutoConfig.from_pretrained(3), ValueError, "should be a str"),
    (lambda f: AutoConfig.from_pretrained(f, hiden_size=3), ConfigError, "hidden_size"),
    (lambda f: AutoConfig.for_model("lama"), ValueError, "llama"),
])
def test_wrong_use_is_a_clear_error(folder, call, error, message):
    with pytest.raises(error, match=message):
        call(str(folder))


def test_the_documented_sample_runs_offline():
    config = AutoConfig.from_pretrained("llama2_7b", num_layers=1, hidden_size=64, intermediate_size=64,
                                        vocab_size=100, num_heads=4)
    model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, LlamaForCausalLM) and model.config.num_layers == 1


def test_from_config_takes_yaml_object_and_path(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(LlamaConfig(**SIZES).to_yaml())
    for given in (str(path), MindFormerConfig(str(path)), LlamaConfig(**SIZES)):
        assert AutoModelForCausalLM.from_config(given, num_layers=1).config.num_layers == 1


def test_a_head_that_a_family_lacks_is_not_replaced_by_another(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**GLM, "architectures": ["ChatGLM2ForConditionalGeneration"]}))
    for call in (AutoModelForSequenceClassification.from_pretrained, AutoModelForSequenceClassification.from_config):
        with pytest.raises(ValueError, match="ChatGLM2Config for AutoModelForSequenceClassification"):
            call(str(tmp_path))


def test_architectures_choose_among_the_classes_of_a_kind():
    class OwnConfig(LlamaConfig):
        """Not registered for any model."""

    config = OwnConfig(**SIZES, architectures=["LlamaForSequenceClassification", "LlamaForCausalLM"])
    assert AutoModelForCausalLM.model_class(config) is LlamaForCausalLM
    with pytest.raises(ValueError, match="OwnConfig for AutoModel;"):
        AutoModel.model_class(config)


def test_models_of_one_config_do_not_share_it():
    config = LlamaConfig(**SIZES)
    first, second = AutoModelForCausalLM.from_config(config), AutoModelForCausalLM.from_config(config)
    first.resize_token_embeddings(70)
    assert (first.config.vocab_size, second.config.vocab_size, config.vocab_size) == (70, 64, 64)


def test_a_config_and_weights_need_no_name(model):
    weights = {p.name: p.asnumpy() for p in model.get_parameters()}
    loaded = AutoModelForCausalLM.from_pretrained(None, config=LlamaConfig(**SIZES), state_dict=weights)
    assert same_weights(model, loaded)
    for given in ({}, {"config": LlamaConfig(**SIZES)}, {"state_dict": weights}):
        with pytest.raises(TypeError, match="should be a str, but got NoneType"):
            AutoModelForCausalLM.from_pretrained(None, **given)


def test_a_yaml_with_a_prefix_gives_a_model_with_a_prefix(tmp_path):
    sizes = {key: value for key, value in GLM.items() if key not in ("model_type", "torch_dtype")}
    pet = {"pet_type": "ptuning2", "pre_seq_len": 3}
    section = {"model_config": {"type": "ChatGLM2Config", **sizes, "pet_config": pet},
               "arch": {"type": "ChatGLM2WithPtuning2"}}
    (tmp_path / "model.yaml").write_text(json.dumps({"model": section}))  # JSON is YAML
    model = AutoModelForCausalLM.from_config(str(tmp_path / "model.yaml"))
    assert model.transformer.past_length == 3 and model.num_parameters() == model.config.num_parameters()


@pytest.mark.parametrize("config_class, model_class, sizes", [
    (LlamaConfig, LlamaForCausalLM, SIZES), (ChatGLM2Config, ChatGLM2ForConditionalGeneration, GLM)])
def test_a_registered_family_keeps_its_type(config_class, model_class, sizes, tmp_path):
    kind = f"own_{config_class.model_type}"
    own_config = type(f"Own{config_class.__name__}", (config_class,), {"model_type": kind})
    own_model = type(f"Own{model_class.__name__}", (model_class,), {"config_class": own_config})
    AutoConfig.register(kind, own_config)
    AutoModelForCausalLM.register(own_config, own_model)
    model = own_model(own_config.from_dict({**sizes, "model_type": kind}))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is own_model and type(loaded.config) is own_config and same_weights(model, loaded)


def test_register_adds_a_pair_and_refuses_a_second(monkeypatch):
    class TwinConfig(LlamaConfig):
        """A family of its own."""

        model_type = "twin"

    class Twin(LlamaForCausalLM):
        """Its model."""

        config_class = TwinConfig

    AutoConfig.register("twin", TwinConfig)
    AutoModelForCausalLM.register(TwinConfig, Twin)
    assert isinstance(AutoModelForCausalLM.from_config(TwinConfig(**SIZES)), Twin)
    with pytest.raises(ValueError, match="already used"):
        AutoConfig.register("twin", TwinConfig)
    with pytest.raises(ValueError, match="already used"):
        AutoModelForCausalLM.register(TwinConfig, Twin)
    AutoModelForCausalLM.register(TwinConfig, Twin, exist_ok=True)
    with pytest.raises(ValueError, match="config_class"):
        AutoModelForCausalLM.register(LlamaConfig, Twin, exist_ok=True)


def test_remote_code_runs_only_when_trusted(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from mindformers import LlamaConfig\n\n\nclass MineConfig(LlamaConfig):\n    model_type = 'mine'\n")
    data = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig"}, "num_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoConfig.from_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)).__name__ == "MineConfig"
    for reference in ("../mine.MineConfig", "mine", "a/b.MineConfig"):
        data["auto_map"]["AutoConfig"] = reference
        (tmp_path / "config.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match="file.Class"):
            AutoConfig.from_pretrained(tmp_path, trust_remote_code=True)


@pytest.mark.parametrize("text, error", [("{", "not valid JSON"), ("[]", "JSON object"), ("{}", "model_type")])
def test_broken_config_json(tmp_path, text, error):
    target = tmp_path / "none"
    target.mkdir()
    (target / "config.json").write_text(text)
    with pytest.raises(ValueError, match=error):
        AutoConfig.from_pretrained(target)


def test_convert_both_ways_is_bit_for_bit(folder, model, tmp_path):
    convert_checkpoint(str(folder), str(tmp_path / "ms"), to="mindformers")
    assert (tmp_path / "ms" / "mindspore_model.ckpt").is_file()
    convert_checkpoint(str(tmp_path / "ms"), str(tmp_path / "hf"), to="hf")
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == (Path(folder) / "model.safetensors").read_bytes()
    assert same_weights(model, AutoModelForCausalLM.from_pretrained(tmp_path / "hf"))


def test_convert_refuses_what_would_lose_something(folder, tmp_path):
    with pytest.raises(ConfigError, match="overwrite"):
        convert_checkpoint(str(folder), str(folder))
    with pytest.raises(ConfigError, match="Did you mean 'hf'"):
        convert_checkpoint(str(folder), str(tmp_path), to="hff")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(Path(folder) / "config.json", empty)
    with pytest.raises(FileNotFoundError, match="empty"):
        convert_checkpoint(str(empty), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_wrong_calls_of_a_model(model):
    with pytest.raises(TypeError, match="Did you mean 'attention_mask'"):
        model(IDS, atention_mask=IDS)
    with pytest.raises(ConfigError, match="outside the vocabulary of 64"):
        model([[64]])
    with pytest.raises(ConfigError, match="rectangular"):
        model([[1, 2], [3]])
    with pytest.raises(ConfigError, match="exactly one"):
        model()
    with pytest.raises(ConfigError, match="does not fit"):
        model(IDS, attention_mask=[[1, 1]])
    with pytest.raises(ValueError, match="PretrainedConfig"):
        LlamaForCausalLM({"hidden_size": 3})


def test_outputs_are_named_indexed_and_iterable(model):
    out = model(IDS, labels=IDS, output_hidden_states=True)
    assert out.keys() == ["loss", "logits", "hidden_states"]
    assert out[0] is out.loss and out["logits"] is out.logits and len(out) == 3 and "attentions" not in out
    logits, tokens, mask = model(IDS, return_dict=False)
    assert (logits.asnumpy() == out.logits.asnumpy()).all() and tokens.shape == mask.shape == (1, 6)
