"""The L-bound: exact where L is exact, and never more than exact."""

import pytest
import torch
from controls import Coupled, Linear, NonFiniteLogits, linear_problem
from estimate_models import PassCount, Planes, images, small_net

from verigrad import catalog
from verigrad.certificates.balls import span
from verigrad.certificates.base import Honesty
from verigrad.certificates.lipschitz import LBound
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded

DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}
SAMPLERS = ("images", "ball", "gradient", "ascent")


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("norm", DUAL)
def test_two_classes_and_a_plane_give_the_exact_distance(norm: str, sampler: str) -> None:
    x, y, w = linear_problem(n=60, dtype=torch.float64)
    model = Linear(w, float((x.flatten(1) @ w).max()) + 0.1)
    bound = LBound(norm=norm, on="logits", tail="maximum", sampler=sampler)
    found = bound(model, x, y, generator=seeded(0, "l", range(60)))
    exact = -(x.flatten(1) @ w - model.threshold) / w.norm(p=DUAL[norm])
    torch.testing.assert_close(found.radius, torch.minimum(exact, span(norm, x)))
    assert found.honesty is Honesty.ESTIMATE
    # The control: the same radius is no distance in another norm.
    other = {"linf": 2.0, "l2": float("inf"), "l1": 1.0}[norm]
    assert not torch.allclose(found.radius, exact * w.norm(p=DUAL[norm]) / w.norm(p=other))


@pytest.mark.parametrize("tail", ["gev", "maximum"])
@pytest.mark.parametrize("norm", DUAL)
def test_no_radius_exceeds_the_distance_where_every_slope_was_seen(norm: str, tail: str) -> None:
    model, x = Planes(), images(400)
    y = model(x).argmax(1)
    exact = model.distances(x, y, DUAL[norm])
    found = LBound(norm=norm, on="logits", tail=tail)(model, x, y, generator=seeded(0, "l", range(400)))
    assert (found.radius <= exact + 1e-9).all()
    assert found.radius.max() > 0
    # The control: half the constant says too much.
    assert (2 * found.radius > exact + 1e-9).any()


def test_a_wrong_prediction_and_one_that_is_not_finite_have_radius_zero() -> None:
    model, x = Planes(), images(40)
    y = model(x).argmax(1)
    y[:10] = (y[:10] + 1) % 4
    found = LBound()(model, x, y, generator=seeded(0, "l", range(40)))
    assert (found.radius[:10] == 0).all()
    assert (found.radius[10:] > 0).all()
    assert not found.abstained.any()
    x, y, w = linear_problem(dtype=torch.float64)
    broken = LBound(sampler="images")(
        NonFiniteLogits(Linear(w), clean=x[:5]), x, y, generator=seeded(0, "l", range(24))
    )
    assert broken.abstained.any()
    assert (broken.radius[broken.abstained] == 0).all()
    assert (broken.predicted[broken.abstained] == -1).all()
    assert torch.isfinite(broken.radius).all()
    assert broken.facts["not_finite"] == broken.abstained.sum()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neither_batches_nor_another_run_change_it(sampler: str) -> None:
    model, x = small_net(), images(60)
    y = model(x).argmax(1)

    def radius(seed: int = 0, batch: int = 100) -> torch.Tensor:
        return LBound(sampler=sampler, batch=batch, block=4)(model, x, y, generator=seeded(seed, "l", range(60))).radius

    torch.testing.assert_close(radius(), radius(batch=7), rtol=1e-9, atol=0)
    assert torch.equal(radius(), radius())
    # The control: another seed draws other blocks.
    assert not torch.equal(radius(), radius(seed=1))


def test_where_batch_mates_matter_each_image_is_seen_alone() -> None:
    model, x = Coupled(Planes(), strength=3.0), images(30)
    y = model.inner(x).argmax(1)
    found = LBound()(model, x, y, generator=seeded(0, "l", range(30)))
    assert torch.equal(found.predicted, y)  # alone, the batch's mean only scales an image's own logits
    assert not torch.equal(model(x).argmax(1), y)  # the control


@pytest.mark.parametrize(("sampler", "looks"), [("images", 1), ("gradient", 2), ("ball", 6), ("ascent", 6)])
def test_a_thousand_images_cost_a_few_gradients_each(sampler: str, looks: int) -> None:
    counted, x = PassCount(small_net()), images(1000)
    found = LBound(sampler=sampler)(counted, x, torch.zeros(1000).long(), generator=seeded(0, "l", range(1000)))
    assert counted.forwards == found.forwards.sum() == 1000 * looks
    assert counted.backwards == found.backwards.sum() == 1000 * looks


def test_an_ascent_sees_steeper_places_than_the_images() -> None:
    model, x = small_net(), images(60)
    y = model(x).argmax(1)
    seen = {
        sampler: LBound(sampler=sampler)(model, x, y, generator=seeded(0, "l", range(60))).facts["L_largest"]
        for sampler in SAMPLERS
    }
    assert seen["ascent"] > seen["images"]


def test_it_leaves_the_model_as_it_was_and_says_what_it_fitted() -> None:
    model, x = small_net().train(), images(300)
    found = LBound()(model, x, torch.zeros(300).long(), generator=seeded(0, "l", range(300)))
    assert model.training
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    facts = found.facts
    assert facts["L"] >= facts["L_largest"] > 0
    assert facts["L_low"] <= facts["L_high"]
    assert facts["L_blocks"] == 15
    assert set(facts) >= {"L_xi", "L_xi_low", "L_xi_high", "L_fit_p", "L_fitted"}


def test_bad_settings_are_refused_and_good_ones_have_a_spec() -> None:
    for wrong in (
        {"norm": "l3"},
        {"on": "x"},
        {"sampler": "x"},
        {"eps": 0.0},
        {"steps": 0},
        {"block": 0},
        {"tail": "x"},
    ):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            LBound(**wrong)
    bound = catalog.build("certificate", "l-bound:norm=l2,eps=0.5")
    assert bound == LBound(norm="l2", eps=0.5)
    assert catalog.build("certificate", catalog.describe(bound)) == bound
    with pytest.raises(BadInput, match="0, 1"):
        LBound()(small_net(), 2 * images(4), torch.zeros(4).long(), generator=seeded(0, "l", range(4)))
