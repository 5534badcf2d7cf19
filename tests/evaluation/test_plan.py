"""Chunks, their keys, and what a sample's random numbers depend on."""

import pytest
import torch
from controls import Coupled
from subjects import subject

from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.core.threat import Linf
from verigrad.evaluation.plan import plan
from verigrad.evaluation.run import Subject


def test_chunks_are_dense_in_the_order_of_the_samples():
    units = plan(subject(batch=4), stage="claim", name="a", attack=PGD(), samples=[11, 2, 7, 3, 5, 2, 9])
    assert [unit.samples for unit in units] == [(2, 3, 5, 7), (9, 11)]
    assert [unit.rows for unit in units] == [unit.samples for unit in units]
    assert plan(subject(), stage="claim", name="a", attack=PGD(), samples=[]) == ()


@pytest.mark.parametrize("told", [{"wrap": Coupled}, {"coupled": True}])
def test_coupled_chunks_are_the_fixed_batches_of_the_data(told):
    units = plan(subject(24, batch=7, **told), stage="claim", name="a", attack=PGD(), samples=[23, 8, 3, 9])
    assert [unit.samples for unit in units] == [(3,), (8, 9), (23,)]
    assert [unit.rows for unit in units] == [tuple(range(7)), tuple(range(7, 14)), tuple(range(21, 24))]
    assert [unit.chunk for unit in units] == [0, 1, 3]


def test_a_key_names_all_that_matters():
    of = subject(batch=4)

    def keys(of: Subject = of, stage="claim", name="a", attack=None, samples=(1, 2, 3)) -> list[str]:
        return [u.key for u in plan(of, stage=stage, name=name, attack=attack or PGD(steps=3), samples=samples)]

    assert keys() == keys(attack=PGD(steps=3), samples=[3, 2, 1])
    other_seed = Subject(of.model, of.x, of.y, of.threat, of.batch, seed=1)
    others = [
        keys(stage="escalation"),
        keys(name="b"),
        keys(attack=PGD(steps=4)),
        keys(attack=FGSM()),
        keys(samples=(1, 2)),
        keys(other_seed),
        keys(subject(batch=4, coupled=True)),
    ]
    assert len({key for one in [keys(), *others] for key in one}) == 8


def test_bad_samples_and_attacks():
    with pytest.raises(BadInput, match=r"Samples must be in 0 to 23\. Got 3 to 24\."):
        plan(subject(), stage="claim", name="a", attack=PGD(), samples=[3, 24])
    with pytest.raises(BadInput, match="must be a frozen dataclass"):
        plan(subject(), stage="claim", name="a", attack=lambda *a, **k: None, samples=[3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(4, 3, 3)}, "Images must be float32 of shape"),
        ({"x": torch.zeros(4, 1, 3, 3, dtype=torch.float64)}, "Got torch.float64"),
        ({"x": torch.full((4, 1, 3, 3), torch.nan)}, "must be finite and in"),
        ({"x": torch.full((4, 1, 3, 3), 1.5)}, "must be finite and in"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, "one for each of 4 images"),
        ({"batch": 0}, "'batch' must be"),
        ({"seed": -1}, "'seed' must be"),
    ],
)
def test_bad_subjects(change, said):
    good = {"x": torch.zeros(4, 1, 3, 3), "y": torch.zeros(4, dtype=torch.int64), "batch": 2, "seed": 0}
    Subject(torch.nn.Flatten(), threat=Linf(eps=0.1), **good)
    with pytest.raises(BadInput, match=said):
        Subject(torch.nn.Flatten(), threat=Linf(eps=0.1), **(good | change))
