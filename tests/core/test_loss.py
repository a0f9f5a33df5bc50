"""Losses against PyTorch's numbers and plain numpy."""
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindformers.core.loss import CompareLoss, CrossEntropyLoss, L1Loss, MSELoss, SoftTargetCrossEntropy, build_loss

GOLDEN = Path(__file__).parents[1] / "reference" / "optim" / "cross_entropy.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def loss_and_grad(golden, mask, **kwargs):
    loss = CrossEntropyLoss(**kwargs)
    value_and_grad = ms.value_and_grad(loss, 0)
    return value_and_grad(Tensor(golden["logits"]), Tensor(golden["labels"]), Tensor(mask))


def test_cross_entropy_and_its_gradient_equal_torch(golden):
    mask = (golden["labels"] != -100).astype(np.float32)
    value, grad = loss_and_grad(golden, mask)
    assert abs(float(value.asnumpy()) - golden["loss"]) < 1e-5 * golden["loss"]
    np.testing.assert_allclose(grad.asnumpy(), golden["grad"], rtol=1e-5, atol=1e-8)


def test_a_forgotten_mask_misses_torch(golden):
    golden = dict(golden, labels=np.where(golden["labels"] < 0, 0, golden["labels"]))
    value, grad = loss_and_grad(golden, np.ones(12, np.float32))
    assert abs(float(value.asnumpy()) - golden["loss"]) > 1e-4 * golden["loss"]
    assert abs(grad.asnumpy() - golden["grad"]).max() > 1e-3


def test_per_token_sums(golden):
    mask = (golden["labels"] != -100).astype(np.float32)
    loss = CrossEntropyLoss(calculate_per_token_loss=True)
    total, count = loss(Tensor(golden["logits"]), Tensor(golden["labels"]), Tensor(mask))
    assert float(count.asnumpy()) == 10.0
    np.testing.assert_allclose(total.asnumpy(), golden["each"].sum(), rtol=1e-6)


def test_all_masked_is_zero_not_nan(golden):
    value, grad = loss_and_grad(golden, np.zeros(12, np.float32))
    assert float(value.asnumpy()) == 0.0
    assert not grad.asnumpy().any()


@pytest.mark.parametrize("dtype", [ms.float16, ms.bfloat16])
def test_low_precision_logits_are_computed_in_float32(golden, dtype):
    mask = (golden["labels"] != -100).astype(np.float32)
    logits = Tensor(golden["logits"]).astype(dtype)
    low = CrossEntropyLoss()(logits, Tensor(golden["labels"]), Tensor(mask))
    same = CrossEntropyLoss()(logits.astype(ms.float32), Tensor(golden["labels"]), Tensor(mask))
    assert low.dtype == ms.float32
    assert float(low.asnumpy()) == float(same.asnumpy())


def test_uniform_logits_cost_log_of_the_vocabulary():
    value = CrossEntropyLoss()(Tensor(np.zeros((3, 5), np.float32)), Tensor(np.array([1, 4, 0], np.int32)),
                               Tensor(np.ones(3, np.float32)))
    assert abs(float(value.asnumpy()) - np.log(5)) < 1e-5


def test_soft_targets_equal_hard_ones(golden):
    labels = np.maximum(golden["labels"], 0)
    soft = SoftTargetCrossEntropy()(Tensor(golden["logits"]), Tensor(np.eye(33, dtype=np.float32)[labels]))
    hard = CrossEntropyLoss()(Tensor(golden["logits"]), Tensor(labels), Tensor(np.ones(12, np.float32)))
    np.testing.assert_allclose(soft.asnumpy(), hard.asnumpy(), rtol=1e-5)


@pytest.mark.parametrize("normalised", [True, False])
def test_mse_of_patches(normalised):
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(2, 2, 3, 6)).astype(np.float32)
    mask = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    want = target
    if normalised:
        want = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    want = (((pred - want) ** 2).mean(-1) * mask).sum() / mask.sum()
    got = MSELoss(norm_pixel_loss=normalised)(Tensor(pred), Tensor(target), Tensor(mask))
    np.testing.assert_allclose(got.asnumpy(), want, rtol=1e-5)


def test_l1():
    a, b = Tensor(np.array([1.0, -2.0], np.float32)), Tensor(np.array([0.5, 1.0], np.float32))
    assert float(L1Loss()(a, b).asnumpy()) == 1.75
    assert float(L1Loss("sum")(a, b).asnumpy()) == 3.5
    assert L1Loss("none")(a, b).asnumpy().tolist() == [0.5, 3.0]
    with pytest.raises(ValueError, match="'avg'"):
        L1Loss("avg")


def test_compare_loss():
    rewards = np.array([[1.0, 2.0, 90.0], [0.0, 1.0, 3.0], [0.0, 1.0, -90.0], [2.0, 1.0, 0.0]], np.float32)
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.float32)
    loss, chosen, rejected = CompareLoss()(Tensor(rewards), Tensor(mask), Tensor(np.array([3, 2], np.int32)))
    margins = [[1.0, 180.0], [-2.0]]
    want = np.mean([np.mean([np.log1p(np.exp(-m)) for m in row]) for row in margins])
    np.testing.assert_allclose(loss.asnumpy(), want, rtol=1e-6)
    assert chosen.asnumpy().tolist() == [90.0, 1.0]
    assert rejected.asnumpy().tolist() == [-90.0, 1.0]


def test_built_by_name():
    assert isinstance(build_loss({"type": "CrossEntropyLoss"}), CrossEntropyLoss)
    assert build_loss(None) is None
    with pytest.raises(ValueError, match="CrossEntropyLoss"):
        build_loss({"type": "CrossEntropyLos"})
