"""Successive approximations against Algorithm 1 written out, and the constraint on every kind of layer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from states import Lent, flat
from torch import Tensor, nn

from verigrad.catalog import build, describe
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.models.networks.antisymmetric import AntisymmetricConv2d
from verigrad.models.networks.resnet import ResNet10
from verigrad.training.algorithms.successive_approximations import SuccessiveApproximations
from verigrad.training.objectives.adversarial import Adversarial

N = 8
X = torch.rand(N, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(N) % 4


def filled(model: nn.Module, size: float = 0.3) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = model.double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * size)
    return model.train()


def net() -> nn.Module:
    convolutions = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.GELU()]
    return filled(nn.Sequential(*convolutions, nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)))


def perceptron(size: float = 0.3) -> nn.Module:
    return filled(nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 5), nn.Linear(5, 4)), size)


def steps(algorithm: SuccessiveApproximations, state: Lent, count: int = 1) -> dict[str, Tensor]:
    parts = {}
    for _ in range(count):
        parts = algorithm.step(state, X, Y, generator=seeded(0, f"step {state.step}", range(N)))
        state.step += 1
    return parts


def operator(module: nn.Module, channels: int, size: int) -> float:
    """The norm of a layer or of an affine network on images, from what it does to unit vectors."""
    units = torch.eye(channels * size * size, dtype=torch.float64).reshape(-1, channels, size, size)
    with torch.no_grad():
        matrix = (module(units) - module(torch.zeros_like(units[:1]))).flatten(1)
    return float(torch.linalg.matrix_norm(matrix, 2))


def norms(model: nn.Module) -> list[float]:
    """Of the layers of `net`, densely."""
    shapes = zip((0, 2, 4), (2, 4, 4), (6, 6, 3), strict=True)
    found = [operator(model[place], channels, size) for place, channels, size in shapes]
    return [*found, float(torch.linalg.matrix_norm(model[-1].weight.detach(), 2))]


# The algorithm


def test_it_is_algorithm_1_written_out() -> None:
    """States and co-states layer by layer, no autograd; the layer problem by singular values; with the biases'."""
    model, alpha, beta = perceptron(0.6), 0.01, 3.0
    linear = [part for part in model if isinstance(part, nn.Linear)]
    relu = (True, False, False)
    states, outputs = [X.flatten(1)], []
    for layer, bent in zip(linear, relu, strict=True):
        outputs.append(states[-1] @ layer.weight.T + layer.bias)
        states.append(outputs[-1].clamp(min=0) if bent else outputs[-1])
    p = (F.one_hot(Y, 4) - outputs[-1].softmax(1)) / N  # p_T = −∂J/∂x_T
    expected = []
    for layer, x, z, bent in zip(
        reversed(linear), reversed(states[:-1]), reversed(outputs), reversed(relu), strict=True
    ):
        p = p * (z > 0) if bent else p
        pull, biased = p.T @ x, p.sum(0)
        m = (pull + 2 * beta * layer.weight) / (2 * (alpha + beta))
        u, s, v = torch.linalg.svd(m, full_matrices=False)
        expected += [(biased + 2 * beta * layer.bias) / (2 * (alpha + beta)), (u * s.clamp(max=1)) @ v]
        p = p @ layer.weight
    state = Lent(perceptron(0.6))
    parts = steps(SuccessiveApproximations(alpha=alpha, beta=beta), state)
    for found, wanted in zip(state.module.parameters(), reversed(expected), strict=True):
        assert (found - wanted).abs().max() < 1e-12
    assert parts["outside"] == 1  # all three layers were
    assert parts["cross_entropy"] == pytest.approx(F.cross_entropy(outputs[-1], Y).item())


