"""The probe: what it shows an attack, and what it writes down."""

import pytest
import torch
from controls import Coupled, Linear, NonFiniteGradient, Saturated, linear_problem
from torch import nn

from verigrad.attacks.base import Probe, Status, Steered
from verigrad.attacks.changes import BFloat16
from verigrad.attacks.pgd import PGD
from verigrad.attacks.solver_aware import OnTwin
from verigrad.core.scores import cross_entropy, margin
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf


def curved() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def batch(n: int = 6):
    x, _, _ = linear_problem(n, dtype=torch.float64)
    return x, torch.arange(n) % 3


def test_gradient_against_finite_differences():
    model, (x, y) = curved(), batch()
    look = Probe(model, y).ascend(x, torch.arange(6), cross_entropy)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-6
    rise = (cross_entropy(model(x + h * v), y) - cross_entropy(model(x - h * v), y)) / (2 * h)
    assert torch.allclose((look.gradient * v).flatten(1).sum(1), rise, atol=1e-7)
    assert torch.allclose(look.value, cross_entropy(model(x), y))
    assert not look.logits.requires_grad
    assert not look.value.requires_grad


def test_some_rows_are_seen_as_in_the_whole_batch():
    model, (x, y) = curved(), batch()
    probe, rows = Probe(model, y), torch.tensor([1, 4])
    part = probe.ascend(x, rows, margin)
    whole = Probe(model, y).ascend(x, torch.arange(6), margin)
    for one, other in zip(part, whole, strict=True):
        assert torch.allclose(one, other[rows])
    assert torch.allclose(probe.logits(x, rows), whole.logits[rows])
    assert probe.forwards.tolist() == [0, 2, 0, 0, 2, 0]
    assert probe.backwards.tolist() == [0, 1, 0, 0, 1, 0]


def test_gradients_exist_where_the_caller_switched_them_off():
    model, (x, y) = curved(), batch()
    with torch.no_grad():
        assert (Probe(model, y).ascend(x, torch.arange(6), margin).gradient != 0).any()


def test_a_cut_graph_looks_like_a_zero_gradient():
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :3] * 2

    x, y = batch()
    assert (Probe(Cut(), y).ascend(x, torch.arange(6), margin).gradient == 0).all()


def test_the_gradient_of_a_coupled_model_holds_the_share_in_the_others():
    x, y = batch()
    model = Coupled(curved(), strength=2.0)
    look = Probe(model, y).ascend(x, torch.tensor([2]), cross_entropy)
    moved = x.clone().requires_grad_(True)
    (of_all,) = torch.autograd.grad(cross_entropy(model(moved), y).sum(), moved)
    (of_own,) = torch.autograd.grad(cross_entropy(model(moved), y)[2], moved)
    assert torch.allclose(look.gradient, of_all[2:3])
    assert not torch.allclose(look.gradient, of_own[2:3])


def test_a_steered_pair_is_judged_by_the_model_and_climbed_on_the_twin():
    x, y = batch()
    model, twin = curved(), Saturated(curved(), -2.0)
    for same in (False, True):
        probe = Probe(Steered(model, twin, same_forward=same), y)
        look = probe.ascend(x, torch.arange(6), margin)
        assert torch.allclose(look.logits, (twin if same else model)(x))
        assert torch.allclose(look.gradient, Probe(twin, y).ascend(x, torch.arange(6), margin).gradient)
        assert probe.forwards.tolist() == [1 if same else 2] * 6
        assert probe.backwards.tolist() == [1] * 6
        assert torch.allclose(probe.logits(x, torch.arange(6)), model(x))


@pytest.mark.parametrize("coupled", [False, True])
def test_a_near_twin_is_believed_only_where_it_does_not_err(coupled: bool):
    x, y = batch()
    model = Coupled(curved(), strength=0.0) if coupled else curved()
    some = torch.tensor([1, 3, 4])
    y = model(x).argmax(1).detach()

    class Liar(nn.Module):
        """The model's logits, shifted by a hair, and an error on the second and the fifth sample."""

        def forward(self, z):
            logits = model(z) + 1e-3
            false = (z[:, None] == x[[1, 4]][None]).flatten(2).all(2).any(1)
            return torch.where(false[:, None], -logits, logits)

    probe = Probe(Steered(model, Liar(), same_forward=False, near=True), y)
    look = probe.ascend(x, some, margin)
    assert not probe.wrong(look.logits, some).any()
    shift = [0.0, 0.0, 0.0] if coupled else [0.0, 1e-3, 0.0]
    assert torch.allclose(look.logits, model(x)[some] + torch.tensor(shift, dtype=x.dtype)[:, None], atol=1e-9)
    assert probe.forwards.tolist() == ([2] * 6 if coupled else [0, 2, 0, 1, 2, 0])
    assert probe.backwards.tolist() == ([1] * 6 if coupled else [0, 1, 0, 1, 1, 0])


