"""The omega-bound: exact on a quadratic, whose ω is known; random v does not find it."""

import pytest
import torch
from estimate_models import PIXELS, Bowl, PassCount, Planes, around_the_middle, images, small_net
from torch import Tensor, nn

from verigrad import catalog
from verigrad.certificates import modulus
from verigrad.certificates.base import Certified
from verigrad.certificates.extremes import Extreme
from verigrad.certificates.modulus import OmegaBound
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded

SAMPLERS = ("ball", "gradient", "ascent")
# sup of a/2 ‖v‖² over the unit ball of each norm, over a/2.
TOP = {"linf": PIXELS, "l2": 1, "l1": 1}


def run(bound: OmegaBound, model: nn.Module, x: Tensor, y: Tensor | None = None, *, seed: int = 0) -> Certified:
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return bound(model, x, y, generator=seeded(seed, "omega", range(len(x))))


@pytest.mark.parametrize("sampler", ["gradient", "ascent"])
@pytest.mark.parametrize("norm", TOP)
def test_omega_of_a_quadratic(norm: str, sampler: str) -> None:
    ladder = (0.05, 0.1, 0.25)
    bound = OmegaBound(norm=norm, on="logits", sampler=sampler, ladder=ladder)
    facts = run(bound, Bowl(a=2.0), around_the_middle(300)).facts
    for eps in ladder:
        assert facts[f"omega({eps:g})"] == pytest.approx(TOP[norm] * eps**2, rel=1e-6)


def test_random_points_do_not_find_it() -> None:
    """The control, and the reason for the default: the largest of 900 random ones is far below."""
    bound = OmegaBound(on="logits", sampler="ball", ladder=(0.25,))
    facts = run(bound, Bowl(a=2.0), around_the_middle(300)).facts
    assert facts["omega_largest(0.25)"] < 0.8 * PIXELS * 0.25**2


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_radius_of_a_quadratic_is_the_distance(norm: str) -> None:
    """ℓ grows fastest along its own gradient, so the bound is the distance, to one rung of the ladder."""
    a, level, x = 2.0, 0.3, around_the_middle(40)
    fine = tuple(k / 400 for k in range(1, 101))
    found = run(OmegaBound(norm=norm, on="logits", ladder=fine, sampler="gradient"), Bowl(a, level), x)
    off = (x - 0.5).flatten(1)
    if norm == "l2":
        exact = (2 * level / a) ** 0.5 - off.norm(dim=1)
    else:  # Σ (|d_i| + t)² = 2 level / a
        total, square = off.abs().sum(1), off.square().sum(1) - 2 * level / a
        exact = (-total + (total.square() - PIXELS * square).sqrt()) / PIXELS
    exact = exact.clamp(max=0.25)
    assert (exact > 0).all()
    assert (found.radius <= exact + 1e-9).all()
    assert (found.radius >= exact - 1 / 400).all()
    # The controls: a coarse ladder is far below, and random v says too much.
    coarse = run(OmegaBound(norm=norm, on="logits", ladder=(0.25,), sampler="gradient"), Bowl(a, level), x)
    assert (coarse.radius < exact - 1 / 400).any()
    if norm == "linf":
        rash = run(OmegaBound(norm=norm, on="logits", ladder=fine, sampler="ball"), Bowl(a, level), x)
        assert (rash.radius > exact + 1e-3).any()


@pytest.mark.parametrize("norm", TOP)
def test_a_plane_has_no_omega_and_its_own_distance(norm: str) -> None:
    """Two classes: the bound is the distance without the box, up to the top of the ladder."""
    model, x = Planes(classes=2), images(100)
    y = model(x).argmax(1)
    found = run(OmegaBound(norm=norm, on="logits", ladder=(0.1, 9.0)), model, x, y)
    exact = model.distances(x, y, {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm])
    torch.testing.assert_close(found.radius, exact, rtol=1e-6, atol=1e-9)
    assert found.facts["omega(9)"] < 1e-9


def test_omega_rises_even_where_its_estimates_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    falling = iter((0.3, 0.1, 0.2, 0.4, 0.05, 0.5))

    def estimate(maxima: object, **_: object) -> Extreme:
        value = next(falling)
        return Extreme(value, value, value, value, 0.0, 0.0, 0.0, 1.0, 10, True)

    monkeypatch.setattr(modulus, "supremum", estimate)
    facts = run(OmegaBound(), small_net(), images(20)).facts
    found = [value for name, value in facts.items() if name.startswith("omega(")]
    assert found == [0.3, 0.3, 0.3, 0.4, 0.4, 0.5]


