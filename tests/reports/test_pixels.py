"""Pictures, read back by Pillow."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from verigrad.reports import pixels


def decoded(uri: str) -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_the_image_to_eight_bits(channels):
    image = np.random.default_rng(0).random((channels, 5, 7), dtype=np.float32)
    seen = decoded(pixels.image_uri(image)).reshape(5, 7, channels).transpose(2, 0, 1)
    assert np.abs(seen / 255 - image).max() <= 0.5 / 255 + 1e-6


def test_other_channel_counts_are_drawn_as_their_mean():
    image = np.stack([np.full((4, 4), value, np.float32) for value in (0.0, 1.0)])
    assert (decoded(pixels.image_uri(image)) == 128).all()


def test_large_images_shrink_to_means_of_blocks():
    image = np.zeros((1, 130, 130), np.float32)
    image[:, :3, :3] = 1.0
    assert pixels.shrink_factor(image.shape) == 3
    seen = decoded(pixels.image_uri(image))
    assert seen.shape == (44, 44)
    assert seen[0, 0] == 255
    assert seen.sum() == 255


def test_signs_of_a_grey_perturbation_are_told_apart():
    delta = np.array([[[-0.1, 0.0, 0.1, 0.4]]], np.float32)
    seen = decoded(pixels.perturbation_uri(delta, 0.1)).astype(float)
    assert (seen[0, 0] == pixels.MINUS_COLOUR).all()
    assert (seen[0, 1] == pixels.NEUTRAL).all()
    assert (seen[0, 2] == pixels.PLUS_COLOUR).all()
    assert (seen[0, 3] == pixels.PLUS_COLOUR).all()


def test_a_colour_perturbation_lies_around_mid_grey():
    delta = np.array([-0.1, 0.0, 0.1], np.float32).reshape(3, 1, 1)
    assert decoded(pixels.perturbation_uri(delta, 0.1)).ravel().tolist() == [0, 128, 255]


def test_shrinking_a_perturbation_keeps_its_largest_entry():
    delta = np.zeros((1, 128, 128), np.float32)
    delta[0, 0, 0], delta[0, 0, 1] = -0.1, 0.05
    seen = decoded(pixels.perturbation_uri(delta, 0.1)).astype(float)
    assert (seen[0, 0] == pixels.MINUS_COLOUR).all()
    assert (seen[1, 1] == pixels.NEUTRAL).all()


def test_nothing_changed_is_neutral_at_scale_zero():
    assert (decoded(pixels.perturbation_uri(np.zeros((1, 2, 2), np.float32), 0.0)) == 247).all()


def test_the_largest_grid_of_witnesses_leaves_room_for_ten_thousand_samples():
    noise = np.random.default_rng(0).random((3, 224, 224), dtype=np.float32)
    sizes = len(pixels.image_uri(noise)), len(pixels.perturbation_uri(noise - 0.5, 0.5))
    assert 24 * (2 * sizes[0] + sizes[1]) < 1.5e6
