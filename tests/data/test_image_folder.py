"""Images from a folder by class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verigrad.core.errors import BadInput
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
