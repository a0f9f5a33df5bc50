"""Strict loading: the right values in the right parameters, one error for all faults, nothing assigned on an error."""
import os
import subprocess
import sys
import textwrap

import mindspore as ms
import numpy as np
import pytest
from checkpoint_helpers import NamedCell, hf_weights, llama_config, same
from mindspore import nn, ops
from mindspore.common import np_dtype

from mindformers.checkpoint import CellSource, DictSource, load, save_weights
from mindformers.models.llama.llama_weights import WEIGHT_MAP
from mindformers.tools.errors import CheckpointMismatchError, UnsupportedError


@pytest.fixture
def config():
    return llama_config()


def cell_for(config, dtype=np.float32, seed=1):
    """A cell with our names of a Llama of this config, filled with other random values."""
    ours = WEIGHT_MAP.to_mindformers(hf_weights(config, seed=seed), config)
    return NamedCell({name: ours.read(name).astype(dtype) for name in ours.names()})


def holds(cell, weights, config):
    """Whether the cell holds the Hugging Face weights, bit for bit."""
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    values = cell.values()
    return set(values) == set(ours.names()) and all(same(values[name], ours.read(name)) for name in values)


def test_folder_of_hugging_face(tmp_path, config):
    weights = hf_weights(config)
    save_weights(tmp_path, weights, max_shard_size=1000)
    cell = cell_for(config)
    assert not holds(cell, weights, config)
    report = load(cell, tmp_path, WEIGHT_MAP, config)
    assert holds(cell, weights, config)
    assert report.style == "hf" and len(report.loaded) == len(weights)
    assert report.loading_info() == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


@pytest.mark.parametrize("format", ["ckpt", "safetensors"])
@pytest.mark.parametrize("packed_file", [False, True])
@pytest.mark.parametrize("packed_model", [False, True])
def test_our_names_packed_or_not(tmp_path, config, format, packed_file, packed_model):
    weights = hf_weights(config)
    save_weights(tmp_path, weights, names="mindformers", format=format, weight_map=WEIGHT_MAP,
                 config=llama_config(qkv_concat=packed_file))
    model_config = llama_config(qkv_concat=packed_model)
    cell = cell_for(model_config)
    report = load(cell, tmp_path, WEIGHT_MAP, model_config)
    assert holds(cell, weights, model_config) and report.style == "mindformers"


def test_names_as_they_are_without_a_table():
    cell = NamedCell({"a": np.zeros(2, np.float32)})
    load(cell, {"a": np.array([1, 2], np.float32)})
    assert cell.values()["a"].tolist() == [1, 2]


class Affine(nn.Cell):
    """y = x * w + b"""

    def __init__(self):
        super().__init__()
        self.w = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)), name="w")
        self.b = ms.Parameter(ms.Tensor(np.zeros(3, np.float32)), name="b")

    def construct(self, x):
        """x [3] -> [3]"""
        return ops.cast(self.w, ms.float32) * x + ops.cast(self.b, ms.float32)


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def mode(request):
    previous = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=previous)


def test_compiled_graph_sees_the_loaded_values(mode):
    cell, x = Affine(), ms.Tensor(np.array([1, 2, 3], np.float32))
    for factor in (1, 10):
        load(cell, {"w": np.full(3, factor, np.float64), "b": np.array([1, 1, 1], np.float32)})
        assert cell(x).asnumpy().tolist() == [factor + 1, 2 * factor + 1, 3 * factor + 1]


