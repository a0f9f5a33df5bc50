"""A step without a graph: equal to the graph of the same cells, and only where the model fits; native and portable."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, ops

from mindformers import kernels
from mindformers.kernels import blas
from mindformers.models import decoding
from mindformers.models.llama import LlamaConfig, LlamaForCausalLM
from mindformers.modules.layers import Linear
from mindformers.pet import LoraConfig, get_pet_model
from mindformers.tools.errors import ConfigError

FORMS = ["native", "portable"]
NATIVE_ONLY = pytest.mark.parametrize("form", ["native"], indirect=True)  # what is asked is not the kernels' doing

SHAPES = {
    "gqa": {"n_kv_heads": 2},
    "qkv bias": {"qkv_has_bias": True, "n_kv_heads": 1},
    "all biases": {"qkv_has_bias": True, "attn_proj_has_bias": True, "mlp_has_bias": True},
    "packed": {"qkv_concat": True, "n_kv_heads": 2},
    "packed with biases": {"qkv_concat": True, "qkv_has_bias": True, "mlp_has_bias": True},
    "bfloat16": {"param_init_type": "bfloat16"},
    "float16": {"param_init_type": "float16", "qkv_has_bias": True},
    "one layer": {"num_layers": 1},
    "tied": {"tie_word_embeddings": True},
    "dynamic rope": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embedding": 9},
    "llama3 rope": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0, "original_max_position_embeddings": 16}},
}


class OtherLinear(Linear):
    """As good as a Linear, but its cell wants to be called."""

    is_plain = False


@pytest.fixture(params=FORMS, autouse=True)
def form(request, monkeypatch):
    """The form that the cells of the test take."""
    use(request.param, monkeypatch)
    return request.param


def use(form, monkeypatch):
    """Take a form; skips the test where it cannot run."""
    monkeypatch.setenv("MF_KERNELS", "portable" if form == "portable" else "")
    if form == "native" and kernels.form() == "portable":
        pytest.skip("no native library")


def build(**kwargs):
    """A random model, biases not zero."""
    fields = {"vocab_size": 67, "hidden_size": 64, "num_layers": 3, "num_heads": 4, "intermediate_size": 96,
              "seq_length": 64, "param_init_type": "float32", **kwargs}
    model, rng = LlamaForCausalLM(LlamaConfig(**fields)).set_train(False), np.random.default_rng(3)
    for parameter in model.get_parameters():
        value = rng.standard_normal(parameter.shape).astype(np.float32) * 0.2
        parameter.set_data(Tensor(value + ("norm" in parameter.name), parameter.dtype))
    return model


def run(model, whole):
    """Logits of a prompt of two rows and of four more steps; without a graph (`whole`) or by graphs."""
    if not whole:
        model.model.decoder_step = None
    model.forget_graphs()
    return steps(model), is_whole(model)


def steps(model):
    """The same with what is compiled already."""
    rng, logits = np.random.default_rng(5), []
    with model.make_cache(2, 20) as cache:
        logits.append(model.forward_step(rng.integers(3, 67, (2, 7)), [7, 4], cache))
        for _ in range(4):
            logits.append(model.forward_step(rng.integers(3, 67, (2, 1)), [1, 1], cache))
    return np.stack(logits)


def is_whole(model):
    """Whether steps ran without a graph."""
    assert (model._steps.whole is None) == bool(model._steps.graphs)
    return model._steps.whole is not None


@pytest.mark.parametrize("form, name", [*(("native", name) for name in SHAPES), ("portable", "packed with biases"),
                                        ("portable", "float16")], indirect=["form"])
def test_equals_the_graph(form, name):
    model = build(**SHAPES[name])
    found, whole = run(model, whole=True)
    expected, by_graph = run(model, whole=False)
    assert whole and not by_graph
    if name == "dynamic rope" or form == "portable":  # frequencies, or all, by numpy and by MindSpore
        assert np.allclose(found, expected, atol=2e-5)
    else:
        assert np.array_equal(found, expected)
    assert np.abs(np.diff(found, axis=0)).max() > 1e-2, "the steps differ"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", ["portable"], indirect=True)
def test_portable_equals_native(name, monkeypatch):
    found = steps(build(**SHAPES[name]))
    use("native", monkeypatch)
    bound = {"bfloat16": 1e-1, "float16": 2e-2}.get(name, 2e-5)  # native ones round as weights are stored
    expected = steps(build(**SHAPES[name]))
    assert np.allclose(found, expected, atol=bound) and not np.allclose(found[:, ::-1], expected, atol=bound)


@pytest.mark.parametrize("form, quantization", [("native", "int8"), ("native", "int8:32"), ("portable", "int8:32")],
                         indirect=["form"])
def test_quantised_layers(quantization, form):
    model = build(qkv_has_bias=True).quantize(quantization)
    found, whole = run(model, whole=True)
    expected, _ = run(model, whole=False)
    assert whole and (np.array_equal(found, expected) if form == "native" else np.allclose(found, expected, atol=2e-5))


@pytest.mark.parametrize("lengths", [[9], [9, 3, 7]])
def test_a_long_prompt_in_pieces_equals_one_piece(lengths, monkeypatch):
    model = build(n_kv_heads=2)
    tokens, next_tokens = np.arange(9 * len(lengths)).reshape(-1, 9) + 3, np.full((len(lengths), 1), 5)

    def logits():
        with model.make_cache(len(lengths), 20) as cache:
            return (model.forward_step(tokens, lengths, cache),
                    model.forward_step(next_tokens, [1] * len(lengths), cache))

    whole = logits()
    monkeypatch.setattr(decoding, "_PREFILL_CHUNK", 4)
    assert np.allclose(whole, logits(), atol=1e-5)


@pytest.mark.parametrize("adapted", [False, True])
def test_what_a_failed_generation_left_in_the_cache_is_not_seen(adapted):
    model = build(num_layers=1 if adapted else 3)
    ids = dict(tokens=np.array([[3, 4, 5, 6], [7, 8, 0, 0]]), lengths=[4, 2])
    if adapted:  # a step is a graph then
        get_pet_model(model, LoraConfig(target_modules=".*w2", lora_rank=2))
    embedding = model.model.tok_embeddings.embedding_weight
    kept = embedding.asnumpy().copy()

    def answers():
        with model.make_cache(2, 20) as cache:
            return model.forward_step(**ids, cache=cache), model.forward_step(np.array([[5], [6]]), [1, 1], cache)

    expected, broken = answers(), kept.copy()
    broken[66] = np.nan
    embedding.set_data(Tensor(broken))
    with model.make_cache(2, 20) as cache:
        assert np.isnan(model.forward_step(np.full((2, 9), 66), [9, 9], cache)).all()
    assert np.array_equal(answers(), expected)


@pytest.mark.parametrize("form, value", [("portable", value) for value in ("0", "-1", "257", "two")], indirect=["form"])
def test_numbers_of_threads_that_are_none(value, monkeypatch):
    monkeypatch.setenv("MF_NUM_THREADS", value)
    blas.use_all_cores.cache_clear()
    with pytest.raises(ConfigError, match=f"MF_NUM_THREADS='{value}' is no number of threads from 1 to 256"):
        steps(build())


def test_rows_that_changed_places_go_on_from_their_own_past():
    model, tokens = build(n_kv_heads=2), np.array([[3, 4, 5, 6], [7, 8, 9, 10]])
    with model.make_cache(2, 20) as cache:
        model.forward_step(tokens, [4, 4], cache)
        kept = model.forward_step(np.array([[11], [12]]), [1, 1], cache)
    with model.make_cache(2, 20) as cache:
        model.forward_step(tokens, [4, 4], cache)
        cache.reorder([1, 1])
        both = model.forward_step(np.array([[12], [12]]), [1, 1], cache)
        assert np.allclose(both, kept[[1, 1]], atol=1e-5) and not np.allclose(kept[0], kept[1], atol=1e-2)


def test_steps_follow_every_weight():
    model = build(num_layers=2, qkv_has_bias=True, attn_proj_has_bias=True, mlp_has_bias=True)
    before, _ = run(model, whole=True)
    whole = model._steps.whole
    for name, parameter in model.parameters_and_names():
        kept = parameter.asnumpy().copy()
        parameter.set_data(Tensor(kept + 0.5, ms.float32))
        if not name.endswith("wk.bias"):  # the same for all keys: softmax does not see it
            assert not np.allclose(steps(model), before, atol=1e-4), name
        parameter.set_data(Tensor(kept, ms.float32))
    assert np.array_equal(steps(model), before) and model._steps.whole is whole


def test_weights_written_in_place_are_seen():
    model = build(num_layers=1)
    before, _ = run(model, whole=True)
    weight = model.model.layers[0].feed_forward.w2.weight
    ops.assign(weight, Tensor(weight.asnumpy() * 2))
    after = steps(model)
    assert not np.allclose(after, before, atol=1e-3)
    assert np.allclose(after, run(model, whole=False)[0], atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_strided_views_as_weights(dtype):
    model = build(num_layers=1, param_init_type=dtype)
    weight = model.model.layers[0].attention.wo.weight
    whole = Tensor.from_numpy(weight.asnumpy().copy())
    weight.set_data(whole)
    before, turned = steps(model), np.ascontiguousarray(weight.asnumpy().T)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        weight.set_data(whole.T)  # at the same address
        view = not weight.is_contiguous()
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    found = steps(model)
    weight.set_data(Tensor.from_numpy(turned))
    assert view and np.array_equal(found, steps(model)) and not np.allclose(found, before, atol=1e-3)


def test_a_weight_that_is_still_computed_is_waited_for():
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        model = build(num_layers=1)
        steps(model)
        weight = model.model.layers[0].feed_forward.w2.weight
        slow = Tensor(np.full((1500, 1500), 1 / 1500, np.float32))
        for _ in range(5):
            slow = ops.matmul(slow, slow)  # stays what it is, and is under way when the step begins
        ops.assign(weight, slow[:weight.shape[0], :weight.shape[1]] * 1500)
        assert np.array_equal(steps(model), steps(model))
        assert np.allclose(weight.asnumpy(), 1.0, atol=1e-3)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)


def test_nothing_is_compiled(monkeypatch):
    model = build()
    monkeypatch.setattr(ms.nn.Cell, "compile", lambda *_: pytest.fail("a graph was compiled"))
    assert run(model, whole=True)[1]


def test_a_refusal_names_the_value_and_the_model_stays_usable():
    model = build()
    before, _ = run(model, whole=True)
    with model.make_cache(1, 20) as cache:
        cache.plan = lambda counts, width: (np.zeros((1, width), np.int32), np.full(width, 10 ** 6, np.int32),
                                            np.zeros((1, 2), np.int32))
        with pytest.raises(RuntimeError, match="1000000"):
            model.forward_step(np.array([[3, 4]]), [2], cache)
    assert np.array_equal(steps(model), before)


@NATIVE_ONLY
def test_other_products_run_as_a_graph():
    model = build()
    before, _ = run(model, whole=True)
    plain = model.model.layers[1].feed_forward.w2
    other = OtherLinear(96, 64, False)
    other.weight = Parameter(plain.weight.value(), name=plain.weight.name)
    model.model.layers[1].feed_forward.w2 = other
    found, whole = run(model, whole=True)
    assert not whole and np.allclose(found, before, atol=1e-5)


@NATIVE_ONLY
def test_a_head_that_is_more_than_its_weight_runs_as_a_graph():
    model = build()
    before, _ = run(model, whole=True)
    other = OtherLinear(64, 67, False)
    other.weight = Parameter(model.lm_head.weight.value(), name=model.lm_head.weight.name)
    model.lm_head = other
    found, whole = run(model, whole=True)
    assert not whole and np.allclose(found, before, atol=1e-5)


@NATIVE_ONLY
def test_layers_that_are_not_alike_run_as_a_graph():
    model = build(qkv_has_bias=True)
    model.model.layers[2].attention.wq = Linear(64, 64, False)
    assert not run(model, whole=True)[1]


@NATIVE_ONLY
def test_adapters_run_as_a_graph_until_they_are_merged():
    model = get_pet_model(build(), LoraConfig(target_modules=".*w2", lora_rank=2, lora_b_init="normal"))
    expected, whole = run(model, whole=True)
    assert not whole
    found, whole = run(model.merge_adapter(), whole=True)
    assert whole and np.allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert not run(model.unmerge_adapter(), whole=True)[1]
    with model.disable_adapter():
        base, whole = run(model, whole=True)
    assert whole and not np.allclose(base, expected, atol=1e-3)
