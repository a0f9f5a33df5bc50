"""Folders of adapters: PEFT's layout (checked by names and shapes), MindFormers' names, what does not fit."""
import json

import numpy as np
import pytest
from mindspore import Tensor
from pet_helpers import FAMILIES, adapted, fill_adapters, glm, llama
from safetensors.numpy import load_file, save_file

from mindformers.models.auto import AutoModelForCausalLM
from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.pet import LoraConfig, get_pet_model
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError

ATTENTION = ".*wq|.*wv"


def values(model):
    return {name: parameter.asnumpy() for name, parameter in model.adapter_parameters().items()}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def peft_folder(folder, **changes):
    """A folder as PEFT writes it for q_proj and v_proj of the small Llama; returns its arrays."""
    generator = np.random.default_rng(5)
    arrays = {}
    for layer in (0, 1):
        for module, rows in (("q_proj", 32), ("v_proj", 16)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            arrays[f"{name}.lora_A.weight"] = generator.normal(size=(4, 32)).astype(np.float32)
            arrays[f"{name}.lora_B.weight"] = generator.normal(size=(rows, 4)).astype(np.float32)
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6, "lora_dropout": 0.0,
                "target_modules": ["q_proj", "v_proj"], "bias": "none", "fan_in_fan_out": False, "use_rslora": False,
                "base_model_name_or_path": "meta-llama/Llama-2-7b-hf", "modules_to_save": None, **changes}
    folder.mkdir(exist_ok=True)
    save_file(arrays, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return arrays


def test_a_folder_of_peft_is_loaded(tmp_path):
    arrays = peft_folder(tmp_path)
    model = llama().load_adapter(tmp_path)
    found = values(model)
    assert len(found) == 8 and model.pet_config.scaling == 1.5
    for ours, theirs in (("wq", "q_proj"), ("wv", "v_proj")):
        name = f"model.layers.1.attention.{ours}.mindpet_delta_lora_"
        peft = f"base_model.model.model.layers.1.self_attn.{theirs}.lora_"
        np.testing.assert_array_equal(found[name + "a"], arrays[peft + "A.weight"])
        np.testing.assert_array_equal(found[name + "b"], arrays[peft + "B.weight"])
    assert {parameter.name for parameter in model.trainable_params()} == set(found)


@pytest.mark.parametrize("name", ["llama", "glm"])
def test_what_is_saved_is_loaded(name, tmp_path):
    build, targets = FAMILIES[name]
    model = adapted(build, targets)
    for names in ("hf", "mindformers"):
        folder = tmp_path / names
        model.save_adapter(folder, names)
        assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        assert_equal(values(build().load_adapter(folder)), values(model))  # a model without adapters gets them
        again = adapted(build, targets, fill=False).load_adapter(folder / "adapter_model.safetensors")
        assert_equal(values(again), values(model))
    content = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert (content["peft_type"], content["r"], content["lora_alpha"]) == ("LORA", 4, 6)
    written = load_file(tmp_path / "hf" / "adapter_model.safetensors")
    expected = {"llama": "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "glm": "base_model.model.transformer.encoder.layers.0.self_attention.query_key_value.lora_A.weight"}
    assert written[expected[name]].shape == (4, 32)
    assert all(name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] in content["target_modules"]
               for name in written)


def test_packed_products_are_written_as_those_of_peft(tmp_path):
    model = adapted(lambda: llama(qkv_concat=True), ".*w_qkv")
    model.save_adapter(tmp_path)
    written = load_file(tmp_path / "adapter_model.safetensors")
    assert len(written) == 2 * 3 * 2
    packed = values(model)
    place = "base_model.model.model.layers.0.self_attn."
    rows = [written[f"{place}{part}_proj.lora_B.weight"] for part in "qkv"]
    np.testing.assert_array_equal(np.concatenate(rows),
                                  packed["model.layers.0.attention.w_qkv.mindpet_delta_lora_b"])
    for part in "qkv":
        np.testing.assert_array_equal(written[f"{place}{part}_proj.lora_A.weight"],
                                      packed["model.layers.0.attention.w_qkv.mindpet_delta_lora_a"])
    with pytest.raises(UnsupportedError, match="are one product here"):
        llama(qkv_concat=True).load_adapter(tmp_path)
    assert len(values(llama().load_adapter(tmp_path))) == 12


def test_saving_a_model_with_adapters_saves_them(tmp_path):
    model = adapted(llama, ATTENTION)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert_equal(values(llama().load_adapter(tmp_path)), values(model))


def test_a_folder_of_adapters_brings_its_base_model(tmp_path):
    llama(num_layers=1).save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(str(tmp_path / "base"))
    fill_adapters(get_pet_model(model, LoraConfig(target_modules=ATTENTION, lora_rank=4)))
    model.save_adapter(tmp_path / "adapter")
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path / "adapter"))
    assert_equal(values(again), values(model))
    np.testing.assert_array_equal(again.lm_head.weight.asnumpy(), model.lm_head.weight.asnumpy())
    peft_folder(tmp_path / "homeless", base_model_name_or_path="")
    with pytest.raises(ConfigError, match="does not name its base model"):
        AutoModelForCausalLM.from_pretrained(str(tmp_path / "homeless"))


