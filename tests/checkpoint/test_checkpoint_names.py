"""The table of names: both directions undo each other bit for bit, and every parameter is hit exactly once."""
import numpy as np
import pytest
from checkpoint_helpers import hf_weights, llama_config, same
from hypothesis import given, settings
from hypothesis import strategies as st

from mindformers.checkpoint import DictSource, WeightMap
from mindformers.checkpoint.names import concat, drop, rename, split, summarise, tied
from mindformers.models.llama.llama_weights import WEIGHT_MAP
from mindformers.tools.errors import CheckpointMismatchError


@st.composite
def configs(draw):
    kv_heads = draw(st.integers(1, 3))
    head_dim = draw(st.sampled_from([None, 2, 6]))
    heads = kv_heads * draw(st.integers(1, 3))
    return llama_config(num_heads=heads, n_kv_heads=draw(st.sampled_from([kv_heads, None])), head_dim=head_dim,
                        hidden_size=heads * 4, ffn_size=draw(st.integers(1, 9)), vocab_size=draw(st.integers(1, 9)),
                        num_layers=draw(st.integers(0, 12)), qkv_concat=draw(st.booleans()),
                        tie_word_embeddings=draw(st.booleans()), qkv_has_bias=draw(st.booleans()),
                        attn_proj_has_bias=draw(st.booleans()), mlp_has_bias=draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(configs(), st.sampled_from(["float32", "float16", "bfloat16", "int8"]), st.integers(0, 2**31))
def test_there_and_back_bit_for_bit(config, dtype, seed):
    weights = hf_weights(config, dtype, seed)
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    back = WEIGHT_MAP.to_hf(ours, config)
    assert set(back.names()) == set(weights)
    for name, array in weights.items():
        assert back.shape(name) == array.shape and same(back.read(name), array), name
    # every source array is used exactly once
    used = [part for piece in ours.pieces.values() for part in piece.sources]
    assert sorted(used) == sorted(weights)
    assert WEIGHT_MAP.style(weights) == "hf" and WEIGHT_MAP.style(ours.names()) == "mindformers"


@settings(max_examples=20, deadline=None)
@given(configs())
def test_expected_names_of_a_model(config):
    """Our names, counted from the config, are the names the table makes."""
    ours = set(WEIGHT_MAP.to_mindformers(hf_weights(config), config).names())
    kinds = lambda has_bias: ("weight", "bias") if has_bias else ("weight",)
    expected = {"model.tok_embeddings.embedding_weight", "model.norm_out.weight"}
    expected |= set() if config.tie_word_embeddings else {"lm_head.weight"}
    for layer in range(config.num_layers):
        qkv, gate = (["w_qkv"], ["w_gate_hidden"]) if config.qkv_concat else (["wq", "wk", "wv"], ["w1", "w3"])
        start = f"model.layers.{layer}."
        expected |= {f"{start}attention.{n}.{k}" for n in qkv for k in kinds(config.qkv_has_bias)}
        expected |= {f"{start}attention.wo.{k}" for k in kinds(config.attn_proj_has_bias)}
        expected |= {f"{start}feed_forward.{n}.{k}" for n in [*gate, "w2"] for k in kinds(config.mlp_has_bias)}
        expected |= {f"{start}attention_norm.weight", f"{start}ffn_norm.weight"}
    assert ours == expected


def test_values_go_to_the_right_place(config):
    weights = hf_weights(config)
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    layer = "model.layers.1."
    for left, right in (("self_attn.k_proj", "attention.wk"), ("mlp.gate_proj", "feed_forward.w1"),
                        ("mlp.up_proj", "feed_forward.w3"), ("mlp.down_proj", "feed_forward.w2"),
                        ("post_attention_layernorm", "ffn_norm")):
        assert same(ours.read(f"{layer}{right}.weight"), weights[f"{layer}{left}.weight"])
    config.qkv_concat = True
    packed = WEIGHT_MAP.to_mindformers(weights, config)
    parts = [weights[f"{layer}self_attn.{name}_proj.weight"] for name in "qkv"]
    assert same(packed.read(f"{layer}attention.w_qkv.weight"), np.concatenate(parts))
    assert same(packed.read(f"{layer}attention.w_qkv.weight", (7, 10)), np.concatenate(parts)[7:10])
    # rows of a cut array: k is rows 8 to 12 of the packed one
    back = WEIGHT_MAP.to_hf(packed, config)
    assert same(back.read(f"{layer}self_attn.k_proj.weight", (1, 3)), parts[1][1:3])


def test_rotary_tables_and_old_caches_are_left_out(config):
    weights = {**hf_weights(config), "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32)}
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    assert list(ours.ignored) == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    cache = "model.layers.0.attention.infer_attention.paged_attention_mgr.key_cache"
    back = WEIGHT_MAP.to_hf({**{name: ours.read(name) for name in ours.names()}, cache: np.zeros(2)}, config)
    assert list(back.ignored) == [cache] and len(back) == len(ours)


@pytest.mark.parametrize("direction", ["to_mindformers", "to_hf"])
def test_unknown_names_are_named(config, direction):
    with pytest.raises(CheckpointMismatchError, match=r"unknown names: model.layers.\{3,5-6\}.odd.weight"):
        getattr(WEIGHT_MAP, direction)({f"model.layers.{n}.odd.weight": np.zeros(1) for n in (3, 5, 6)}, config)


def test_part_of_a_packed_array_is_absent(config):
    weights = hf_weights(config)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    config.qkv_concat = True
    with pytest.raises(CheckpointMismatchError, match="w_qkv.weight needs model.layers.1.self_attn.k_proj.weight"):
        WEIGHT_MAP.to_mindformers(weights, config)


def test_heads_of_the_config_against_the_rows_of_the_file(config):
    weights = hf_weights(config)
    packed = {**llama_config(qkv_concat=True, n_kv_heads=4).__dict__}
    with pytest.raises(CheckpointMismatchError, match=r"has 8 \+ 4 \+ 4, but the config gives 8 \+ 8 \+ 8"):
        WEIGHT_MAP.to_mindformers(weights, llama_config(**packed))
    config.qkv_concat = True
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    with pytest.raises(CheckpointMismatchError, match=r"has 16, but the config gives 8 \+ 8 \+ 8"):
        WEIGHT_MAP.to_hf(ours, llama_config(**packed))


def test_names_of_both_sides_mixed(config):
    with pytest.raises(CheckpointMismatchError, match="mix"):
        WEIGHT_MAP.style(["model.norm.weight", "model.norm_out.weight"])
    assert WEIGHT_MAP.style(["lm_head.weight"]) is None


def test_two_spellings_of_a_layer_number_are_not_one(config):
    weights = hf_weights(config)
    weights["model.layers.01.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(CheckpointMismatchError, match="unknown names: model.layers.01"):
        WEIGHT_MAP.to_mindformers(weights, config)


# -- tied embeddings --------------------------------------------------------------------------------------------------

def test_tied_head_in_the_file(config):
    config.tie_word_embeddings = True
    weights = hf_weights(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    assert "lm_head.weight" not in ours and "tied" in ours.ignored["lm_head.weight"]
    weights["lm_head.weight"][3, 3] += 1
    with pytest.raises(CheckpointMismatchError, match="lm_head.weight differs from model.embed_tokens.weight"):
        WEIGHT_MAP.to_mindformers(weights, config)


def test_tied_head_alone_stands_for_the_embedding(config):
    config.tie_word_embeddings = True
    weights = hf_weights(config)
    table = weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    assert same(ours.read("model.tok_embeddings.embedding_weight"), table) and "lm_head.weight" not in ours


def test_untied_head_is_kept_even_when_it_is_equal(config):
    weights = hf_weights(config)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    assert "lm_head.weight" in WEIGHT_MAP.to_mindformers(weights, config)


# -- other tables -----------------------------------------------------------------------------------------------------

def test_bare_model_keeps_bare_names(config):
    weights = {name.removeprefix("model."): array for name, array in hf_weights(config).items()
               if "lm_head" not in name}
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    assert "layers.0.attention.wq.weight" in ours and "tok_embeddings.embedding_weight" in ours
    assert set(WEIGHT_MAP.to_hf(ours, config).names()) == set(weights)


def test_hf_packed_array_is_split_on_either_axis():
    for axis in (0, 1):
        table = WeightMap([split("h.{i}.pack", ["l.{i}.a", "l.{i}.b"], sizes=lambda _: (1, 3), axis=axis)], prefix="")
        array = np.arange(16, dtype=np.float32).reshape(4, 4)
        ours = table.to_mindformers({"h.0.pack": array})
        assert same(ours.read("l.0.b"), np.ascontiguousarray(array[1:] if axis == 0 else array[:, 1:]))
        assert same(ours.read("l.0.b", (1, 2)), np.ascontiguousarray((array[1:] if axis == 0 else array[:, 1:])[1:2]))
        assert same(table.to_hf(ours).read("h.0.pack"), array)


def test_two_numbers_in_a_name():
    table = WeightMap([rename("h.{i}.experts.{e}.w", "l.{i}.x.{e}.w")], prefix="")
    ours = table.to_mindformers({"h.3.experts.11.w": np.zeros(1)})
    assert ours.names() == ["l.3.x.11.w"] and table.to_hf(ours).names() == ["h.3.experts.11.w"]


def test_parts_that_do_not_join():
    table = WeightMap([concat(["q", "k"], "qk")], prefix="")
    with pytest.raises(CheckpointMismatchError, match="cannot be joined"):
        table.to_mindformers({"q": np.zeros((2, 3)), "k": np.zeros((2, 4))})
    with pytest.raises(CheckpointMismatchError, match="has no axis 0"):
        table.to_mindformers({"q": np.zeros(()), "k": np.zeros(())})


def test_two_arrays_for_one_parameter():
    table = WeightMap([rename("a", "x"), rename("b", "x"), drop("c")], prefix="")
    with pytest.raises(CheckpointMismatchError, match="a, b all mean 'x'"):
        table.to_mindformers({"a": np.zeros(1), "b": np.zeros(1), "c": np.zeros(1)})


def test_ambiguous_table_is_refused():
    table = WeightMap([rename("a", "x"), rename("a", "y")], prefix="")
    with pytest.raises(ValueError, match="ambiguous"):
        table.to_mindformers({"a": np.zeros(1)})


def test_tied_needs_its_condition():
    table = WeightMap([rename("a", "x"), rename("b", "y"), tied(("b", "a"), ("y", "x"), lambda config: config)], "")
    source = DictSource({"a": np.ones(2), "b": np.ones(2)})
    assert table.to_mindformers(source, True).names() == ["x"]
    assert table.to_mindformers(source, False).names() == ["x", "y"]


def test_summaries_fold_layers():
    names = [f"model.layers.{n}.w" for n in (0, 1, 2, 5)] + ["lm_head.weight"]
    assert summarise(names) == "model.layers.{0-2,5}.w, lm_head.weight"
    assert summarise(["0.x", "1.x"]) == "{0-1}.x"
    assert summarise([f"name_{n}" for n in range(5)], limit=2) == "name_0, name_1 and 3 more"


@pytest.fixture
def config():
    return llama_config()
