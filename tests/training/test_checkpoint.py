"""A run that was stopped, wherever and however, ends with the same bits as one that was not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from short_training import EPS, EVERY, FULL, METHOD, SHORT, Carried, Noisy, short_run, some
from torch import nn

from verigrad import catalog
from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.training import state_file
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

RUNS = {
    "adversarial": (SHORT, METHOD),
    "memory": (FULL, Carried()),
    "plain sgd": (replace(SHORT, momentum=0.0), METHOD),
}


class Interrupted(Exception):
    pass


def interrupted(path: Path, last: int, recipe=SHORT, method=METHOD, **arguments) -> None:
    """Runs until `last` steps are done, and a little into what follows them."""

    def stop(progress) -> None:
        if progress.step == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        short_run(recipe, method, progress=stop, checkpoint=path, **arguments)


def steps_of(path: Path, recipe=SHORT, method=METHOD, **arguments) -> tuple[list[int], str, tuple]:
    steps = []
    told = lambda one: steps.append(one.step)  # noqa: E731
    found, trained = short_run(recipe, method, progress=told, checkpoint=path, **arguments)
    return steps, found, trained.history


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("last", [1, 4, 7, 12, 15])
def test_a_run_goes_on_after_the_last_complete_epoch(tmp_path: Path, last: int, name: str):
    path = tmp_path / "run"
    whole, told = short_run(*RUNS[name])
    interrupted(path, last, *RUNS[name])
    steps, resumed, history = steps_of(path, *RUNS[name])
    assert steps[0] == (last - 1) // 4 * 4 + 1
    assert resumed == whole
    assert history == told.history
    assert [one.name for one in tmp_path.iterdir()] == ["run"]
    assert steps_of(path, *RUNS[name])[:2] == ([], whole)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("last", [2, 6, 8, 9, 15])
def test_a_run_saved_after_every_step_goes_on_there(tmp_path: Path, last: int, name: str):
    path = tmp_path / "run"
    whole, told = short_run(*RUNS[name])
    interrupted(path, last, *RUNS[name], save_every=1e-9)
    steps, resumed, history = steps_of(path, *RUNS[name])
    assert steps[0] == last
    assert resumed == whole
    assert history == told.history


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(144, 10))


@pytest.mark.parametrize("spec", EVERY)
def test_every_method_goes_on_where_it_was_stopped(tmp_path: Path, spec: str):
    path, method = tmp_path / "run", catalog.build(EVERY[spec], spec)
    recipe = replace(FULL, epochs=2)
    whole, told = short_run(recipe, method, normed)
    interrupted(path, 6, recipe, method, model=normed, save_every=1e-9)
    steps, resumed, history = steps_of(path, recipe, method, model=normed)
    assert steps == [6, 7, 8]
    assert resumed == whole
    assert history == told.history


def test_the_best_weights_outlive_an_interruption(tmp_path: Path):
    recipe = replace(SHORT, epochs=8, validation=20)  # three batches an epoch
    whole = short_run(recipe)[1]
    path = tmp_path / "run"
    assert whole.best_epoch < 8
    interrupted(path, 3 * whole.best_epoch + 1, recipe)
    resumed = short_run(recipe, checkpoint=path)[1]
    assert resumed.best_epoch == whole.best_epoch
    assert all(torch.equal(tensor, whole.best[name]) for name, tensor in resumed.best.items())
    assert set(resumed.best) == set(whole.best)


def test_the_time_limit_stops_between_steps_and_the_same_call_goes_on(tmp_path: Path):
    path = tmp_path / "run"
    whole, told = short_run(FULL, Carried())
    calls, stopped = [], True
    while stopped:
        _, trained = short_run(FULL, Carried(), checkpoint=path, time_limit=1e-9)
        calls.append(trained.steps)
        stopped = trained.stopped
    assert calls == list(range(1, 17))
    found, again = short_run(FULL, Carried(), checkpoint=path)
    assert found == whole
    assert again.history == told.history
    assert not again.stopped


SCRIPT = """
import os, random, signal, sys, time, torch
torch.set_num_threads(1)
path, here = sys.argv[1:]
sys.path.insert(0, here)
from short_training import FULL, Carried, short_run
chance = random.Random(0)

def life(told=None):
    return short_run(FULL, Carried(), checkpoint=path, save_every=1e-9, progress=told)[0]

