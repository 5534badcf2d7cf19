"""YOPO against a rewriting of the published algorithm, and its n steps in one against the n steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from states import Lent, flat
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import L0, L2, Linf, Threat
from verigrad.models.networks.resnet import ResNet10
from verigrad.models.normalised import Normalised
from verigrad.training.algorithms.first_layer import first_layer
from verigrad.training.algorithms.yopo import YOPO

N = 8
X = torch.rand(N, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 4
EPS = Linf(eps=0.1)


def filled(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.3)
    return model.train()


def net() -> nn.Module:
    """The first layer is the convolution, or what is named "0": convolution, batch norm and GELU together."""
    first = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.GELU())
    return filled(nn.Sequential(first, nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 4)))


def normalised() -> nn.Module:
    return Normalised(net(), (0.4, 0.5), (0.2, 0.3)).double().train()


def streams():
    return seeded(0, "yopo", range(N))


def taken(algorithm: YOPO, module: nn.Module, x: Tensor = X, *, model: nn.Module | None = None) -> Lent:
    state = Lent(module, model=model)
    state.parts = algorithm.step(state, x, Y, generator=streams())  # type: ignore[attr-defined]
    return state


def published(
    front: Callable[[Tensor], Tensor], back: nn.Module, weights: list[nn.Parameter], m: int, n: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """The published loops, from the start that lies in the box; p has the sign of the paper's Hamiltonian.

    Returns the sum of gradients and the last images. No hook, no cut: p is taken from the graph.
    """
    eta = EPS.sample(X, streams()) - X
    total = [torch.zeros_like(weight) for weight in weights]
    for _ in range(m):
        middle = front(X + eta)
        loss = F.cross_entropy(back(middle), Y)
        by_middle, *by_weights = torch.autograd.grad(loss, [middle, *weights])
        p = -by_middle
        for _ in range(n):
            moving = eta.clone().requires_grad_(True)
            hamiltonian = (p * front((X + moving).clamp(0, 1))).sum()
            (slope,) = torch.autograd.grad(hamiltonian, moving)
            eta = (eta - sigma * slope.sign()).clamp(-0.1, 0.1)
            eta = (X + eta).clamp(0, 1) - X
        again = torch.autograd.grad(-(p * front(X + eta)).sum(), weights, allow_unused=True)
        total = [t + a + (0 if b is None else b) for t, a, b in zip(total, by_weights, again, strict=True)]
    return torch.cat([t.flatten() for t in total]), X + eta


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (5, 3)])
@pytest.mark.parametrize("collapse", [True, False])
def test_with_a_convolution_first_it_is_the_published_algorithm(m: int, n: int, collapse: bool):
    model = net()
    found = taken(YOPO(threat=EPS, passes=m, steps=n, step_size=0.02, collapse=collapse), net())
    expected, _ = published(model[0][0], nn.Sequential(*model[0][1:], *model[1:]), list(model.parameters()), m, n, 0.02)
    assert len(found.gradients) == 1
    assert (found.gradients[0] - expected).norm() <= 1e-9 * expected.norm()


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 3), (3, 4)])
def test_with_a_curved_first_layer_it_is_the_published_algorithm(m: int, n: int):
    """Batch norm inside it makes each image's step depend on the others, and GELU bends it."""
    model = net()
    found = taken(YOPO(threat=EPS, passes=m, steps=n, step_size=0.02, first="0"), net())
    expected, _ = published(model[0], model[1:], list(model.parameters()), m, n, 0.02)
    assert (found.gradients[0] - expected).norm() <= 1e-9 * expected.norm()


def test_through_a_normalisation_it_is_the_published_algorithm():
    model = normalised()
    inner = model.module
    found = taken(YOPO(threat=EPS, passes=2, steps=3, step_size=0.02), normalised())
    expected, _ = published(
        lambda x: inner[0][0]((x - model.mean) / model.std),
        nn.Sequential(*inner[0][1:], *inner[1:]),
        list(model.parameters()),
        2,
        3,
        0.02,
    )
    assert (found.gradients[0] - expected).norm() <= 1e-9 * expected.norm()


