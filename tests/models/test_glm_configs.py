"""ChatGLM2Config and GlmConfig: MindFormers' names, the published config.json and transformers' are one object."""
import json
import subprocess
import sys

import pytest

from mindformers import AutoConfig, ChatGLM2Config, GlmConfig
from mindformers.tools.errors import ConfigError, UnsupportedError
from tests.reference.glm_goldens import folder

CHATGLM2_6B = {
    "_name_or_path": "THUDM/chatglm2-6b", "model_type": "chatglm", "architectures": ["ChatGLMModel"],
    "auto_map": {"AutoConfig": "configuration_chatglm.ChatGLMConfig",
                 "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
    "add_bias_linear": False, "add_qkv_bias": True, "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False, "attention_dropout": 0.0, "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True, "ffn_hidden_size": 13696, "fp32_residual_connection": False, "hidden_dropout": 0.0,
    "hidden_size": 4096, "kv_channels": 128, "layernorm_epsilon": 1e-05, "multi_query_attention": True,
    "multi_query_group_num": 2, "num_attention_heads": 32, "num_layers": 28, "original_rope": True,
    "padded_vocab_size": 65024, "post_layer_norm": True, "rmsnorm": True, "seq_length": 32768, "use_cache": True,
    "torch_dtype": "float16", "transformers_version": "4.27.1", "tie_word_embeddings": False, "eos_token_id": 2,
    "pad_token_id": 0}
CHATGLM3_6B = {**CHATGLM2_6B, "_name_or_path": "THUDM/chatglm3-6b", "seq_length": 8192, "vocab_size": 65024,
               "classifier_dropout": None, "pre_seq_len": None, "prefix_projection": False, "quantization_bit": 0}
GLM_4_9B_CHAT = {**CHATGLM3_6B, "_name_or_path": "THUDM/glm-4-9b-chat", "num_layers": 40, "padded_vocab_size": 151552,
                 "vocab_size": 151552, "layernorm_epsilon": 1.5625e-07, "rope_ratio": 500, "seq_length": 131072,
                 "torch_dtype": "bfloat16", "eos_token_id": [151329, 151336, 151338], "pad_token_id": 151329}
GLM_4_9B_CHAT_HF = {
    "architectures": ["GlmForCausalLM"], "attention_bias": True, "attention_dropout": 0.0,
    "eos_token_id": [151329, 151336, 151338], "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
    "initializer_range": 0.02, "intermediate_size": 13696, "max_position_embeddings": 131072, "model_type": "glm",
    "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 2, "pad_token_id": 151329,
    "partial_rotary_factor": 0.5, "rms_norm_eps": 1.5625e-07, "rope_theta": 5000000.0, "rope_scaling": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.0.dev0", "use_cache": True,
    "vocab_size": 151552}
PUBLISHED = {"chatglm2-6b": (CHATGLM2_6B, 6_243_584_000), "chatglm3-6b": (CHATGLM3_6B, 6_243_584_000),
             "glm-4-9b-chat": (GLM_4_9B_CHAT, 9_399_951_360), "glm-4-9b-chat-hf": (GLM_4_9B_CHAT_HF, 9_399_951_360)}


def write(path, data):
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(data))
    return str(path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_is_read_and_written_back(name, tmp_path):
    published, parameters = PUBLISHED[name]
    config = AutoConfig.from_pretrained(write(tmp_path / "in", published))  # auto_map needs no trust: the class is here
    assert type(config) is (GlmConfig if name.endswith("-hf") else ChatGLM2Config)
    assert config.num_parameters() == parameters
    assert (config.kv_heads, config.head_size, config.rotary_size) == (2, 128, 64)
    assert config.param_init_type == config.compute_dtype == published["torch_dtype"]
    assert config.rope_base == (5e6 if "glm-4" in name else 1e4) and config.rope_scaling is None
    assert config.eos_token_id == published["eos_token_id"] and config.pad_token_id == published["pad_token_id"]
    config.save_pretrained(str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    theirs = {"transformers_version", "_name_or_path"}
    assert not {key: (written.get(key, "absent"), value) for key, value in published.items()
                if key not in theirs and written.get(key, "absent") != value}
    assert AutoConfig.from_pretrained(str(tmp_path / "out")) == config


@pytest.mark.parametrize("name", ["glm2_6b", "glm3_6b", "glm4_9b"])
def test_known_names_have_the_published_size(name):
    expected = {"glm2_6b": "chatglm2-6b", "glm3_6b": "chatglm3-6b", "glm4_9b": "glm-4-9b-chat"}[name]
    config = AutoConfig.from_pretrained(name)
    assert type(config) is ChatGLM2Config and config.num_parameters() == PUBLISHED[expected][1]
    published = ChatGLM2Config.from_dict(PUBLISHED[expected][0])
    for field in ("num_layers", "vocab_size", "hidden_size", "layernorm_epsilon", "rope_base", "kv_heads",
                  "eos_token_id", "pad_token_id", "param_init_type"):
        assert getattr(config, field) == getattr(published, field), field


def test_parameter_count_notices_a_wrong_field():
    for change in ({"multi_query_group_num": 4}, {"add_qkv_bias": False}, {"add_bias_linear": True},
                   {"kv_channels": 64}, {"tie_word_embeddings": True}, {"pre_seq_len": 128}):
        assert ChatGLM2Config.from_dict({**CHATGLM2_6B, **change}).num_parameters() != 6_243_584_000, change


def test_both_32k_checkpoints_are_told_apart():
    """chatglm2-6b-32k divides positions, chatglm3-6b-32k multiplies the base; the files differ in their name alone."""
    two = ChatGLM2Config.from_dict({**CHATGLM2_6B, "_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 16})
    three = ChatGLM2Config.from_dict({**CHATGLM3_6B, "_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 50})
    assert (two.rope_base, two.rope_scaling) == (1e4, {"rope_type": "linear", "factor": 16.0})
    assert (three.rope_base, three.rope_scaling) == (5e5, None)
    assert ChatGLM2Config.from_dict(two.to_hf_dict()).rope_scaling == two.rope_scaling


def test_spellings_of_the_suite_and_of_transformers_are_one_field():
    config = ChatGLM2Config(num_layers=3, num_heads=8, n_kv_heads=4, vocab_size=100, intermediate_size=64, head_dim=16)
    assert (config.num_hidden_layers, config.num_attention_heads, config.multi_query_group_num) == (3, 8, 4)
    assert (config.padded_vocab_size, config.ffn_hidden_size, config.kv_channels) == (100, 64, 16)
    config.vocab_size = 90
    assert config.padded_vocab_size == 90 and "vocab_size" not in config.to_dict()
    assert ChatGLM2Config(pre_seq_len="None").pre_seq_len is None  # as MindFormers' YAMLs write it
    with pytest.raises(ConfigError, match="contradicts"):
        ChatGLM2Config.from_dict({"vocab_size": 5, "padded_vocab_size": 6})


@pytest.mark.parametrize("case", ["chatglm2", "glm_hf"])
def test_yaml_round_trip(case, tmp_path):
    config = AutoConfig.from_pretrained(folder(case))
    config.save_pretrained(str(tmp_path), save_name="tiny", save_json=False)
    assert AutoConfig.from_pretrained(str(tmp_path / "tiny.yaml")) == config


def test_two_generations_of_transformers():
    old = GlmConfig.from_dict(GLM_4_9B_CHAT_HF)
    new = {key: value for key, value in GLM_4_9B_CHAT_HF.items()
           if key not in ("rope_theta", "rope_scaling", "partial_rotary_factor", "torch_dtype")}
    new.update(dtype="bfloat16", rope_parameters={"rope_type": "default", "rope_theta": 5e6,
                                                  "partial_rotary_factor": 0.5})
    assert GlmConfig.from_dict(new) == old
    new["rope_parameters"]["rope_theta"] = 1e4
    assert GlmConfig.from_dict(new) != old


REFUSED = {
    "quantised": ({"quantization_bit": 4}, "quantization"),
    "layer norm": ({"rmsnorm": False}, "rmsnorm"),
    "no final norm": ({"post_layer_norm": False}, "post_layer_norm"),
    "post norm residual": ({"apply_residual_connection_post_layernorm": True}, "residual"),
    "interleaved qkv rows": ({"multi_query_attention": False}, "multi_query_group_num"),
    "another rotation": ({"original_rope": False}, "original_rope"),
    "dropout": ({"hidden_dropout": 0.1}, "hidden_dropout"),
    "GLM-4-0414": ({"model_type": "glm4"}, "GLM-4-0414"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
    "experts": ({"moe_config": {"expert_num": 8}}, "moe_config.expert_num=8"),
    "another order of rows": ({"interleaved_qkv": True}, "interleaved_qkv=True"),
    "window": ({"sliding_window": 3}, "sliding_window=3"),
    "rope_scaling": ({"rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_scaling=.*linear.* rope_ratio"),
    "rope_parameters": ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters=.*_ratio"),
    "kind of tuning": ({"pet_config": {"pet_type": "prefixtuning"}}, "'prefixtuning' is not carried; use"),
    "width of the prefix": ({"pet_config": {"pet_type": "ptuning2", "pre_seq_len": 3, "prefix_projection": True,
                                            "projection_dim": 128}}, "projection_dim=128 .* set it to 4096"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_carried_is_refused_by_name(name, tmp_path):
    change, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        AutoConfig.from_pretrained(write(tmp_path, {**CHATGLM2_6B, **change}))
    if "model_type" not in change:
        with pytest.raises(UnsupportedError, match=message):
            ChatGLM2Config(**change)


@pytest.mark.parametrize("change, message", [
    ({"position_encoding_2d": True, "gmask_token_id": 130001}, r"position_encoding_2d .* ChatGLM-6B \(the first\)"),
    ({"inner_hidden_size": 16384, "mask_token_id": 130000}, "inner_hidden_size, mask_token_id .* ChatGLM-6B"),
    ({"vision_config": {"hidden_size": 8}, "boi_token_id": 1, "eoi_token_id": 2}, "vision_config, boi.* GLM-4V"),
])
def test_other_models_of_the_same_type_are_named(change, message, tmp_path):
    with pytest.raises(UnsupportedError, match=message):
        AutoConfig.from_pretrained(write(tmp_path, {**CHATGLM2_6B, **change}))


@pytest.mark.parametrize("change", [{"rope_scaling": None}, {"rope_parameters": {"rope_type": "default"}},
                                    {"moe_config": {"expert_num": 1}}, {"moe_config": None}, {"hidden_act": "silu"},
                                    {"sliding_window": None}, {"interleaved_qkv": False}, {"rotary_percent": 0.5}],
                         ids=str)
def test_values_that_mean_the_default_are_read(change, tmp_path):
    name = write(tmp_path, {**CHATGLM2_6B, **change})
    for config in (ChatGLM2Config(**change), AutoConfig.from_pretrained(name),
                   AutoConfig.from_pretrained("glm2_6b", **change)):
        assert (config.rope_base, config.rope_scaling, config.rotary_size) == (1e4, None, 64)
        config.save_pretrained(str(tmp_path / "again"))
        assert AutoConfig.from_pretrained(str(tmp_path / "again")).rope_base == 1e4


def test_a_percentage_of_the_rotation_is_its_factor():
    assert ChatGLM2Config(rotary_percent=1.0).rotary_size == 128


FAULTS = {
    "typo": ({"multi_query_groups_num": 2}, "multi_query_group_num"),
    "typo of a switch": ({"add_qkv_bais": True}, "add_qkv_bias"),
    "text for a switch": ({"add_qkv_bias": "false"}, "true or false"),
    "groups": ({"multi_query_group_num": 5}, "multiple"),
    "odd rotation": ({"partial_rotary_factor": 0.26}, "rotates"),
    "dtype": ({"param_init_type": "float15"}, "float16"),
    "pad": ({"pad_token_id": 70000}, "pad_token_id"),
    "prefix": ({"pre_seq_len": -1}, "pre_seq_len"),
    "kind of tuning": ({"pet_config": {"pet_type": "lara"}}, "must be one of lora"),
    "no section": ({"pet_config": "ptuning2"}, "must be a section with pet_type"),
    "no length": ({"pet_config": {"pet_type": "ptuning2"}}, "needs the length"),
    "two lengths": ({"pre_seq_len": 4, "pet_config": {"pet_type": "ptuning2", "pre_seq_len": 3}}, "contradicts"),
    "typo in a section": ({"pet_config": {"pet_type": "ptuning2", "pre_seq_ln": 3}}, "Did you mean 'pre_seq_len'"),
    "scaling": ({"rope_scaling": 3}, "rope_scaling must be a dict"),
    "epsilon": ({"layernorm_epsilon": 0}, "layernorm_epsilon"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(name):
    change, message = FAULTS[name]
    with pytest.raises(ConfigError, match=message):
        ChatGLM2Config(**change)


@pytest.mark.parametrize("change, message", [({"hidden_act": "gelu"}, "gelu"),
                                             ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn")])
def test_transformers_settings_that_are_not_carried(change, message):
    with pytest.raises(UnsupportedError, match=message):
        GlmConfig.from_dict({**GLM_4_9B_CHAT_HF, **change})


def test_a_pet_config_is_the_prefix_of_the_config(tmp_path):
    pet = {"pet_type": "ptuning2", "pre_seq_len": 3, "prefix_projection": True, "projection_dim": 4096,
           "dropout_prob": 0.0}
    stored = write(tmp_path / "in", {**CHATGLM3_6B, "pet_config": pet})
    fields = ChatGLM2Config.from_dict(CHATGLM3_6B, pre_seq_len=3, prefix_projection=True, prefix_dropout=0.0)
    for config in (AutoConfig.from_pretrained(stored), ChatGLM2Config.from_dict(CHATGLM3_6B, pet_config=pet)):
        assert (config.pre_seq_len, config.prefix_projection, config.prefix_dropout) == (3, True, 0.0)
        assert config.num_parameters() == fields.num_parameters()
        config.save_pretrained(str(tmp_path / "out"))
        assert AutoConfig.from_pretrained(str(tmp_path / "out")) == config
    assert AutoConfig.from_pretrained(stored, pre_seq_len=5).pre_seq_len == 5
    unused = {"pet_type": "ptuning2", "pre_seq_len": 3, "projection_dim": 128}  # as MindFormers' YAMLs write it
    assert ChatGLM2Config(pre_seq_len="None", pet_config=unused).pre_seq_len == 3
    lora = {"pet_type": "lora", "lora_rank": 2}
    assert ChatGLM2Config(pet_config=lora).pet_config == lora


def test_auto_config_knows_the_types():
    for kind in ("glm2", "glm3", "glm4", "chatglm"):
        assert type(AutoConfig.for_model(kind)) is ChatGLM2Config
    assert type(AutoConfig.for_model("glm")) is GlmConfig


def test_configs_need_no_mindspore():
    code = ("import sys; from mindformers import ChatGLM2Config, GlmConfig; ChatGLM2Config(); GlmConfig(); "
            "sys.exit('mindspore' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
