"""Attempts: what is attacked, what is recorded, and that no attack's word is taken for it."""

from dataclasses import dataclass

import pytest
import torch
from controls import Coupled, Dirty, NonFiniteLogits, Random, best_linf
from subjects import Cheat, opened, right, subject
from torch import nn

from verigrad.attacks.base import AttackResult
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.evaluation.run import Subject, attempt
from verigrad.ledger.store import Ledger


def run(of: Subject, ledger: Ledger, attack, samples=None, **more):
    chosen = right(ledger) if samples is None else samples
    return attempt(of, ledger, **({"stage": "claim", "name": "a", "attack": attack, "samples": chosen} | more))


def reachable(of: Subject) -> set[int]:
    """Samples on which the linear classifier can be made to err, in closed form."""
    (w,) = (p.detach().double().numpy() for p in of.model.parameters())
    threshold = next(m.threshold for m in of.model.modules() if hasattr(m, "threshold"))
    flat = of.x.double().flatten(1).numpy()
    return {
        s for s, x in enumerate(flat) if w @ x - threshold <= 0 < w @ x - threshold + best_linf(w, x, of.threat.size)
    }


def test_the_exact_witnesses_of_a_linear_classifier(tmp_path):
    of = subject()
    with opened(tmp_path / "l.sqlite", of) as ledger:
        done = run(of, ledger, FGSM(), samples=range(24))
        wrong = set(range(24)) - set(right(ledger))
        assert wrong
        assert set(done.attempted) == set(right(ledger))
        assert done.broken == reachable(of)
        assert 0 < len(done.broken) < len(done.attempted)
        assert done.alone == done.broken
        assert (done.forwards, done.backwards) == (2 * len(done.attempted), len(done.attempted))
        assert len(done.attempted) < done.judging <= 2 * len(done.attempted) + len(done.broken)
        assert done.statuses == {"done": len(done.attempted)}
        assert done.attack == "fgsm:score=cross_entropy"
        for witness in ledger.witnesses():
            x_adv, x = torch.from_numpy(witness.x_adv)[None], of.x[witness.sample][None]
            assert of.threat.contains(x_adv, x).all()
            assert float(of.threat.distance(x_adv, x)) == witness.distance
            assert of.model(x_adv).argmax(1).item() == witness.prediction == 1
        for result in ledger.results(done.units[0]):
            assert (result.margin > 0) == result.broken


def test_a_second_call_runs_nothing(tmp_path):
    of, seen = subject(), []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    with opened(tmp_path / "l.sqlite", of) as ledger:
        first = run(of, ledger, PGD(steps=3), progress=progress)
        assert seen[0] == (0, len(first.attempted))
        assert seen[-1] == (len(first.attempted), len(first.attempted))
        assert len(seen) == 1 + len(first.units)
        assert run(of, ledger, PGD(steps=3), progress=progress) == first
        assert seen[-1] == seen[-2]
        assert len(ledger.units()) == len(first.units)
        later = run(of, ledger, PGD(steps=4), stage="escalation")
        assert [u.ordinal for u in ledger.units()] == list(range(len(first.units) + len(later.units)))
        nothing = run(of, ledger, PGD(steps=4), samples=[])
        assert nothing.attempted == ()
        assert nothing.units == ()


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=4, restarts=2)])
def test_results_do_not_depend_on_the_chunk(tmp_path, attack):
    told = []
    for batch in (7, 100, 1):
        of = subject(40, batch=batch)
        with opened(tmp_path / f"{batch}.sqlite", of) as ledger:
            done = run(of, ledger, attack)
            rows = [row._replace(unit="") for key in done.units for row in ledger.results(key)]
            images = [(w.sample, w.x_adv.tobytes()) for w in ledger.witnesses()]
            told.append((ledger.samples(), sorted(rows), sorted(images), done.broken))
    assert told[0] == told[1] == told[2]
    assert told[0][3]


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("far", "outside_threat"),
        ("bright", "outside_threat"),
        ("in_place", "outside_threat"),
        ("nan", "non_finite_input"),
        ("infinite", "non_finite_input"),
        ("nothing", "done"),
        ("dirty", "done"),
    ],
)
@pytest.mark.parametrize("wrap", [None, Coupled])
def test_a_cheating_attack_gains_nothing(tmp_path, how, status, wrap):
    of = subject(wrap=wrap)
    x, y = of.x.clone(), of.y.clone()
    with opened(tmp_path / "l.sqlite", of) as ledger:
        done = run(of, ledger, Cheat(how=how))
        assert done.broken == frozenset()
        assert done.statuses.get(status, 0) > 0.5 * len(done.attempted)
        assert set(done.statuses) <= {status, "done"}
        assert ledger.witnesses() == ()
        assert all(r.distance is None for k in done.units for r in ledger.results(k) if "input" in r.status)
    assert torch.equal(of.x, x)
    assert torch.equal(of.y, y)
    assert of.model.training
    assert all(weight.requires_grad for weight in of.model.parameters())


def test_a_batch_mate_outside_the_threat_helps_nobody(tmp_path):
    of = subject(wrap=Coupled, batch=6)
    helped = of.x.clone()
    (w,) = of.model.parameters()
    helped[::2] = (w > 0).float().reshape(1, 2, 3, 3)
    with torch.no_grad():
        wrong = [of.model(part).argmax(1) != 0 for part in helped.split(6)]
    with opened(tmp_path / "l.sqlite", of) as ledger:
        odd = [s for s in right(ledger) if s % 2]
        assert torch.cat(wrong)[odd].any(), "the control: the mates would have helped"
        assert run(of, ledger, Cheat(how="mates"), samples=odd).broken == frozenset()


