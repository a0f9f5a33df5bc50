"""Folders that transformers saved load with its logits; what from_pretrained and save_pretrained say of files.

tests/reference/make_transformers_folders.py made the folders; tests/reference/saved_folders.py is the other direction.
"""
import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from mindformers.models.glm2 import ChatGLM2Config, ChatGLM2ForConditionalGeneration
from mindformers.tools.errors import CheckpointMismatchError, ConfigError

ms.set_device("CPU")
FOLDERS = Path(__file__).resolve().parents[1] / "reference" / "folders"
VARIANTS = {"variant": "fp16", "variant_sharded": "fp16"}
SIZES = {"hidden_size": 32, "num_layers": 2, "vocab_size": 40, "seq_length": 64, "param_init_type": "float32",
         "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def llama(**fields):
    heads = {"num_heads": 4, "n_kv_heads": 2, "intermediate_size": 48}
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **heads, **fields}))


def glm(**fields):
    return ChatGLM2ForConditionalGeneration(ChatGLM2Config(
        **{**SIZES, "num_attention_heads": 4, "multi_query_group_num": 2, "kv_channels": 8, "ffn_hidden_size": 48,
           **fields}))


FAMILIES = pytest.mark.parametrize("build", [llama, glm], ids=["llama", "glm"])


def weights(model):
    return {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}


def same(first, second):
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize("case", ["sharded", "tied_bfloat16", "variant", "variant_sharded", "glm_sharded",
                                  "bin_sharded"])
def test_what_transformers_saved_gives_its_logits(case):
    expected = np.load(FOLDERS / case / "expected.npz")
    model, info = AutoModelForCausalLM.from_pretrained(FOLDERS / case, dtype="float32", variant=VARIANTS.get(case),
                                                       output_loading_info=True)
    assert not any(info.values())
    logits = model(expected["input_ids"]).logits.asnumpy()
    assert np.abs(logits - expected["logits"]).max() < 1e-5 * max(1.0, np.abs(expected["logits"]).max())
    assert model.generation_config.eos_token_id == [2]
    last = model.get_input_embeddings().embedding_weight  # the control: a little of one weight shows
    last.set_data(ms.Tensor(last.asnumpy() * 1.01))
    changed = model(expected["input_ids"]).logits.asnumpy()
    assert np.abs(changed - expected["logits"]).max() > 1e-4


def test_every_folder_was_looked_at():
    assert len([path for path in FOLDERS.iterdir() if path.is_dir()]) == 6


def test_use_safetensors_chooses_or_refuses(tmp_path):
    for file in (*(FOLDERS / "sharded").iterdir(), *(FOLDERS / "bin_sharded").iterdir()):
        shutil.copy(file, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    for choice in (True, False):
        assert same(plain, AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=choice))
    for file in tmp_path.glob("*.bin"):
        file.write_bytes(b"")
    assert same(plain, AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True))
    with pytest.raises(ValueError, match="pytorch_model-0000.-of-00004.bin is damaged"):
        AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=False)
    with pytest.raises(FileNotFoundError, match="use_safetensors=False asks for no safetensors"):
        AutoModelForCausalLM.from_pretrained(FOLDERS / "sharded", use_safetensors=False)
    with pytest.raises(FileNotFoundError, match="use_safetensors=True asks for safetensors only"):
        AutoModelForCausalLM.from_pretrained(FOLDERS / "bin_sharded", use_safetensors=True)


@FAMILIES
def test_saved_shards_index_and_variant(build, tmp_path):
    model = build()
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path, max_shard_size="12KB", variant="mine")
    names = {path.name for path in tmp_path.iterdir()}
    shards = {name for name in names if name.startswith("model.mine-0000")}
    assert len(shards) > 2 and names - shards >= {"config.json", "generation_config.json",
                                                  "model.safetensors.index.mine.json"}
    index = json.loads((tmp_path / "model.safetensors.index.mine.json").read_text())
    assert set(index["weight_map"].values()) == shards
    assert index["metadata"]["total_size"] == model.get_memory_footprint()
    loaded = type(model).from_pretrained(tmp_path, variant="mine")
    assert same(model, loaded) and loaded.generation_config.max_new_tokens == 7
    with pytest.raises(FileNotFoundError, match="variant 'other'"):
        type(model).from_pretrained(tmp_path, variant="other")
    with pytest.raises(ValueError, match="size 0 must be at least one byte"):
        model.save_pretrained(tmp_path, max_shard_size=0)


