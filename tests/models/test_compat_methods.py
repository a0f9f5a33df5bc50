"""Methods and functions on models that code written for MindFormers or transformers calls."""
import logging

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindformers.checkpoint import open_weights
from mindformers.models import compat_methods as compat
from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError
from tests.reference import goldens


FOLDER = goldens.folder("gqa")
SIZES = {"num_layers": 2, "hidden_size": 16, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 32, "param_init_type": "float32", "compute_dtype": "float32", "do_sample": False}


@pytest.fixture(scope="module")
def model():
    return LlamaForCausalLM(LlamaConfig.from_pretrained(FOLDER)).set_train(False)


def hf_weights():
    source = open_weights(FOLDER)
    return {name: source.read(name) for name in source.names()}


# ---- names of weights ----

@pytest.mark.parametrize("theirs, ours", [
    ("model.embed_tokens.weight", "model.tok_embeddings.embedding_weight"),
    ("model.layers.11.self_attn.q_proj.weight", "model.layers.11.attention.wq.weight"),
    ("model.layers.0.self_attn.o_proj.bias", "model.layers.0.attention.wo.bias"),
    ("model.layers.3.mlp.gate_proj.weight", "model.layers.3.feed_forward.w1.weight"),
    ("model.layers.3.input_layernorm.weight", "model.layers.3.attention_norm.weight"),
    ("model.norm.weight", "model.norm_out.weight"), ("lm_head.weight", "lm_head.weight"),
    ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ("something.else", "something.else")])
def test_one_name(theirs, ours):
    assert LlamaForCausalLM.convert_name(theirs) == ours


def test_a_whole_dict(model):
    weights = hf_weights()
    ours = LlamaForCausalLM.convert_weight_dict(weights, model_config=model.config)
    assert set(ours) == {parameter.name for parameter in model.get_parameters()}
    for name, array in weights.items():
        assert np.array_equal(ours[LlamaForCausalLM.convert_name(name)], array)
    packed = LlamaConfig.from_pretrained(FOLDER, qkv_concat=True)
    together = LlamaForCausalLM.convert_weight_dict(weights, model_config=packed)
    parts = [weights[f"model.layers.0.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert np.array_equal(together["model.layers.0.attention.w_qkv.weight"], np.concatenate(parts))
    assert "model.layers.0.attention.wq.weight" not in together
    with pytest.raises(CheckpointMismatchError, match="unknown names: extra"):
        LlamaForCausalLM.convert_weight_dict({**weights, "extra": np.zeros(1, np.float32)}, model_config=model.config)
    with pytest.raises(UnsupportedError, match="give model_config, whose qkv_concat decides"):
        LlamaForCausalLM.convert_weight_dict(weights, qkv_concat=True)


def test_an_index():
    index = {"model.layers.0.self_attn.q_proj.weight": "one", "model.layers.0.self_attn.k_proj.weight": "two",
             "model.layers.0.self_attn.v_proj.weight": "two", "model.rotary_emb.inv_freq": "one",
             "lm_head.weight": "three"}
    assert LlamaForCausalLM.convert_map_dict(index) == {
        "model.layers.0.attention.wq.weight": "one", "model.layers.0.attention.wk.weight": "two",
        "model.layers.0.attention.wv.weight": "two", "lm_head.weight": "three"}
    assert LlamaForCausalLM.convert_map_dict(index, model_config=LlamaConfig(qkv_concat=True)) == {
        "model.layers.0.attention.w_qkv.weight": "one", "lm_head.weight": "three"}


def test_weights_that_the_config_names(tmp_path, caplog):
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(FOLDER))
    before = model.lm_head.weight.asnumpy().copy()
    with caplog.at_level(logging.INFO):
        model.load_checkpoint(model.config)
    assert "checkpoint_name_or_path is empty" in caplog.text
    assert np.array_equal(model.lm_head.weight.asnumpy(), before)
    model.config.checkpoint_name_or_path = FOLDER
    model.load_checkpoint(model.config)
    assert np.array_equal(model.lm_head.weight.asnumpy(), hf_weights()["lm_head.weight"])
    for name, words in (("llama2_7b", "is a known configuration"), ("lama2_7b", "Did you mean 'llama2_7b'"),
                        (str(tmp_path / "absent.ckpt"), "absent.ckpt")):
        model.config.checkpoint_name_or_path = name
        with pytest.raises(ValueError, match=words):
            model.load_checkpoint(model.config)
    model.config.checkpoint_name_or_path = goldens.folder("llama2")
    with pytest.raises(CheckpointMismatchError):
        model.load_checkpoint(model.config)
    assert model.fuse_weight_from_ckpt({"a": 1}) == {"a": 1}
    model.config.type = "LlamaConfig"
    LlamaForCausalLM.remove_type(model.config)
    assert not hasattr(model.config, "type")


# ---- lists and parts ----

def test_lists(model, caplog):
    with caplog.at_level(logging.INFO):
        LlamaForCausalLM.show_support_list()
    assert "LlamaForCausalLM is: " in caplog.text and "llama2_7b" in caplog.text
    assert model.model_tags == ()
    model.add_model_tags("one")
    model.add_model_tags(["two", "one"])
    assert model.model_tags == ("one", "two") and LlamaForCausalLM.model_tags == ()


def test_embeddings_of_tokens(model):
    table = model.get_input_embeddings().embedding_weight.asnumpy()
    tokens = np.array([[3, 0, 95], [7, 7, 1]])
    for given in (tokens, tokens.tolist(), ms.Tensor(tokens, ms.int32)):
        np.testing.assert_array_equal(model.to_embeddings(given).asnumpy(), table[tokens])
    assert model.to_embeddings([4, 5]).shape == (1, 2, 64)
    with pytest.raises(ConfigError, match="token ids must be 0 to 95, but are 3 to 96"):
        model.to_embeddings([3, 96])


def test_memory_of_a_layer(model):
    key, value = model.kvcache(1)
    assert key.shape == value.shape and key is model.kvcache(1)[0] is not model.kvcache(0)[0]
    tokens = np.array([[5, 6, 7]], np.int32)
    with model.make_cache(1, 8) as cache:
        model.forward_step(tokens, np.array([3], np.int32), cache)
        rows = key.asnumpy().reshape(-1, model.config.kv_heads, model.config.head_size)
        assert (np.abs(rows).sum((1, 2)) > 0).sum() >= 3  # three tokens were written into it
    for wrong in (-1, 2, "0"):
        with pytest.raises(ValueError, match="the model has layers 0 to 1"):
            model.kvcache(wrong)


def test_what_is_refused_names_the_way(model):
    for call, words in ((lambda: model.prepare_inputs_for_predict_layout([[1]]), "not sharded"),
                        (lambda: model.set_dynamic_inputs(have_prefix_keys_values=True), "no prefix")):
        with pytest.raises(UnsupportedError, match=words):
            call()
    model.set_dynamic_inputs()
    model.post_init()


def test_gradients_reach_a_trainable_parameter_behind_frozen_ones():
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).set_train()
    model.enable_input_require_grads()
    for parameter in model.get_parameters():
        parameter.requires_grad = parameter.name == "model.layers.0.attention.wq.weight"
    (weight,) = model.trainable_params()
    before = weight.asnumpy().copy()
    nn.TrainOneStepCell(model, nn.SGD([weight], 1.0))(ms.Tensor(np.arange(3, 12, dtype=np.int32)[None]))
    assert np.abs(weight.asnumpy() - before).max() > 0
    model.disable_input_require_grads()


