"""Training reaches what it should on digits, is the same every time, and resumes bit for bit."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.digits import load_digits
from verigrad.models.inspecting import weights_hash
from verigrad.models.networks.small import SmallConvNet
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.base import Loss
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import OneCycle
from verigrad.training.trainer import Trained, initialised, train

QUICK = Recipe(epochs=10, optimiser="adam", lr=5e-3, schedule=OneCycle())
EPS = Linf(eps=0.12)


def trained(objective, recipe: Recipe = QUICK) -> nn.Module:
    data = load_digits("train")
    model = initialised(SmallConvNet, recipe.seed)
    train(model, data.x, data.y, objective, recipe)
    return model


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    return trained(Natural())


@pytest.fixture(scope="module")
def hardened() -> nn.Module:
    return trained(Adversarial(threat=EPS, attack=PGD(steps=5, keep="last")))


def robust(model: nn.Module) -> float:
    data = load_digits("test")
    x, y = data.x[:200], data.y[:200]
    attack = PGD(steps=20, step_size=0.015, score="margin")
    result = attack(model, x, y, EPS, generator=seeded(0, "test", range(200)))
    return 1 - float(result.broken.float().mean())


def clean(model: nn.Module) -> float:
    data = load_digits("test")
    return float((predict(model, data.x).argmax(1) == data.y).float().mean())


def test_a_natural_net_is_right_on_new_digits(natural: nn.Module):
    assert not natural.training
    assert clean(natural) > 0.95


def test_adversarial_training_makes_a_net_more_robust(natural: nn.Module, hardened: nn.Module):
    assert clean(hardened) > 0.9
    assert robust(hardened) > robust(natural) + 0.15


def some(n: int = 60) -> tuple[Tensor, Tensor]:
    data = load_digits("train")
    return data.x[:n], data.y[:n]


class Noisy(nn.Module):
    """Batch norm and dropout: state and randomness that a run must reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


SHORT = Recipe(epochs=4, batch=16, optimiser="sgd", lr=0.1, schedule=OneCycle(), validation=10)


def short_run(recipe: Recipe = SHORT, **arguments) -> tuple[str, Trained]:
    model = initialised(Noisy, 5)
    result = train(model, *some(), Adversarial(threat=EPS, attack=PGD(steps=2, keep="last")), recipe, **arguments)
    return weights_hash(model), result


def test_the_same_seed_gives_the_same_weights_and_touches_no_global_state():
    state = torch.random.get_rng_state()
    first, told = short_run()
    torch.manual_seed(99)
    second, again = short_run()
    torch.random.set_rng_state(state)
    assert first == second
    assert told.history == again.history
    other, _ = short_run(replace(SHORT, seed=1))
    assert other != first


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    short_run()
    assert torch.equal(state, torch.random.get_rng_state())


def test_history_and_progress_are_told(capsys):
    seen = []
    _, told = short_run(progress=seen.append)
    assert [epoch.number for epoch in told.history] == [1, 2, 3, 4]
    assert [(one.step, one.steps) for one in seen] == [(i + 1, 16) for i in range(16)]
    assert seen[-1].epoch == told.history[2]
    assert set(told.history[0].parts) == {"cross_entropy", "accuracy"}
    assert all(0 <= epoch.validation <= 1 for epoch in told.history)
    assert len(told.validation_ids.unique()) == 10
    assert capsys.readouterr().out == ""


def test_held_out_samples_are_never_trained_on():
    x = torch.arange(60.0).reshape(60, 1, 1, 1) / 60
    seen = []

    class Spy:
        def __call__(self, model, x, y, *, generator):
            seen.extend((x.flatten() * 60).round().int().tolist())
            return Natural()(model, x, y, generator=generator)

    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 10))
    told = train(model, x, some()[1], Spy(), SHORT)
    held = set(told.validation_ids.tolist())
    assert set(seen) == set(range(60)) - held
    assert len(seen) == 50 * 4


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("last", [1, 4, 7, 12, 15])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, last: int):
    whole, told = short_run()

    def stop(progress) -> None:
        if progress.step == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        short_run(progress=stop, checkpoint=tmp_path / "run.pt")
    steps = []
    resumed, again = short_run(progress=lambda one: steps.append(one.step), checkpoint=tmp_path / "run.pt")
    assert resumed == whole
    assert again.history == told.history
    assert steps[0] == (last - 1) // 4 * 4 + 1  # after the last epoch that was complete
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]
    finished, _ = short_run(checkpoint=tmp_path / "run.pt")
    assert finished == whole


SCRIPT = """
import sys, time, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from test_trainer import short_run
short_run(checkpoint=sys.argv[1], progress=lambda one: time.sleep(0.05))
"""


def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path):
    path = tmp_path / "run.pt"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(Path(__file__).parent)])
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert path.exists()
    steps = []
    resumed, _ = short_run(checkpoint=path, progress=lambda one: steps.append(one.step))
    assert steps[0] > 1
    assert resumed == short_run()[0]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    path = tmp_path / "run.pt"
    short_run(checkpoint=path)
    with pytest.raises(BadInput, match="another training: its 'recipe' is"):
        short_run(Recipe(epochs=5, batch=16), checkpoint=path)
    model = initialised(Noisy, 6)
    with pytest.raises(BadInput, match="its 'initial weights' is"):
        train(model, *some(), Adversarial(threat=EPS, attack=PGD(steps=2, keep="last")), SHORT, checkpoint=path)
    with pytest.raises(BadInput, match="its 'objective' is"):
        train(initialised(Noisy, 5), *some(), Natural(), SHORT, checkpoint=path)
    with pytest.raises(BadInput, match="its 'data' is"):
        train(initialised(Noisy, 5), *some(50), Natural(), SHORT, checkpoint=path)


def test_a_damaged_checkpoint_is_told(tmp_path: Path):
    path = tmp_path / "run.pt"
    short_run(checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadInput, match="no whole training checkpoint"):
        short_run(checkpoint=path)


def test_a_loss_that_is_not_finite_is_told():
    class Infinite:
        def __call__(self, model, x, y, *, generator):
            loss = model(x).sum() * float("inf")
            return Loss(loss, {"cross_entropy": loss.detach()})

    with pytest.raises(BadInput, match=r"after epoch 1\. Lower the 'lr'"):
        train(initialised(Noisy, 0), *some(), Infinite(), SHORT)


def test_something_must_be_left_to_train_on():
    with pytest.raises(BadInput, match="leaves none of 60"):
        train(initialised(Noisy, 0), *some(), Natural(), Recipe(validation=60))