@pytest.mark.parametrize("changes, error, message", [
    ({"use_dora": True}, UnsupportedError, "use_dora: True is not carried; it must be False"),
    ({"use_rslora": True}, UnsupportedError, "use_rslora"), ({"bias": "all"}, UnsupportedError, "bias: 'all'"),
    ({"modules_to_save": ["lm_head"]}, UnsupportedError, "modules_to_save"),
    ({"peft_type": "PREFIX_TUNING"}, UnsupportedError, "peft_type 'PREFIX_TUNING' is not carried"),
    ({"r": 8}, CheckpointMismatchError, r"wq.mindpet_delta_lora_a is \(4, 32\) in the file and \(8, 32\) in the model"),
])
def test_folders_that_mean_something_else(tmp_path, changes, error, message):
    peft_folder(tmp_path, **changes)
    with pytest.raises(error, match=message):
        llama().load_adapter(tmp_path)


def test_adapters_of_another_model(tmp_path):
    arrays = peft_folder(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="4 unexpected: .*wv"):
        adapted(llama, ".*wq").load_adapter(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="4 missing: .*wk"):
        adapted(llama, ".*wq|.*wv|.*wk").load_adapter(tmp_path)
    with pytest.raises(ConfigError, match="have lora_alpha 6, those of the model 12"):
        adapted(llama, ATTENTION, lora_alpha=12).load_adapter(tmp_path)
    with pytest.raises(CheckpointMismatchError, match="belongs to no product of ChatGLM2"):
        glm().load_adapter(tmp_path)
    with pytest.raises(FileNotFoundError, match="no adapters at .*nowhere"):
        llama().load_adapter(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="does not say the scale"):
        llama().load_adapter(tmp_path / "adapter_model.safetensors")
    save_file({"model.norm.weight": np.ones(32, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointMismatchError, match="holds no LoRA adapters"):
        adapted(llama, ATTENTION).load_adapter(tmp_path / "other.safetensors")
    assert len(arrays) == 8


def test_old_names_of_mindformers(tmp_path):
    model = adapted(llama, ".*wq")
    old = {name.replace("mindpet_delta", "tk_delta"): value for name, value in values(model).items()}
    save_file(old, tmp_path / "old.safetensors")
    again = get_pet_model(llama(), LoraConfig(target_modules=".*wq", lora_rank=4, lora_alpha=6))
    assert_equal(values(again.load_adapter(tmp_path / "old.safetensors")), values(model))


def test_adapters_of_another_dtype_are_converted(tmp_path):
    model = adapted(llama, ".*wq")
    model.save_adapter(tmp_path)
    half = adapted(llama, ".*wq", fill=False, param_init_type="bfloat16")
    half.load_adapter(tmp_path)
    for name, value in values(model).items():
        rounded = Tensor(value).astype(half.adapter_parameters()[name].dtype)
        np.testing.assert_array_equal(half.adapter_parameters()[name].asnumpy(), rounded.asnumpy())
    fill_adapters(half)
