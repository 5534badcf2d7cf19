"""A network of a recipe and how it is trained: all that decides its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

from verigrad import catalog
from verigrad.data.augment import Augment
from verigrad.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Net:
    """Specs as `verigrad train` takes them, and the numbers of its options; what is left out has the value given here.

    Args:
        model: its spec; channels, classes and size of the images are those of the data.
        data: as `Workshop.images` takes it; n: how many of its training images, all by default.
        objective: a loss; algorithm: in its place, a step that is more than a loss.
        crop, flip, cutout, fill: how images are changed at random, see `Augment`.
    """

    model: str
    data: str
    n: int | None = None
    objective: str = "natural"
    algorithm: str | None = None
    epochs: int
    batch: int = 100
    optimiser: str = "sgd"
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "steps"
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    fill: float = 0.0
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What was chosen: every value that is not the one given above. A field that comes later changes none."""
        chosen = {one.name: getattr(self, one.name) for one in fields(self)}
        return {one.name: chosen[one.name] for one in fields(self) if chosen[one.name] != one.default}

    @property
    def name(self) -> str:
        """A short name that no other network has."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{self.model.partition(':')[0]}-{digest[:10]}"

    @property
    def method(self) -> Any:
        """The objective, or the algorithm."""
        if self.algorithm is not None:
            return catalog.build("algorithm", self.algorithm)
        return catalog.build("objective", self.objective)

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs,
            batch=self.batch,
            optimiser=self.optimiser,  # pyright: ignore[reportArgumentType]
            lr=self.lr,
            schedule=catalog.build("schedule", self.schedule),
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augment=Augment(crop=self.crop, flip=self.flip, cutout=self.cutout, fill=self.fill),
            seed=self.seed,
        )
