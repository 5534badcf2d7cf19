"""Where recipes train and attack. Everything is kept by what it is: a net that two tables share is trained once, and an
attack that was made is not made again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from verigrad import catalog
from verigrad.attacks.changes import Change
from verigrad.certificates.run import NOTE, certify
from verigrad.core.errors import BadInput, VerigradError
from verigrad.core.threat import Threat
from verigrad.data.images import Images
from verigrad.data.load import load_data
from verigrad.evaluation.clean import record_clean
from verigrad.evaluation.run import Attempt, attempt
from verigrad.evaluation.subject import Subject
from verigrad.ledger.store import Ledger
from verigrad.models.inspecting import weights_hash
from verigrad.models.loading import load_model, save_checkpoint
from verigrad.papers.net import Net as Net
from verigrad.papers.result import Measured
from verigrad.training.trainer import Progress, initialised, train

# Data that need a folder of their own, and that lie in `Workshop.data` under these names.
NAMED = ("cifar10", "mnist")
SAVE_EVERY = 60.0


class OutOfTime(VerigradError):
    """The time limit has passed. All that was done is kept, and the same call goes on from there."""


@dataclass(frozen=True)
class Workshop:
    """A folder with nets, ledgers and results. Nets are trained and attacked on a GPU where there is one.

    Args:
        folder: where they lie.
        tell: is told, in a few words, what begins.
        moved: is told how much of that is done, and how much there is to do.
        data: the folder that holds `cifar10/` and `mnist/`.
        until: a time by `time.monotonic` after which nothing new is begun and `OutOfTime` is raised.
    """

    folder: Path
    tell: Callable[[str], None] = lambda _: None
    moved: Callable[[int, int], None] = lambda done, total: None
    data: Path = Path("data")
    until: float = math.inf

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def images(self, ref: str, split: str = "test", n: int | None = None) -> Images:
        """The first n images of some data, as `load_data`, but `cifar10` and `mnist` are looked for in `data`.

        Raises:
            BadInput: they are not there, or fewer.
        """
        name = ref.partition(":")[0]
        if name not in NAMED:
            return load_data(ref, split, n)
        try:
            return load_data(f"{name}:{self.data / name}", split, n)
        except BadInput as fault:
            raise BadInput(f"{fault} --data names the folder that holds {name}/.") from fault

    def net(self, wanted: Net) -> nn.Module:
        """The trained network, in eval mode; trained first if it is not in the folder, and resumed if half trained.

        Raises:
            OutOfTime: the time limit came first.
        """
        folder = self.folder / "nets" / wanted.name
        if not folder.exists():
            self._train(wanted, folder)
        return load_model(str(folder)).to(self.device)

    def trial(self, wanted: Net, threat: Threat, *, n: int, batch: int = 100, change: str | None = None) -> Trial:
        """The network under attack on the first n test images; with a change, its twin in its place."""
        return Trial(self, wanted, threat, n, batch, change)

    def check_time(self) -> None:
        """Raises OutOfTime once the time limit has passed."""
        if time.monotonic() > self.until:
            raise OutOfTime("The time limit has passed.")

    def _train(self, wanted: Net, folder: Path) -> None:
        self.check_time()
        images = self.images(wanted.data, "train", wanted.n)
        self.tell(f"training {wanted.model} on {wanted.data}")
        _, channels, _, size = images.x.shape
        spec = catalog.complete(wanted.model, in_channels=channels, classes=images.classes, size=size)
        model = initialised(lambda: catalog.build("model", spec), wanted.seed).to(self.device)
        folder.parent.mkdir(parents=True, exist_ok=True)
        state = folder.with_name(f"{wanted.name}.training")
        trained = train(
            model,
            images.x,
            images.y,
            wanted.method,
            wanted.recipe,
            progress=self._stepped,
            checkpoint=state,
            save_every=SAVE_EVERY,
            time_limit=None if math.isinf(self.until) else max(1e-3, self.until - time.monotonic()),
        )
        if trained.stopped:
            raise OutOfTime("The time limit has passed.")
        save_checkpoint(spec, model, folder)
        state.unlink(missing_ok=True)

    def _stepped(self, now: Progress) -> None:
        self.moved(now.step, now.steps)


@dataclass(frozen=True, eq=False)
class Trial:
    """One net, one threat, some test images; each attack is made once and kept in a ledger of its own folder.

    change: the spec of a change, if it is a twin of the net that is attacked and judged.
    """

    workshop: Workshop
    net: Net
    threat: Threat
    n: int
    batch: int
    change: str | None = None

    def natural(self) -> Measured:
        """Accuracy without an attack."""
        return Measured.share(len(self._right), self.n)

    def left(self, *attacks: str) -> Measured:
        """Accuracy that is left by some attacks together, each on what the ones before it left.

        Raises:
            OutOfTime: the time limit came first; what was done is in the ledger.
        """
        right = self._right
        broken: set[int] = set()
        for spec in attacks:
            broken |= self._attempt(spec, [sample for sample in right if sample not in broken]).broken
        return Measured.share(len(right) - len(broken), self.n)

    def surviving(self, *attacks: str) -> Measured:
        """Accuracy that is left by some attacks together, each made on all images: those made before cost nothing.

        Raises:
            OutOfTime: as `left`.
        """
        broken = frozenset[int]().union(*(self.attempt(attack).broken for attack in attacks))
        return Measured.share(len(self._right) - len(broken), self.n)

    def attempt(self, attack: str) -> Attempt:
        """One attack on all images that are classified rightly, as the ledger holds it."""
        return self._attempt(attack, self._right)

    def distances(self, attack: str) -> tuple[float, ...]:
        """How far the errors are, in the threat's norm, that a minimal attack finds inside the threat."""
        made = self.attempt(attack)
        with self._ledger() as ledger:
            return tuple(witness.distance for unit in made.units for witness in ledger.witnesses(unit=unit))

    def nearest(self, *attacks: str) -> dict[int, tuple[float, str]]:
        """By image that is classified rightly how far the nearest error of any minimal attack is, and whose it is."""
        found: dict[int, tuple[float, str]] = {}
        for attack in attacks:
            made = self.attempt(attack)
            with self._ledger() as ledger:
                for witness in (one for unit in made.units for one in ledger.witnesses(unit=unit)):
                    if witness.distance < found.get(witness.sample, (math.inf,))[0]:
                        found[witness.sample] = (witness.distance, attack)
        return found

    def certified(self, certificate: str) -> tuple[dict[str, Any], ...]:
        """What a certificate says of all images, part by part, as `certificates.run` notes it."""
        tool, shop = catalog.build("certificate", certificate), self.workshop
        shop.check_time()
        shop.tell(f"{certificate.partition(':')[0]} on {self.net.model}")
        images = self.images
        with self._ledger() as ledger:
            certify(tool, self.model, images.x, images.y, ledger, seed=self.net.seed, progress=shop.moved)
            noted = ledger.notes(NOTE).values()
        return tuple(one for one in noted if one["certificate"] == catalog.describe(tool))

    @cached_property
    def model(self) -> nn.Module:
        """What is attacked: the net, or its twin."""
        model = self.workshop.net(self.net)
        if self.change is None:
            return model
        change: Change = catalog.build("change", self.change)
        return change(model).eval()

    @cached_property
    def images(self) -> Images:
        return self.workshop.images(self.net.data, "test", self.n)

    def _attempt(self, spec: str, samples: list[int] | tuple[int, ...]) -> Attempt:
        shop, name = self.workshop, spec.partition(":")[0]
        shop.check_time()
        shop.tell(f"{name} on {self.net.model}, {self.threat}")

        def moved(done: int, total: int) -> None:
            shop.moved(done, total)
            if done < total:
                shop.check_time()

        tool = catalog.build("attack", spec)
        with self._ledger() as ledger:
            return attempt(
                self._subject, ledger, stage="claim", name=name, attack=tool, samples=samples, progress=moved
            )

    @cached_property
    def _right(self) -> tuple[int, ...]:
        with self._ledger() as ledger:
            return tuple(row.sample for row in record_clean(self._subject, ledger) if row.prediction == row.label)

    @cached_property
    def _subject(self) -> Subject:
        images = self.images
        return Subject(
            model=self.model, x=images.x, y=images.y, threat=self.threat, batch=self.batch, seed=self.net.seed
        )

    def _ledger(self) -> Ledger:
        identity: dict[str, Any] = {
            "command": "reproduce",
            "net": self.net.settings,
            "weights_sha256": weights_hash(self.model),
            "n": self.n,
            "threat": str(self.threat),
            "batch": self.batch,
            **({"change": self.change} if self.change else {}),
        }
        words = [self.net.name, str(self.threat), str(self.n), str(self.batch), *([self.change] if self.change else [])]
        place = "-".join(words).replace(":", "-").replace("/", "-")
        return Ledger.create_or_resume(self.workshop.folder / "ledgers" / place / "ledger.sqlite", identity)
