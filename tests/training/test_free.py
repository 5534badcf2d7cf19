"""Free against a rewriting of the published algorithm, and what it keeps from batch to batch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from states import Lent, flat
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat
from verigrad.training.algorithms.free import Free

N = 8
X = torch.rand(4 * N, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(4 * N) % 4
EPS = Linf(eps=0.1)


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.train()


def take(algorithm: Free, state: Lent, rows: slice, x: Tensor = X) -> dict[str, Tensor]:
    found = algorithm.step(state, x[rows], Y[rows], generator=seeded(0, "free", range(len(x)))[rows])
    state.step += 1
    return found


def published(model: nn.Module, batches: list[slice], m: int, eps: float, *, project_on_box: bool) -> Tensor:
    """Algorithm 1 written out with a δ for the largest batch and SGD with momentum by hand. Returns δ.

    project_on_box: whether δ is cut to what the image allows before it is used and after it is moved, as in the code of
        Wong et al., or x + δ alone, as in the authors' code.
    """
    delta = torch.zeros(N, 2, 6, 6, dtype=torch.float64)
    speed = [torch.zeros_like(weight) for weight in model.parameters()]
    for rows in batches:
        x, y = X[rows], Y[rows]
        for _ in range(m):
            d = delta[: len(x)]
            if project_on_box:
                d = torch.minimum(torch.maximum(d, -x), 1 - x)
            d = d.clone().requires_grad_(True)
            loss = F.cross_entropy(model((x + d).clamp(0, 1) if not project_on_box else x + d), y)
            by_d, *by_weights = torch.autograd.grad(loss, [d, *model.parameters()])
            delta[: len(x)] = (d.detach() + eps * by_d.sign()).clamp(-eps, eps)
            if project_on_box:
                delta[: len(x)] = torch.minimum(torch.maximum(delta[: len(x)], -x), 1 - x)
            with torch.no_grad():
                for weight, v, g in zip(model.parameters(), speed, by_weights, strict=True):
                    v.mul_(0.9).add_(g)
                    weight.sub_(0.1 * v)
    return delta


BATCHES = [slice(0, N), slice(N, 2 * N), slice(2 * N, 3 * N - 3), slice(3 * N - 3, 4 * N - 3)]


@pytest.mark.parametrize("m", [1, 2, 4])
def test_it_is_the_published_algorithm_over_uneven_batches(m: int):
    ours, theirs = Lent(net()), net()
    for rows in BATCHES:
        take(Free(threat=EPS, replays=m), ours, rows)
    delta = published(theirs, BATCHES, m, 0.1, project_on_box=True)
    assert (flat(ours.module) - flat(theirs)).norm() <= 1e-9 * flat(theirs).norm()
    assert (ours.memory["perturbation"] - delta).abs().max() <= 1e-12


def test_far_from_the_box_it_is_the_authors_code():
    """Where neither cuts anything, the one deviation does not exist."""
    inner = 0.3 + 0.4 * X
    ours, theirs = Lent(net()), net()
    for rows in BATCHES:
        take(Free(threat=EPS, replays=3), ours, rows, inner)
    before = X.clone()
    try:
        X.copy_(inner)
        published(theirs, BATCHES, 3, 0.1, project_on_box=False)
    finally:
        X.copy_(before)
    assert (flat(ours.module) - flat(theirs)).norm() <= 1e-9 * flat(theirs).norm()


def test_the_perturbation_goes_on_from_batch_to_batch():
    algorithm = Free(threat=Linf(eps=0.1), replays=1, step_size=0.03)
    state = Lent(net(), lr=1e-12)
    inner = 0.3 + 0.4 * X
    sizes = []
    for rows in (slice(0, N), slice(0, N), slice(0, N), slice(0, N), slice(0, N)):
        take(algorithm, state, rows, inner)
        sizes.append(state.memory["perturbation"].abs().max().item())
    assert sizes == pytest.approx([0.03, 0.06, 0.09, 0.1, 0.1])


def test_a_shorter_batch_moves_its_own_places_and_a_longer_one_adds_places():
    algorithm = Free(threat=EPS, replays=2)
    state = Lent(net())
    take(algorithm, state, slice(0, 3))
    assert state.memory["perturbation"].shape == (3, 2, 6, 6)
    take(algorithm, state, slice(0, N))
    before = state.memory["perturbation"]
    assert before.shape == (N, 2, 6, 6)
    take(algorithm, state, slice(N, N + 3))
    after = state.memory["perturbation"]
    assert torch.equal(after[3:], before[3:])
    assert not torch.equal(after[:3], before[:3])


def test_it_goes_on_bit_for_bit_from_what_was_saved():
    algorithm = Free(threat=EPS, replays=2)
    whole = Lent(net())
    for rows in BATCHES[:2]:
        take(algorithm, whole, rows)
    saved = copy.deepcopy((whole.module.state_dict(), whole.optimiser.state_dict(), whole.memory))
    again, forgetful = Lent(net()), Lent(net())
    for state in (again, forgetful):
        state.module.load_state_dict(saved[0])
        state.optimiser.load_state_dict(copy.deepcopy(saved[1]))
    again.memory.update({name: tensor.clone() for name, tensor in saved[2].items()})
    for rows in BATCHES[2:]:
        for state in (whole, again, forgetful):
            take(algorithm, state, rows)
    assert torch.equal(flat(whole.module), flat(again.module))
    assert torch.equal(whole.memory["perturbation"], again.memory["perturbation"])
    assert not torch.equal(flat(whole.module), flat(forgetful.module))


@pytest.mark.parametrize("threat", [Linf(eps=0.0), EPS, L2(eps=0.5)], ids=str)
def test_the_perturbation_stays_in_the_threat_and_does_harm(threat: Threat):
    state = Lent(net(), lr=1e-12)
    natural = F.cross_entropy(net()(X[:N]), Y[:N]).item()
    seen: list[Tensor] = []
    state.module.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    losses = [take(Free(threat=threat, replays=2), state, slice(0, N))["cross_entropy"].item() for _ in range(4)]
    for x_adv in seen:
        assert threat.contains(x_adv, X[:N]).all()
    if threat.size:
        assert losses[-1] > natural + 0.1
        moved = threat.distance(X[:N] + state.memory["perturbation"], X[:N])
        assert moved.max() == pytest.approx(threat.size, abs=1e-6)
    else:
        assert losses[-1] == pytest.approx(natural, rel=1e-6)


def test_each_replay_is_one_pass_both_ways_and_one_update():
    state = Lent(net())
    passes = {"forward": 0, "backward": 0}

    def forward(module: nn.Module, args: object, logits: Tensor) -> None:
        passes["forward"] += 1
        logits.register_hook(lambda g: passes.update(backward=passes["backward"] + 1))

    state.module.register_forward_hook(forward)
    take(Free(threat=EPS, replays=3), state, slice(0, N))
    assert passes == {"forward": 3, "backward": 3}
    assert len(state.gradients) == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"replays": 0}, "replays"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": float("nan")}, "step_size"),
        ({"threat": L0(pixels=2)}, "linf or l2"),
    ],
)
def test_bad_numbers_are_refused(wrong: dict, told: str):
    with pytest.raises(BadInput, match=told) as caught:
        Free(**{"threat": EPS, **wrong})
    assert "\n" not in str(caught.value)
