"""The contract that every certificate of the catalog keeps, and certificates that break it, one promise each.

A promise is a function that raises AssertionError. Each runs on all certificates, and on a control that was made to
break it. A new certificate needs one line in `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from controls import PIXELS, SHAPE, Dirty, best_l2, best_linf, linear_problem
from torch import Tensor, nn

from verigrad.catalog import build, describe, entries
from verigrad.certificates.base import Certificate, Certified, Honesty
from verigrad.certificates.interval import Interval
from verigrad.core.seeds import seeded
from verigrad.core.threat import L2, Linf

N = 24


@dataclass(frozen=True, kw_only=True)
class Case:
    """One certificate.

    Args:
        spec: small enough for a second on 24 images of 18 pixels.
        honesty: of its radii for a classifier of plain layers.
    """

    spec: str
    honesty: Honesty = Honesty.SOUND

    def make(self) -> Certificate:
        return build("certificate", self.spec)


CASES: tuple[Case, ...] = (
    Case(spec="interval"),
    Case(spec="interval:steps=0"),
    Case(spec="spectral"),
    Case(spec="spectral:norm=linf"),
    Case(spec="smoothing:sigma=0.25,n=200,n0=20", honesty=Honesty.PROBABILISTIC),
    Case(spec="smoothing:sigma=0.25,n=400,n0=20,radii=(0,0.1),test=staged", honesty=Honesty.PROBABILISTIC),
    Case(spec="smoothing:sigma=0.25,n=400,n0=20,radii=(0,0.1),test=betting", honesty=Honesty.PROBABILISTIC),
    Case(spec="l-bound", honesty=Honesty.ESTIMATE),
    Case(spec="omega-bound", honesty=Honesty.ESTIMATE),
    Case(spec="clever:groups=4,points=4", honesty=Honesty.ESTIMATE),
)


def linear() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear classifier of two classes, images, labels (some wrong), and w, so that class 1 wins where ⟨w, x⟩ > t."""
    x, _, w = linear_problem(N)
    layer = nn.Linear(PIXELS, 2)
    threshold = float((x.flatten(1) @ w).median())
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-w / 2, w / 2]))
        layer.bias.copy_(torch.tensor([threshold / 2, -threshold / 2]))
    model = nn.Sequential(nn.Flatten(), layer)
    y = model(x).argmax(1)
    y[::5] = 1 - y[::5]
    return model, x, y, w


