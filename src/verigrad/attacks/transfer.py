"""Transfer: an attack made on another classifier and judged on this one (Szegedy et al. 2014, section 4.2)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from verigrad.attacks.base import Attack, AttackResult, Probe, Steered, check_batch
from verigrad.core.classifier import left_as_found
from verigrad.core.errors import BadInput
from verigrad.core.seeds import SampleGenerator
from verigrad.core.threat import Threat
from verigrad.models.faults import told
from verigrad.models.loading import load_model, weights_hash


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """`attack`, made on the classifier `source` and judged on the one given.

    The source is loaded once to hash its weights, so that two runs whose sources differ are never taken for the same:
    `weights_sha256` is part of the attack's spec. If the hash is given, the source is loaded when the attack is first
    used, by each thread for itself, and refused unless it has these weights. Code, and settings of a solver, are in no
    hash of weights; they are told by `source`.

    Judged at its end, the attack sees the source alone and this classifier is asked once. An attack that keeps its
    first error then stops when it errs *on the source*, close to the source's boundary, which transfers badly: give it
    keep=last where it has that. Judged at its steps, the source gives gradients only, and this classifier's predictions
    say which samples are done. That asks this classifier at each step, and refuses an attack that takes no gradient.
    Passes through either classifier are counted.

    Args:
        attack: any attack; budget or minimal.
        source: a reference as `load_model` takes it: a folder, package.module:factory, a spec, a model of a hub.
        weights: a weights file for it.
        weights_sha256: as `weights_hash` gives it; None reads it from the source.
        judged: 'end' or 'steps'.
    """

    attack: Attack
    source: str
    weights: str | None = None
    weights_sha256: str | None = None
    judged: Literal["end", "steps"] = "end"

    def __post_init__(self) -> None:
        if self.judged not in ("end", "steps"):
            raise BadInput(f"'judged' of Transfer must be end or steps. Got {self.judged!r}.")
        if self.weights_sha256 is None:
            object.__setattr__(self, "weights_sha256", weights_hash(load_model(self.source, self.weights)))

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, generator: SampleGenerator
    ) -> AttackResult:
        check_batch(x, y, threat, generator)
        source = self._source(x)
        self._check(source, x, y)
        with left_as_found(model):
            if self.judged == "steps":
                return self._steered(model, source, x, y, threat, generator)
            made = self.attack(source, x, y, threat, generator=generator)
            seen = Probe(model, y).result(made.x_adv, x, threat)
            return seen._replace(
                forwards=made.forwards + seen.forwards,
                backwards=made.backwards + seen.backwards,
                status=torch.maximum(made.status, seen.status),
            )

    def _steered(
        self, model: nn.Module, source: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: SampleGenerator
    ) -> AttackResult:
        asked: list[int] = []
        hook = source.register_forward_hook(lambda part, inputs, output: asked.append(len(output)))
        try:
            steered = Steered(model, source, same_forward=False)
            got = self.attack(steered, x, y, threat, generator=generator)
        finally:
            hook.remove()
        if len(x) and not asked:
            raise BadInput(f"{type(self.attack).__name__} asked {self.source!r} nothing. Transfer it with judged=end.")
        return got

    def _source(self, like: Tensor) -> nn.Module:
        """The source, where the images are and in their precision; the thread's own, as attacks switch its mode."""
        key = (self.source, self.weights, self.weights_sha256, like.device, like.dtype)
        models: dict[tuple[object, ...], nn.Module] = _loaded.__dict__.setdefault("models", {})
        if key not in models:
            model = load_model(self.source, self.weights)
            if (found := weights_hash(model)) != self.weights_sha256:
                raise BadInput(
                    f"The source {self.source!r} has weights of SHA-256 {found[:12]}…, and the attack was made for "
                    f"{str(self.weights_sha256)[:12]}…. Name a source that always gives the same weights."
                )
            models[key] = model.to(device=like.device, dtype=like.dtype)
        return models[key]

    def _check(self, source: nn.Module, x: Tensor, y: Tensor) -> None:
        if not len(x):
            return
        try:
            with left_as_found(source), torch.no_grad():
                logits = source(x[:1])
        except Exception as fault:
            shape = tuple(x.shape[1:])
            raise BadInput(f"The source {self.source!r} cannot take images of shape {shape}: {told(fault)}") from fault
        if logits.dim() != 2 or logits.shape[1] <= int(y.max()):
            wanted = f"give logits (B, K) with K above the labels, which go up to {int(y.max())}"
            raise BadInput(f"The source {self.source!r} must {wanted}. Got logits of shape {tuple(logits.shape)}.")


_loaded = threading.local()