def test_what_was_seen_in_a_small_ball_counts_in_a_larger_one() -> None:
    """ℓ = t + t² − 10t³ with t the mean less ½: r is positive up to t = 0.1 and then falls below zero."""

    class Bump(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            t = (x - 0.5).flatten(1).mean(1)
            second = t + t**2 - 10 * t**3 - 0.2
            return torch.stack([torch.zeros_like(second), second], dim=1)

    x = torch.full_like(images(40), 0.5)
    facts = run(OmegaBound(on="logits", ladder=(0.05, 0.2), sampler="gradient"), Bump(), x).facts
    alone = run(OmegaBound(on="logits", ladder=(0.2,), sampler="gradient"), Bump(), x).facts
    assert facts["omega(0.05)"] == facts["omega(0.2)"] == pytest.approx(0.00125)
    assert alone["omega(0.2)"] == 0  # the control


@pytest.mark.parametrize("norm", TOP)
def test_the_ascent_sees_at_least_what_the_gradient_does(norm: str) -> None:
    x = images(60)
    seen = {
        sampler: [
            value
            for name, value in run(
                OmegaBound(norm=norm, sampler=sampler, ladder=(0.1, 0.2, 0.4)), small_net(), x
            ).facts.items()
            if name.startswith("omega_largest")
        ]
        for sampler in SAMPLERS
    }
    assert all(a >= g - 1e-12 for a, g in zip(seen["ascent"], seen["gradient"], strict=True))
    assert all(b < a for a, b in zip(seen["ascent"], seen["ball"], strict=True))  # the control


def test_a_wrong_prediction_and_one_that_is_not_finite_have_radius_zero() -> None:
    class Holes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Planes()(x) / (x[:, 0, 0, 0] > 0.1).to(x.dtype)[:, None]

    model, x = Planes(), images(40)
    y = model(x).argmax(1)
    y[:10] = (y[:10] + 1) % 4
    found = run(OmegaBound(on="logits"), model, x, y)
    assert (found.radius[:10] == 0).all()
    assert (found.radius[10:] > 0).any()
    x[20:, 0, 0, 0] = 0.05
    x[:20, 0, 0, 0] = 0.9
    broken = run(OmegaBound(on="logits"), Holes(), x, y)
    assert broken.abstained.tolist() == [False] * 20 + [True] * 20
    assert torch.isfinite(broken.radius).all()
    assert (broken.radius[20:] == 0).all()
    assert broken.facts["not_finite"] >= 20


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("norm", TOP)
def test_neither_batches_nor_another_run_change_it(norm: str, sampler: str) -> None:
    model, x = small_net(), images(40)
    y = model(x).argmax(1)
    one = run(OmegaBound(norm=norm, sampler=sampler), model, x, y)
    parts = run(OmegaBound(norm=norm, sampler=sampler, batch=7), model, x, y)
    torch.testing.assert_close(one.radius, parts.radius, rtol=1e-6, atol=1e-9)
    assert torch.equal(one.radius, run(OmegaBound(norm=norm, sampler=sampler), model, x, y).radius)
    assert one.radius.max() > 0
    # The control: what does change it.
    assert not torch.equal(
        one.radius, run(OmegaBound(norm=norm, sampler=sampler, block=4), model, x[:30], y[:30]).radius
    )


@pytest.mark.parametrize(
    ("sampler", "forwards", "backwards"), [("ball", 19, 1), ("gradient", 7, 1), ("ascent", 36, 19)]
)
def test_a_thousand_images_cost_a_few_gradients_each(sampler: str, forwards: int, backwards: int) -> None:
    counted = PassCount(small_net())
    found = run(OmegaBound(sampler=sampler), counted, images(1000))
    assert counted.forwards == found.forwards.sum() == 1000 * forwards
    assert counted.backwards == found.backwards.sum() == 1000 * backwards


def test_bad_settings_are_refused_and_good_ones_have_a_spec() -> None:
    for wrong in (
        {"norm": "l0"},
        {"sampler": "images"},
        {"ladder": (0.2, 0.1)},
        {"ladder": ()},
        {"ladder": (0.0, 1.0)},
    ):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            OmegaBound(**wrong)
    bound = catalog.build("certificate", "omega-bound:norm=l2,ladder=(0.25,0.5)")
    assert bound == OmegaBound(norm="l2", ladder=(0.25, 0.5))
    assert catalog.build("certificate", catalog.describe(bound)) == bound
