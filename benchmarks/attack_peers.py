"""Other libraries' attacks in one form, for `attacks.py` to run beside verigrad's.

    pip install 'verigrad[bench]'
    pip install --no-deps torchattacks==3.5.1      its pin of requests excludes what the others need

A library that cannot be imported is left out, and `missing` names it. adv-lib imports torchvision and visdom, which
none of the attacks used here needs: where one of them is not installed, an empty module stands for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor, nn

# Given a model, images, labels, eps and a seed: adversarial images, which may leave the ball or hold NaN.
Run = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]
LIBRARIES = {
    "foolbox": "foolbox",
    "adv-lib": "adv_lib.attacks",
    "torchattacks": "torchattacks",
    "adversarial-robustness-toolbox": "art.attacks.evasion",
    "pyautoattack": "pyautoattack",
}
STAND_INS = {"torchvision": ("models",), "visdom": ()}


@dataclass
class Libraries:
    """Which libraries are there, by version, and why the others are not."""

    found: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def load_libraries() -> Libraries:
    for name, parts in STAND_INS.items():
        if find_spec(name) is None:
            module = sys.modules.setdefault(name, ModuleType(name))
            for part in parts:
                setattr(module, part, sys.modules.setdefault(f"{name}.{part}", ModuleType(f"{name}.{part}")))
    libraries = Libraries()
    for name, module in LIBRARIES.items():
        try:
            import_module(module)
            libraries.found[name] = metadata.version(name)
        except Exception as fault:  # whatever another library's import raises
            libraries.missing[name] = f"{type(fault).__name__}: {fault}".splitlines()[0]
    return libraries


class Counted(nn.Module):
    """A model that counts the images it is shown, and those whose logits a gradient came back to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def pgd_linf(steps: int, step_size: float) -> dict[str, Run]:
    """Cross-entropy, one random start."""

    def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        torch.manual_seed(seed)
        fb = import_module("foolbox")
        attack = fb.attacks.LinfPGD(steps=steps, abs_stepsize=step_size, random_start=True)
        return attack.run(fb.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilon=eps)

    def adv_lib(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return import_module("adv_lib.attacks").pgd_linf(model, x, y, eps, steps=steps, absolute_step_size=step_size)

    def torchattacks(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return import_module("torchattacks").PGD(model, eps=eps, alpha=step_size, steps=steps)(x, y)

    def art(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        import numpy as np

        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        classifier = import_module("art.estimators.classification").PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        attack = import_module("art.attacks.evasion").ProjectedGradientDescent(
            classifier, eps=eps, eps_step=step_size, max_iter=steps, num_random_init=1, batch_size=len(x), verbose=False
        )
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return {
        "adv-lib": adv_lib,
        "torchattacks": torchattacks,
        "foolbox": foolbox,
        "adversarial-robustness-toolbox": art,
    }


def carlini_wagner_l2(steps: int, constant: float) -> dict[str, Run]:
    """One search with one constant, in steps of 0.01, without early ends."""

    def adv_lib(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        del eps, seed
        attack = import_module("adv_lib.attacks").carlini_wagner_l2
        return attack(
            model, x, y, initial_const=constant, binary_search_steps=1, max_iterations=steps, abort_early=False
        )

    def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        del eps, seed
        fb = import_module("foolbox")
        attack = fb.attacks.L2CarliniWagnerAttack(
            binary_search_steps=1, steps=steps, stepsize=0.01, initial_const=constant, abort_early=False
        )
        return attack.run(fb.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, fb.criteria.Misclassification(y))

    return {"adv-lib": adv_lib, "foolbox": foolbox}


def boundary(steps: int) -> dict[str, Run]:
    """Walks of so many steps; the start costs queries besides."""

    def foolbox(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        del eps
        import numpy as np

        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        fb = import_module("foolbox")
        attack = fb.attacks.BoundaryAttack(steps=steps)
        return attack.run(fb.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, fb.criteria.Misclassification(y))

    return {"foolbox": foolbox}


def standard_ensemble() -> dict[str, Run]:
    """The authors' code: 100 steps, 9 targets, 5000 queries."""

    def pyautoattack(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        auto = import_module("pyautoattack").AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard")
        steps = {auto.apgd.n_iter, auto.apgd_targeted.n_iter, auto.fab.n_iter}
        assert steps == {100}, f"AutoAttack runs 100 steps, this copy {steps}"
        return auto.run_standard_evaluation(x, y, batch_size=len(x))[0]

    return {"pyautoattack": pyautoattack}
