"""An image classifier that Hugging Face transformers saved in a folder: `hf:DIR`. No code of the folder is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from verigrad.core.errors import BadInput
from verigrad.models.faults import told
from verigrad.models.hubs import package
from verigrad.models.normalised import Normalised

PREPROCESSOR = "preprocessor_config.json"
# What image processors do beyond scale and normalisation, each of which the classifier was trained behind.
UNKNOWN_STEPS = ("do_flip_channel_order", "rescale_offset", "include_top", "do_color_quantize")


class Logits(nn.Module):
    """A transformers classifier as one from images (B, C, H, W) to logits (B, K)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(pixel_values=x, return_dict=True).logits


class Normalisation(NamedTuple):
    """(x - mean) / std for x in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_hugging_face(ref: str, weights: str | Path | None) -> nn.Module:
    """The model behind "hf:DIR", with the normalisation of its `preprocessor_config.json`, if there is one, inside.

    Images must have the size that the model takes: resizing and cropping are no part of it. Weights are float32,
    whatever they were saved as.

    Raises:
        BadInput: there are other weights too; transformers is not there; the folder is missing, holds no whole image
            classifier in safetensors or needs code of its own; or its images are prepared by more than scale and
            normalisation.
    """
    folder = Path(ref.partition(":")[2])
    if weights is not None:
        # Names in a saved file are not those in memory; only from_pretrained knows both.
        raise BadInput(f"{ref} has weights of its own. Save others by save_pretrained(DIR), and leave out --weights.")
    if not (folder / "config.json").is_file():
        raise BadInput(f"There is no config.json in {str(folder)!r}. hf:DIR takes what save_pretrained(DIR) wrote.")
    transformers = package("transformers", ref)
    if _described(folder / "config.json").get("auto_map"):
        raise BadInput(f"{folder / 'config.json'} names code of its own (auto_map), which is never run.")
    if (folder / "adapter_config.json").exists():
        raise BadInput(
            f"{folder} holds an adapter, whose base lies elsewhere. Save the merged model (merge_and_unload)."
        )
    seen = normalisation(folder)
    model = _from_folder(transformers, folder).float()
    return Logits(model) if seen is None else Normalised(Logits(model), *seen)


def normalisation(folder: Path) -> Normalisation | None:
    """What `preprocessor_config.json` does to images in [0, 1]; None where there is no such file.

    Processors see grey levels g = 255 x, and compute (r g - mean) / std with r = `rescale_factor`.

    Raises:
        BadInput: the file cannot be read, or says something else.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    config = _described(path)
    if extra := [key for key in UNKNOWN_STEPS if config.get(key)]:
        raise BadInput(f"{path} asks for {extra[0]}, which is no normalisation. Put it into a factory of your own.")
    try:
        scale = 255 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
        mean, std = (0.0,), (1.0,)
        if config.get("do_normalize", True):
            mean, std = _numbers(config["image_mean"]), _numbers(config["image_std"])
    except (KeyError, TypeError, ValueError) as fault:
        raise BadInput(
            f"{path} must say image_mean and image_std in numbers. Mend it, or remove it and use --normalise."
        ) from fault
    if not scale > 0:
        raise BadInput(f"The rescale_factor in {path} must be positive. Got {scale / 255}.")
    return Normalisation(tuple(m / scale for m in mean), tuple(s / scale for s in std))


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),)


def _described(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BadInput(f"{path} cannot be read: {told(fault)}") from fault
    if not isinstance(found, dict):
        raise BadInput(f"{path} must hold a JSON object. Got {type(found).__name__}.")
    return found


def _from_folder(transformers: Any, folder: Path) -> nn.Module:
    try:
        with _quiet(transformers):
            model, about = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                # A config can name kernels that would be fetched; eager attention also has second derivatives.
                attn_implementation="eager",
            )
    except Exception as fault:
        raise BadInput(f"The folder {str(folder)!r} holds no image classifier: {told(fault)}") from fault
    drawn = sorted(str(name) for key in ("missing_keys", "mismatched_keys") for name in about.get(key, ()))
    if drawn:
        raise BadInput(
            f"The weights in {str(folder)!r} are not whole: {drawn[0]} would be random. Is it a model for image "
            "classification?"
        )
    return model


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Its warnings and bars are held back: what matters of them is told by exceptions."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