def test_loaded_arrays_belong_to_the_cell():
    """The parameter takes over the memory that was read, never the caller's."""
    given = {"w": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    first, second = Affine(), Affine()
    load(first, given)
    load(second, CellSource(first))
    given["w"][:] = 7
    ops.assign_add(second.w, ms.Tensor(np.ones(3, np.float32)))
    assert first.w.asnumpy().tolist() == [1, 1, 1] and second.w.asnumpy().tolist() == [2, 2, 2]


# -- dtypes -----------------------------------------------------------------------------------------------------------

def test_bf16_file_into_float32_is_exact():
    values = np.array([1.0, -2.5, 3.140625, 1e30], np.float32)
    cell = NamedCell({"a": np.zeros(4, np.float32)})
    report = load(cell, {"a": values.astype(np_dtype.bfloat16)})
    assert same(cell.values()["a"], values.astype(np_dtype.bfloat16).astype(np.float32))
    assert cell.values()["a"][2] == 3.140625 and report.converted == {"a": ("bfloat16", "float32")}


def test_float32_file_into_bf16_rounds_to_nearest_even():
    values = np.array([1.00390625, 1.01171875, 1.005, np.nan, np.inf], np.float32)  # two ties, one above, NaN, inf
    cell = NamedCell({"a": np.zeros(5, np.float32).astype(np_dtype.bfloat16)})
    load(cell, {"a": values})
    got = cell.values()["a"].astype(np.float32)
    assert got[:3].tolist() == [1.0, 1.015625, 1.0078125] and np.isnan(got[3]) and np.isinf(got[4])


def test_dtype_of_the_parameters_can_be_chosen(mode):
    cell, x = Affine(), ms.Tensor(np.array([1, 2, 3], np.float32))
    load(cell, {"w": np.full(3, 1.5, np.float32), "b": np.ones(3, np.float32)}, dtype="bfloat16")
    assert cell.w.dtype == ms.bfloat16 and cell(x).asnumpy().tolist() == [2.5, 4, 5.5]
    other = {"w": np.ones(3, np.float32), "b": np.ones(3, np.float32)}
    if mode == ms.GRAPH_MODE:
        with pytest.raises(ValueError, match="has already run"):
            load(cell, other, dtype="float32")
    else:
        load(cell, other, dtype="float32")
        assert cell.w.dtype == ms.float32 and cell(x).asnumpy().tolist() == [2, 3, 4]


def test_overflow_is_an_error_not_infinity():
    cell = NamedCell({"a": np.zeros(2, np.float16)})
    with pytest.raises(CheckpointMismatchError, match="a holds 1 numbers too large for float16 .up to 70000"):
        load(cell, {"a": np.array([1, 70000], np.float32)})
    load(cell, {"a": np.array([1, np.inf], np.float32)})
    assert np.isinf(cell.values()["a"][1])


@pytest.mark.parametrize("file, model", [("int8", "float32"), ("float32", "int8")])
def test_quantised_values_do_not_convert(file, model):
    with pytest.raises(CheckpointMismatchError, match=f"a is {file} in the file and {model} in the model"):
        load(NamedCell({"a": np.zeros(2, model)}), {"a": np.zeros(2, file)})


def test_integers_convert_when_nothing_is_lost():
    cell = NamedCell({"a": np.zeros(2, np.int32)})
    load(cell, {"a": np.array([1, -5], np.int64)})
    assert cell.values()["a"].tolist() == [1, -5]
    with pytest.raises(CheckpointMismatchError, match="values that int32 cannot"):
        load(cell, {"a": np.array([1, 2**40], np.int64)})


# -- faults -----------------------------------------------------------------------------------------------------------

def test_all_faults_in_one_error_and_nothing_assigned(config):
    weights = hf_weights(config)
    for layer in (0, 1):
        del weights[f"model.layers.{layer}.mlp.up_proj.weight"]
    weights["model.layers.0.odd"] = np.zeros(1, np.float32)
    weights["model.norm.weight"] = np.zeros(9, np.float32)
    cell = cell_for(config)
    before = cell.values()
    with pytest.raises(CheckpointMismatchError) as caught:
        load(cell, weights, WEIGHT_MAP, config)
    message = str(caught.value)
    assert "2 missing: model.layers.{0-1}.feed_forward.w3.weight" in message
    assert "in the file's words model.layers.{0-1}.mlp.up_proj.weight" in message
    assert "1 unexpected: model.layers.0.odd" in message
    assert "model.norm_out.weight is (9,) in the file, (8,) in the model" in message
    assert all(same(before[name], array) for name, array in cell.values().items())


def test_what_the_caller_allows(config):
    weights = hf_weights(config)
    del weights["lm_head.weight"], weights["model.layers.1.mlp.up_proj.weight"]
    weights.update({"extra.a": np.zeros(1, np.float32), "model.norm.weight": np.zeros(9, np.float32)})
    cell = cell_for(config)
    report = load(cell, weights, WEIGHT_MAP, config,
                  allow_missing=["lm_head.weight", r"model\.layers\.\d+\..*w3\.weight"],
                  allow_unexpected=["extra.*"], ignore_mismatched_sizes=True)
    info = report.loading_info()
    assert info["missing_keys"] == ["model.layers.1.feed_forward.w3.weight", "lm_head.weight"]
    assert info["unexpected_keys"] == ["extra.a"]
    assert info["mismatched_keys"] == [("model.norm_out.weight", (9,), (8,))]
    assert "2 missing" in str(report) and "1 mis-shaped" in str(report)
    with pytest.raises(CheckpointMismatchError, match="1 missing: lm_head.weight"):
        load(cell, weights, WEIGHT_MAP, config, allow_missing=["model.layers.*", "head"], allow_unexpected=["extra.*"],
             ignore_mismatched_sizes=True)


@pytest.mark.parametrize("packed_file", [None, True, False])
@pytest.mark.parametrize("packed_model", [True, False])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_sizes_of_packed_parameters_may_differ_too(config, packed_file, packed_model, prefix):
    """The file: Hugging Face's names (None), or ours, packed or not; with its head and prefix, or bare."""
    weights = hf_weights(config)
    if packed_file is not None:
        ours = WEIGHT_MAP.to_mindformers(weights, llama_config(qkv_concat=packed_file))
        weights = {name: ours.read(name) for name in ours.names()}
    weights = {name if prefix else name.removeprefix("model."): array for name, array in weights.items()
               if prefix or name != "lm_head.weight"}
    wanted = llama_config(qkv_concat=packed_model, n_kv_heads=1)
    cell = NamedCell({name if prefix else name.removeprefix("model."): array for name, array in
                      cell_for(wanted).values().items() if prefix or name != "lm_head.weight"})
    before = cell.values()
    report = load(cell, weights, WEIGHT_MAP, wanted, ignore_mismatched_sizes=True)
    packed = ("w_qkv",) if packed_model or packed_file else ()
    kinds = ("w_qkv",) if packed_model else ("wq", "wk", "wv") if packed else ("wk", "wv")
    unfit = {f"{prefix}layers.{layer}.attention.{kind}.weight" for layer in (0, 1) for kind in kinds}
    assert {name for name, _, _ in report.mismatched} == unfit and len(report.mismatched) == len(unfit)
    assert not report.missing and not report.unexpected and len(report.loaded) == len(before) - len(unfit)
    assert all(same(before[name], cell.values()[name]) == (name in unfit) for name in before)
    with pytest.raises(CheckpointMismatchError, match="ignore_mismatched_sizes=True leaves") as caught:
        load(cell, weights, WEIGHT_MAP, wanted)
    assert "missing" not in str(caught.value)


def test_shapes_of_the_parts_are_reported_and_dtypes_are_no_sizes(config):
    wanted = llama_config(qkv_concat=True, n_kv_heads=1)
    report = load(cell_for(wanted), hf_weights(config), WEIGHT_MAP, wanted, ignore_mismatched_sizes=True)
    assert report.mismatched[0] == ("model.layers.0.attention.w_qkv.weight", ((8, 8), (4, 8), (4, 8)), (12, 8))
    weights = hf_weights(config)
    weights["model.layers.0.self_attn.k_proj.weight"] = np.zeros((4, 8), np.int8)
    packed = llama_config(qkv_concat=True)
    with pytest.raises(CheckpointMismatchError, match="cannot be joined"):
        load(cell_for(packed), weights, WEIGHT_MAP, packed, ignore_mismatched_sizes=True)


def test_the_error_names_what_accepts_its_faults(config):
    weights = {**hf_weights(config), "extra": np.zeros(1, np.float32)}
    del weights["lm_head.weight"]
    with pytest.raises(CheckpointMismatchError) as caught:
        load(cell_for(config), weights, WEIGHT_MAP, config)
    way_out = str(caught.value).splitlines()[-1]
    assert way_out == ("  To load all the same: mindformers.checkpoint.load(model, path, type(model).weight_map(), "
                       "model.config, allow_missing=[names], allow_unexpected=[names]) accepts what you name")
    report = load(cell_for(config), weights, WEIGHT_MAP, config, allow_missing=["lm_head.weight"],
                  allow_unexpected=["extra"])
    assert (report.missing, report.unexpected) == (["lm_head.weight"], ["extra"])
    with pytest.raises(CheckpointMismatchError, match=r"load\(model, path, allow_missing=\[names\]\)"):
        load(NamedCell({"a": np.zeros(1), "b": np.zeros(1)}), {"a": np.zeros(1)})


def test_part_of_a_packed_parameter_is_absent(config):
    config.qkv_concat = True
    weights = hf_weights(config)
    del weights["model.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(CheckpointMismatchError, match="w_qkv.weight cannot be made: the file lacks .*1.self_attn.k_p"):
        load(cell_for(config), weights, WEIGHT_MAP, config)


def test_file_without_head_hints_at_tied_embeddings(config):
    weights = hf_weights(config)
    del weights["lm_head.weight"]
    with pytest.raises(CheckpointMismatchError, match="tie_word_embeddings: True"):
        load(cell_for(config), weights, WEIGHT_MAP, config)


def test_misspelt_name_gets_a_suggestion():
    words = r"1 missing: weight\. Did you mean 'wieght'.*\n.*1 unexpected: wieght"
    with pytest.raises(CheckpointMismatchError, match=words):
        load(NamedCell({"weight": np.zeros(1, np.float32)}), {"wieght": np.zeros(1, np.float32)})


def test_training_state_is_left_out_and_said(config, tmp_path):
    weights = WEIGHT_MAP.to_mindformers(hf_weights(config), config)
    arrays = {name: weights.read(name) for name in weights.names()}
    state = {f"adam_m.{name}": array for name, array in arrays.items()}
    state.update({name: np.array(1) for name in ("global_step", "epoch_num", "loss_scale", "scale_sense")})
    save_weights(tmp_path, {**arrays, **state}, names="mindformers", format="ckpt")
    cell = cell_for(config)
    report = load(cell, tmp_path, WEIGHT_MAP, config)
    assert set(report.ignored) == set(state) and holds(cell, hf_weights(config), config)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np_dtype.bfloat16])