def test_the_sum_of_p_x_is_minus_the_gradient() -> None:
    """Of linear layers and, patch by patch, of convolutions with a stride."""
    model, seen = net(), {}

    def keep(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        seen[module] = args[0], output

    for layer in model:
        layer.register_forward_hook(keep)
    loss = F.cross_entropy(model(X), Y)
    loss.backward()
    for layer, (x, z) in seen.items():
        if isinstance(layer, nn.Linear):
            pull = torch.einsum("bi,bj->ij", -z.grad, x)
        elif isinstance(layer, nn.Conv2d):
            patches = F.unfold(x, layer.kernel_size, padding=layer.padding, stride=layer.stride)
            pull = torch.einsum("bip,bjp->ij", -z.grad.flatten(2), patches).reshape(layer.weight.shape)
        else:
            continue
        assert (pull + layer.weight.grad).abs().max() < 1e-14


def test_the_step_raises_the_hamiltonian_of_every_layer_among_feasible_weights() -> None:
    """No point of the ball on the way to other ones is better: of a matrix, where the step is exact."""
    model, state = perceptron(), Lent(perceptron())
    F.cross_entropy(model(X), Y).backward()
    steps(SuccessiveApproximations(alpha=0.1, beta=0.4), state)
    for before, after in zip(model, state.module, strict=True):
        if not isinstance(before, nn.Linear):
            continue

        def value(theta: Tensor, old: nn.Linear = before) -> float:
            near = (theta - old.weight).square().sum()
            return (-(old.weight.grad * theta).sum() - 0.1 * theta.square().sum() - 0.4 * near).item()

        for seed in range(20):
            other = torch.randn(after.weight.shape, generator=torch.Generator().manual_seed(seed)).double()
            other /= torch.linalg.matrix_norm(other, 2)
            assert value(after.weight) > value(after.weight + 0.01 * (other - after.weight))


def test_without_an_active_constraint_it_is_sgd() -> None:
    """At rate 1 / (2(α + β)), with decay 2α and the same momentum; a schedule's rate sets β."""
    ours, theirs = Lent(perceptron(0.02)), perceptron(0.02)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=0.02)
    for rate in (0.05, 0.05, 0.01):
        ours.lr = optimiser.param_groups[0]["lr"] = rate
        steps(SuccessiveApproximations(alpha=0.0, momentum=0.9), ours)
        optimiser.zero_grad()
        F.cross_entropy(theirs(X), Y).backward()
        optimiser.param_groups[0]["weight_decay"] = 0.0
        optimiser.step()
    assert (flat(ours.module) - flat(theirs)).abs().max() < 1e-12
    ours, theirs = Lent(perceptron(0.02), lr=0.05), perceptron(0.02)
    steps(SuccessiveApproximations(alpha=0.01), ours)
    F.cross_entropy(theirs(X), Y).backward()
    torch.optim.SGD(theirs.parameters(), lr=0.05, weight_decay=0.02).step()
    assert (flat(ours.module) - flat(theirs)).abs().max() < 1e-12


def test_the_semidefinite_programme_takes_the_same_step() -> None:
    both = []
    for solver in ("clip", "sdp"):
        state = Lent(net())
        steps(SuccessiveApproximations(alpha=0.1, beta=0.4, solver=solver), state)
        both.append(flat(state.module))
    assert (both[0] - both[1]).abs().max() < 1e-6


def test_another_objective_gives_the_costates() -> None:
    natural, hard = Lent(perceptron(0.02)), Lent(perceptron(0.02))
    threat = Linf(eps=0.1)
    steps(SuccessiveApproximations(), natural)
    algorithm = build("algorithm", "successive-approximations:objective=adversarial(threat=linf(eps=0.1))")
    assert algorithm.objective == Adversarial(threat=threat)
    assert build("algorithm", describe(algorithm)) == algorithm
    told = steps(algorithm, hard)
    assert told["cross_entropy"] > F.cross_entropy(perceptron(0.02)(X), Y)
    assert not torch.equal(flat(natural.module), flat(hard.module))


def test_it_goes_on_bit_for_bit_from_what_was_saved() -> None:
    algorithm = SuccessiveApproximations(momentum=0.9, every=4)
    whole, first, again = (Lent(net()) for _ in range(3))
    steps(algorithm, whole, 5)
    steps(algorithm, first, 2)
    again.module.load_state_dict(first.module.state_dict())
    again.memory.update({name: tensor.clone() for name, tensor in first.memory.items()})
    again.step = 2
    steps(algorithm, again, 3)
    assert torch.equal(flat(whole.module), flat(again.module))
    assert whole.memory.keys() == again.memory.keys()


# The constraint


def test_with_every_step_sure_the_constraint_holds_after_every_step() -> None:
    state = Lent(net(), lr=1.0)
    assert max(norms(state.module)) > 3
    for _ in range(6):
        steps(SuccessiveApproximations(every=1), state)
        assert max(norms(state.module)) <= 1 + 1e-12


