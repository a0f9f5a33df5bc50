"""The training step: accumulation, clipping, overflow, loss scale, eager mode."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindformers.core.lr import CosineWithWarmUpLR
from mindformers.core.optim import AdamW
from mindformers.core.optim.groups import decay_groups
from mindformers.tools.errors import CheckpointMismatchError, UnsupportedError
from mindformers.wrapper import (AdaptiveLossScaleUpdateCell, DynamicLossScaleUpdateCell, MFPipelineWithLossScaleCell,
                                 MFTrainOneStepCell, TrainStep, build_wrapper)
from tests.graph_mode import eagerly
from tests.wrapper.networks import Poisoned, TinyLM, rows, values

STEPS = 4


def train(network=None, per_token=True, optimizer=None, batch_seed=0, **kwargs):
    """Return (weights, outputs) after STEPS steps on 8 rows each."""
    network = network or TinyLM(per_token)
    optimizer = optimizer or AdamW(decay_groups(network, 0.1), CosineWithWarmUpLR(1e-2, 2, 10))
    step = TrainStep(network.set_train(), optimizer, **kwargs)
    outputs = [step(rows(8, seed=batch_seed + i)) for i in range(STEPS)]
    return values(network), outputs


def distance(one, other):
    return max(abs(one[name] - other[name]).max() for name in one)


@pytest.fixture(scope="module")
def big_batch():
    ms.set_context(mode=ms.GRAPH_MODE)
    return train(max_grad_norm=0.5)


@pytest.mark.parametrize("pieces", [2, 8])
def test_accumulation_equals_the_big_batch(big_batch, pieces):
    weights, outputs = train(max_grad_norm=0.5, grad_accumulation=pieces)
    assert distance(weights, big_batch[0]) < 1e-6
    for got, want in zip(outputs, big_batch[1]):
        assert abs(got.loss - want.loss) < 1e-5 and abs(got.global_norm - want.global_norm) < 1e-5
        assert got.lr == want.lr


def test_means_of_uneven_micro_batches_do_not(big_batch):
    with eagerly():
        weights, _ = train(max_grad_norm=0.5, grad_accumulation=4, per_token=False)
    assert distance(weights, big_batch[0]) > 1e-3


def test_a_mean_loss_equals_sums_in_one_batch(big_batch):
    weights, outputs = train(max_grad_norm=0.5, per_token=False)
    assert distance(weights, big_batch[0]) < 1e-6
    assert abs(outputs[-1].loss - big_batch[1][-1].loss) < 1e-5


def test_eager_mode_equals_graph_mode(big_batch):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    weights, outputs = train(max_grad_norm=0.5, grad_accumulation=2)
    assert distance(weights, big_batch[0]) < 1e-6
    assert abs(outputs[-1].global_norm - big_batch[1][-1].global_norm) < 1e-5


def test_loss_is_the_mean_over_tokens(big_batch):
    """Against numpy, at the untrained weights."""
    weights, ids = values(TinyLM()), rows(8, seed=0)
    tokens, labels = ids[:, :-1].ravel(), ids[:, 1:].ravel()
    logits = np.tanh(weights["table"][tokens] @ weights["dense"].T + weights["bias"]) @ weights["head"].T
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]
    assert abs(big_batch[1][0].loss - losses[labels != 0].mean()) < 1e-5


def test_learning_rate_is_that_of_the_step(big_batch):
    want = [0.0, 0.005, 0.01, 0.01 * 0.5 * (1 + np.cos(np.pi / 8))]
    np.testing.assert_allclose([out.lr for out in big_batch[1]], want, rtol=1e-6)


def test_clipping_bounds_the_update():
    """With plain gradient descent the update shows the clipped gradient."""
    for bound, clipped in ((0.01, True), (100.0, False)):
        network = TinyLM(True)
        before = values(network)
        step = TrainStep(network, nn.SGD(network.trainable_params(), 1.0), max_grad_norm=bound)
        out = step(rows(8))
        after = values(network)
        moved = np.sqrt(sum(((before[name] - after[name]) ** 2).sum() for name in before))
        want = bound if clipped else out.global_norm
        assert abs(moved - want) < 1e-4 * want + 1e-6
        assert out.global_norm > 0.1


@pytest.mark.parametrize("pieces", [1, 2])
def test_overflow_skips_the_update_and_nothing_else(pieces):
    network = TinyLM(True)
    optimizer = AdamW(network.trainable_params(), 0.01)
    step = TrainStep(Poisoned(network), optimizer, grad_accumulation=pieces, max_grad_norm=1.0,
                     scale_sense=DynamicLossScaleUpdateCell(1024.0, 2, 100))
    good, bad = np.ones(8, np.float32), np.ones(8, np.float32)
    bad[7] = np.inf
    step(rows(8), good)
    before, moments = values(network), [m.asnumpy().copy() for m in optimizer.moments1]
    out = step(rows(8), bad)
    assert out.overflow and out.loss_scale == 1024.0
    assert distance(values(network), before) == 0.0
    assert all((m.asnumpy() == old).all() for m, old in zip(optimizer.moments1, moments))
    assert int(optimizer.global_step.asnumpy()[0]) == 1
    out = step(rows(8), good)
    assert not out.overflow and out.loss_scale == 512.0
    assert distance(values(network), before) > 1e-4


def test_loss_scale_does_not_change_the_result(big_batch):
    weights, outputs = train(max_grad_norm=0.5, scale_sense=DynamicLossScaleUpdateCell(2.0 ** 12, 2, 2),
                             grad_accumulation=2)
    assert [out.loss_scale for out in outputs] == [4096.0, 4096.0, 8192.0, 8192.0]
    assert distance(weights, big_batch[0]) < 1e-6


def test_adaptive_scale():
    cell = AdaptiveLossScaleUpdateCell(64.0, 2, 2, max_scale_window=4, min_scale_window=1)
    scale = ms.Parameter(Tensor(64.0), name="scale_sense")
    seen = []
    for overflow in (False, False, False, True, True, False, False, False, False):
        cell(scale, Tensor(overflow))
        seen.append((float(scale.asnumpy()), int(cell.window.asnumpy())))
    assert seen == [(64, 2), (128, 1), (256, 1), (128, 2), (64, 4), (64, 4), (64, 4), (64, 4), (128, 2)]
    with pytest.raises(ValueError):
        AdaptiveLossScaleUpdateCell(64.0, 2, 2000)


def test_state_of_the_loss_scale_comes_back():
    kwargs = {"scale_sense": DynamicLossScaleUpdateCell(2.0 ** 12, 2, 2)}
    network = TinyLM(True)
    step = TrainStep(network, AdamW(network.trainable_params(), 0.01), **kwargs)
    for i in range(3):
        step(rows(8, seed=i))
    state = step.state()
    assert state["scale_sense"] == 8192.0 and state["current_iterator_step"] == 4
    other = TrainStep(network, AdamW(network.trainable_params(), 0.01),
                      scale_sense=DynamicLossScaleUpdateCell(2.0 ** 12, 2, 2))
    other.load_state(state)
    assert other.state() == state
    assert step(rows(8)).loss_scale == other(rows(8)).loss_scale
    with pytest.raises(CheckpointMismatchError, match="scale_sense"):
        TrainStep(network, AdamW(network.trainable_params(), 0.01)).load_state(state)


def test_mindformers_cell_returns_its_tuple():
    network = TinyLM(False)
    cell = build_wrapper({"type": "MFTrainOneStepCell", "use_clip_grad": True, "local_norm": True},
                         default_args={"network": network, "optimizer": AdamW(network.trainable_params(), 0.01)})
    assert isinstance(cell, MFTrainOneStepCell)
    out = cell(Tensor(rows(8)))
    assert len(out) == 7
    norms, sizes = out[5].asnumpy(), out[6].asnumpy()
    assert abs(np.sqrt((norms ** 2).sum()) - float(out[4].asnumpy())) < 1e-5
    assert sizes.tolist() == [weight.size for weight in network.trainable_params()]
    assert len(MFTrainOneStepCell(network, AdamW(network.trainable_params(), 0.01))(Tensor(rows(8)))) == 5


@pytest.mark.parametrize("optimizer", [nn.Momentum, nn.AdamWeightDecay])
def test_mindspores_optimizers_work_too(optimizer):
    network = TinyLM(True)
    extra = {"momentum": 0.9} if optimizer is nn.Momentum else {}
    weights, outputs = train(network, optimizer=optimizer(network.trainable_params(), 0.05, **extra))
    assert outputs[0].lr == np.float32(0.05)
    assert distance(weights, values(TinyLM(True))) > 1e-3


def test_wrong_arguments():
    network = TinyLM()
    optimizer = AdamW(network.trainable_params(), 0.01)
    for bad in ({"grad_accumulation": 0}, {"grad_accumulation": True}, {"rank_size": 0}, {"max_grad_norm": 0.0},
                {"scale_sense": 0.0}, {"scale_sense": Tensor(np.ones(2, np.float32))}):
        with pytest.raises(ValueError):
            TrainStep(network, optimizer, **bad)
    with pytest.raises(TypeError, match="scale_sense"):
        TrainStep(network, optimizer, scale_sense="dynamic")
    with pytest.raises(ValueError, match="8 rows cannot be split in 3"):
        TrainStep(network, optimizer, grad_accumulation=3)(rows(8))
    with pytest.raises(UnsupportedError, match="gradient_accumulation_steps"):
        MFPipelineWithLossScaleCell(network, optimizer)
