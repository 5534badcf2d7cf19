"""Images from a folder by class, alone or by split, as they are or cut, decoded here or in workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from verigrad.core.errors import BadInput
from verigrad.data import image_folder
from verigrad.data.decoding import Cut, decode, decoded
from verigrad.data.image_folder import load_image_folder
from verigrad.data.load import load_data


def picture(path: Path, value: int, *, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = value if mode in ("L", "P", "I;16", "F", "1") else (value,) * len(mode)
    Image.new(mode, size, shade).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "dog" / "b.png", 40)
    picture(tmp_path / "dog" / "a.png", 30)
    picture(tmp_path / "dog" / "c.PNG", 50)
    picture(tmp_path / "cat" / "z.bmp", 20)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_classes_are_numbered_by_name_and_files_taken_in_turn(folder: Path) -> None:
    images = load_data(str(folder))
    assert images.x.shape == (4, 3, 4, 6)
    assert (images.x[:, 0, 0, 0] * 255).round().int().tolist() == [20, 30, 40, 50]
    assert images.y.tolist() == [0, 1, 1, 1]
    assert images.classes == 2


def test_the_first_n_know_all_classes(folder: Path) -> None:
    first = load_data(str(folder), n=1)
    assert (len(first), first.classes) == (1, 2)
    with pytest.raises(BadInput, match="has 4 images"):
        load_data(str(folder), n=5)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    picture(tmp_path / "one" / "a.png", 7, mode="L")
    picture(tmp_path / "two" / "a.png", 9, mode="L")
    images = load_data(str(tmp_path))
    assert images.x.shape == (2, 1, 4, 6)
    assert np.allclose(images.x[:, 0, 0, 0] * 255, [7, 9])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_what_is_no_plain_image_is_refused(folder: Path, mode: str) -> None:
    picture(folder / "dog" / "a.png", 30, mode=mode)
    with pytest.raises(BadInput, match=r"a\.png' must be 8-bit grey or RGB without transparency"):
        load_data(str(folder))


def test_images_of_other_sizes_or_channels_are_refused(folder: Path) -> None:
    picture(folder / "dog" / "b.png", 1, size=(7, 4))
    with pytest.raises(BadInput, match=r"one size.*6×4 with 3 channels.*b\.png' is 7×4 with 3 channels"):
        load_data(str(folder))
    picture(folder / "dog" / "b.png", 1, mode="L")
    with pytest.raises(BadInput, match=r"one size.*b\.png' is 6×4 with 1 channel"):
        load_data(str(folder))


def test_an_unreadable_image_is_refused(folder: Path) -> None:
    whole = (folder / "dog" / "a.png").read_bytes()
    for length in (0, 4, 20, len(whole) // 2):
        (folder / "dog" / "a.png").write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"Cannot read the image .*a\.png") as caught:
            load_data(str(folder))
        assert "\n" not in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="one folder of images for each class"):
        load_data(str(tmp_path))
    (tmp_path / "cat").mkdir()
    with pytest.raises(BadInput, match="cat' holds no image"):
        load_data(str(tmp_path))


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Photographs of several sizes and kinds, by split and class; one class has none for validation."""
    picture(tmp_path / "train" / "n01" / "a.JPEG", 10, size=(50, 30))
    picture(tmp_path / "train" / "n02" / "a.JPEG", 20, size=(30, 40))
    picture(tmp_path / "train" / "n02" / "b.JPEG", 30, mode="L", size=(64, 32))
    picture(tmp_path / "train" / "n03" / "a.JPEG", 40, size=(32, 32))
    picture(tmp_path / "val" / "n01" / "a.JPEG", 50, size=(90, 31))
    picture(tmp_path / "val" / "n03" / "a.PNG", 60, mode="RGBA", size=(20, 21))
    return tmp_path


def test_the_layout_of_imagenet_has_two_splits_of_the_same_classes(imagenet: Path) -> None:
    ref = f"imagenet(resize=16,crop=12):{imagenet}"
    train, test = load_data(ref, "train"), load_data(ref)
    assert (train.x.shape, test.x.shape) == ((4, 3, 12, 12), (2, 3, 12, 12))
    assert train.y.tolist() == [0, 1, 2, 1]
    assert test.y.tolist() == [0, 2]
    assert train.classes == test.classes == 3
    assert torch.allclose(train.x.mean((1, 2, 3)) * 255, torch.tensor([10.0, 20.0, 40.0, 30.0]), atol=1)
    assert load_data(f"imagenet:{imagenet}").x.shape == (2, 3, 224, 224)


