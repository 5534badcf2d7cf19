"""The SONet fields and one whole block, derived a second time in float64 with plain torch functions and torchdiffeq."""

import math
import pickle
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from oracles import torchdiffeq_0_0_1
from torch import Tensor

from verigrad.core.errors import BadInput
from verigrad.models.activations import ACTIVATIONS, Activation
from verigrad.models.fields import Field, SkewConvField, SkewLinearField, Variant
from verigrad.models.ode_block import RELEASED, ODEBlock, Solver
from verigrad.solvers import DOPRI5, Direct, PerSample
from verigrad.training.trainer import initialised

# Each activation and its inverse, in closed form.
SIGMAS = {
    "leaky_relu": (lambda x: torch.where(x > 0, x, 0.01 * x), lambda y: torch.where(y > 0, y, 100 * y)),
    "elu": (lambda x: torch.where(x > 0, x, x.exp() - 1), lambda y: torch.where(y > 0, y, (1 + y.clamp(max=0)).log())),
    "softplus": (lambda x: (1 + x.exp()).log(), lambda y: (y.exp() - 1).log()),
    "tanh": (lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()), lambda y: ((1 + y) / (1 - y)).log() / 2),
    "sigmoid": (lambda x: 1 / (1 + (-x).exp()), lambda y: (y / (1 - y)).log()),
    "identity": (lambda x: x, lambda y: y),
}
FINE = Solver(method=DOPRI5, control=PerSample(rtol=1e-10, atol=1e-10), gradient=Direct())

SHAPES = [(1, 8, 1, 8), (8, 16, 2, 8), (3, 8, 1, 4), (3, 8, 2, 4), (16, 16, 1, 2)]


