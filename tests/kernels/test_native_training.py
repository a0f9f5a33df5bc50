"""The ops that train, native against portable: values and gradients, alone and in a training step."""
from contextlib import nullcontext

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindformers.kernels import library, portable
from tests.graph_mode import eagerly

pytestmark = pytest.mark.skipif(not library.verdict().usable, reason=f"native library: {library.verdict().reason}")
BOTH_MODES = pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])


@pytest.fixture(autouse=True)
def _graph_mode():
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def forms():
    from mindformers.kernels import native
    return native, portable


class Weighted(nn.Cell):
    """A number whose gradient by the output of `function` is `weights`."""

    def __init__(self, function, constants=()):
        super().__init__(auto_prefix=False)
        self.function, self.constants = function, constants

    def construct(self, weights, *inputs):
        out = self.function(*inputs, *self.constants)
        return ops.sum(ops.cast(out, ms.float32) * weights), out


def run(function, weights, inputs, constants, wanted):
    """The output of `function`, and the gradients by inputs 0 ... wanted - 1, as numpy."""
    step = ms.value_and_grad(Weighted(function, constants), tuple(range(1, wanted + 1)), has_aux=True)
    (_, out), grads = step(Tensor(weights), *inputs)
    return [x.astype(ms.float32).asnumpy() for x in (out, *grads)], [x.dtype for x in grads]


def far(got, expected):
    """Largest error, of the largest value; values below 0.01 are rounding."""
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-2)) for a, b in zip(got, expected))