def test_nan_on_request(config, bad, dtype):
    weights = {name: array.astype(dtype) for name, array in hf_weights(config).items()}
    for name in ("model.norm.weight", "lm_head.weight"):
        values = weights[name].astype(np.float32)
        values.flat[3] = bad
        weights[name] = values.astype(dtype)
    cell = cell_for(config)
    before = cell.values()
    with pytest.raises(CheckpointMismatchError, match="NaN or infinity in 2 tensors: lm_head.weight, model.norm_out|"
                                                      "NaN or infinity in 2 tensors: model.norm_out.weight, lm_head"):
        load(cell, weights, WEIGHT_MAP, config, check_finite=True)
    assert all(same(before[name], array) for name, array in cell.values().items())
    load(cell, weights, WEIGHT_MAP, config)


def test_lists_and_pickles_are_refused(tmp_path):
    cell = NamedCell({"a": np.zeros(2, np.float32)})
    with pytest.raises(TypeError, match="a must be a numpy array"):
        load(cell, {"a": [1, 2]})
    (tmp_path / "x.pth").write_bytes(b"")
    with pytest.raises(UnsupportedError, match="PyTorch pickle"):
        load(cell, tmp_path / "x.pth")


# -- models with and without head -------------------------------------------------------------------------------------

def test_model_without_head_takes_the_weights_of_one_with(config):
    weights = hf_weights(config)
    ours = WEIGHT_MAP.to_mindformers(weights, config)
    for prefix in ("model.", ""):
        cell = NamedCell({prefix + name.removeprefix("model."): np.zeros(ours.shape(name), np.float32)
                          for name in ours.names() if name.startswith("model.")})
        for source in (weights, {name: ours.read(name) for name in ours.names()}):
            report = load(cell, source, WEIGHT_MAP, config)
            assert list(report.ignored) == ["lm_head.weight"] and "head" in report.ignored["lm_head.weight"]
            assert all(same(array, ours.read("model." + name.removeprefix("model.")))
                       for name, array in cell.values().items())
        with pytest.raises(CheckpointMismatchError, match="1 unexpected: .*junk"):
            load(cell, {**weights, "junk": np.zeros(1, np.float32)}, WEIGHT_MAP, config)


