"""All layers of a step in one native call: equal to the layers one by one, and only where they fit."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, ops

from mindformers import kernels
from mindformers.models.llama import LlamaConfig, LlamaForCausalLM
from mindformers.modules.layers import Linear

pytestmark = pytest.mark.skipif(kernels.form() == "portable", reason="the portable form runs layer by layer")

SHAPES = {
    "gqa": {"n_kv_heads": 2},
    "qkv bias": {"qkv_has_bias": True, "n_kv_heads": 1},
    "all biases": {"qkv_has_bias": True, "attn_proj_has_bias": True, "mlp_has_bias": True},
    "packed": {"qkv_concat": True, "n_kv_heads": 2},
    "packed with biases": {"qkv_concat": True, "qkv_has_bias": True, "mlp_has_bias": True},
    "bfloat16": {"param_init_type": "bfloat16"},
    "float16": {"param_init_type": "float16", "qkv_has_bias": True},
    "one layer": {"num_layers": 1},
}


class OtherLinear(Linear):
    """As good as a Linear, but its cell wants to be called."""

    is_plain = False


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
    """Logits of a prompt of two rows and of four more steps; the cells run in one call (`whole`) or one by one."""
    if not whole:
        model.model.decoder_layers = None
    model.forget_graphs()
    return steps(model), stacks(model)


def steps(model):
    """The same with the graphs that are there already."""
    rng, logits = np.random.default_rng(5), []
    with model.make_cache(2, 20) as cache:
        logits.append(model.forward_step(rng.integers(3, 67, (2, 7)), [7, 4], cache))
        for _ in range(4):
            logits.append(model.forward_step(rng.integers(3, 67, (2, 1)), [1, 1], cache))
    return np.stack(logits)


def stacks(model):
    """Whether each compiled step is one call."""
    return {graph.layers.layout is not None for graph in model._step_graphs[1].values()}


@pytest.mark.parametrize("name", SHAPES)
def test_one_call_equals_layer_by_layer(name):
    model = build(**SHAPES[name])
    found, one_call = run(model, whole=True)
    expected, by_layer = run(model, whole=False)
    assert one_call == {True} and by_layer == {False}
    assert np.array_equal(found, expected)
    assert np.abs(np.diff(found, axis=0)).max() > 1e-2, "the steps differ"


@pytest.mark.parametrize("quantization", ["int8", "int8:32"])
def test_quantised_layers(quantization):
    model = build(qkv_has_bias=True).quantize(quantization)
    found, one_call = run(model, whole=True)
    expected, _ = run(model, whole=False)
    assert one_call == {True} and np.array_equal(found, expected)


def test_compiled_steps_follow_every_weight():
    model = build(num_layers=2, qkv_has_bias=True, attn_proj_has_bias=True, mlp_has_bias=True)
    before, _ = run(model, whole=True)
    graphs = dict(model._step_graphs[1])
    for name, parameter in model.parameters_and_names():
        kept = parameter.asnumpy().copy()
        parameter.set_data(Tensor(kept + 0.5, ms.float32))
        if not name.endswith("wk.bias"):  # the same for all keys: softmax does not see it
            assert not np.allclose(steps(model), before, atol=1e-4), name
        parameter.set_data(Tensor(kept, ms.float32))
    assert np.array_equal(steps(model), before) and model._step_graphs[1] == graphs


def test_weights_written_in_place_are_seen():
    model = build(num_layers=1)
    before, _ = run(model, whole=True)
    weight = model.model.layers[0].feed_forward.w2.weight
    ops.assign(weight, Tensor(weight.asnumpy() * 2))
    after = steps(model)
    assert not np.allclose(after, before, atol=1e-3)
    assert np.array_equal(after, run(model, whole=False)[0])


def test_other_products_run_layer_by_layer():
    model = build()
    before, _ = run(model, whole=True)
    plain = model.model.layers[1].feed_forward.w2
    other = OtherLinear(96, 64, False)
    other.weight = Parameter(plain.weight.value(), name=plain.weight.name)
    model.model.layers[1].feed_forward.w2 = other
    found, one_call = run(model, whole=True)
    assert one_call == {False} and np.allclose(found, before, atol=1e-5)


def test_layers_that_are_not_alike_run_layer_by_layer():
    model = build(qkv_has_bias=True)
    model.model.layers[2].attention.wq = Linear(64, 64, False)
    assert run(model, whole=True)[1] == {False}
