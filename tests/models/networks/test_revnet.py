"""RevNet against semi-implicit Euler, its own inverse, plain backpropagation, and the architecture written out."""

import copy
from itertools import islice

import pytest
import torch
from staged_reference import (
    POINTS,
    Tanh,
    Times,
    branch_tensors,
    frame_parameters,
    framed,
    random,
    randomised,
    residual,
    slope,
    written,
)
from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.networks.revnet import ReversibleBlock, ReversibleStage, RevNet
from verigrad.models.networks.staged import residual_function
from verigrad.solvers import EULER, Fixed, solve
from verigrad.training.trainer import initialised

F1, F2 = Tanh(5, bias=True, seed=1), Tanh(5, bias=True, seed=3)
START = random(4, 10, seed=7)


def euler(field, state: tuple[Tensor, Tensor], h: float) -> tuple[Tensor, Tensor]:
    y1 = solve(field, state, t1=h, method=EULER, control=Fixed(steps=1)).y1
    assert isinstance(y1, tuple)
    return y1[0], y1[1]


def explicit(h: float) -> Tensor:
    x, y = START.chunk(2, 1)
    return torch.cat(euler(lambda t, s: (F1(s[1]), F2(s[0])), (x, y), h), 1)


def semi_implicit(h: float) -> Tensor:
    """One step of Euler for X with Y at rest, then one for Y with the new X at rest."""
    x, y = START.chunk(2, 1)
    state = euler(lambda t, s: (F1(s[1]), torch.zeros_like(s[1])), (x, y), h)
    return torch.cat(euler(lambda t, s: (torch.zeros_like(s[0]), F2(s[0])), state, h), 1)


@pytest.mark.parametrize("h", [1.0, 0.1])
def test_a_block_is_one_semi_implicit_step_of_euler_on_the_coupled_system(h: float):
    got = ReversibleBlock(F1, F2, h=h)(START)
    torch.testing.assert_close(got, semi_implicit(h), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got[:, :5], explicit(h)[:, :5], rtol=1e-12, atol=1e-12)


def test_it_is_h_squared_away_from_the_explicit_step():
    steps = [2.0**-k for k in range(3, 9)]
    apart = [float((ReversibleBlock(F1, F2, h=h)(START) - explicit(h)).norm()) for h in steps]
    assert abs(slope(apart, steps) - 2) < 0.1


def test_a_block_keeps_volume_so_it_never_contracts():
    jacobian = torch.autograd.functional.jacobian(lambda y: ReversibleBlock(F1, F2)(y[None])[0], START[0])
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-10)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) > 1


def test_the_table_of_stability_holds_what_the_block_does():
    basis = torch.eye(2, dtype=torch.complex128)
    maps = [ReversibleBlock(Times(z), Times(z))(basis).t() for z in POINTS]
    radii = [float(torch.linalg.eigvals(m).abs().max()) for m in maps]
    # At 2i the eigenvalue -1 is double and defective: half the digits of float64 are left.
    assert written("RevNet, largest eigenvalue") == pytest.approx(radii, abs=6e-4)
    norms = [float(torch.linalg.matrix_norm(m, 2)) for m in maps]
    assert written("RevNet, norm") == pytest.approx(norms, abs=6e-4)
    assert written("Euler on (22), largest eigenvalue") == pytest.approx(
        [max(abs(1 + z), abs(1 - z)) for z in POINTS], abs=6e-4
    )
    exact = [max(abs(torch.exp(torch.tensor(complex(s * z))).item()) for s in (1, -1)) for z in POINTS]
    assert written("exact on (22), largest eigenvalue") == pytest.approx(exact, abs=6e-4)


def chain(depth: int, *, reconstruct: bool = False, norm: str = "group", channels: int = 16) -> ReversibleStage:
    def make() -> nn.Module:
        half = channels // 2
        blocks = [
            ReversibleBlock(residual_function(half, norm), residual_function(half, norm), h=0.5) for _ in range(depth)
        ]
        return ReversibleStage(blocks, reconstruct=reconstruct)

    made = initialised(make, 0)
    assert isinstance(made, ReversibleStage)
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_the_inverse_finds_the_input_again(dtype: torch.dtype, tolerance: float, norm: str):
    stage = chain(3, norm=norm).to(dtype).eval()
    y = random(2, 16, 8, 8).to(dtype)
    with torch.no_grad():
        end = stage(y)
        assert float((end - y).norm()) > 0.1 * float(y.norm())
        assert float((stage.inverse(end) - y).norm()) <= tolerance * float(y.norm())