def test_model_with_head_takes_the_weights_of_one_without(config):
    weights = {name.removeprefix("model."): array for name, array in hf_weights(config).items()
               if name != "lm_head.weight"}
    cell = cell_for(config)
    with pytest.raises(CheckpointMismatchError, match="1 missing: lm_head.weight"):
        load(cell, weights, WEIGHT_MAP, config)
    assert load(cell, weights, WEIGHT_MAP, config, allow_missing=["lm_head.weight"]).missing == ["lm_head.weight"]
    assert same(cell.values()["model.norm_out.weight"], weights["norm.weight"])


def test_head_of_another_task_is_left_out_and_said(config):
    """A classifier starts from a causal model: its own head must be allowed to be missing, the other one is ignored."""
    ours = WEIGHT_MAP.to_mindformers(hf_weights(config), config)
    names = [name for name in ours.names() if name != "lm_head.weight"]
    cell = NamedCell({**{name: ours.read(name) for name in names}, "score.weight": np.ones((2, 8), np.float32)})
    with pytest.raises(CheckpointMismatchError, match="1 missing: score.weight"):
        load(cell, hf_weights(config), WEIGHT_MAP, config)
    report = load(cell, hf_weights(config), WEIGHT_MAP, config, allow_missing=["score.weight"])
    assert list(report.ignored) == ["lm_head.weight"] and not report.unexpected
    assert (cell.values()["score.weight"] == 1).all()