@pytest.mark.parametrize(("how", "said"), [("short", "must give x_adv of shape"), ("code", "gave the status 9")])
def test_a_result_of_the_wrong_kind_is_refused(tmp_path, how, said):
    of = subject()
    with opened(tmp_path / "l.sqlite", of) as ledger:
        with pytest.raises(BadInput, match=said):
            run(of, ledger, Cheat(how=how))
        assert ledger.units() == ()


def test_a_prediction_that_is_not_finite_is_no_success(tmp_path):
    plain = subject()
    of = Subject(NonFiniteLogits(plain.model, plain.x), plain.x, plain.y, plain.threat, 7)
    with opened(tmp_path / "l.sqlite", of) as ledger:
        done = run(of, ledger, FGSM())
        assert done.broken == frozenset()
        assert done.statuses == {"non_finite_logits": len(done.attempted)}
        assert {(r.prediction, r.margin) for k in done.units for r in ledger.results(k)} == {(-1, None)}
    broken = Subject(NonFiniteLogits(plain.model, plain.x[:5]), plain.x, plain.y, plain.threat, 7)
    with opened(tmp_path / "m.sqlite", broken) as ledger:
        assert [row.prediction for row in ledger.samples()][5:] == [-1] * 19
        assert set(run(broken, ledger, FGSM(), samples=range(24)).attempted) <= set(range(5))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """An attack that tells how many rows it saw, as its forwards, and moves none."""

    def __call__(self, model: nn.Module, x, y, threat, *, generator) -> AttackResult:
        n = torch.full((len(x),), len(x))
        coupled = torch.full((len(x),), int(getattr(model, "batch_coupled", False)))
        return AttackResult(x.clone(), n > 0, n.double(), n, coupled, torch.zeros_like(n))


@pytest.mark.parametrize("told", [{"wrap": Coupled}, {"coupled": True}])
def test_a_coupled_classifier_is_attacked_in_whole_batches(tmp_path, told):
    of = subject(24, batch=7, **told)
    with opened(tmp_path / "l.sqlite", of) as ledger:
        some = right(ledger)[-2:]
        done = run(of, ledger, Rows(), samples=some)
        assert done.attempted == tuple(some)
        results = {r.sample: r for key in done.units for r in ledger.results(key)}
        assert {s: r.forwards for s, r in results.items()} == {s: 3 if s >= 21 else 7 for s in some}
        assert all(r.backwards == 1 for r in results.values()), "the attack must be told that the model is coupled"


def test_joint_witnesses_are_stored_with_their_batch(tmp_path):
    of = subject(24, batch=6, wrap=Coupled, eps=0.04)
    with opened(tmp_path / "l.sqlite", of) as ledger:
        done = run(of, ledger, PGD(steps=5))
        assert done.alone < done.broken, "the control: some stand in their batch only"
        for witness in ledger.witnesses():
            batch = ledger.batch(witness.unit)
            assert batch is not None
            assert len(batch.samples) == 6
            assert batch.samples[0] % 6 == 0
            at = batch.samples.index(witness.sample)
            assert batch.x_adv[at].tobytes() == witness.x_adv.tobytes()
            with torch.no_grad():
                joint = of.model(torch.from_numpy(batch.x_adv)).argmax(1)[at].item()
                alone = of.model(torch.from_numpy(witness.x_adv)[None]).argmax(1).item()
            assert joint == witness.prediction == 1
            assert (alone == 1) == witness.alone
        spared = [unit.key for unit in ledger.units() if not ledger.witnesses(unit=unit.key)]
        assert all(ledger.batch(key) is None for key in spared)


def test_the_clean_pass_must_come_first_and_of_the_same_data(tmp_path):
    of = subject()
    with (
        Ledger.create_or_resume(tmp_path / "l.sqlite", {}) as ledger,
        pytest.raises(BadInput, match="Sample 0 has no clean"),
    ):
        run(of, ledger, FGSM(), samples=[0])
    with opened(tmp_path / "m.sqlite", of) as ledger:
        other = Subject(of.model, of.x, of.y + 1, of.threat)
        with pytest.raises(BadInput, match="has label 0 in the ledger and 1 in the data"):
            run(other, ledger, FGSM(), samples=[0])


def test_a_random_classifier_is_repeatable_and_the_global_generator_untouched(tmp_path):
    told = []
    for trial in range(2):
        of = subject(wrap=Random)
        torch.manual_seed(trial)
        state = torch.get_rng_state()
        with opened(tmp_path / f"{trial}.sqlite", of) as ledger:
            run(of, ledger, PGD(steps=3))
            told.append(ledger.seal())
        assert torch.equal(torch.get_rng_state(), state)
    assert told[0] == told[1]


def test_a_model_is_left_as_it_was_found(tmp_path):
    model = Dirty()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(10, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    of = Subject(model, x, model.eval()(x).argmax(1), subject().threat, 4)
    model.train()
    with opened(tmp_path / "l.sqlite", of) as ledger:
        run(of, ledger, PGD(steps=2))
    assert model.training
    assert not model.head.bias.requires_grad
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