# ---- functions ----

@pytest.mark.parametrize("dtype, size", [
    (ms.float32, 4), (ms.bfloat16, 2), (ms.float16, 2), (ms.int8, 1), (ms.bool_, 1 / 8), (np.float64, 8),
    (np.dtype("uint16"), 2), (np.bool_, 1 / 8), ("int64", 8), ("float8_e4m3fn", 1), (bool, 1 / 8)])
def test_bytes_of_an_element(dtype, size):
    assert compat.dtype_byte_size(dtype) == size


def test_no_dtype():
    for wrong in ("flaot", str, None):
        with pytest.raises(ValueError, match="is not a valid dtype"):
            compat.dtype_byte_size(wrong)


def test_weights_are_shared_among_files():
    weights = {name: np.zeros(size, np.float32) for name, size in (("a", 10), ("b", 20), ("c", 5), ("d", 1))}
    whole, index = compat.shard_checkpoint(weights)
    assert list(whole) == ["mindspore_model.ckpt"] and index is None and whole["mindspore_model.ckpt"] == weights
    files, index = compat.shard_checkpoint(weights, max_shard_size=100, weights_name="w.safetensors")
    assert {file: list(part) for file, part in files.items()} == {
        "w-00001-of-00003.safetensors": ["a"], "w-00002-of-00003.safetensors": ["b", "c"],
        "w-00003-of-00003.safetensors": ["d"]}
    assert index["metadata"] == {"total_size": 144} and index["weight_map"]["d"] == "w-00003-of-00003.safetensors"
    assert all(weights[name] is part[name] for part in files.values() for name in part)


def test_files_of_a_cell_come_back(tmp_path):
    first, second = LlamaForCausalLM(LlamaConfig(**SIZES)), LlamaForCausalLM(LlamaConfig(**SIZES))
    path = compat.save_checkpoint(first, str(tmp_path))
    assert path == str(tmp_path / "mindspore_model.ckpt") and ms.load_checkpoint(path)
    report = compat.load_sharded_checkpoint(second, str(tmp_path))
    assert not report.missing and len(report.loaded) == len(list(second.get_parameters()))
    for one, other in zip(first.get_parameters(), second.get_parameters()):
        assert np.array_equal(one.asnumpy(), other.asnumpy())
    part = {parameter.name: parameter for parameter in list(first.get_parameters())[:3]}
    single = compat.save_checkpoint({**part, "more": np.zeros(2, np.float32)}, str(tmp_path / "part.ckpt"))
    with pytest.raises(CheckpointMismatchError, match="missing"):
        compat.load_sharded_checkpoint(second, single)
    report = compat.load_sharded_checkpoint(second, single, strict=False)
    assert report.unexpected == ["more"] and sorted(report.loaded) == sorted(part)