def bent() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network of three classes, images and labels, some of them wrong."""
    x, _, _ = linear_problem(N)
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(SHAPE[0], 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    y = model(x).argmax(1)
    y[::4] = (y[::4] + 1) % 3
    return model, x, y


def run(certificate: Certificate, model: nn.Module, x: Tensor, y: Tensor, ids: list[int] | None = None) -> Certified:
    return certificate(model, x, y, generator=seeded(3, "contract", range(len(x)) if ids is None else ids))


# The promises


def gives_a_distance(certificate: Certificate, case: Case) -> None:
    model, x, y = bent()
    got = run(certificate, model, x, y)
    for numbers in (got.radius, got.predicted, got.abstained, got.forwards, got.backwards):
        assert numbers.shape == y.shape
    assert got.radius.is_floating_point()
    assert torch.isfinite(got.radius).all()
    assert (got.radius >= 0).all()
    assert got.abstained.dtype == torch.bool
    for numbers in (got.predicted, got.forwards, got.backwards):
        assert numbers.dtype == torch.int64
    assert (got.forwards > 0).all()
    assert (got.backwards >= 0).all()
    assert all(np.isfinite(value) for value in got.facts.values())


def gives_nothing_for_a_wrong_prediction(certificate: Certificate, case: Case) -> None:
    model, x, y = bent()
    got = run(certificate, model, x, y)
    wrong = (got.predicted != y) | got.abstained
    assert wrong.any()
    assert (got.radius[wrong] == 0).all()
    assert torch.equal(got.predicted == -1, got.abstained)


def says_how_honest_it_is(certificate: Certificate, case: Case) -> None:
    model, x, y = bent()
    got = run(certificate, model, x, y)
    assert got.honesty is case.honesty
    assert (got.alpha is not None) == (got.honesty is Honesty.PROBABILISTIC)
    assert got.assumptions
    assert all(line and "\n" not in line for line in got.assumptions)
    assert certificate.norm in ("linf", "l2")
    assert certificate.subject
    assert isinstance(certificate.fits_data, bool)


def leaves_the_model_as_it_was(certificate: Certificate, case: Case) -> None:
    model = Dirty().train()
    x, _, _ = linear_problem(N)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    run(certificate, model, x, torch.zeros(N, dtype=torch.int64))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == flags
    assert all(part.training for part in model.modules())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert next(model.body.parameters()).grad is None


def is_deterministic_and_touches_no_global_state(certificate: Certificate, case: Case) -> None:
    model, x, y = bent()
    kept, state = x.clone(), torch.get_rng_state()
    first, second = run(certificate, model, x, y), run(certificate, model, x, y)
    assert torch.equal(first.radius, second.radius)
    assert first.facts == second.facts
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)


def is_the_same_in_any_company(certificate: Certificate, case: Case) -> None:
    """In any order, in batches of any size, and where nothing is fitted to the images, alone."""
    model, x, y = bent()
    got = run(certificate, model, x, y)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    shuffled = run(certificate, model, x[order], y[order], order.tolist())
    assert torch.allclose(shuffled.radius, got.radius[order], rtol=1e-5, atol=1e-7)
    if any(field.name == "batch" for field in fields(certificate)):  # type: ignore[arg-type]
        small = run(replace(certificate, batch=5), model, x, y)  # type: ignore[type-var]
        assert torch.allclose(small.radius, got.radius, rtol=1e-5, atol=1e-7)
    if not certificate.fits_data:
        for i in (1, 7):
            alone = run(certificate, model, x[i : i + 1], y[i : i + 1], [i])
            assert torch.allclose(alone.radius, got.radius[i : i + 1], rtol=1e-5, atol=1e-7)


def never_passes_the_exact_distance(certificate: Certificate, case: Case) -> None:
    """On a linear classifier, which noise does not change; the box of images counts. Nothing is asked of estimates, and
    at alpha = 0.001 no radius of these few may be wrong by chance."""
    model, x, y, w = linear()
    got = run(certificate, model, x, y)
    if got.honesty is Honesty.ESTIMATE:
        return
    best = best_linf if certificate.norm == "linf" else best_l2
    right = got.predicted == y
    assert (got.radius[right] > 0).any()
    logits = model(x.double() if x.dtype == torch.float64 else x).detach().double()
    for i in right.nonzero().flatten().tolist():
        away = w.double().numpy() * (1 if y[i] == 0 else -1)
        margin = float(logits[i, y[i]] - logits[i, 1 - y[i]])
        assert best(away, x[i].flatten().double().numpy(), float(got.radius[i])) <= margin * (1 + 1e-6)


PROMISES: tuple[Callable[[Certificate, Case], None], ...] = (
    gives_a_distance,
    gives_nothing_for_a_wrong_prediction,
    says_how_honest_it_is,
    leaves_the_model_as_it_was,
    is_deterministic_and_touches_no_global_state,
    is_the_same_in_any_company,
    never_passes_the_exact_distance,
)


def test_every_certificate_of_the_catalog_is_here() -> None:
    assert {case.spec.partition(":")[0] for case in CASES} == {entry.name for entry in entries("certificate")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_its_spec_gives_it_again(case: Case) -> None:
    assert build("certificate", describe(case.make())) == case.make()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_promise(case: Case, promise: Callable[[Certificate, Case], None]) -> None:
    promise(case.make(), case)


# The controls


@dataclass(frozen=True, kw_only=True)
class Spoiled:
    """Interval bounds with a fault in what they give."""

    fault: Callable[[Certified, nn.Module, Tensor, Tensor], Certified]
    norm: str = "linf"
    subject: str = "the model"
    fits_data: bool = False

    def __call__(self, model, x, y, *, generator):
        return self.fault(Interval()(model, x, y, generator=generator), model, x, y)


def three_times_as_far(got, model, x, y):
    return got._replace(radius=3 * got.radius)


def one_percent_too_far(got, model, x, y):
    return got._replace(radius=1.01 * got.radius)


def infinite(got, model, x, y):
    return got._replace(radius=got.radius + torch.inf)


def certain_of_the_wrong(got, model, x, y):
    return got._replace(radius=got.radius + 0.01)


def too_proud(got, model, x, y):
    return got._replace(honesty=Honesty.PROBABILISTIC)


def stays_in_eval(got, model, x, y):
    model.eval()
    return got


def draws_globally(got, model, x, y):
    return got._replace(radius=got.radius * (0.9 + 0.1 * torch.rand(len(y))))


def looks_at_the_neighbours(got, model, x, y):
    return got._replace(radius=got.radius * x.mean())


CONTROLS = (
    (infinite, gives_a_distance),
    (certain_of_the_wrong, gives_nothing_for_a_wrong_prediction),
    (too_proud, says_how_honest_it_is),
    (stays_in_eval, leaves_the_model_as_it_was),
    (draws_globally, is_deterministic_and_touches_no_global_state),
    (looks_at_the_neighbours, is_the_same_in_any_company),
    (three_times_as_far, never_passes_the_exact_distance),
    (one_percent_too_far, never_passes_the_exact_distance),
)


@pytest.mark.parametrize(("fault", "promise"), CONTROLS, ids=lambda part: part.__name__)
def test_control_fails(fault, promise) -> None:
    with pytest.raises(AssertionError):
        promise(Spoiled(fault=fault), Case(spec="interval"))


def test_the_distances_of_the_linear_classifier_are_exact() -> None:
    """What `never_passes_the_exact_distance` measures with: a corner step, and the foot of the perpendicular."""
    x, _, w = linear_problem(4, dtype=torch.float64)
    for i in range(4):
        inside = x[i].clamp(0.2, 0.8).flatten()
        eps = 0.01
        corner = Linf(eps=eps).project(inside + w.sign(), inside)
        assert best_linf(w.numpy(), inside.numpy(), eps) == pytest.approx(float(w @ (corner - inside)))
        foot = L2(eps=eps).project((inside + w)[None], inside[None])[0]
        assert best_l2(w.numpy(), inside.numpy(), eps) == pytest.approx(float(w @ (foot - inside)))
