"""LlamaConfig: MindFormers' names and both generations of Hugging Face's config.json are one object, and write back."""
import copy
import json
import math
import subprocess
import sys

import pytest
from safetensors import safe_open

from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.tools.errors import ConfigError
from tests.reference import goldens

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000}
LLAMA_3_8B = {
    **LLAMA_2_7B, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "num_key_value_heads": 8, "rope_theta": 500000.0,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.0.dev0", "vocab_size": 128256}
LLAMA_31_8B = {
    **LLAMA_3_8B, "max_position_embeddings": 131072, "mlp_bias": False, "transformers_version": "4.43.0.dev0",
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"}}
LLAMA_32_1B = {
    **LLAMA_31_8B, "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "tie_word_embeddings": True, "transformers_version": "4.45.0.dev0",
    "rope_scaling": {**LLAMA_31_8B["rope_scaling"], "factor": 32.0}}
PUBLISHED = {"Llama-2-7b": (LLAMA_2_7B, 6_738_415_616), "Llama-3-8B": (LLAMA_3_8B, 8_030_261_248),
             "Llama-3.1-8B": (LLAMA_31_8B, 8_030_261_248), "Llama-3.2-1B": (LLAMA_32_1B, 1_235_814_400)}


def to_v5(old):
    """A published config as transformers 5 would store it."""
    new = copy.deepcopy(old)
    scaling = new.pop("rope_scaling") or {"rope_type": "default"}
    new["rope_parameters"] = {"rope_theta": new.pop("rope_theta", 10000.0), **scaling}
    new["dtype"] = new.pop("torch_dtype")
    return new


def write(folder, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(data))
    return str(folder)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_has_the_right_fields_and_parameter_count(name, tmp_path):
    published, parameters = PUBLISHED[name]
    config = LlamaConfig.from_pretrained(write(tmp_path, published))
    assert config.num_parameters() == parameters
    assert (config.num_layers, config.num_heads, config.hidden_size) == (
        published["num_hidden_layers"], published["num_attention_heads"], published["hidden_size"])
    assert config.kv_heads == published["num_key_value_heads"]
    assert config.head_size == published["hidden_size"] // published["num_attention_heads"]
    assert config.intermediate_size == published["intermediate_size"]
    assert config.vocab_size == published["vocab_size"]
    assert config.theta == published.get("rope_theta", 10000.0)
    assert config.rms_norm_eps == 1e-5
    assert config.param_init_type == published["torch_dtype"]
    assert config.tie_word_embeddings is published["tie_word_embeddings"]
    assert (config.bos_token_id, config.eos_token_id) == (published["bos_token_id"], published["eos_token_id"])
    assert config.pad_token_id is None, "no pad token is published, so none may be invented"
    assert config.max_position_embedding == published["max_position_embeddings"]
    if published["rope_scaling"]:
        assert config.extend_method == "LLAMA3"
        assert config.scaling_factor["factor"] == published["rope_scaling"]["factor"]


def test_parameter_count_notices_a_wrong_field():
    for change in ({"num_key_value_heads": 32}, {"tie_word_embeddings": False}, {"attention_bias": True},
                   {"mlp_bias": True}, {"head_dim": 128}):
        assert LlamaConfig.from_dict({**LLAMA_32_1B, **change}).num_parameters() != 1_235_814_400, change


@pytest.mark.parametrize("case", goldens.CAUSAL)
def test_parameter_count_equals_the_weight_file(case):
    with safe_open(goldens.folder(case) + "/model.safetensors", "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]
    stored = sum(math.prod(shape) for shape in shapes)
    assert LlamaConfig.from_pretrained(goldens.folder(case)).num_parameters() == stored


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_generations_are_the_same_published_config(name, tmp_path):
    old = PUBLISHED[name][0]
    a, b = (LlamaConfig.from_pretrained(write(tmp_path / g, d)) for g, d in (("4", old), ("5", to_v5(old))))
    assert a.to_dict() == b.to_dict()
    altered = to_v5(old)
    altered["rope_parameters"]["rope_theta"] = 12345.0
    assert LlamaConfig.from_dict(altered).to_dict() != a.to_dict()


@pytest.mark.parametrize("case", [*goldens.CAUSAL, "classifier"])
def test_golden_configs_of_both_generations_are_equal_and_write_back(case, tmp_path):
    new, old = goldens.config_json(case, 5), goldens.config_json(case, 4)
    config = LlamaConfig.from_dict(new)
    assert config == LlamaConfig.from_dict(old)
    config.save_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "config.json").read_text())
    theirs = {"transformers_version", "id2label", "label2id"}
    for dialect in (new, old):
        wrong = {key: (written.get(key, "absent"), value) for key, value in dialect.items()
                 if key not in theirs and written.get(key, "absent") != value}
        assert not wrong
    assert LlamaConfig.from_pretrained(str(tmp_path)) == config


@pytest.mark.parametrize("case", goldens.CAUSAL)
def test_mindformers_yaml_round_trip(case, tmp_path):
    config = LlamaConfig.from_pretrained(goldens.folder(case))
    config.save_pretrained(str(tmp_path), save_name="tiny", save_json=False)
    text = (tmp_path / "tiny.yaml").read_text()
    assert "num_layers:" in text and "num_hidden_layers" not in text
    assert LlamaConfig.from_pretrained(str(tmp_path / "tiny.yaml")) == config


# MindFormers' spelling, Hugging Face's spelling of the same model
DIALECTS = {
    "sizes": ({"num_layers": 3, "num_heads": 8, "n_kv_heads": 2, "hidden_size": 64, "head_dim": 16},
              {"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64,
               "head_dim": 16}),
    "theta": ({"theta": 5e5}, {"rope_theta": 5e5}),
    "positions": ({"max_position_embedding": 777}, {"max_position_embeddings": 777}),
    "dtype": ({"param_init_type": "bfloat16"}, {"torch_dtype": "bfloat16"}),
    "dtype 5": ({"param_init_type": "bfloat16"}, {"dtype": "bfloat16"}),
    "torch prefix": ({"param_init_type": "float32"}, {"torch_dtype": "torch.float32"}),
    "biases": ({"qkv_has_bias": True, "attn_proj_has_bias": True}, {"attention_bias": True}),
    "linear": ({"extend_method": "PI", "scaling_factor": 4.0}, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "dynamic": ({"extend_method": "DYNAMIC", "scaling_factor": 2.0},
                {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "llama3": ({"extend_method": "LLAMA3", "theta": 5e5, "scaling_factor": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    "yarn": ({"extend_method": "YARN", "scaling_factor": {"factor": 4.0, "original_max_position_embeddings": 2048}},
             {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}}),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_both_spellings_construct_the_same_object(name):
    ours, theirs = DIALECTS[name]
    assert LlamaConfig(**ours) == LlamaConfig(**theirs)
    assert LlamaConfig(**ours) != LlamaConfig(), "the fields have no effect"


def test_both_spellings_read_and_set_one_value():
    config = LlamaConfig(num_layers=2, num_heads=4, n_kv_heads=2, hidden_size=64, theta=500.0)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (2, 4, 2)
    assert config.rope_theta == config.theta == 500.0
    config.rope_theta = 1000.0
    config.max_position_embeddings = 99
    config.torch_dtype = "bfloat16"
    assert (config.theta, config.max_position_embedding, config.param_init_type) == (1000.0, 99, "bfloat16")
    config.update({"num_hidden_layers": 7})
    assert config.num_layers == 7
    assert LlamaConfig(rope_scaling={"rope_type": "linear", "factor": 2.0}).rope_scaling == {
        "rope_type": "linear", "factor": 2.0}
    assert LlamaConfig().rope_scaling is None
    with pytest.raises(AttributeError, match="num_heads"):
        print(config.num_headz)


def test_keyword_arguments_override_the_file_in_either_spelling():
    folder = goldens.folder("gqa")
    assert LlamaConfig.from_pretrained(folder, seq_length=64).seq_length == 64
    assert LlamaConfig.from_pretrained(folder, num_hidden_layers=1).num_layers == 1
    assert LlamaConfig.from_pretrained(folder, num_layers=1).num_layers == 1


def test_unknown_keys_are_kept_and_written_back(tmp_path):
    config = LlamaConfig.from_pretrained(write(tmp_path / "in", {**LLAMA_2_7B, "max_sequence_length": 2048}))
    assert config.max_sequence_length == 2048 and "max_sequence_length" in config.extra_keys
    config.save_pretrained(str(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["max_sequence_length"] == 2048


def test_several_end_tokens_survive(tmp_path):
    ends = [128001, 128008, 128009]
    config = LlamaConfig.from_pretrained(write(tmp_path, {**LLAMA_31_8B, "eos_token_id": ends}))
    assert config.eos_token_id == ends
    config.save_pretrained(str(tmp_path / "out"))
    assert LlamaConfig.from_pretrained(str(tmp_path / "out")).eos_token_id == ends


def test_width_of_the_mlp_follows_llamas_rule_when_it_is_not_given():
    assert LlamaConfig(hidden_size=4096, multiple_of=256).ffn_size == 11008
    assert LlamaConfig(hidden_size=8192, multiple_of=4096, ffn_dim_multiplier=1.3).ffn_size == 28672
    assert LlamaConfig(hidden_size=4096, intermediate_size=14336).ffn_size == 14336


FAULTS = {
    "heads": ({"hidden_size": 100, "num_attention_heads": 3}, "multiple of num_heads"),
    "kv heads": ({"num_attention_heads": 8, "num_key_value_heads": 3}, "n_kv_heads 3"),
    "odd head": ({"head_dim": 15}, "even"),
    "rope type": ({"rope_scaling": {"rope_type": "liner", "factor": 2.0}}, "linear"),
    "factor": ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "0.5"),
    "rope list": ({"rope_scaling": [8.0]}, r"rope_scaling must be a dict, but is \[8.0\]"),
    "rope type is no text": ({"rope_parameters": {"rope_type": ["linear"]}}, "rope_type must be a text"),
    "no factor": ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
    "llama3 lacks": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    "equal waves": ({"rope_scaling": {**LLAMA_31_8B["rope_scaling"], "low_freq_factor": 4.0}}, "differ"),
    "two bases": ({"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta"),
    "two layers": ({"num_layers": 2, "num_hidden_layers": 3}, "num_layers"),
    "dtype": ({"torch_dtype": "float8"}, "float8"),
    "activation": ({"hidden_act": "gelu"}, "gelu"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_config_is_refused_by_name(name):
    fields, named = FAULTS[name]
    with pytest.raises((ValueError, NotImplementedError), match=named):
        LlamaConfig.from_dict({**LLAMA_2_7B, **fields} if name != "two layers" else fields)


def test_configs_need_no_mindspore():
    code = ("import sys; from mindformers.models.llama.llama_config import LlamaConfig; LlamaConfig(); "
            "sys.exit('mindspore' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("wrong, message", [
    ({"num_layers": 2, "num_hidden_layers": 3}, "num_layers=2 contradicts another spelling of it with 3"),
    ({"theta": 1.0, "rope_theta": 2.0}, "theta=1.0 contradicts"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
     "rope_scaling.rope_type='linear' contradicts rope_parameters.rope_type='default'"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
     "rope_scaling.factor=2.0 contradicts"),
])
def test_spellings_that_contradict_each_other(wrong, message):
    with pytest.raises(ConfigError, match=message):
        LlamaConfig(**wrong)
    both = {"num_layers": 2, "num_hidden_layers": 2, "rope_scaling": {"type": "linear", "factor": 2.0},
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}
    assert LlamaConfig(**both).num_layers == 2 and LlamaConfig(**both).extend_method == "PI"