def test_the_update_is_one_by_the_sum():
    model = net()
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    state = taken(YOPO(threat=EPS, passes=3, steps=2), model)
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert (before - after - 0.1 * state.gradients[0]).norm() <= 1e-12
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("make", [net, normalised], ids=["plain", "normalised"])
@pytest.mark.parametrize("step_size", [0.01, 0.04, 0.2])
def test_steps_at_once_are_the_steps_one_by_one(make: Callable[[], nn.Module], step_size: float):
    """Pixel by pixel: clip(clip(a + σs) + σs) = clip(a + 2σs). To rounding, in the images and in the weights."""
    both = []
    for collapse in (True, False):
        module, images = make(), []
        module.register_forward_pre_hook(lambda module, args, images=images: images.append(args[0].detach()))
        state = taken(YOPO(threat=EPS, passes=3, steps=4, step_size=step_size, collapse=collapse), module)
        # Passes that end behind the first layer are seen too; the last is that of the last climb.
        both.append((images[-1], state.gradients[0], len(images)))
    (at_once, gradient, few), (one_by_one, expected, many) = both
    assert (at_once - one_by_one).abs().max() <= 1e-12
    assert (gradient - expected).norm() <= 1e-9 * expected.norm()
    assert many == few + 3 * 3


def test_a_curved_first_layer_and_l2_are_not_collapsed():
    """There one long step is another point: the control of the test above."""
    for settings in ({"threat": EPS, "first": "0"}, {"threat": L2(eps=0.5)}):
        may = taken(YOPO(**settings, collapse=True), net())
        must_not = taken(YOPO(**settings, collapse=False), net())
        assert torch.equal(may.gradients[0], must_not.gradients[0])
    once = taken(YOPO(threat=EPS, first="0", steps=1, step_size=0.075), net())
    three = taken(YOPO(threat=EPS, first="0", steps=3, step_size=0.025), net())
    assert (once.gradients[0] - three.gradients[0]).norm() > 1e-4 * three.gradients[0].norm()


