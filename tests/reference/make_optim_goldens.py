"""Writes tests/reference/optim/{adamw,cross_entropy}.npz with PyTorch; run it again to check or renew them.

    python tests/reference/make_optim_goldens.py

adamw.npz: `start.<p>`, `grad.<p>` [20, ...], `rates` [20], and `end.<p>.<step>` after steps 1, 5 and 20 of
torch.optim.AdamW (betas 0.9, 0.95; eps 1e-8; decay 0.1 for matrices, 0 for vectors; float32). `none.<p>` are the
weights after 20 steps without any decay.
cross_entropy.npz: logits [12, 33], labels [12] (-100 ignored), mean loss, its gradient, loss of each token.
"""
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent / "optim"
SHAPES = {"matrix": (7, 5), "vector": (11,), "small": (4, 3)}
STEPS = 20
BETAS, EPS, DECAY = (0.9, 0.95), 1e-8, 0.1


def gradients(rng):
    """Gradients of all steps; those of `small` are around eps, so that it shows where eps is added."""
    scale = {"matrix": 1.0, "vector": 30.0, "small": 3e-8}
    return {name: (rng.normal(size=(STEPS, *shape)) * scale[name]).astype(np.float32) for name, shape in SHAPES.items()}


def train(start, grads, rates, decay):
    """Yield (step, weights) after each step of torch.optim.AdamW."""
    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    groups = [{"params": [p], "weight_decay": decay if p.ndim > 1 else 0.0} for p in weights.values()]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=BETAS, eps=EPS)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = float(rates[step])
        for name, weight in weights.items():
            weight.grad = torch.tensor(grads[name][step])
        optimizer.step()
        yield step + 1, {name: weight.detach().numpy().copy() for name, weight in weights.items()}


def adamw():
    """Arrays of adamw.npz."""
    rng = np.random.default_rng(7)
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    grads = gradients(rng)
    rates = (0.02 * (1 - np.arange(STEPS) / 25)).astype(np.float32)
    out = {"rates": rates, "versions": np.array(torch.__version__.split("+")[0])}
    out |= {f"start.{name}": value for name, value in start.items()}
    out |= {f"grad.{name}": value for name, value in grads.items()}
    for step, weights in train(start, grads, rates, DECAY):
        if step in (1, 5, 20):
            out |= {f"end.{name}.{step}": value for name, value in weights.items()}
    *_, (_, weights) = train(start, grads, rates, 0.0)
    return out | {f"none.{name}": value for name, value in weights.items()}


def cross_entropy():
    """Arrays of cross_entropy.npz."""
    rng = np.random.default_rng(11)
    logits = torch.tensor((rng.normal(size=(12, 33)) * 8).astype(np.float32), requires_grad=True)
    with torch.no_grad():
        logits[3] += 200.0
        logits[4, 0] = 150.0
    labels = torch.tensor(rng.integers(0, 33, 12))
    labels[[2, 7]] = -100
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return {"logits": logits.detach().numpy(), "labels": labels.numpy().astype(np.int32), "loss": loss.detach().numpy(),
            "grad": logits.grad.numpy(), "each": each.detach().numpy(),
            "versions": np.array(torch.__version__.split("+")[0])}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "adamw.npz", **adamw())
    np.savez_compressed(FOLDER / "cross_entropy.npz", **cross_entropy())
