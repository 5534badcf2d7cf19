"""A training of a second, with everything in it that a run must reproduce."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from verigrad import catalog
from verigrad.attacks.pgd import PGD
from verigrad.core.threat import Linf
from verigrad.data.augment import Augment
from verigrad.data.digits import load_digits
from verigrad.models.inspecting import weights_hash
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import OneCycle
from verigrad.training.trainer import Trained, initialised, train

EPS = Linf(eps=0.12)


def some(n: int = 60) -> tuple[Tensor, Tensor]:
    data = load_digits("train")
    return data.x[:n], data.y[:n]


class Noisy(nn.Module):
    """Batch norm and dropout: state and randomness that a run must reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


SHORT = Recipe(epochs=4, batch=16, optimiser="sgd", lr=0.1, schedule=OneCycle(), validation=10)


METHOD = Adversarial(threat=EPS, attack=PGD(steps=2, keep="last"))


def short_run(recipe: Recipe = SHORT, method=METHOD, model=Noisy, **arguments) -> tuple[str, Trained]:
    """The hash of the trained weights, and what `train` said."""
    model = initialised(model, 5)
    result = train(model, *some(), method, recipe, **arguments)
    return weights_hash(model), result


# Every method of the catalog; one that is not here goes by its name alone.
SPECS = {
    "natural": ("natural:smoothing=0.1",),
    "adversarial": ("adversarial:threat=linf(eps=0.1),attack=pgd(steps=2,keep=last)",),
    "fgsm-adversarial": ("fgsm-adversarial:threat=linf(eps=0.1)",),
    "gaussian-noise": ("gaussian-noise:sigma=0.25",),
    "trades": ("trades:threat=linf(eps=0.1),steps=2",),
    "gradient-penalty": tuple(
        f"gradient-penalty:norm=l1,h=0.05,by={by}"
        for by in ("finite-differences", "double-backprop", "shared-backward")
    ),
    "free": ("free:threat=linf(eps=0.1),replays=3,step_size=0.04",),
    "yopo": ("yopo:threat=linf(eps=0.1),passes=3,steps=2",),
}
EVERY = {
    spec: kind
    for kind in ("objective", "algorithm")
    for entry in catalog.entries(kind)
    for spec in SPECS.get(entry.name, (entry.name,))
}


def smooth() -> nn.Module:
    """A net without batch norm and randomness, in double precision: the same function of each sample, whoever is beside
    it."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(64, 10)).double()


@dataclass(frozen=True, kw_only=True)
class Carried:
    """An algorithm with a memory: a perturbation that is never begun anew, moved along the gradient of each replay."""

    replays: int = 2

    def step(self, state, x, y, *, generator):
        delta = state.memory.setdefault("delta", torch.zeros(16, *x.shape[1:]))
        for _ in range(self.replays):
            near = (x + delta[: len(x)]).requires_grad_()
            loss = nn.functional.cross_entropy(state.model(near), y)
            loss.backward()
            delta[: len(x)] = (delta[: len(x)] + 0.05 * near.grad.sign()).clamp(-0.1, 0.1)
            state.update()
        state.memory["noise"] = generator.normal(1)
        return {"cross_entropy": loss.detach()}


# Everything at once: batch norm, dropout, two moments, mean weights, augmentation, a memory, an uneven last batch.
FULL = replace(
    SHORT,
    optimiser="adamw",
    lr=0.01,
    weight_decay=0.1,
    mean_weights=0.9,
    clip=1.0,
    augment=Augment(crop=1, flip=True, cutout=2),
)