def randomised(field: Field) -> Field:
    """In float64, with norms that are not the identity."""
    generator = torch.Generator().manual_seed(1)
    field = field.double()
    with torch.no_grad():
        for weight in field.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, dtype=torch.float64, generator=generator))
    return field


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def group_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GroupNorm of min(8, C) groups, written out."""
    batch, channels, *_ = x.shape
    groups = x.reshape(batch, min(8, channels), -1)
    mean = groups.mean(2, keepdim=True)
    var = (groups - mean).square().mean(2, keepdim=True)
    normal = ((groups - mean) / (var + 1e-5).sqrt()).reshape(x.shape)
    return normal * weight[:, None, None] + bias[:, None, None]


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def conv_matrix(kernel: Tensor, stride: int, size: int) -> Tensor:
    """The matrix of z ↦ conv(z, kernel) on flattened images, column by column from basis images."""
    basis = torch.eye(kernel.shape[1] * size * size, dtype=torch.float64).reshape(-1, kernel.shape[1], size, size)
    return F.conv2d(basis, kernel, stride=stride, padding=1).flatten(1).t()


def conv_derivative(field: SkewConvField, x: Tensor, z: Tensor, sigma=leaky) -> tuple[Tensor, Tensor]:
    """The right-hand side with the convolution as a matrix, so that its transpose is the transpose."""
    p = dict(field.named_parameters())
    w = conv_matrix(p["kernel"], field.stride, z.shape[-1])

    def normed(value: Tensor, name: str) -> Tensor:
        return group_norm(value, p[f"{name}.weight"], p[f"{name}.bias"]) if f"{name}.weight" in p else value

    nx, nz = normed(x, "norm_x"), normed(z, "norm_z")
    dx = sigma((nz.flatten(1) @ w.t()).reshape(x.shape) - field.gamma * nx)
    dz = sigma(-(nx.flatten(1) @ w).reshape(z.shape) - field.gamma * nz)
    return normed(dx, "norm_dx"), normed(dz, "norm_dz")


@pytest.mark.parametrize(("inside", "outside", "stride", "size"), SHAPES)
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_feature_field_is_the_released_one(inside: int, outside: int, stride: int, size: int, gamma: float):
    field = randomised(SkewConvField(inside, outside, stride=stride, gamma=gamma))
    assert isinstance(field, SkewConvField)
    x, z = random(2, outside, size // stride, size // stride), random(2, inside, size, size, seed=3)
    for got, want in zip(field(torch.tensor(0.0), (x, z)), conv_derivative(field, x, z), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(("activation", "norm"), [*zip(SIGMAS, ["variant"] * 6, strict=True), ("elu", "none")])
def test_the_feature_field_takes_every_activation(activation: Activation, variant: Variant, norm):
    field = randomised(SkewConvField(3, 8, gamma=0.3, activation=activation, variant=variant, norm=norm))
    assert isinstance(field, SkewConvField)
    normed = variant == "released" and norm == "variant"
    assert len(dict(field.named_parameters())) == (9 if normed else 1)
    x, z = random(2, 8, 4, 4), random(2, 3, 4, 4, seed=3)
    want = conv_derivative(field, x, z, SIGMAS[activation][0])
    for got, expected in zip(field(torch.tensor(0.0), (x, z)), want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_norms_can_be_had_in_the_paper_s_field_too():
    assert len(list(SkewConvField(8, 8, variant="paper", norm="group").parameters())) == 9
    assert SkewConvField(12, 5, variant="paper").kernel.shape == (5, 12, 3, 3)


@pytest.mark.parametrize(("inside", "outside", "stride", "size"), SHAPES)
def test_the_paper_s_feature_field_is_skew(inside: int, outside: int, stride: int, size: int):
    """Without norms and where σ is the identity, ⟨x, x'⟩ + ⟨z, z'⟩ = -γ(‖x‖² + ‖z‖²): Theorem 3.1 for a linear σ."""
    field = randomised(SkewConvField(inside, outside, stride=stride, gamma=0.2, variant="paper"))
    x, z = random(3, outside, size // stride, size // stride), random(3, inside, size, size, seed=3)
    dx, dz = field(torch.tensor(0.0), (x, z))
    # σ⁻¹: LeakyReLU divides by its slope where it is negative.
    dx, dz = torch.where(dx > 0, dx, dx / 0.01), torch.where(dz > 0, dz, dz / 0.01)
    power = (x * dx).flatten(1).sum(1) + (z * dz).flatten(1).sum(1)
    energy = x.square().flatten(1).sum(1) + z.square().flatten(1).sum(1)
    torch.testing.assert_close(power, -0.2 * energy)


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_the_classifier_field_is_the_released_one(gamma: float):
    field = randomised(SkewLinearField(6, 4, gamma=gamma))
    y, z = random(3, 6), random(3, 4, seed=3)
    weight, bias = dict(field.named_parameters())["weight"], dict(field.named_parameters())["bias"]
    dy = torch.einsum("fk,bk->bf", weight, leaky(z)) + bias[:6] - gamma * y
    dz = -torch.einsum("fk,bf->bk", weight, leaky(y)) + bias[6:] - gamma * z
    torch.testing.assert_close(field(torch.tensor(0.0), torch.cat([y, z], 1)), torch.cat([dy, dz], 1))


@pytest.mark.parametrize("activation", SIGMAS)
def test_the_paper_s_classifier_field_is_skew(activation: Activation):
    """⟨s, σ⁻¹(s')⟩ = -γ‖s‖², and s' itself is σ of the skew matrix less γ times s."""
    field = randomised(SkewLinearField(6, 4, gamma=0.2, variant="paper", activation=activation))
    weight = dict(field.named_parameters())["weight"]
    assert len(list(field.parameters())) == 1
    state = 0.3 * random(5, 10)
    sigma, inverse = SIGMAS[activation]
    slope = field(torch.tensor(0.0), state)
    torch.testing.assert_close(slope, sigma(state @ skew(weight).t() - 0.2 * state))
    torch.testing.assert_close((state * inverse(slope)).sum(1), -0.2 * state.square().sum(1))


def skew(matrix: Tensor) -> Tensor:
    """[[0, M], [-Mᵀ, 0]]."""
    rows, columns = matrix.shape
    above, below = matrix.new_zeros(rows, rows), matrix.new_zeros(columns, columns)
    return torch.cat([torch.cat([above, matrix], 1), torch.cat([-matrix.t(), below], 1)])


@pytest.mark.parametrize(("inside", "outside", "stride", "size"), SHAPES)
@pytest.mark.parametrize("gamma", [0.0, 0.4])
def test_a_linear_block_is_the_matrix_exponential(inside: int, outside: int, stride: int, size: int, gamma: float):
    """Eq. (4): s(1) = exp(A - γ) s(0) = e^(-γ) exp(A) s(0)."""
    field = SkewConvField(inside, outside, stride=stride, gamma=gamma, variant="paper", activation="identity").double()
    image = random(2, inside, size, size)
    start = torch.cat([part.flatten(1) for part in field.initial(image)], 1)
    flow = torch.matrix_exp(skew(conv_matrix(field.kernel, stride, size)))
    end = math.exp(-gamma) * start @ flow.t()
    got = ODEBlock(field, FINE)(image)
    torch.testing.assert_close(got.flatten(1), end[:, : got[0].numel()], rtol=1e-7, atol=1e-7)


def test_the_table_holds_what_the_annotation_names_and_increases():
    assert get_args(Activation) == tuple(ACTIVATIONS) == tuple(sorted(SIGMAS, key=list(ACTIVATIONS).index))
    x = torch.linspace(-6, 6, 301, dtype=torch.float64)
    for name, (sigma, _) in SIGMAS.items():
        assert bool((ACTIVATIONS[name](x).diff() > 0).all())
        torch.testing.assert_close(ACTIVATIONS[name](x), sigma(x))
        pickle.dumps(SkewLinearField(2, 2, activation=name))  # type: ignore[arg-type]


def test_the_classifier_starts_its_classes_at_a_tenth_or_at_one_as_the_paper_says():
    features = random(2, 6)
    for variant, start in (("released", 0.1), ("paper", 1.0)):
        field = SkewLinearField(6, 4, variant=variant)
        torch.testing.assert_close(field.initial(features), F.pad(features, (0, 4), value=start))
        torch.testing.assert_close(field.output(field.initial(features)), features.new_full((2, 4), start))


def test_the_start_repeats_channels_and_takes_every_second_pixel():
    image = random(1, 3, 4, 4)
    x, z = SkewConvField(3, 8, stride=2).initial(image)
    assert torch.equal(z, image)
    assert torch.equal(x, F.interpolate(image, scale_factor=0.5)[:, [0, 1, 2, 0, 1, 2, 0, 1]])
    fewer, _ = SkewConvField(8, 4).initial(random(1, 8, 4, 4))
    assert fewer.shape == (1, 4, 4, 4)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(("inside", "outside", "stride", "size"), SHAPES)
def test_a_block_is_what_torchdiffeq_0_0_1_solves(inside: int, outside: int, stride: int, size: int):
    field = randomised(SkewConvField(inside, outside, stride=stride))
    assert isinstance(field, SkewConvField)
    image = random(4, inside, size, size).requires_grad_()
    repeated = image[:, [i % inside for i in range(outside)], ::stride, ::stride].contiguous()
    want, _ = torchdiffeq_0_0_1().odeint(
        lambda t, state: conv_derivative(field, *state),
        (repeated, image),
        torch.tensor([0.0, 1.0], dtype=torch.float64),
        rtol=0.1,
        atol=0.1,
        method="dopri5",
    )
    # torchdiffeq 0.0.1 keeps the exponent 1/5 of its step-size rule in float32.
    got = ODEBlock(field, RELEASED)(image)
    torch.testing.assert_close(got, want[1], rtol=1e-6, atol=1e-6)
    ours, theirs = (torch.autograd.grad(end.square().sum(), image)[0] for end in (got, want[1]))
    # Elements far below the largest are sums that cancel: the whole gradient is the measure.
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_weights_begin_kaiming_uniform():
    field = initialised(lambda: SkewConvField(8, 16), 0)
    bound = 1 / math.sqrt(8 * 9)
    assert 0.95 * bound < float(dict(field.named_parameters())["kernel"].abs().max()) <= bound


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SkewConvField(12, 8), "must be below 8 or a multiple of 8"),
        (lambda: SkewConvField(8, 8, stride=3), "must be 1 or 2. Got 3"),
        (lambda: SkewConvField(8, 8, variant="mine"), "must be 'released' or 'paper'. Got 'mine'"),
        (lambda: SkewLinearField(8, 8, variant="mine"), "must be 'released' or 'paper'. Got 'mine'"),
        (lambda: SkewConvField(8, 8, norm="batch"), "must be 'variant' or 'group' or 'none'. Got 'batch'"),
        (lambda: SkewConvField(8, 8, activation="relu"), "strictly increasing, and ReLU is flat below 0.* Got 'relu'"),
        (lambda: SkewLinearField(8, 8, activation="swish"), "one of leaky_relu, elu, .* Got 'swish'"),
        (lambda: SkewConvField(8, 8, gamma=-0.1), "'gamma' of SkewConvField .* at least 0. Got -0.1"),
        (lambda: SkewLinearField(8, 8, gamma=math.nan), "'gamma' of SkewLinearField .* Got nan"),
        (lambda: SkewConvField(0, 8, variant="paper"), "Got 0"),
        (lambda: SkewConvField(8, 8, stride=2).initial(torch.zeros(1, 8, 5, 5)), "Got 5×5"),
    ],
)
def test_what_cannot_be_built_is_told(make, message):
    with pytest.raises(BadInput, match=message):
        make()
