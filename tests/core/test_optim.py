"""Optimizers against PyTorch's numbers, MindSpore's own classes and plain numpy."""
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindformers.core.optim import AdamW, Came, FP32StateAdamWeightDecay, FusedAdamWeightDecay, build_optim
from mindformers.core.optim.groups import decay_groups
from mindformers.tools.errors import UnsupportedError

GOLDEN = Path(__file__).parents[1] / "reference" / "optim" / "adamw.npz"
NAMES = ("vector", "matrix", "small")  # the vector first: group decay must not depend on the order


class Weights(nn.Cell):
    def __init__(self, start, dtype=ms.float32):
        super().__init__()
        self.weights = [Parameter(Tensor(start[f"start.{name}"], dtype), name=name) for name in NAMES]
        for weight in self.weights:
            self.insert_param_to_cell(weight.name, weight)


class Recorded(nn.learning_rate_schedule.LearningRateSchedule):
    """A schedule that reads a table."""

    def __init__(self, rates):
        super().__init__()
        self.rates = Tensor(rates)

    def construct(self, global_step):
        return ms.ops.gather(self.rates, global_step, 0)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def train(golden, build, steps=20, dtype=ms.float32):
    """{step: {name: weights}} of `build(groups, schedule)` over the recorded gradients."""
    net = Weights(golden, dtype)
    optimizer = build(net, Recorded(golden["rates"]))
    out = {}
    for step in range(steps):
        optimizer(tuple(Tensor(golden[f"grad.{weight.name}"][step]) for weight in optimizer.parameters))
        out[step + 1] = {weight.name: weight.asnumpy().astype(np.float32).copy() for weight in net.weights}
    return out, optimizer


def adamw(net, rates):
    return AdamW(decay_groups(net, 0.1), rates, betas=(0.9, 0.95), eps=1e-8)


def worst(golden, weights, step):
    """Largest relative distance from torch's weights: of the change since the start."""
    return max(abs(weights[name] - golden[f"end.{name}.{step}"]).max()
               / abs(golden[f"end.{name}.{step}"] - golden[f"start.{name}"]).max() for name in NAMES)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_adamw_equals_torch(golden, mode):
    ms.set_context(mode=mode)
    out, _ = train(golden, adamw)
    for step in (1, 5, 20):
        assert worst(golden, out[step], step) < 1e-5


@pytest.mark.parametrize("wrong", [
    lambda net, rates: AdamW(decay_groups(net, 0.0), rates, betas=(0.9, 0.95)),
    lambda net, rates: AdamW(net.trainable_params(), rates, betas=(0.9, 0.95), weight_decay=0.1),
    lambda net, rates: AdamW(decay_groups(net, 0.1), rates, betas=(0.9, 0.95), eps=1e-7),
    lambda net, rates: FP32StateAdamWeightDecay(decay_groups(net, 0.1), rates, 0.9, 0.95, 1e-8),
], ids=["no decay", "vectors decay too", "other eps", "no bias correction"])
def test_other_updates_miss_torch(golden, wrong):
    out, _ = train(golden, wrong)
    assert worst(golden, out[20], 20) > 1e-4


def test_without_decay_equals_torch_without_decay(golden):
    out, _ = train(golden, lambda net, rates: AdamW(decay_groups(net, 0.0), rates, betas=(0.9, 0.95)))
    for name in NAMES:
        np.testing.assert_allclose(out[20][name], golden[f"none.{name}"], atol=2e-6)


def test_states_are_float32_and_named(golden):
    _, optimizer = train(golden, adamw, steps=1, dtype=ms.float16)
    assert {p.name for p in optimizer.exp_avg} == {f"adam_m.{name}" for name in NAMES}
    assert {p.name for p in optimizer.exp_avg_sq} == {f"adam_v.{name}" for name in NAMES}
    assert all(p.dtype == ms.float32 for p in (*optimizer.moments1, *optimizer.moments2))
    assert {p.dtype for p in optimizer.parameters} == {ms.float16}


def test_half_precision_weights_follow_to_rounding(golden):
    out, _ = train(golden, adamw, steps=5, dtype=ms.float16)
    for name in NAMES:
        np.testing.assert_allclose(out[5][name], golden[f"end.{name}.5"], atol=5e-3)


def test_fp32_state_equals_mindspores_adam_weight_decay(golden):
    ours, _ = train(golden, lambda net, rates: FP32StateAdamWeightDecay(decay_groups(net, 0.1), rates), steps=5)
    theirs, _ = train(golden, lambda net, rates: nn.AdamWeightDecay(decay_groups(net, 0.1), rates), steps=5)
    for name in NAMES:
        np.testing.assert_allclose(ours[5][name], theirs[5][name], atol=1e-6)
    fused, _ = train(golden, lambda net, rates: FusedAdamWeightDecay(decay_groups(net, 0.1), rates), steps=5)
    assert all((fused[5][name] == ours[5][name]).all() for name in NAMES)


def test_group_rates(golden):
    net = Weights(golden)
    groups = [{"params": [net.weights[0]], "lr": 0.0}, {"params": net.weights[1:]}]
    optimizer = AdamW(groups, 0.1)
    before = [weight.asnumpy().copy() for weight in net.weights]
    optimizer(tuple(Tensor(golden[f"grad.{weight.name}"][0]) for weight in optimizer.parameters))
    assert (net.weights[0].asnumpy() == before[0]).all()
    assert abs(net.weights[1].asnumpy() - before[1]).min() > 0.09


