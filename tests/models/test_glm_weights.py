"""Names of GLM's weights both ways, bit for bit: published folders, transformers' folders, ckpt, packed and split."""
import json
import shutil

import numpy as np
import pytest
from safetensors import safe_open

from mindformers import AutoConfig, AutoModelForCausalLM
from mindformers.checkpoint import open_weights
from mindformers.cli.main import main
from mindformers.models.auto.convert import convert_checkpoint
from mindformers.models.glm2 import glm_weights
from mindformers.models.glm2.glm2_shapes import parameter_shapes
from mindformers.models.glm2.glm2_weights import WEIGHT_MAP
from mindformers.tools.errors import CheckpointMismatchError
from tests.reference.glm_goldens import CASES, folder, mindformers_name

TABLE = "transformer.rotary_pos_emb.inv_freq"


def stored(path):
    """{name: bytes} of a safetensors file or folder."""
    source = open_weights(path)
    return {name: (source.dtype(name), source.shape(name), source.read(name).tobytes()) for name in source.names()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("packed", [True, False])
def test_names_and_back_are_the_same_bits(case, packed):
    table = glm_weights.WEIGHT_MAP if case.startswith("glm_") else WEIGHT_MAP
    config = AutoConfig.from_pretrained(folder(case), qkv_concat=packed, mlp_concat=packed)
    source = open_weights(folder(case))
    ours = table.to_mindformers(source, config)
    back = table.to_hf(ours, config)
    before = stored(folder(case))
    before.pop(TABLE, None)
    assert set(back.names()) == set(before)
    for name, (dtype, shape, bits) in before.items():
        assert (back.dtype(name), tuple(back.shape(name)), back.read(name).tobytes()) == (dtype, tuple(shape), bits)
    assert parameter_shapes(config) == {name: tuple(ours.shape(name)) for name in ours.names()}
    if packed and table is WEIGHT_MAP:
        assert set(ours.names()) == {mindformers_name(name) for name in before}
    if not packed:
        assert not any("query_key_value" in name or "dense_h_to_4h" in name for name in ours.names())


@pytest.mark.parametrize("case", ["chatglm2", "prefix_projection", "glm_hf", "glm_hf_tied", "bf16"])
def test_saved_folders_have_the_names_and_bits_of_their_source(case, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder(case))
    model.save_pretrained(tmp_path)
    before = stored(folder(case))
    before.pop(TABLE, None)
    assert stored(tmp_path) == before
    data = json.loads((tmp_path / "config.json").read_text())
    original = json.loads((open(f"{folder(case)}/config.json", encoding="utf-8")).read())
    assert data["model_type"] == original["model_type"]
    skipped = {"transformers_version", "architectures", "auto_map", "_name_or_path", "classifier_dropout"}
    assert {key: data.get(key, "absent") for key in original if key not in skipped} == {
        key: value for key, value in original.items() if key not in skipped}
    assert "auto_map" not in data  # names code that lies beside the source only
    kept = {key: value for key, value in model.config.to_dict().items() if key != "auto_map"}
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == {**kept, "architectures": [type(model).__name__]}


def test_shards_and_ckpt_hold_the_same(tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder("chatglm2"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    model.save_pretrained(tmp_path / "ckpt", format="ckpt")
    names = {p.name for p in model.get_parameters()}
    assert set(open_weights(tmp_path / "ckpt").names()) == names
    for saved in ("shards", "ckpt"):
        again = AutoModelForCausalLM.from_pretrained(tmp_path / saved)
        for a, b in zip(model.get_parameters(), again.get_parameters()):
            np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    split = AutoModelForCausalLM.from_pretrained(tmp_path / "ckpt", qkv_concat=False, mlp_concat=False)
    split.save_pretrained(tmp_path / "split", format="ckpt")
    assert any("self_attention.wk.bias" in name for name in open_weights(tmp_path / "split").names())
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "split", qkv_concat=True, mlp_concat=True)
    for a, b in zip(model.get_parameters(), packed.get_parameters()):
        assert a.name == b.name
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())


@pytest.mark.parametrize("case", ["chatglm2", "glm_hf"])
def test_conversion_without_the_model(case, tmp_path):
    convert_checkpoint(folder(case), str(tmp_path / "ours"), to="mindformers")
    assert "transformer.embedding.embedding_weight" in open_weights(tmp_path / "ours").names()
    convert_checkpoint(str(tmp_path / "ours"), str(tmp_path / "theirs"), to="hf")
    before = stored(folder(case))
    before.pop(TABLE, None)
    assert stored(tmp_path / "theirs") == before


@pytest.mark.parametrize("case", ["glm4", "prefix_projection", "glm_hf_tied"])
def test_folders_are_checked_without_loading_them(case, capsys):
    assert main(["check", folder(case)]) == 0
    count = AutoConfig.from_pretrained(folder(case)).num_parameters()
    assert f"{count:,} parameters" in capsys.readouterr().out


def test_wrong_files_are_refused(tmp_path):
    shutil.copy(f"{folder('chatglm2')}/config.json", tmp_path)
    with safe_open(f"{folder('chatglm2')}/model.safetensors", "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    name = "transformer.encoder.layers.1.self_attention.query_key_value.bias"

    def load(**changes):
        return AutoModelForCausalLM.from_pretrained(str(tmp_path), state_dict={
            key: value for key, value in {**arrays, **changes}.items() if value is not None})

    with pytest.raises(CheckpointMismatchError, match="missing.*query_key_value.bias"):
        load(**{name: None})
    with pytest.raises(CheckpointMismatchError, match="another shape"):
        load(**{name: arrays[name][:-1]})
    with pytest.raises(CheckpointMismatchError, match="unexpected.*q_norm"):
        load(**{"transformer.encoder.layers.0.self_attention.q_norm.weight": arrays[name]})