def test_gradients_in_bfloat16_are_near_and_errors_are_the_models():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    x, _ = batch(24)
    x = x.float()
    y, rows = model(x).argmax(1), torch.arange(24)
    twin = BFloat16()(model)
    exact, near = Probe(model, y).ascend(x, rows, margin), Probe(twin, y).ascend(x, rows, margin)
    assert near.gradient.dtype == near.logits.dtype == torch.float32
    assert (near.logits - exact.logits).abs().max() < 0.02 * exact.logits.abs().max()
    assert not torch.equal(near.logits, exact.logits)
    alike = torch.cosine_similarity(exact.gradient.flatten(1), near.gradient.flatten(1))
    assert alike.median() > 0.999
    attack, threat, streams = PGD(steps=10), Linf(eps=0.05), seeded(0, "bf16", range(24))
    got = OnTwin(attack=attack, change=BFloat16())(model, x, y, threat, generator=streams)
    assert torch.equal(got.broken, model(got.x_adv).argmax(1) != y)
    assert got.broken.any()
    assert not got.broken.all()
    # One forward a step, one more at each iterate that errs in bfloat16, and the judging pass.
    assert (got.forwards <= got.backwards + 3).all()


def test_the_gravest_status_stays():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad = False

        def forward(self, x):
            logits = NonFiniteGradient(nn.Flatten())(x)[:, :3]
            return logits * torch.nan if self.bad else logits

    x, y = batch()
    model = Sometimes()
    probe = Probe(model, y)
    rows = torch.tensor([0, 3])
    probe.ascend(x, rows, margin)
    assert probe.status.tolist() == [Status.NON_FINITE_GRADIENT, 0, 0, Status.NON_FINITE_GRADIENT, 0, 0]
    model.bad = True
    probe.logits(x, torch.tensor([3]))
    model.bad = False
    probe.ascend(x, rows, margin)
    assert probe.status.tolist() == [Status.NON_FINITE_GRADIENT, 0, 0, Status.NON_FINITE_LOGITS, 0, 0]


def test_queries_are_dense_bounded_and_in_order():
    model, (x, y) = curved(), batch()
    sizes: list[int] = []
    hook = model.register_forward_hook(lambda part, inputs, output: sizes.append(len(inputs[0])))
    probe, rows = Probe(model, y), torch.tensor([0, 5])
    points = x[rows, None] + torch.linspace(0, 1, 7, dtype=torch.float64).reshape(1, 7, 1, 1, 1)
    logits = probe.queries(points, rows, at_once=4)
    hook.remove()
    assert sizes == [4, 4, 4, 2]
    assert torch.allclose(logits, model(points.flatten(0, 1)).reshape(2, 7, 3))
    assert probe.forwards.tolist() == [7, 0, 0, 0, 0, 7]


def test_no_rows_cost_no_pass():
    x, y = batch()

    class Refuses(nn.Module):
        def forward(self, x):
            raise AssertionError

    probe, none = Probe(Refuses(), y), torch.zeros(0, dtype=torch.int64)
    assert len(probe.logits(x, none)) == 0
    assert all(len(part) == 0 for part in probe.ascend(x, none, margin))
    assert probe.forwards.sum() == 0


def test_result_trusts_nothing():
    """Outside the threat nothing counts, and an error is only what the final pass shows."""
    x, y, w = linear_problem()
    model = Linear(w, -1e3)
    probe = Probe(model, y)
    assert probe.result(x, x, Linf(eps=0.1)).broken.all()
    assert not probe.result((x + 0.2).clamp(0, 1), x, Linf(eps=0.1)).broken.all()
    assert not probe.result(x + 2, x, Linf(eps=0.1)).broken.any()


def test_nothing_to_climb_is_a_status():
    x, y = batch()
    probe = Probe(nn.Sequential(nn.Flatten(), nn.Hardtanh(9.0, 10.0)), y)
    probe.ascend(x, torch.tensor([1]), margin)
    assert probe.status.tolist() == [0, Status.ZERO_GRADIENT, 0, 0, 0, 0]