def test_two_parameters_of_one_name():
    cell = NamedCell({"a": np.zeros(1), "b": np.zeros(1)})
    assert CellSource(cell, cell, None).names() == ["a", "b"]
    cell.p1.name = "a"
    with pytest.raises(ValueError, match="two parameters are named 'a'"):
        CellSource(cell)


def test_source_says_what_it_is():
    assert repr(DictSource({"a": np.zeros(1)}, "here")) == "DictSource('here', 1 tensors)"


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak from /proc")
def test_memory_is_the_model_and_one_tensor(tmp_path):
    """Peak of loading 16 x 32 MB in two shards, as bf16 into float32: the parameters plus little more."""
    megabyte = 2**20
    arrays = {f"w{number}": np.ones(8 * megabyte, np.float32).astype(np_dtype.bfloat16) for number in range(16)}
    save_weights(tmp_path, arrays, names="mindformers", max_shard_size=150 * 10**6)
    script = textwrap.dedent("""
        import sys
        import mindspore as ms
        from mindspore import nn
        from mindspore.common.initializer import initializer
        from mindspore.nn.utils import no_init_parameters
        from mindformers.checkpoint import load

        class Model(nn.Cell):
            def __init__(self):
                super().__init__()
                for number in range(16):
                    value = initializer("ones", (8 * 2**20,), ms.float32)
                    setattr(self, f"w{number}", ms.Parameter(value, f"w{number}"))

        ms.set_device("CPU")
        with no_init_parameters():
            model = Model()
        def peak():
            # VmHWM and not ru_maxrss, which starts at the peak of the parent process
            with open("/proc/self/status") as status:
                return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) // 1024

        before = peak()
        load(model, sys.argv[1], progress=False)
        assert model.w15.asnumpy()[-1] == 1
        print(peak() - before)
        """)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    used = int(run.stdout.split()[-1])
    # 512 MB of parameters, and while one is converted its 16 MB and 32 MB; a whole shard would be 150 MB more
    assert 512 <= used <= 512 + 110, used
