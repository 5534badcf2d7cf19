"""Every witness stands when shown again, and each way of not standing is named."""

import numpy as np
import pytest
import torch
from controls import Coupled, Random
from subjects import opened, right, subject
from torch import nn

from verigrad.attacks.pgd import PGD
from verigrad.core.threat import Linf
from verigrad.evaluation.replay import replay
from verigrad.evaluation.run import Subject, attempt
from verigrad.ledger.schema import BatchRow, ResultRow, UnitRow, WitnessRow


def audited(path, wrap=None, **more):
    of = subject(24, batch=6, wrap=wrap, eps=0.04, **more)
    ledger = opened(path / "ledger.sqlite", of)
    attempt(of, ledger, stage="claim", name="a", attack=PGD(steps=4), samples=right(ledger))
    attempt(of, ledger, stage="escalation", name="b", attack=PGD(steps=6), samples=right(ledger))
    assert len(ledger.witnesses()) > 2
    return of, ledger


def again(of: Subject, ledger, **change):
    told = {"model": of.model, "x": of.x, "y": of.y, "threat": of.threat, "batch": of.batch} | change
    return replay(ledger=ledger, **told)


@pytest.mark.parametrize(("wrap", "more"), [(None, {}), (Coupled, {}), (None, {"coupled": True}), (Random, {})])
def test_every_witness_stands(tmp_path, wrap, more):
    of, ledger = audited(tmp_path, wrap, **more)
    seen = []
    with ledger:
        found = again(of, ledger, progress=lambda done, total: seen.append((done, total)))
        assert found.stood == len(ledger.witnesses())
        assert found.fallen == ()
        assert seen[-1] == (len(ledger.units()), len(ledger.units()))


class Constant(nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.register_buffer("logits", torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize("wrap", [None, Coupled])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda of: {"model": Constant([1.0, 0.0])}, "is classified rightly"),
        (lambda of: {"model": Constant([torch.nan, 0.0])}, "has no finite prediction"),
        (lambda of: {"threat": Linf(eps=0.02)}, "is outside linf:0.02"),
        (lambda of: {"x": (of.x + 0.001).clamp(max=1)}, "is of a clean image that is not the data's"),
        (lambda of: {"y": of.y + 1}, "is of a sample labelled 1 in the data and 0 in the ledger"),
        (lambda of: {"x": of.x[:0], "y": of.y[:0]}, "the data does not have"),
    ],
)
def test_every_witness_falls_with_its_reason(tmp_path, wrap, change, reason):
    of, ledger = audited(tmp_path, wrap)
    with ledger:
        found = again(of, ledger, **change(of))
        assert found.stood == 0
        assert len(found.fallen) == len(ledger.witnesses())
        assert all(reason in fallen.reason for fallen in found.fallen)
        assert {(f.sample, f.unit) for f in found.fallen} == {(w.sample, w.unit) for w in ledger.witnesses()}


def forged(of: Subject, ledger, name: str, change, key: str | None = None) -> list[str]:
    """Records a copy of a unit, of the first one with a witness by default, with something changed; and replays it."""
    key = key or ledger.witnesses()[0].unit
    row, batch = next(u for u in ledger.units() if u.key == key), ledger.batch(key)
    new = f"claim/{name}/0-0"
    witnesses = [w._replace(unit=new) for w in ledger.witnesses(unit=key)]
    batch = None if batch is None else batch._replace(unit=new)
    witnesses, batch = change(witnesses, batch)
    broken = {w.sample for w in witnesses}
    results = [r._replace(unit=new, broken=r.sample in broken) for r in ledger.results(key)]
    ledger.record(row._replace(key=new, ordinal=99), results, witnesses, batch)
    found = again(of, ledger)
    assert all(fallen.unit == new for fallen in found.fallen)
    return [fallen.reason for fallen in found.fallen]


def moved(witness: WitnessRow, x_adv: np.ndarray) -> WitnessRow:
    return witness._replace(x_adv=x_adv.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w, b: ([moved(w[0], w[0].x_adv * np.nan), *w[1:]], b), "is not finite"),
        (lambda w, b: ([moved(w[0], w[0].x_adv[:1]), *w[1:]], b), "has shape (1, 3, 3)"),
        (lambda w, b: ([w[0]._replace(distance=0.01), *w[1:]], b), "is at distance 0.04"),
        (lambda w, b: ([moved(w[0], np.clip(w[0].x_adv - 1, 0, 1)), *w[1:]], b), "is outside linf:0.04"),
    ],
)
def test_forged_witnesses_fall(tmp_path, change, reason):
    of, ledger = audited(tmp_path)
    with ledger:
        reasons = forged(of, ledger, "forged", change)
    assert len(reasons) == 1
    assert reason in reasons[0]


def beside(batch: BatchRow, taken: set[int]) -> BatchRow:
    x_adv = batch.x_adv.copy()
    x_adv[next(row for row, sample in enumerate(batch.samples) if sample not in taken)] = 1.0
    return batch._replace(x_adv=x_adv)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w, b: (w, None), "has no joint batch"),
        (lambda w, b: (w, beside(b, {v.sample for v in w})), "stands beside sample"),
        (lambda w, b: (w, b._replace(samples=b.samples[::-1])), "not one of the data's batches of 6"),
        (
            lambda w, b: (w, b._replace(x_adv=np.nextafter(b.x_adv, np.float32(0.5)))),
            "is not the image in its joint batch",
        ),
        (lambda w, b: ([v._replace(alone=True) for v in w], b), "rightly in a batch of one, where the ledger says"),
    ],
)
def test_forged_joint_batches_fall(tmp_path, change, reason):
    of, ledger = audited(tmp_path, Coupled)
    with ledger:
        key = next(w.unit for w in ledger.witnesses() if not w.alone)
        reasons = forged(of, ledger, "forged", change, key)
    assert reasons
    assert all(reason in told for told in reasons)


def test_an_empty_ledger_has_nothing_to_fall(tmp_path):
    of = subject()
    with opened(tmp_path / "l.sqlite", of) as ledger:
        assert again(of, ledger) == (0, ())
        unit = UnitRow("claim/a/0-0", 0, "claim", "a", "x", 0, 0, 1, 1, 1, 0.1)
        ledger.record(unit, [ResultRow(unit.key, 0, False, 0.0, 0, -1.0, "done", 1, 1)], [])
        assert again(of, ledger) == (0, ())