@FAMILIES
def test_other_processes_write_nothing_and_subfolders_are_found(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path / "nothing", is_main_process=False)
    assert not (tmp_path / "nothing").exists()
    model.save_pretrained(tmp_path / "below")
    assert same(model, AutoModelForCausalLM.from_pretrained(tmp_path, subfolder="below"))


@FAMILIES
def test_state_dict_saves_and_loads_in_place_of_the_own_weights(build, tmp_path):
    model = build()
    other = {name: value + np.float32(1) for name, value in weights(model).items()}
    model.save_pretrained(tmp_path, state_dict=other)
    loaded = type(model).from_pretrained(tmp_path)
    assert all((value == other[name]).all() for name, value in weights(loaded).items())
    again = type(model).from_pretrained(tmp_path, state_dict=weights(model))
    assert same(model, again)
    named = type(model).weight_map().to_hf(weights(model), model.config)
    theirs = type(model).from_pretrained(tmp_path, state_dict={name: named.read(name) for name in named.names()})
    assert same(model, theirs)


@FAMILIES
def test_loading_info_and_sizes_that_differ(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="of another shape"):
        type(model).from_pretrained(tmp_path, vocab_size=48)
    loaded, info = type(model).from_pretrained(tmp_path, vocab_size=48, ignore_mismatched_sizes=True,
                                               output_loading_info=True, low_cpu_mem_usage=True,
                                               attn_implementation="eager")
    assert len(info["mismatched_keys"]) == 2 and not info["missing_keys"] and not info["unexpected_keys"]
    assert {name for name, *_ in info["mismatched_keys"]} < {name for name in weights(loaded)}
    assert set(info) == {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"}
    extra = {**weights(model), "lm_head.bias": np.zeros(40, np.float32)}
    with pytest.raises(CheckpointMismatchError, match="lm_head.bias"):
        type(model).from_pretrained(tmp_path, state_dict=extra)


@FAMILIES
def test_the_methods_of_a_model(build):
    """Every name that transformers' users call is there and answers."""
    model = build()
    total = sum(value.size for value in weights(model).values())
    table = model.get_input_embeddings().embedding_weight
    assert model.num_parameters() == total
    assert model.num_parameters(exclude_embeddings=True) == total - table.size
    table.requires_grad = False
    assert model.num_parameters(only_trainable=True) == total - table.size
    assert model.get_memory_footprint() == 4 * total
    assert model.can_generate() and not model.is_parallelizable and model.main_input_name == "input_ids"
    assert model.config_class is type(model.config) and getattr(model, model.base_model_prefix) is not None
    assert build().quantize("int8").num_parameters() == total, "scales are no parameters"
    model.add_model_tags("finance")
    model.add_model_tags(["finance", "german"])
    assert list(model.model_tags) == ["finance", "german"]
    assert model.get_output_embeddings() is not table
    model.enable_input_require_grads()
    model.disable_input_require_grads()
    model.tie_weights()
    assert model.resize_token_embeddings(41, pad_to_multiple_of=8).embedding_weight.shape[0] == 48
    assert model.config.vocab_size == 48
    before = model.num_parameters()
    model.prune_heads({0: [1, 3], 1: [0, 2]})
    assert model.num_parameters() < before


@FAMILIES
def test_input_embeddings_may_be_given_and_replaced(build):
    model = build().set_train(False)
    tokens = np.array([[3, 9, 4]], np.int32)
    table = model.get_input_embeddings().embedding_weight.asnumpy()
    by_rows = model(inputs_embeds=table[tokens]).logits.asnumpy()
    np.testing.assert_allclose(by_rows, model(tokens).logits.asnumpy(), atol=1e-5)
    other = build()
    model.set_input_embeddings(other.get_input_embeddings())
    assert (model.get_input_embeddings().embedding_weight.asnumpy()
            == other.get_input_embeddings().embedding_weight.asnumpy()).all()


# ---- the configuration of a folder ----

OWN = {"AutoConfig": "configuration_chatglm.ChatGLMConfig", "AutoModel": "modeling_chatglm.ChatGLMModel",
       "AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}
ELSEWHERE = {"AutoModelForCausalLM": "THUDM/chatglm2-6b--modeling_chatglm.ChatGLMForConditionalGeneration"}


@pytest.mark.parametrize("names", ["hf", "mindformers"])
@pytest.mark.parametrize("given, carried, expected", [
    (OWN, (), None), ({**OWN, **ELSEWHERE}, (), ELSEWHERE),
    (OWN, ("modeling_chatglm",), {"AutoModel": OWN["AutoModel"]}),
    (OWN, ("configuration_chatglm", "modeling_chatglm", "tokenization_chatglm"), OWN)])
def test_auto_map_names_code_that_is_there(given, carried, expected, names, tmp_path):
    model = glm(auto_map=given)
    for name in carried:
        (tmp_path / f"{name}.py").write_text("")
    model.save_pretrained(tmp_path, names=names)
    assert model.config.auto_map == given
    assert getattr(type(model.config).from_pretrained(tmp_path), "auto_map", None) == expected


@FAMILIES
def test_where_a_model_came_from(build, tmp_path):
    build().save_pretrained(tmp_path)
    kind = type(build())
    other = kind.from_pretrained(tmp_path).config
    other.name_or_path = "elsewhere"
    for options in ({}, {"dtype": "float32"}, {"config": other}, {"config": other, "dtype": "float16"}):
        model = kind.from_pretrained(tmp_path, **options)
        assert model.name_or_path == model.config.name_or_path == str(tmp_path), options
    assert other.name_or_path == "elsewhere"


@FAMILIES
def test_two_names_of_the_dtype(build, tmp_path):
    build().save_pretrained(tmp_path)
    kind = type(build())
    for options in ({"dtype": None, "torch_dtype": "float16"}, {"dtype": "float16", "torch_dtype": None},
                    {"dtype": "float16", "torch_dtype": "torch.float16"}, {"dtype": ms.float16}):
        model = kind.from_pretrained(tmp_path, **options)
        assert {value.dtype for value in weights(model).values()} == {np.dtype(np.float16)}, options
    with pytest.raises(ConfigError, match="dtype='float16' contradicts torch_dtype='float32'"):
        kind.from_pretrained(tmp_path, dtype="float16", torch_dtype="float32")


@FAMILIES
def test_configs_that_cannot_be_meant(build, tmp_path):
    build().save_pretrained(tmp_path)
    kind = type(build())
    own, other = kind.config_class, {LlamaConfig: ChatGLM2Config, ChatGLM2Config: LlamaConfig}[kind.config_class]
    with pytest.raises(ConfigError, match=f"is a dict; make one of a dict with {own.__name__}.from_dict"):
        kind.from_pretrained(tmp_path, config={"num_layers": 1})
    with pytest.raises(ConfigError, match=f"is a {other.__name__}, but this model has a {own.__name__}"):
        kind.from_pretrained(tmp_path, config=other(num_layers=2))
    with pytest.raises(ConfigError, match="num_layers=1 does not change a config .* set config.num_layers before"):
        AutoModelForCausalLM.from_pretrained(tmp_path, config=build().config, num_layers=1)


@pytest.mark.parametrize("form", [{"format": "ckpt"}, {"names": "mindformers"}, {}], ids=str)
@pytest.mark.parametrize("earlier", [{"format": "ckpt"}, {}], ids=str)
def test_a_folder_has_the_configuration_of_what_was_saved_last(earlier, form, tmp_path):
    fields = dict(num_layers=1, hidden_size=16, num_heads=2, intermediate_size=24, vocab_size=40, seq_length=32)
    for eps, options in ((1e-3, earlier), (1e-4, form)):
        LlamaForCausalLM(LlamaConfig(**fields, rms_norm_eps=eps)).save_pretrained(tmp_path, **options)
    assert AutoConfig.from_pretrained(tmp_path).rms_norm_eps == 1e-4
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.rms_norm_eps == 1e-4