def test_between_sure_steps_it_holds_for_matrices_and_nearly_for_kernels() -> None:
    state = Lent(net(), lr=0.1)
    state.steps = 14
    algorithm = SuccessiveApproximations(every=5)
    for number in range(14):
        steps(algorithm, state)
        first, second, pixel, last = norms(state.module)
        assert max(pixel, last) <= 1 + 1e-12
        sure = number in (0, 5, 10, 13)
        assert max(first, second) <= (1 + 1e-12 if sure else 1.1)


def test_without_it_the_norms_are_above_one() -> None:
    """The control of the two above: the same steps with only the last layer under the constraint."""
    state = Lent(net(), lr=0.1)
    steps(SuccessiveApproximations(free=("0", "2", "4")), state, 3)
    first, second, _, last = norms(state.module)
    assert min(first, second) > 1.5
    assert last <= 1 + 1e-12


class Euler(nn.Module):
    """relu(x + θx) several times: a network of residual steps."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(72, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.block(layer, x)
        return self.head(x.flatten(1))

    @staticmethod
    def block(layer: nn.Module, x: Tensor) -> Tensor:
        return (x + layer(x)).relu()


def expansion(layer: nn.Module) -> float:
    """The largest norm of the Jacobians of its block at some images."""
    jacobians = (torch.autograd.functional.jacobian(lambda z: Euler.block(layer, z[None]), x - 0.5) for x in X[:4])
    return max(float(torch.linalg.matrix_norm(j.reshape(72, 72), 2)) for j in jacobians)


@pytest.mark.parametrize("gamma", [None, 0.2])
def test_beside_a_skip_a_block_does_not_expand(gamma: float | None) -> None:
    def euler() -> Euler:
        make = [AntisymmetricConv2d(2, gamma=gamma) if gamma else nn.Conv2d(2, 2, 3, padding=1) for _ in range(2)]
        return filled(Euler(make), 1.0)

    shifted, plain = Lent(euler(), lr=0.5), Lent(euler(), lr=0.5)
    steps(SuccessiveApproximations(every=2, skips=("layers.0", "layers.1")), shifted, 3)
    steps(SuccessiveApproximations(every=2), plain, 3)
    for layer in shifted.module.layers:
        assert operator(lambda x, layer=layer: x + layer(x), 2, 6) <= 1 + 1e-12
        assert expansion(layer) <= 1 + 1e-12
    for layer in plain.module.layers:
        assert operator(layer, 2, 6) <= 1 + 1e-12
        assert operator(lambda x, layer=layer: x + layer(x), 2, 6) > 1.05


def test_an_antisymmetric_layer_keeps_its_form_and_the_constraint() -> None:
    model = filled(nn.Sequential(AntisymmetricConv2d(2, gamma=0.2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)), 1.0)
    state = Lent(model, lr=0.5)
    assert operator(model[0], 2, 6) > 3
    steps(SuccessiveApproximations(every=1), state, 2)
    assert 0.9 < operator(model[0], 2, 6) <= 1 + 1e-12
    units = torch.eye(72, dtype=torch.float64).reshape(-1, 2, 6, 6)
    matrix = model[0](units).detach().flatten(1)
    assert torch.linalg.eigvals(matrix).real.max() == pytest.approx(-0.2)


def normed() -> nn.Module:
    first = [nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)]
    second = [nn.BatchNorm2d(4), nn.ReLU(), AntisymmetricConv2d(4), nn.BatchNorm2d(4)]
    return filled(nn.Sequential(*first, nn.ReLU(), *second, nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)), 0.7)


def test_before_a_batch_norm_the_constraint_does_nothing() -> None:
    """The trap: a bare kernel of any norm gives the same network in training, and one without a bound in evaluation."""
    model = normed()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(0.1)
    assert (model(X) - scaled(X)).abs().max() < 1e-2
    state = Lent(model, lr=0.1)
    steps(SuccessiveApproximations(every=1, norms="free"), state, 20)
    assert operator(model[0], 2, 6) <= 1 + 1e-12
    assert operator(model[:2].eval(), 2, 6) > 1.2


def test_folded_with_its_batch_norm_a_layer_is_constrained() -> None:
    model = normed()
    with torch.no_grad():  # as after a training with batch norm
        for number, module in enumerate(model):
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.fill_(0.1)
                module.running_var.copy_(torch.tensor([0.04, 0.2, 1.0, 0.3]) + number)
    state = Lent(model, lr=0.1)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for _ in range(3):
        steps(SuccessiveApproximations(every=1), state)
        assert model.training
        assert all(module.training for module in model.modules())
        model.eval()
        assert operator(model[:2], 2, 6) <= 1 + 1e-12
        assert operator(model[3:4], 4, 6) <= 1 + 1e-12  # alone
        assert operator(model[5:7], 4, 6) <= 1 + 1e-12  # behind an antisymmetric layer
        jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], X[0]).reshape(4, 72)
        assert float(torch.linalg.matrix_norm(jacobian, 2)) <= 1
        model.train()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_channel_without_gain_does_no_harm() -> None:
    model = normed()
    with torch.no_grad():
        model[1].weight[0] = 0.0
    state = Lent(model, lr=1e-9)
    steps(SuccessiveApproximations(every=1), state)
    assert torch.isfinite(flat(model)).all()
    assert operator(model[:2].eval(), 2, 6) <= 1 + 1e-12


def test_a_residual_network_of_the_catalog_is_within_the_product_of_its_blocks() -> None:
    model = filled(ResNet10(channels=2, classes=4, in_channels=2), 0.5)
    state = Lent(model, lr=0.05)
    steps(SuccessiveApproximations(every=1), state, 2)
    model.eval()
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0], X[0]).reshape(4, 72)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) <= 2**4


def test_frozen_weights_stay() -> None:
    model = net()
    model[2].weight.requires_grad_(False)
    before = model[2].weight.clone()
    steps(SuccessiveApproximations(), Lent(model))
    assert torch.equal(model[2].weight, before)


def test_what_is_not_finite_is_left_to_the_trainer() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = torch.inf
    for every in (1, 2):
        state = Lent(copy.deepcopy(model))
        state.step = 1
        assert not torch.isfinite(steps(SuccessiveApproximations(every=every), state)["cross_entropy"])


# What is refused


@pytest.mark.parametrize(
    ("layer", "settings", "told"),
    [
        (nn.GroupNorm(2, 2), {}, r"GroupNorm \('0'\)"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), {}, r"Conv2d \('0'\)"),
        (nn.Conv2d(2, 2, 3, padding="same"), {}, r"Conv2d \('0'\)"),
        (nn.ConvTranspose2d(2, 2, 3, padding=1), {}, r"ConvTranspose2d \('0'\)"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)), {}, r"Conv2d \('0'\)"),
        (nn.BatchNorm2d(2, track_running_stats=False), {}, r"BatchNorm2d \('0'\)"),
        (nn.PReLU(), {}, r"PReLU \('0'\)"),
        (nn.Identity(), {"free": ("4",)}, "no module '4'"),
        (nn.Identity(), {"skips": ("2",)}, "'2' stands beside a skip"),
        (nn.Identity(), {"free": ("2",)}, "No layer is left"),
        (AntisymmetricConv2d(2, gamma=1.0), {}, "must be below 1. Got 1"),
        (AntisymmetricConv2d(2), {"skips": ("0",)}, r"must be in \(0, 2\). Got 0"),
    ],
)
def test_a_network_without_a_known_bound_is_refused(layer: nn.Module, settings: dict, told: str) -> None:
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(72, 4)).double()
    with pytest.raises(BadInput, match=told) as caught:
        steps(SuccessiveApproximations(**settings), Lent(model))
    assert "\n" not in str(caught.value)
    if not settings and not isinstance(layer, AntisymmetricConv2d):
        steps(SuccessiveApproximations(free=("0",)), Lent(model))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"alpha": -1.0}, "'alpha'"),
        ({"beta": float("nan")}, "'beta'"),
        ({"alpha": 0.0, "beta": 0.0}, "not both be 0"),
        ({"momentum": 1.0}, "'momentum'"),
        ({"every": 0}, "'every'"),
        ({"solver": "scs"}, "'clip' or 'sdp'"),
        ({"norms": "keep"}, "'fold' or 'free'"),
    ],
)
def test_bad_numbers_are_refused(wrong: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        SuccessiveApproximations(**wrong)
    assert "\n" not in str(caught.value)


def test_a_rate_too_large_for_alpha_is_refused() -> None:
    with pytest.raises(BadInput, match=r"at most 0\.25\. Got 1"):
        steps(SuccessiveApproximations(alpha=1.0), Lent(net(), lr=2.0))
