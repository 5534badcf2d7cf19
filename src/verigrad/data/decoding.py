"""From image files to pixels, here or in worker processes. Needs no torch, so that a worker starts in a moment."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from verigrad.core.errors import BadInput

MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
CUT_MODES = (*MODES, "LA", "PA", "RGBA", "CMYK", "YCbCr")
# Files in one task, and how many tasks of each worker are under way: what bounds the memory beside the result.
TASK, AHEAD = 32, 2
# Of an image that is longer, a resized copy could be of any size.
LONGEST = 100
# With fewer files than this the workers would need longer to start than to work.
FEW = 1000


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The usual way from a photograph to the input of an ImageNet classifier, in RGB.

    The short side is brought to one length and the middle is taken, as in Krizhevsky et al. 2012, section 2 (where the
    middle is 256×256, and the network's input 224×224 of it). Bilinear, with Pillow's antialiasing; the long side is
    rounded down, the place of the square to the nearest pixel.

    Args:
        resize: length of the short side in pixels after resizing.
        crop: side of the square that is then taken from the middle, at most `resize`.
    """

    resize: int = 256
    crop: int = 224

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            expected = "'resize' and 'crop' must be pixels, crop from 1 to resize"
            raise BadInput(f"{expected}. Got resize={self.resize}, crop={self.crop}. The usual ones are 256 and 224.")

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        short = min(width, height)
        if max(width, height) > LONGEST * short:
            raise ValueError(f"one side is more than {LONGEST} times the other")
        size = (self.resize * width // short, self.resize * height // short)
        left, top = (round((side - self.crop) / 2) for side in size)
        resized = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        return resized.crop((left, top, left + self.crop, top + self.crop))


def decoded(files: Sequence[Path], cut: Cut | None, *, workers: int | None = None) -> Iterator[np.ndarray]:
    """(C, H, W) uint8 of each file, in the order of the files however many workers there are.

    Args:
        files: image files.
        cut: how each is brought to one size, in RGB; None leaves them as they are.
        workers: processes to decode in; 0 decodes in this one. None takes one for each core, or 0 for a few files.

    Raises:
        BadInput: as `decode`, for the first such file; or the workers could not start.
    """
    if workers is None:
        workers = 0 if len(files) < FEW else min(_cores(), -(-len(files) // TASK))
    tasks = [files[first : first + TASK] for first in range(0, len(files), TASK)]
    if not workers:
        for task in tasks:
            yield from decode(task, cut)
        return
    waiting: deque[Future[list[np.ndarray]]] = deque()
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(decode, task, cut))
                if len(waiting) == AHEAD * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise BadInput(
                "The processes that decode images are gone: they were ended, or the script that loads the data lacks "
                'its `if __name__ == "__main__":`.'
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode(files: Sequence[Path], cut: Cut | None) -> list[np.ndarray]:
    """(C, H, W) uint8 of each file.

    Raises:
        BadInput: one cannot be read; has more than 8 bits; without `cut`, is neither grey nor RGB or has transparency;
            with it, is over 100 times as long as it is wide. With `cut` transparency is dropped.
    """
    return [_decode(path, cut) for path in files]


def _decode(path: Path, cut: Cut | None) -> np.ndarray:
    try:
        # Photographs often have broken notes on the camera, of which Pillow would warn.
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            if cut is None and (image.mode not in MODES or "transparency" in image.info):
                raise BadInput(f"{str(path)!r} must be 8-bit grey or RGB without transparency. Got {image.mode}.")
            if image.mode not in CUT_MODES:
                raise BadInput(f"{str(path)!r} must have 8 bits for each channel. Got {image.mode}.")
            pixels = np.asarray(image.convert(MODES[image.mode]) if cut is None else cut(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"Cannot read the image {str(path)!r}: {reason}.") from None
    return pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
