"""Images as inline PNG data URIs, without an imaging library: 8-bit greyscale or RGB, one filter byte a row."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

# Larger images are drawn smaller, so that a page with 24 witnesses stays far below 3 MB.
LARGEST_SIDE = 64

# The ends and the middle of ColorBrewer's RdBu (Brewer & Harrower), safe for red-green colour blindness.
MINUS_COLOUR = np.array([33.0, 102.0, 172.0])
NEUTRAL = np.array([247.0, 247.0, 247.0])
PLUS_COLOUR = np.array([178.0, 24.0, 43.0])


def shrink_factor(shape: tuple[int, ...]) -> int:
    """By what whole factor an image (C, H, W) is drawn smaller; 1 up to `LARGEST_SIDE` pixels."""
    return max(1, -(-max(shape[1:]) // LARGEST_SIDE))


def image_uri(image: NDArray[np.float32]) -> str:
    """An image (C, H, W) in [0, 1]: grey for one channel, RGB for three, the mean of the channels for any other number.

    Large images are drawn by the mean of blocks of pixels.
    """
    channels = image if len(image) in (1, 3) else image.mean(0, keepdims=True)
    blocks = _blocks(np.nan_to_num(channels.astype(np.float64), nan=0.0), shrink_factor(image.shape))
    return png_uri(np.clip(np.rint(255 * blocks.mean((2, 4))), 0, 255).astype(np.uint8))


def perturbation_uri(delta: NDArray[np.float32], scale: float) -> str:
    """A signed perturbation (C, H, W): full colour at ±scale, the middle tone where nothing changes.

    One channel: blue takes away, red adds. Three channels: each channel around mid-grey. Large ones are drawn by the
    entry of largest size in each block of pixels, since a mean would cancel the signs.
    """
    channels = delta if len(delta) in (1, 3) else delta.mean(0, keepdims=True)
    blocks = _blocks(np.nan_to_num(channels.astype(np.float64), nan=0.0), shrink_factor(delta.shape))
    flat = blocks.transpose(0, 1, 3, 2, 4).reshape(*blocks.shape[:2], blocks.shape[3], -1)
    strongest = np.take_along_axis(flat, np.abs(flat).argmax(-1)[..., None], -1)[..., 0]
    share = np.clip(strongest / scale if scale > 0 else 0 * strongest, -1, 1)
    if len(share) == 3:
        return png_uri(np.rint(127.5 + 127.5 * share).astype(np.uint8))
    end = np.where(share[0, ..., None] < 0, MINUS_COLOUR, PLUS_COLOUR)
    colour = NEUTRAL + np.abs(share[0, ..., None]) * (end - NEUTRAL)
    return png_uri(np.rint(colour).astype(np.uint8).transpose(2, 0, 1))


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """pixels (1 | 3, H, W) uint8 as `data:image/png;base64,...`."""
    channels, height, width = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.transpose(1, 2, 0).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)), _chunk(b"IEND", b""))
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _blocks(image: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """(C, H, W) -> (C, h, factor, w, factor); the last row and column are repeated where the factor does not divide."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (0, -height % factor), (0, -width % factor)), mode="edge")
    return padded.reshape(len(image), padded.shape[1] // factor, factor, padded.shape[2] // factor, factor)