def random(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def compare(op, weights, inputs, constants, wanted, bound=2e-5):
    got, types = run(getattr(forms()[0], op), weights, inputs, constants, wanted)
    with eagerly():
        expected, expected_types = run(getattr(portable, op), weights, inputs, constants, wanted)
    assert types == expected_types
    assert far(got, expected) < bound
    return got, expected


def causal(b, groups, t, s, hidden=()):
    """Additive mask [B, 1, G*T, S]; queries are the last of the keys; `hidden`: (sequence, first key, last key)."""
    mask = np.triu(np.full((t, s), portable.MASKED, np.float32), s - t + 1)
    mask = np.broadcast_to(np.tile(mask, (groups, 1)), (b, 1, groups * t, s)).copy()
    for row, first, last in hidden:
        mask[row, :, :, first:last + 1] = portable.MASKED
    return mask


# B, K, G, T, S, H, hidden keys: one key, odd sizes, several blocks, queries behind earlier keys, padding behind, before
# (the first queries see nothing), and in between
CASES = [(1, 1, 1, 1, 1, 4, ()), (2, 3, 1, 7, 7, 5, ()), (1, 2, 3, 67, 67, 24, ()), (1, 1, 1, 150, 150, 64, ()),
         (2, 1, 2, 5, 140, 16, ()), (2, 2, 1, 70, 70, 8, ((0, 60, 69),)), (2, 1, 4, 33, 33, 8, ((1, 10, 20),))]


def attention_inputs(b, k, g, t, s, h, hidden):
    q, keys, values = random(b, k, g * t, h), random(b, k, s, h, seed=1), random(b, k, s, h, seed=2)
    return random(b, k, g * t, h, seed=3), [Tensor(x) for x in (q, keys, values, causal(b, g, t, s, hidden))]


@pytest.mark.parametrize("case", CASES)
def test_attention(case):
    weights, inputs = attention_inputs(*case)
    compare("attention", weights, inputs, (0.3,), 3)


@BOTH_MODES
def test_attention_of_views_and_one_mask_for_all(mode):
    """As a layer calls it: transposed queries, keys and values."""
    ms.set_context(mode=mode)
    b, n, t, h = 2, 3, 20, 8
    inputs = [Tensor(random(b, t, n, h, seed=i)) for i in range(3)] + [Tensor(causal(1, 1, t, t))]

    def transposed(attention):
        def function(q, k, v, mask, scale):
            q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
            return ops.transpose(attention(q, k, v, mask, scale), (0, 2, 1, 3))
        return function

    native, plain = (run(transposed(form.attention), random(b, t, n, h, seed=9), inputs, (0.3,), 3)[0]
                     for form in forms())
    assert far(native, plain) < 2e-5
    with eagerly():
        unmasked = run(transposed(portable.attention), random(b, t, n, h, seed=9),
                       [*inputs[:3], Tensor(np.zeros((1, 1, t, t), np.float32))], (0.3,), 3)[0]
    assert far(native, unmasked) > 1e-2


def test_a_query_without_keys_gives_zeros_and_no_gradient():
    case = (1, 2, 1, 9, 9, 8, ((0, 0, 3),))
    weights, inputs = attention_inputs(*case)
    (got, _), (expected, _) = (run(form.attention, weights * (np.arange(9) > 3)[:, None], inputs, (0.3,), 3)
                               for form in forms())
    assert far([got[0][:, :, 4:]], [expected[0][:, :, 4:]]) < 2e-5 and far(got[1:], expected[1:]) < 2e-5
    got = run(forms()[0].attention, weights, inputs, (0.3,), 3)[0]
    assert all(np.isfinite(x).all() for x in got)
    assert not got[0][:, :, :4].any() and not got[1][:, :, :4].any() and not got[2][:, :, :4].any()


def test_a_mask_that_is_neither_is_refused():
    weights, inputs = attention_inputs(1, 1, 1, 4, 4, 8, ())
    inputs[3] = Tensor(np.where(inputs[3].asnumpy() == 0, 0.5, portable.MASKED).astype(np.float32))
    with pytest.raises(RuntimeError):
        run(forms()[0].attention, weights, inputs, (0.3,), 3)
    assert "the mask must be 0" in library.last_error()


def test_attention_of_dynamic_shapes():
    native, _ = forms()
    net = Weighted(native.attention, (0.3,))
    net.set_inputs(*[Tensor(shape=[None, 2, None, 8], dtype=ms.float32)] * 4,
                   Tensor(shape=[None, 1, None, None], dtype=ms.float32))
    for t in (3, 70):
        weights, inputs = attention_inputs(2, 2, 1, t, t, 8, ())
        expected = Weighted(portable.attention, (0.3,))(Tensor(weights), *inputs)[1].asnumpy()
        assert far([net(Tensor(weights), *inputs)[1].asnumpy()], [expected]) < 2e-5


@BOTH_MODES
@pytest.mark.parametrize("dtype", [ms.float32, ms.float16, ms.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (130, 600), (2, 3, 16)])
def test_rms_norm(mode, dtype, shape):
    ms.set_context(mode=mode)
    inputs = [Tensor(random(*shape)), Tensor(random(shape[-1], seed=5)).astype(dtype)]
    got, _ = compare("rms_norm", random(*shape, seed=6), inputs, (0.01,), 2, 2e-5 if dtype == ms.float32 else 1e-2)
    with eagerly():
        other = run(portable.rms_norm, random(*shape, seed=6), inputs, (0.5,), 2)[0]
    assert far(got, other) > 1e-2


@BOTH_MODES
@pytest.mark.parametrize("shape", [(1, 1), (5, 37), (66, 1030)])
def test_swiglu(mode, shape):
    ms.set_context(mode=mode)
    inputs = [Tensor(3 * random(*shape)), Tensor(random(*shape, seed=5))]
    got, _ = compare("swiglu", random(*shape, seed=6), inputs, (), 2)
    with eagerly():
        assert far(got, run(portable.swiglu, random(*shape, seed=6), inputs[::-1], (), 2)[0]) > 1e-2


@BOTH_MODES
def test_swiglu_of_the_halves_of_one_product(mode):
    ms.set_context(mode=mode)

    def halves(swiglu):
        return lambda packed: swiglu(packed[:, :6], packed[:, 6:])

    native, plain = (run(halves(form.swiglu), random(5, 6, seed=6), [Tensor(random(5, 12))], (), 1)[0]
                     for form in forms())
    assert far(native, plain) < 2e-5


def llama(monkeypatch, form, **kwargs):
    """A small Llama in training mode, the same weights in every form; `form` None: the default."""
    from mindformers import LlamaConfig, LlamaForCausalLM
    monkeypatch.delenv("MF_KERNELS", raising=False)
    if form:
        monkeypatch.setenv("MF_KERNELS", form)
    config = {"vocab_size": 97, "hidden_size": 48, "num_layers": 2, "num_heads": 6, "n_kv_heads": 2,
              "intermediate_size": 80, "seq_length": 70, "pad_token_id": 0,
              "param_init_type": "float32", **kwargs}
    net = LlamaForCausalLM(LlamaConfig(**config)).set_train()
    for i, weight in enumerate(net.trainable_params()):
        scale = 1.0 if weight.ndim == 1 else 0.2
        weight.set_data(Tensor(scale * random(*weight.shape, seed=i)).astype(weight.dtype))
    return net


def tokens(rows, length):
    ids = np.random.default_rng(7).integers(1, 97, (rows, length)).astype(np.int32)
    ids[0, -9:] = 0  # padding
    return ids


def loss_and_gradients(net, *inputs):
    inputs = [x if x is None else Tensor(x) for x in inputs]
    loss, grads = ms.value_and_grad(net, None, ms.ParameterTuple(net.trainable_params()))(*inputs)
    return float(loss.asnumpy()), [grad.astype(ms.float32).asnumpy() for grad in grads]


@pytest.mark.parametrize("mode, kwargs, padded", [
    (ms.GRAPH_MODE, {}, False), (ms.GRAPH_MODE, {"n_kv_heads": 6}, True),
    (ms.PYNATIVE_MODE, {"qkv_concat": True}, True)])
def test_llama_trains_as_in_the_portable_form(monkeypatch, mode, kwargs, padded):
    ms.set_context(mode=mode)
    ids = tokens(2, 71)
    keep = np.ones((2, 70), np.int32)
    keep[0, -10:], keep[1, 3:5] = 0, 0
    inputs = (ids, None, None, keep) if padded else (ids,)
    native = llama(monkeypatch, None, **kwargs)
    assert native.model.layers[0].attention.attention.__module__ == "mindformers.kernels.native"
    loss, grads = loss_and_gradients(native, *inputs)
    plain = llama(monkeypatch, "portable", **kwargs)
    with eagerly() if padded else nullcontext():  # one of them compiles the portable form too
        expected_loss, expected = loss_and_gradients(plain, *inputs)
    assert abs(loss - expected_loss) < 1e-5 * expected_loss
    assert max(far([a], [b]) for a, b in zip(grads, expected)) < 3e-5
    if padded:  # the mask counts
        with eagerly():
            assert abs(loss - loss_and_gradients(native, ids)[0]) > 1e-3


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_layers_that_are_computed_again_have_the_same_gradients(monkeypatch, mode):
    """``Cell.recompute()``: the forward pass of a layer runs once more in the backward pass, custom ops and all."""
    ms.set_context(mode=mode)
    ids = tokens(2, 41)
    kept = llama(monkeypatch, None)
    loss, grads = loss_and_gradients(kept, ids)
    again = llama(monkeypatch, None)
    for layer in again.model.layers:
        layer.recompute()
    found, other = loss_and_gradients(again, ids)
    assert abs(found - loss) < 1e-6 * loss and max(far([a], [b]) for a, b in zip(other, grads)) < 1e-6
    assert len(grads) == len(other) > 10 and far([grads[-1]], [2 * grads[-1]]) > 0.1


def trained(net, ids, **kwargs):
    from mindformers.wrapper.train_step import TrainStep
    step = TrainStep(net, nn.SGD(net.trainable_params(), 0.1), **kwargs)
    losses = [float(np.asarray(step(ids).loss)) for _ in range(3)]
    return losses, [weight.asnumpy() for weight in net.trainable_params()]


@pytest.mark.parametrize("kwargs", [{}, {"grad_accumulation": 2, "max_grad_norm": 1.0}])
def test_train_step_equals_the_portable_form(monkeypatch, kwargs):
    ids = tokens(4, 30)
    losses, weights = trained(llama(monkeypatch, None), ids, **kwargs)
    with eagerly() if kwargs else nullcontext():
        expected_losses, expected = trained(llama(monkeypatch, "portable"), ids, **kwargs)
    assert np.allclose(losses, expected_losses, rtol=1e-5) and losses[2] < losses[0]
    assert far(weights, expected) < 3e-5
    assert far(weights, [x.asnumpy() for x in llama(monkeypatch, "portable").trainable_params()]) > 1e-3


def test_bfloat16_parameters_train(monkeypatch):
    ids = tokens(2, 30)
    loss, grads = loss_and_gradients(llama(monkeypatch, None, param_init_type="bfloat16"), ids)
    with eagerly():
        expected_loss, expected = loss_and_gradients(llama(monkeypatch, "portable", param_init_type="bfloat16"), ids)
    assert abs(loss - expected_loss) < 1e-2 * expected_loss
    for got, wanted in zip(grads, expected):
        assert np.linalg.norm(got - wanted) < 0.05 * np.linalg.norm(wanted)