class Weird(nn.Conv2d):
    """Called a convolution, but not affine."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize(
    ("model", "layer", "affine"),
    [
        (nn.Sequential(nn.Conv2d(2, 3, 3)), "0", True),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 4)), "1", False),
        (nn.Sequential(nn.ReLU(), nn.Conv2d(2, 3, 3)), "1", False),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3)), "0", False),
        (nn.Sequential(Weird(2, 3, 3)), "0", False),
        (nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3))), "0", True),
        (Normalised(nn.Conv2d(2, 3, 3), (0.5,), (0.2,)), "module", True),
        (nn.Sequential(nn.Tanh(), Normalised(nn.Conv2d(2, 3, 3), (0.5,), (0.2,))), "1.module", False),
        (ResNet10(channels=4, in_channels=2), "stem.0", True),
    ],
)
def test_the_first_layer_is_found(model: nn.Module, layer: str, affine: bool):
    model = model.double().eval()  # in training mode the spectral norm moves with each pass
    found = first_layer(model, X)
    assert found.layer is model.get_submodule(layer)
    assert found.affine == affine
    seen: list[Tensor] = []
    with found.layer.register_forward_hook(lambda module, args, out: seen.append(out)):
        model(X)
    assert torch.equal(found(X), seen[0])


class Bypassed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(72, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((x + self.first(x)).flatten(1))


class Repeated(Bypassed):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(self.first(x)).flatten(1))


@pytest.mark.parametrize(
    ("model", "first", "told"),
    [
        (Bypassed, "", "through YOPO's first layer alone"),
        (Repeated, "", "used 2 times"),
        (Bypassed, "second", "no module 'second'"),
    ],
)
def test_a_network_that_has_no_such_layer_is_refused(model: type[nn.Module], first: str, told: str):
    with pytest.raises(BadInput, match=told) as caught:
        taken(YOPO(threat=EPS, first=first), filled(model()))
    assert "\n" not in str(caught.value)


def test_a_network_without_weights_has_no_first_layer():
    with pytest.raises(BadInput, match="This model has none"):
        first_layer(nn.Flatten(), X)


@pytest.mark.parametrize("collapse", [True, False])
@pytest.mark.parametrize(("m", "n"), [(5, 3), (2, 4)])
def test_passes_are_those_stated(m: int, n: int, collapse: bool):
    """Forwards and backwards of the last layer, and of the first; its backwards by image and weights are apart."""
    passes = {"f": 0, "b": 0, "first f": 0, "image": 0, "weights": 0}
    model = net()
    conv, last = model[0][0], model[-1]

    def forward(module: nn.Module, args: object, logits: Tensor) -> None:
        passes["f"] += 1
        logits.register_hook(lambda g: passes.update(b=passes["b"] + 1))

    def first(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        passes["first f"] += 1
        if args[0].requires_grad:
            args[0].register_hook(lambda g: passes.update(image=passes["image"] + 1))

    last.register_forward_hook(forward)
    conv.register_forward_hook(first)
    taken(YOPO(threat=EPS, passes=m, steps=n, collapse=collapse), model)
    climbs = 1 if collapse else n
    assert (passes["f"], passes["b"]) == (m, m)
    assert passes["first f"] == m * (1 + climbs)
    assert passes["image"] == m * climbs


@pytest.mark.parametrize("threat", [Linf(eps=0.0), EPS, L2(eps=0.5)], ids=str)
@pytest.mark.parametrize("first", ["", "0"])
def test_the_images_stay_in_the_threat_and_do_harm(threat: Threat, first: str):
    module, seen = net(), []
    natural = F.cross_entropy(net()(X), Y).item()
    random = F.cross_entropy(net()(threat.sample(X, streams())), Y).item()
    module.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    state = taken(YOPO(threat=threat, first=first), module)
    for x_adv in seen[1:]:  # the first looks for the layer
        assert threat.contains(x_adv, X).all()
    told = state.parts["cross_entropy"].item()  # type: ignore[attr-defined]
    if threat.size:
        assert told > max(natural, random) + 0.1
    else:
        assert told == pytest.approx(natural, rel=1e-9)


def test_it_is_free_training_without_its_updates_where_the_first_layer_is_affine():
    """conv^T p = ∇_x ℓ: the images of YOPO-m-n are those of m steps of n·σ of ordinary ascent in training mode."""
    module, seen = net(), []
    module.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    taken(YOPO(threat=EPS, passes=4, steps=3, step_size=0.02), module)
    model, x_adv = net(), EPS.sample(X, streams())
    for _ in range(4):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x_adv), Y), x_adv)
        x_adv = EPS.project(x_adv.detach() + 0.06 * gradient.sign(), X)
    assert (seen[-1] - x_adv).abs().max() <= 1e-12


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("first", ["", "0"])
def test_what_processes_average_is_the_whole_sum_once(group: None, first: str):
    """One process whose "average" triples: each gradient is tripled, the first layer's second part too."""
    reductions = []

    def tripled(state, bucket):  # without annotations, which torch would want unquoted
        reductions.append(bucket.is_last())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(3 * bucket.buffer())
        return done

    expected = taken(YOPO(threat=EPS, first=first), net()).gradients
    module = net()
    model = DistributedDataParallel(module)
    model.register_comm_hook(None, tripled)
    state = taken(YOPO(threat=EPS, first=first), module, model=model)
    state.module.load_state_dict(net().state_dict())
    YOPO(threat=EPS, first=first).step(state, X, Y, generator=streams())  # the second step has other buckets
    for found in state.gradients:
        assert (found - 3 * expected[0]).norm() <= 1e-9 * expected[0].norm()
    assert sum(reductions) == 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"passes": 0}, "passes"),
        ({"steps": 0}, "steps"),
        ({"step_size": -1.0}, "step_size"),
        ({"threat": L0(pixels=2)}, "linf or l2"),
    ],
)
def test_bad_numbers_are_refused(wrong: dict, told: str):
    with pytest.raises(BadInput, match=told) as caught:
        YOPO(**{"threat": EPS, **wrong})
    assert "\n" not in str(caught.value)


def test_equal_streams_give_equal_weights():
    one, other = taken(YOPO(threat=EPS), net()), taken(YOPO(threat=EPS), net())
    assert torch.equal(flat(one.module), flat(other.module))
    assert one.memory == {}