@pytest.mark.parametrize("args, error", [
    ({"betas": 0.9}, TypeError), ({"betas": (0.9,)}, ValueError), ({"betas": (0.9, 1.0)}, ValueError),
    ({"betas": ("0.9", 0.99)}, TypeError), ({"eps": 0.0}, ValueError), ({"eps": "1"}, TypeError),
    ({"weight_decay": "0.1"}, TypeError), ({"weight_decay": -0.1}, ValueError),
])
def test_wrong_arguments(golden, args, error):
    with pytest.raises(error):
        AdamW(Weights(golden).trainable_params(), **args)


def test_decay_goes_by_dimension_and_name():
    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            for name, shape in (("norm.weight", (3,)), ("dense.bias", (2, 2)), ("dense.weight", (2, 2)),
                                ("pos", (2, 2)), ("head.weight", (2, 2))):
                weight = Parameter(Tensor(np.zeros(shape, np.float32)), name=name)
                self.insert_param_to_cell(name.replace(".", "_"), weight)

        def no_weight_decay(self):
            return ["pos"]

    groups = decay_groups(Net(), 0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [[p.name for p in group["params"]] for group in groups] == [
        ["dense.weight", "head.weight"], ["norm.weight", "dense.bias", "pos"]]


@pytest.mark.parametrize("alias, kind", [
    ("adamw", FP32StateAdamWeightDecay), ("AdamW", AdamW), ("fp32_adamw", FP32StateAdamWeightDecay),
    ("fused_adamw", FusedAdamWeightDecay), ("Momentum", nn.Momentum), ("sgd", nn.SGD), ("adam", nn.Adam),
    ("AdamWeightDecay", nn.AdamWeightDecay)])
def test_registry_names(golden, alias, kind):
    extra = {"momentum": 0.9} if alias == "Momentum" else {}
    built = build_optim({"type": alias, "learning_rate": 0.1, **extra},
                        default_args={"params": Weights(golden).trainable_params()})
    assert type(built) is kind


def test_refused_by_name(golden):
    with pytest.raises(UnsupportedError, match="offload"):
        FusedAdamWeightDecay(Weights(golden).trainable_params(), offload=True)
    with pytest.raises(UnsupportedError, match="FP32StateAdamWeightDecay"):
        build_optim({"type": "FusedCastAdamWeightDecay"})


def came_in_numpy(weight, grads, rate, eps1=1e-30, eps3=1e-16, beta1=0.9, beta3=0.99, decay=0.1):
    """CAME for one matrix in float64, as the paper writes it."""
    weight = weight.astype(np.float64)
    r, c, p, q = (np.zeros(n) for n in (weight.shape[0], weight.shape[1]) * 2)
    m = np.zeros_like(weight)
    for t, g in enumerate(grads.astype(np.float64), 1):
        b2 = 1 - t ** -0.8
        r, c = b2 * r + (1 - b2) * (g ** 2 + eps1).mean(1), b2 * c + (1 - b2) * (g ** 2 + eps1).mean(0)
        u = g / np.sqrt(np.outer(r, c) / r.mean())
        u = u / max(1.0, np.sqrt((u ** 2).mean()))
        m = beta1 * m + (1 - beta1) * u
        s = (u - m) ** 2 + eps3
        p, q = beta3 * p + (1 - beta3) * s.mean(1), beta3 * q + (1 - beta3) * s.mean(0)
        weight = weight - rate * decay * weight - rate * m / np.sqrt(np.outer(p, q) / p.mean())
    return weight


def test_came_equals_its_formula(golden):
    net = Weights(golden)
    optimizer = Came(decay_groups(net, 0.1), 0.01)
    for step in range(6):
        optimizer(tuple(Tensor(golden[f"grad.{weight.name}"][step]) for weight in optimizer.parameters))
    want = came_in_numpy(golden["start.matrix"], golden["grad.matrix"][:6], 0.01)
    got = next(weight for weight in net.weights if weight.name == "matrix").asnumpy()
    np.testing.assert_allclose(got, want, atol=2e-5)
    assert abs(want - came_in_numpy(golden["start.matrix"], golden["grad.matrix"][:6], 0.01, beta3=0.9)).max() > 2e-4


def test_came_refuses(golden):
    params = Weights(golden).trainable_params()
    for args in ({}, {"learning_rate": 0.1, "relative_step": True}, {"learning_rate": 0.1, "warmup_init": True},
                 {"learning_rate": 0.1, "beta1": 1.0}):
        with pytest.raises(ValueError):
            Came(params, **args)
    with pytest.raises(UnsupportedError):
        Came(params, 0.1, compression=True)


def test_rate_and_decay_are_computed_once_a_group():
    """What each parameter computed for itself would be compiled for each of them."""
    parameters = [Parameter(Tensor(np.ones(2, np.float32)), name=name) for name in "abcde"]
    assert AdamW(parameters).kinds == (0,) * 5
    groups = [{"params": parameters[:3], "weight_decay": 0.1}, {"params": parameters[3:4], "weight_decay": 0.0},
              {"params": parameters[4:], "weight_decay": 0.1, "lr": 0.5}]
    grouped = AdamW(groups)
    assert (grouped.kinds, grouped.first_of_kind) == ((0, 0, 0, 1, 2), (0, 3, 4))
