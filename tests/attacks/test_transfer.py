"""Attacks made on another classifier: what is judged where, and that the source's weights are part of the spec."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from verigrad.attacks.fab import FAB
from verigrad.attacks.fgsm import FGSM
from verigrad.attacks.pgd import PGD
from verigrad.attacks.spsa import SPSA
from verigrad.attacks.transfer import Transfer
from verigrad.catalog import describe
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.models.loading import load_model, save_checkpoint, weights_hash

NETS = Path(__file__).parents[1] / "nets"
CONV, HARDENED = str(NETS / "conv"), str(NETS / "hardened")
HERE = Path(__file__).stem
THREAT = Linf(eps=0.12)
LAST = PGD(steps=20, keep="last")


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    flat, target = load_digits(return_X_y=True)
    return torch.tensor(flat[-60:], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(target[-60:])


def run(attack, model: nn.Module, x: Tensor, y: Tensor):
    return attack(model, x, y, THREAT, generator=seeded(0, "transfer", range(len(x))))


def judged(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x_adv).argmax(1) != y


def drawn() -> nn.Module:
    """New weights each time."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def same() -> nn.Module:
    model = drawn()
    nn.init.eye_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    return model


def few() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


@pytest.mark.parametrize("attack", [LAST, PGD(steps=5), FGSM(), FAB(steps=5), SPSA(steps=2)], ids=describe)
def test_it_is_made_on_the_source_and_judged_here(digits, attack):
    x, y = digits
    model, source = load_model(CONV), load_model(HARDENED)
    made = run(attack, source, x, y)
    got = run(Transfer(attack=attack, source=HARDENED), model, x, y)
    assert torch.equal(got.x_adv, made.x_adv)
    assert torch.equal(got.broken, judged(model, made.x_adv, y))
    assert not torch.equal(got.broken, made.broken)
    assert torch.equal(got.forwards, made.forwards + 1)
    assert torch.equal(got.backwards, made.backwards)
    assert torch.allclose(got.distance, THREAT.distance(got.x_adv, x))


def test_from_itself_it_is_the_attack(digits):
    x, y = digits
    model = load_model(CONV)
    for judge in ("end", "steps"):
        got = run(Transfer(attack=LAST, source=CONV, judged=judge), model, x, y)
        assert torch.allclose(got.x_adv, run(LAST, model, x, y).x_adv, atol=1e-6)


def test_it_is_weaker_than_an_attack_on_the_model_itself_and_stronger_than_none(digits):
    x, y = digits
    model = load_model(CONV)
    own, moved = run(LAST, model, x, y), run(Transfer(attack=LAST, source=HARDENED), model, x, y)
    assert judged(model, x, y).sum() + 5 < moved.broken.sum() < own.broken.sum()


def test_judged_at_its_steps_the_source_gives_gradients_only(digits):
    x, y = digits
    model, attack = load_model(CONV), PGD(steps=20, random_start=False)
    end, steps = (run(Transfer(attack=attack, source=HARDENED, judged=j), model, x, y) for j in ("end", "steps"))
    assert torch.equal(steps.broken, judged(model, steps.x_adv, y))
    assert steps.broken.sum() > end.broken.sum()  # a sample that errs on the source alone goes on
    assert (steps.forwards[steps.broken] < 41).any()
    assert (steps.forwards[~steps.broken] == 41).all()  # source and model at each step, and the judging pass
    assert (steps.backwards[~steps.broken] == 20).all()
    with pytest.raises(BadInput, match="judged=end"):
        run(Transfer(attack=SPSA(steps=1), source=HARDENED, judged="steps"), model, x[:2], y[:2])


def test_the_spec_holds_the_weights(tmp_path: Path, digits):
    x, y = digits
    path = tmp_path / "source"
    first, second = load_model(CONV), load_model(CONV)
    with torch.no_grad():
        next(second.parameters()).add_(1e-3)
    save_checkpoint("small-conv", first, path)
    attack = Transfer(attack=FGSM(), source=str(path))
    assert attack.weights_sha256 == weights_hash(first)
    assert f"weights_sha256={weights_hash(first)}" in describe(attack).replace('"', "")
    assert run(attack, load_model(CONV), x, y).broken.any()
    save_checkpoint("small-conv", second, path)
    other = Transfer(attack=FGSM(), source=str(path))
    assert describe(other) != describe(attack)
    assert other != attack
    stale = Transfer(attack=FGSM(score="margin"), source=str(path), weights_sha256="0" * 64)
    with pytest.raises(BadInput, match="weights of SHA-256"):
        run(stale, load_model(CONV), x, y)


def test_with_a_hash_nothing_is_loaded_before_it_is_needed():
    attack = Transfer(attack=FGSM(), source="no/such/folder", weights_sha256="0" * 64)
    assert pickle.loads(pickle.dumps(attack)) == attack
    with pytest.raises(BadInput, match="no/such/folder"):
        Transfer(attack=FGSM(), source="no/such/folder")


def test_a_factory_must_give_the_same_weights_each_time(digits):
    x, y = digits
    assert len(run(Transfer(attack=FGSM(), source=f"{HERE}:same"), load_model(CONV), x, y).broken) == len(x)
    with pytest.raises(BadInput, match="always gives the same weights"):
        run(Transfer(attack=FGSM(), source=f"{HERE}:drawn"), load_model(CONV), x, y)


def test_what_the_source_cannot_take(digits):
    x, y = digits
    model, attack = load_model(CONV), Transfer(attack=FGSM(), source=f"{HERE}:same")
    wide = nn.Sequential(nn.AdaptiveAvgPool2d(8), model)
    with pytest.raises(BadInput, match="cannot take images of shape") as caught:
        run(attack, wide, torch.rand(3, 1, 9, 9), y[:3])
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="K above the labels"):
        run(Transfer(attack=FGSM(), source=f"{HERE}:few"), model, x, y)


def test_precision_mode_and_flags_are_left(digits):
    x, y = digits
    model = load_model(CONV).double().train()
    got = run(Transfer(attack=FGSM(), source=HARDENED), model, x.double(), y)
    assert got.x_adv.dtype == torch.float64
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())
    assert len(run(Transfer(attack=FGSM(), source=HARDENED), model, x[:0].double(), y[:0]).broken) == 0


def test_bad_options():
    with pytest.raises(BadInput, match="judged"):
        Transfer(attack=FGSM(), source=CONV, judged="never")
    attack = Transfer(attack=FGSM(), source=CONV)
    assert replace(attack, attack=LAST).weights_sha256 == attack.weights_sha256
