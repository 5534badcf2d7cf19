"""Crop, flip and cutout against images moved by hand; each sample's choice is its own."""

import pytest
import torch

from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.data.augment import Augment


def images(count: int = 200, size: int = 5) -> torch.Tensor:
    """Every pixel of an image has a value of its own, and no value is 0."""
    one = torch.arange(1, 2 * size * size + 1, dtype=torch.uint8).reshape(1, 2, size, size)
    return one.repeat(count, 1, 1, 1)


def streams(count: int):
    return seeded(0, "augment", range(count))


def test_by_default_nothing_changes():
    x = images()
    assert Augment()(x, generator=streams(200)) is x


def test_a_crop_is_one_of_the_moved_images_and_all_occur():
    x = images()
    changed = Augment(crop=1)(x, generator=streams(200))
    padded = torch.zeros(2, 7, 7, dtype=torch.uint8)
    padded[:, 1:6, 1:6] = x[0]
    moved = torch.stack([padded[:, i : i + 5, j : j + 5] for i in range(3) for j in range(3)])
    same = (changed[:, None] == moved[None]).flatten(2).all(2)
    assert same.any(1).all()
    assert same.any(0).all()
    assert changed.is_contiguous()


def test_a_flip_mirrors_about_half_of_the_images():
    x = images(400)
    changed = Augment(flip=True)(x, generator=streams(400))
    mirrored = (changed == x.flip(3)).flatten(1).all(1)
    assert ((changed == x).flatten(1).all(1) ^ mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_a_cutout_is_a_square_around_any_pixel(side: int):
    x = images(500)
    out = Augment(cutout=side)(x, generator=streams(500)) == 0
    assert torch.equal(out[:, 0], out[:, 1])
    rows, columns = out[:, 0].any(2).sum(1), out[:, 0].any(1).sum(1)
    assert torch.equal(out[:, 0].flatten(1).sum(1), rows * columns)  # a rectangle
    assert int(rows.max()) == int(columns.max()) == side
    assert int(rows.min()) == side - side // 2 if side > 1 else 1  # cut off at the border
    assert out[:, 0].any(0).all()


def test_floats_and_bytes_change_alike():
    x = images()
    change = Augment(crop=2, flip=True, cutout=2, fill=128 / 255)
    changed = change(x, generator=streams(200))
    assert torch.equal(change(x.float() / 255, generator=streams(200)), changed.float() / 255)
    assert 128 in changed


def test_a_sample_changes_the_same_with_other_batch_mates():
    x = torch.rand(20, 3, 6, 6)
    change = Augment(crop=2, flip=True, cutout=2)
    rows = torch.tensor([7, 3, 11])
    alone = change(x[rows], generator=streams(20)[rows])
    assert torch.equal(change(x, generator=streams(20))[rows], alone)


def test_the_usual_changes_of_cifar_are_a_move_a_mirror_and_a_square():
    x = torch.randint(1, 256, (30, 3, 32, 32), dtype=torch.uint8)
    changed = Augment(crop=4, flip=True, cutout=16)(x, generator=streams(30))
    assert (changed.dtype, changed.shape) == (x.dtype, x.shape)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    for before, after in zip(padded, changed, strict=True):
        moved = torch.stack([before[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)])
        moved = torch.cat([moved, moved.flip(3)])
        differ = (moved != after).any(1)
        (best,) = (differ.flatten(1).sum(1) <= 16 * 16).nonzero()
        square = differ[best[0]]
        assert (after[:, square] == 0).all()
        rows, columns = square.any(1).nonzero().flatten(), square.any(0).nonzero().flatten()
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) < 16


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"crop": -1}, "Got -1 and 0"),
        ({"cutout": -2}, "Got 0 and -2"),
        ({"fill": 1.5}, "Got 1.5"),
    ],
)
def test_bad_numbers_are_told(settings, told):
    with pytest.raises(BadInput, match=told):
        Augment(**settings)