def test_the_middle_is_taken_after_resizing(tmp_path: Path) -> None:
    """Of a ramp of 400×200, brought to 100×50, the middle 20 columns begin at the 41st, each as wide as four."""
    ramp = np.broadcast_to(np.linspace(0, 200, 400, dtype=np.float32), (200, 400))
    Image.fromarray(ramp.round().astype(np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(ramp.T.round().astype(np.uint8)).save(tmp_path / "tall.png")
    (wide, tall) = decode([tmp_path / "wide.png", tmp_path / "tall.png"], Cut(resize=50, crop=20))
    columns = ramp[0].reshape(100, 4).mean(1)[40:60]
    assert wide.shape == (3, 20, 20)
    assert np.abs(wide - columns).max() <= 1
    assert np.abs(tall - columns[:, None]).max() <= 1


@pytest.mark.parametrize("size", [(31, 47), (500, 375), (224, 224), (17, 400)])
def test_every_size_is_cut_to_the_square(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(tmp_path / "a.png", 99, size=size)
    (pixels,) = decode([tmp_path / "a.png"], Cut())
    assert pixels.shape == (3, 224, 224)
    assert (pixels == 99).all()


def test_what_photographs_have_is_cut_too(tmp_path: Path) -> None:
    picture(tmp_path / "ink.jpg", 0, mode="CMYK")
    picture(tmp_path / "clear.png", 7, mode="RGBA")
    ink, clear = decode([tmp_path / "ink.jpg", tmp_path / "clear.png"], Cut(resize=4, crop=4))
    assert (ink.min(), clear.max()) == (255, 7)
    picture(tmp_path / "long.png", 1, size=(101, 1))
    with pytest.raises(BadInput, match=r"long\.png': one side is more than 100 times the other"):
        decode([tmp_path / "long.png"], Cut())
    picture(tmp_path / "deep.png", 1, mode="I;16")
    with pytest.raises(BadInput, match="8 bits for each channel"):
        decode([tmp_path / "deep.png"], Cut())


def test_workers_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(150):
        path = tmp_path / f"c{i % 3}" / f"{i:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        # The first ones take the longest.
        size = (400, 300) if i < 30 else (20, 24)
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    cut = Cut(resize=16, crop=16)
    here, there = (load_image_folder(tmp_path, cut=cut, workers=workers) for workers in (0, 2))
    assert torch.equal(here.x, there.x)
    assert torch.equal(here.y, there.y)
    assert len({one.numpy().tobytes() for one in here.x}) == 150
    files = sorted(tmp_path.rglob("*.jpg"))
    for i in (140, 60):
        files[i].write_bytes(b"broken")
    with pytest.raises(BadInput, match=f"Cannot read the image .*{files[60].name}"):
        list(decoded(files, cut, workers=2))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("train/n01/a.JPEG", "n01' holds no image"),
        ("val/n04/a.JPEG", "holds the class 'n04', which is not in"),
        ("val", "has no val or test. It holds train"),
    ],
)
def test_a_spoilt_layout_is_refused_in_one_line(imagenet: Path, spoil: str, told: str) -> None:
    path = imagenet / spoil
    if path.is_dir():
        path.rename(imagenet / ".val")
    elif path.exists():
        path.unlink()
    else:
        picture(path, 1)
    with pytest.raises(BadInput, match=told) as caught:
        load_data(f"imagenet(resize=8,crop=8):{imagenet}", "train" if "n01" in spoil else "test")
    assert "\n" not in str(caught.value)


def test_validation_images_that_lie_flat_are_refused(imagenet: Path) -> None:
    for path in (imagenet / "val").iterdir():
        path.rename(imagenet / f".{path.name}")
    picture(imagenet / "val" / "ILSVRC2012_val_00000001.JPEG", 1)
    with pytest.raises(BadInput, match=r"val' must hold one folder of images for each class"):
        load_data(f"imagenet:{imagenet}")


def test_splits_need_no_cut_where_images_have_one_size(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("test", 2)):
        picture(tmp_path / split / "cat" / "a.png", value)
        picture(tmp_path / split / "dog" / "a.png", value)
    for split, value in (("train", 1), ("test", 2)):
        images = load_data(str(tmp_path), split)
        assert images.x.shape == (2, 3, 4, 6)
        assert torch.equal((images.x * 255).round().unique(), torch.tensor([float(value)]))


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png", 1)
    picture(tmp_path / "test" / "a.png", 2)
    assert load_data(str(tmp_path), "train").y.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("imagenet(resize=8,crop=9)", "crop from 1 to resize. Got resize=8, crop=9"),
        ("imagenet(size=8)", "Write imagenet:DIR, or such as"),
        ("imagenet(crop=many)", "Write imagenet:DIR, or such as"),
        ("imagenet(crop=8", "Write imagenet:DIR, or such as"),
    ],
)
def test_bad_settings_are_refused_in_one_line(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(BadInput, match=told.replace("(", r"\(")) as caught:
        load_data(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="no folder 'nowhere'"):
        load_data("imagenet:nowhere")


def test_more_than_the_memory_holds_is_refused(imagenet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = 3 * 8 * 8 * image_folder.BYTES
    monkeypatch.setattr(image_folder.os, "sysconf", lambda name: image * 3 if "PHYS" in name else 1)
    ref = f"imagenet(resize=8,crop=8):{imagenet}"
    with pytest.raises(BadInput, match=r"The 4 images .* n \(at most 3\)"):
        load_data(ref, "train")
    assert len(load_data(ref, "train", n=3)) == 3
