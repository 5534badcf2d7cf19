"""SONet has the released sizes, takes digits, and shares its steps over the batch."""

import pytest
import torch
import torch.nn.functional as F

from verigrad.core.classifier import batch_coupled
from verigrad.core.errors import BadInput
from verigrad.models.networks.sonet import SONet
from verigrad.models.twin import twin
from verigrad.solvers import TORCHDIFFEQ_0_0_1, PerSample
from verigrad.training.trainer import initialised


def digits_sonet(channels: int = 8) -> SONet:
    model = initialised(lambda: SONet(channels, (1, 1, 1, 1), in_channels=1), 0)
    assert isinstance(model, SONet)
    return model.eval()


SIZES = [
    (64, (2, 2, 2, 2), 5_944_022),
    (32, (2, 2, 2, 2), 1_491_318),
    (64, (1, 1, 1, 1), 2_802_902),
    (32, (1, 1, 1, 1), 704_118),
]


@pytest.mark.parametrize(("channels", "blocks", "count"), SIZES)
def test_the_sizes_are_the_released_ones(channels: int, blocks: tuple[int, ...], count: int):
    """5.94, 1.49, 2.80 and 0.70 million in the released code, to the unit by the layout: one kernel for each block, two
    numbers for each channel of the four norms, and the classifier's matrix and bias."""
    assert sum(weight.numel() for weight in SONet(channels, blocks).parameters()) == count
    total, width = 0, 3
    for stage, blocks_here in enumerate((1, *blocks)):
        for block in range(blocks_here):
            out = channels * 2 ** max(0, stage - 1)
            side = 4 if stage > 1 and block == 0 else 3
            total += width * out * side * side + 4 * (width + out)
            width = out
    assert total + width * 10 + width + 10 == count


@pytest.mark.parametrize(
    ("channels", "each", "count"), [(64, 1, 2_831_360), (32, 1, 709_120), (64, 2, 5_964_800), (32, 2, 1_492_480)]
)
def test_the_papers_stem_is_as_wide_inside_as_outside(channels: int, each: int, count: int):
    """Eq. (6): one kernel for each block, the classifier's matrix, and nothing else."""
    assert sum(weight.numel() for weight in SONet(channels, (each,) * 4, variant="paper").parameters()) == count
    first = [(1, 1, 3), (1, 1, 3), (1, 2, 4), (2, 4, 4), (4, 8, 4)]
    shapes = first + [(c, c, 3) for c in (1, 2, 4, 8)] * (each - 1)
    assert sum(a * b * side**2 for a, b, side in shapes) * channels**2 + 8 * channels * 10 == count


def test_only_the_paper_copies_the_channels_before_the_stem():
    images = torch.rand(2, 3, 8, 8)
    paper, released = (SONet(8, (1, 1, 1, 1), variant=variant) for variant in ("paper", "released"))
    order = [0, 1, 2, 0, 1, 2, 0, 1]
    assert torch.equal(paper.copy(images), images[:, order])
    assert torch.equal(released.copy(images), images)
    assert (paper.stem.field.in_channels, released.stem.field.in_channels) == (8, 3)


def test_digits_end_at_one_pixel():
    model = digits_sonet()
    sizes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda part, inputs, output: sizes.append(tuple(output.shape)))
    with torch.no_grad():
        assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert sizes == [(2, 8, 8, 8), (2, 16, 4, 4), (2, 32, 2, 2), (2, 64, 1, 1)]


def test_images_that_cannot_be_halved_three_times_are_told():
    with pytest.raises(BadInput, match="multiples of 8"):
        digits_sonet()(torch.rand(1, 1, 28, 28))


def test_batch_mates_change_the_logits_and_not_under_own_steps():
    model = digits_sonet().double()
    assert batch_coupled(model)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alone = twin(model, control=PerSample(rtol=0.1, atol=0.1, law=TORCHDIFFEQ_0_0_1))
    assert not batch_coupled(alone)
    with torch.no_grad():
        joint = model(x)
        single = torch.cat([model(one[None]) for one in x])
        assert float((joint - single).abs().max()) > 1e-4
        torch.testing.assert_close(alone(x), single, rtol=1e-6, atol=1e-6)


def test_the_linear_net_is_a_chain_of_matrix_exponentials():
    """Eq. (6) with Eq. (4) in every layer, damped: gamma, activation, norm and variant reach all blocks."""
    model = SONet(
        3,
        (1, 1, 1, 1),
        classes=4,
        in_channels=1,
        gamma=0.2,
        activation="identity",
        norm="none",
        variant="paper",
        control="sample",
        tol=1e-9,
    ).double()
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, side = images.repeat(1, 3, 1, 1), 8
    for name, width, stride in [
        ("stem", 3, 1),
        ("stages.0.0", 3, 1),
        *((f"stages.{i}.0", 3 * 2**i, 2) for i in (1, 2, 3)),
    ]:
        kernel = dict(model.named_parameters())[f"{name}.field.kernel"]
        basis = torch.eye(x[0].numel(), dtype=torch.float64).reshape(-1, *x.shape[1:])
        matrix = F.conv2d(basis, kernel, stride=stride, padding=1).flatten(1).t()
        repeated = torch.cat([x] * width, 1)[:, :width, ::stride, ::stride]
        state = torch.cat([repeated.flatten(1), x.flatten(1)], 1)
        side //= stride
        x = damped_flow(matrix, state)[:, : width * side * side].reshape(-1, width, side, side)
    features = x.mean((2, 3))
    state = torch.cat([features, torch.ones(2, 4, dtype=torch.float64)], 1)
    want = damped_flow(dict(model.named_parameters())["classifier.field.weight"], state)[:, 24:]
    torch.testing.assert_close(model(images), want, rtol=1e-6, atol=1e-6)


def damped_flow(matrix: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """exp([[0, M], [-Mᵀ, 0]] - 0.2) applied to each row."""
    rows, columns = matrix.shape
    generator = -0.2 * torch.eye(rows + columns, dtype=torch.float64)
    generator[:rows, rows:] = matrix
    generator[rows:, :rows] = -matrix.t()
    return state @ torch.matrix_exp(generator).t()


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 1, 1, 0)])
def test_blocks_must_be_four(blocks: tuple[int, ...]):
    with pytest.raises(BadInput, match="four numbers of at least 1"):
        SONet(8, blocks)
