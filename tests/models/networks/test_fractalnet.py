"""FractalNet against Heun's method, from which its identities are missing, and the architecture written out."""

import copy

import pytest
import torch
from staged_reference import (
    POINTS,
    Tanh,
    Times,
    convolved,
    frame_parameters,
    framed,
    normed,
    random,
    randomised,
    written,
)
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.fractalnet import FractalBlock, FractalNet
from verigrad.solvers import HEUN2, Fixed, solve
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

F1 = Tanh(6, bias=True)
Y = random(3, 6, seed=5)


class Euler(nn.Module):
    """y ↦ y + hf(y): a unit that has its identity."""

    def __init__(self, f: nn.Module, h: float) -> None:
        super().__init__()
        self.f, self.h = f, h

    def forward(self, y: Tensor) -> Tensor:
        return y + self.h * self.f(y)


def heun(field, y: Tensor, h: float) -> Tensor:
    return solve(field, y, t1=h, method=HEUN2, control=Fixed(steps=1)).y1


@pytest.mark.parametrize("h", [1.0, 0.25])
def test_two_columns_are_heun_s_method_less_its_two_identities(h: float):
    """f₂(y) = ½hf(y) + ½hf(hf(y)): Heun's step less y, its second stage at hf(y) where Heun has y + hf(y)."""
    block = FractalBlock(lambda: F1, columns=2, h=h)
    # A field that takes the inner identity out: at the end of the step it sees the state less its start.
    without_inner = heun(lambda t, y: F1(y - Y) if float(t) else F1(y), Y, h)
    torch.testing.assert_close(block(Y), without_inner - Y, rtol=1e-10, atol=1e-10)
    both = Y + h / 2 * (F1(Y + h * F1(Y)) - F1(h * F1(Y)))
    torch.testing.assert_close(heun(lambda t, y: F1(y), Y, h) - block(Y), both, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("h", [1.0, 0.25])
def test_two_columns_of_residual_units_are_heun_s_step_and_half_a_slope_more(h: float):
    """With f₁ = I + hf: Heun = ½y + ½f₁(f₁(y)), so f₂ = ½f₁(y) + ½f₁(f₁(y)) = Heun + ½hf(y)."""
    block = FractalBlock(lambda: Euler(F1, h), columns=2)
    want = heun(lambda t, y: F1(y), Y, h) + h / 2 * F1(Y)
    torch.testing.assert_close(block(Y), want, rtol=1e-10, atol=1e-10)


def test_without_an_identity_h_is_no_step_size():
    sizes = [float(FractalBlock(lambda: F1, columns=3, h=h)(Y).norm()) for h in (1e-6, 1e-3)]
    assert sizes[0] < 1e-5 * float(Y.norm())
    assert sizes[0] < 2e-3 * sizes[1]


def test_the_table_of_stability_holds_what_the_block_does():
    one = torch.ones(1, 1, dtype=torch.complex128)
    for columns in (2, 3):
        block = [FractalBlock(lambda z=z: Times(z), columns=columns) for z in POINTS]
        got = [abs(complex(f(one))) for f in block]
        assert written(f"FractalNet, C = {columns}") == pytest.approx(got, abs=6e-4)
    assert written("Heun") == pytest.approx([abs(1 + z + z**2 / 2) for z in POINTS], abs=6e-4)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_every_unit_has_weights_of_its_own_and_the_longest_path_is_a_power_of_two(columns: int):
    made: list[nn.Module] = []

    def unit() -> nn.Module:
        made.append(nn.Linear(6, 6, bias=False).double())
        return made[-1]

    block = FractalBlock(unit, columns=columns)
    assert len(made) == 2**columns - 1
    block(Y).sum().backward()
    assert all(bool(weight.grad.any()) for weight in block.parameters())
    assert len(list(block.parameters())) == len(made)
    # On units z the longest path is the highest power of z.
    grown = [float(FractalBlock(lambda z=z: Times(z), columns=columns)(torch.ones(1, 1))) for z in (1e3, 2e3)]
    assert round(torch.log2(torch.tensor(grown[1] / grown[0])).item(), 2) == 2 ** (columns - 1)


@pytest.mark.parametrize(
    ("width", "blocks", "classes", "in_channels", "columns"),
    [(32, (1, 1, 1), 10, 3, 3), (8, (1, 2, 3), 7, 1, 2), (4, (1, 1, 1), 10, 1, 4)],
)
def test_the_parameters_are_those_of_the_architecture(width, blocks, classes, in_channels, columns):
    """A unit on c channels has a kernel of 9c² and a norm of 2c."""
    per_block = [(2**columns - 1) * (9 * c**2 + 2 * c) for c in (width, 2 * width, 4 * width)]
    stages = sum(n * size for n, size in zip(blocks, per_block, strict=True))
    model = FractalNet(width, blocks, classes, in_channels, columns=columns)
    got = sum(weight.numel() for weight in model.parameters())
    assert got == frame_parameters(width, classes, in_channels) + stages


def test_the_docstring_tells_the_size_of_the_default():
    assert f"{sum(weight.numel() for weight in FractalNet().parameters()):,} parameters" in str(FractalNet.__doc__)


@pytest.mark.parametrize(
    ("norm", "shape"), [("batch", (3, 32, 32)), ("batch", (1, 8, 8)), ("group", (1, 8, 8)), ("none", (1, 28, 28))]
)
def test_the_network_is_the_architecture(norm, shape):
    """Three columns unrolled: ½u₀ + ½ f''(f'), f' = ½u₁ + ½u₃u₂, f'' = ½u₄ + ½u₆u₅."""
    h = 0.5
    model = randomised(initialised(lambda: FractalNet(4, (1, 1, 1), 5, shape[0], h=h, norm=norm), 0))

    def stage(y, take):
        size = {"batch": 6, "group": 3, "none": 2}[norm]
        tensors = [[next(take) for _ in range(size)] for _ in range(7)]

        def u(i, at):
            own = iter(tensors[i])
            return h * normed(convolved(at, norm, own), norm, own).clamp(min=0)

        middle = 0.5 * u(1, y) + 0.5 * u(3, u(2, y))
        end = 0.5 * u(4, middle) + 0.5 * u(6, u(5, middle))
        return 0.5 * u(0, y) + 0.5 * end

    x = random(2, *shape).abs()
    want = framed(model, x, norm, stage)
    assert want.shape == (2, 5)
    torch.testing.assert_close(model(x), want, rtol=1e-10, atol=1e-10)


def test_a_join_that_drops_nearly_always_keeps_one_path_and_in_evaluation_both():
    units = iter([Tanh(6, seed=1), Tanh(6, seed=2), Tanh(6, seed=3)])
    parts = [Tanh(6, seed=1), Tanh(6, seed=2), Tanh(6, seed=3)]
    block = FractalBlock(lambda: next(units), columns=2, drop_path=0.99)
    short, long = parts[0](Y), parts[2](parts[1](Y))
    torch.testing.assert_close(block.eval()(Y), (short + long) / 2)
    block.train()
    seen = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(40):
            got = block(Y)
            seen.append([torch.equal(got, short), torch.equal(got, long)])
    alone = torch.tensor(seen).sum(0)
    assert int(alone.sum()) >= 35
    assert int(alone.min()) >= 5


def test_dropped_paths_are_the_same_under_the_same_seed():
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 10
    before = torch.random.get_rng_state()

    def weights(seed: int, drop_path: float) -> Tensor:
        model = initialised(lambda: FractalNet(4, in_channels=1, drop_path=drop_path), 0)
        train(model, x, y, Natural(), Recipe(epochs=2, batch=10, seed=seed))
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    first = weights(0, 0.5)
    assert torch.equal(first, weights(0, 0.5))
    assert not torch.equal(first, weights(0, 0.0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_copy_computes_the_same():
    model = initialised(lambda: FractalNet(8, in_channels=1), 0).eval()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FractalNet(columns=0), "must be at least 1. Got 0"),
        (lambda: FractalNet(drop_path=1.0), r"probability in \[0, 1\). Got 1.0"),
        (lambda: FractalNet(h=-1.0), r"in \(0, inf\). Got -1.0"),
        (lambda: FractalNet(8)(torch.rand(1, 3, 2, 2)), "at least 4. Got 2×2"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