def test_the_inverse_of_batch_norm_in_training_is_exact_too_but_counts_the_batch_again():
    stage = chain(1, norm="batch").double().train()
    y = random(4, 16, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(stage.inverse(stage(y)), y, rtol=1e-10, atol=1e-10)
    counts = {int(value) for name, value in stage.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {2}


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    loss = (model(x) * torch.linspace(-1, 2, 10, dtype=x.dtype)).square().sum()
    return list(torch.autograd.grad(loss, [x, *(w for w in model.parameters() if w.requires_grad)]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("frozen", ["nothing", "every second weight", "all weights"])
def test_reconstructed_gradients_are_the_plain_ones(dtype: torch.dtype, tolerance: float, frozen: str):
    plain = randomised(initialised(lambda: RevNet(16, (2, 1, 3), in_channels=1, h=0.7), 0)).to(dtype)
    other = RevNet(16, (2, 1, 3), in_channels=1, h=0.7, reconstruct=True).to(dtype)
    other.load_state_dict(plain.state_dict())
    for model in (plain, other):
        for i, weight in enumerate(model.parameters()):
            weight.requires_grad_(frozen == "nothing" or (frozen == "every second weight" and i % 2 == 0))
    x = random(3, 1, 8, 8).abs().to(dtype)
    torch.testing.assert_close(other(x), plain(x), rtol=0, atol=0)
    want = gradients(plain, x)
    assert len(want) == {"nothing": 1 + len(list(plain.parameters())), "all weights": 1}.get(frozen, len(want))
    for ours, theirs in zip(gradients(other, x), want, strict=True):
        assert float((ours - theirs).norm()) <= tolerance * max(float(theirs.norm()), 1e-3)


def test_reconstruction_learns_from_an_input_that_needs_no_gradient():
    plain, other = chain(2).double(), chain(2, reconstruct=True).double()
    y = random(2, 16, 4, 4)
    for stage in (plain, other):
        stage(y).square().sum().backward()
    for ours, theirs in zip(other.parameters(), plain.parameters(), strict=True):
        assert float((ours.grad - theirs.grad).norm()) <= 1e-10 * float(theirs.grad.norm())


def kept(stage: ReversibleStage) -> int:
    """Numbers kept for the backward pass, less the weights."""
    sizes: dict[int, int] = {}
    weights = {weight.data_ptr() for weight in stage.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    y = random(2, 16, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        end = stage(y)
    assert end.requires_grad
    return sum(sizes.values())


def test_reconstruction_keeps_the_output_alone_at_any_depth():
    assert [kept(chain(depth, reconstruct=True).double()) for depth in (1, 6)] == [2 * 16 * 8 * 8] * 2
    assert kept(chain(6).double()) > 4 * kept(chain(1).double())


def test_reconstruction_has_no_second_derivatives_and_says_so():
    stage = chain(1, reconstruct=True).double()
    y = random(1, 16, 4, 4).requires_grad_()
    with pytest.raises(BadInput, match="no second derivatives"):
        torch.autograd.grad(stage(y).square().sum(), y, create_graph=True)


def test_a_weight_changed_between_forward_and_backward_is_found_out():
    stage = chain(1, reconstruct=True).double()
    end = stage(random(1, 16, 4, 4)).square().sum()
    with torch.no_grad():
        next(stage.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        end.backward()


@pytest.mark.parametrize(
    ("width", "blocks", "classes", "in_channels"), [(32, (2, 2, 2), 10, 3), (8, (1, 2, 3), 7, 1), (4, (1, 1, 1), 10, 1)]
)
def test_the_parameters_are_those_of_the_architecture(width, blocks, classes, in_channels):
    """Two branches on c/2 channels, each with two norms of c and two kernels of 9c²/4: 4c + 9c²."""
    stages = sum(n * (4 * c + 9 * c**2) for n, c in zip(blocks, (width, 2 * width, 4 * width), strict=True))
    model = RevNet(width, blocks, classes, in_channels)
    got = sum(weight.numel() for weight in model.parameters())
    assert got == frame_parameters(width, classes, in_channels) + stages


def test_the_docstring_tells_the_size_of_the_default():
    assert f"{sum(weight.numel() for weight in RevNet().parameters()):,} parameters" in str(RevNet.__doc__)


@pytest.mark.parametrize(
    ("norm", "shape", "reconstruct"),
    [
        ("group", (3, 32, 32), False),
        ("group", (1, 8, 8), True),
        ("batch", (1, 8, 8), False),
        ("none", (1, 28, 28), False),
        ("none", (1, 28, 28), True),
    ],
)
def test_the_network_is_the_architecture(norm, shape, reconstruct):
    blocks, h = (2, 1, 1), 0.5
    model = randomised(initialised(lambda: RevNet(8, blocks, 5, shape[0], h=h, norm=norm, reconstruct=reconstruct), 0))
    remaining = iter(blocks)

    def stage(y, take):
        for _ in range(next(remaining)):
            one, two = (list(islice(take, branch_tensors(norm))) for _ in range(2))
            half = y.shape[1] // 2
            first = y[:, :half] + h * residual(y[:, half:], norm, one)
            y = torch.cat([first, y[:, half:] + h * residual(first, norm, two)], 1)
        return y

    x = random(2, *shape).abs()
    want = framed(model, x, norm, stage)
    assert want.shape == (2, 5)
    torch.testing.assert_close(model(x), want, rtol=1e-10, atol=1e-10)


def test_a_copy_computes_the_same_and_every_weight_is_learned():
    model = initialised(lambda: RevNet(8, in_channels=1, reconstruct=True), 0).eval()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    model(x).square().sum().backward()
    assert all(bool(weight.grad.any()) for weight in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RevNet(7), "must be even, one half for each stream. Got 7"),
        (lambda: RevNet(norm="batch", reconstruct=True), "count every batch twice"),
        (lambda: RevNet(24), "below 8 or a multiple of 8"),
        (lambda: RevNet(h=float("inf")), "Got inf"),
        (lambda: RevNet(8)(torch.rand(1, 3, 8, 2)), "at least 4. Got 8×2"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