print("whole", short_run(FULL, Carried())[0])  # and all is imported before the forks
for _ in range(12):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        life(lambda progress: os.write(writing, bytes([progress.step])))
        os._exit(0)
    os.close(writing)
    first = os.read(reading, 1)  # a killed life is at least one step long
    time.sleep(chance.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    print(*first)
print("end", life())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill -9")
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path):
    arguments = (str(tmp_path / "run"), str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    whole, *starts, last = done.stdout.splitlines()
    assert len(set(starts)) > 3  # it was killed at several places
    assert last == f"end {short_run(FULL, Carried())[0]}" == whole.replace("whole", "end")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    short_run(checkpoint=path)
    with pytest.raises(BadInput, match="another training: its 'recipe' is"):
        short_run(Recipe(epochs=5, batch=16), checkpoint=path)
    model = initialised(Noisy, 6)
    with pytest.raises(BadInput, match="its 'initial weights' is"):
        train(model, *some(), Adversarial(threat=EPS, attack=PGD(steps=2, keep="last")), SHORT, checkpoint=path)
    with pytest.raises(BadInput, match="its 'method' is"):
        train(initialised(Noisy, 5), *some(), Natural(), SHORT, checkpoint=path)
    with pytest.raises(BadInput, match="its 'data' is"):
        train(initialised(Noisy, 5), *some(50), Natural(), SHORT, checkpoint=path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_refused_and_the_last_good_one_named(tmp_path: Path, damage):
    path = tmp_path / "run"
    interrupted(path, 10)
    damage(path)
    before = tmp_path / "run.previous"
    with pytest.raises(BadInput, match=rf"run is no whole .* The last good one is {before}, after step 4"):
        short_run(checkpoint=path)
    before.rename(path)
    steps, resumed, _ = steps_of(path)
    assert steps[0] == 5  # the first epoch, where the damaged one had two
    assert resumed == short_run()[0]


def test_without_a_good_one_there_is_only_a_new_beginning(tmp_path: Path):
    path = tmp_path / "run"
    interrupted(path, 6)
    cut(path)
    with pytest.raises(BadInput, match=r"no whole training checkpoint\. Remove it to begin anew"):
        short_run(checkpoint=path)
    path.unlink()
    torch.save({"format": 1}, path)  # what an earlier version wrote
    with pytest.raises(BadInput, match="no whole training checkpoint"):
        short_run(checkpoint=path)


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path):
    path = tmp_path / "run"
    with pytest.raises(BadInput, match="Lower the 'lr'"):
        short_run(replace(SHORT, lr=1e38), checkpoint=path, save_every=1e-9)
    assert not path.exists() or all(bool(t.isfinite().all()) for t in state_file.read(path).tensors.values())


def test_a_state_file_gives_back_what_it_was_given(tmp_path: Path):
    path = tmp_path / "state"
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {
        "a/x y": shared,
        "a/same memory": shared.t(),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    facts = {"number": 0.1, "text": "é", "none": None, "list": [1, {"a": True}]}
    state_file.write(path, tensors, facts)
    saved = state_file.read(path)
    assert saved.facts == facts
    assert set(saved.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert saved.tensors[name].dtype == tensor.dtype
        assert torch.equal(saved.tensors[name], tensor)
    state_file.write(path, {}, {"second": 2})
    assert state_file.read(path).facts == {"second": 2}
    assert state_file.read(state_file.previous(path)).facts == facts
    assert json.dumps(facts)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state", "state.previous"]


def test_a_draft_that_was_cut_off_is_taken_away_with_whatever_lay_beside_it(tmp_path: Path, monkeypatch):
    """Killed while safetensors writes a file of its own, before it is renamed to what it was asked for."""

    class Killed(BaseException):
        pass

    def killed(tensors, name, metadata):
        Path(name).with_name(".tmp123456").write_bytes(b"half")
        raise Killed

    path, own = tmp_path / "state", tmp_path / ".state.mine"
    own.mkdir()
    state_file.write(path, {}, {"first": 1})
    with monkeypatch.context() as patched:
        patched.setattr(state_file, "save_file", killed)
        patched.setattr(state_file.shutil, "rmtree", lambda *_, **__: None)  # no time is left for it
        with pytest.raises(Killed):
            state_file.write(path, {}, {"second": 2})
    assert state_file.read(path).facts == {"first": 1}
    assert len(list(tmp_path.iterdir())) == 3
    state_file.write(path, {}, {"second": 2})
    assert sorted(one.name for one in tmp_path.iterdir()) == [".state.mine", "state", "state.previous"]
