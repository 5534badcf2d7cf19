"""`verigrad train` makes a checkpoint that the other commands take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from shell import files

import verigrad as face
from verigrad import catalog
from verigrad.cli import training
from verigrad.cli.listing import parameters
from verigrad.models.loading import weights_hash

COMMON = ("train", "--model", "small-conv:channels=4", "--data", "digits", "--n", 200, "--batch", 50, "--epochs", 2)


def test_a_trained_model_can_be_attacked(verigrad, tmp_path: Path) -> None:
    said = verigrad(*COMMON, "--out", tmp_path / "model", "--validation", 40, "--schedule", "steps:at=(0.5)")
    assert said.code == 0, said.err
    assert "epoch 2: cross_entropy" in said.out
    assert "validation accuracy" in said.out
    model = {"model.json", "model.safetensors"}
    assert files(tmp_path / "model") == {*model, "metrics.jsonl", "best", *(f"best/{name}" for name in model)}
    attack = ("attack", tmp_path / "model", "--data", "digits", "--n", 20, "--threat", "linf:0.1", "--attacks", "fgsm")
    assert "worst case" in verigrad(*attack).out


def test_the_same_command_gives_the_same_weights(verigrad, tmp_path: Path) -> None:
    objective = "adversarial:threat=linf(eps=0.1),attack=pgd(steps=1,keep=last)"
    for name in ("one", "two"):
        assert verigrad(*COMMON, "--objective", objective, "--out", tmp_path / name).code == 0
    assert verigrad(*COMMON, "--objective", objective, "--out", tmp_path / "three", "--seed", 1).code == 0
    one, two, three = (weights_hash(face.load_model(str(tmp_path / name))) for name in ("one", "two", "three"))
    assert one == two != three


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"--model": "smal-conv"}, "Did you mean 'small-conv'?"),
        ({"--model": "scaled-logits:module=small-conv"}, "needs a value for scale"),
        ({"--model": "small-conv:in_channels=3"}, "(11, 1, 8, 8)"),
        ({"--model": "small-conv:classes=9"}, "9 classes"),
        ({"--objective": "adversarial"}, "needs a value for threat"),
        ({"--objective": "adversarial:threat=linf(eps=-1)"}, "Got -1"),
        ({"--schedule": "cosine"}, "no schedule 'cosine'"),
        ({"--epochs": "0"}, "at least 1"),
        ({"--lr": "0"}, "positive"),
        ({"--lr": "1e30", "--batch": "10"}, "Lower the 'lr'"),
        ({"--validation": "100"}, "leaves none"),
        ({"--data": "nothing"}, "no data 'nothing'"),
        ({"--algorithm": "x", "--objective": "natural"}, "exclude each other"),
        ({"--time-limit": "soon"}, "--time-limit must be a length of time such as 90s, 10m or 2h. Got 'soon'"),
        ({"--time-limit": "-3m"}, "Got '-3m'"),
        ({"--crop": "-1"}, "must not be negative"),
        ({"--crop": "8"}, "--crop must be less than 8"),
        (
            {"--objective": "free:threat=linf(eps=0.1)"},
            "'free' is no objective but an algorithm. Give it as --algorithm",
        ),
        ({"--algorithm": "gaussian_noise:sigma=0.1"}, "'gaussian-noise' is no algorithm but an objective"),
        ({"--watch": "linf"}, "The threat must read linf:EPS"),
        ({"--objective": "natural:smoothing=1"}, "must be in [0, 1)"),
        ({"--device": "abacus"}, "--device must be cpu or cuda. Got 'abacus'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    verigrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("verigrad.cli.progress.PATIENCE", 1e9)  # a step on a busy machine may be worth a line
    options = {
        "--model": "small-conv:channels=4",
        "--data": "digits",
        "--n": "100",
        "--epochs": "1",
        "--out": "m",
        **change,
    }
    assert part in verigrad("train", *(word for option in options.items() for word in option)).error
    assert files(tmp_path) == set()


def test_a_folder_with_something_else_is_left_alone(verigrad, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("all of it")
    assert "is there already" in verigrad(*COMMON, "--out", tmp_path / "m").error
    assert files(tmp_path) == {"m", "m/thesis.txt"}
    (tmp_path / "file").write_text("")
    assert "is there already" in verigrad(*COMMON, "--out", tmp_path / "file").error


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


FULL = (
    *COMMON[:-1],
    4,
    *("--objective", "adversarial:threat=linf(eps=0.1),attack=pgd(steps=1,keep=last)", "--validation", 50),
    *("--optimiser", "adamw", "--lr", 0.003, "--weight-decay", 0.1, "--schedule", "one-cycle", "--clip", 1),
    *("--mean-weights", 0.9, "--crop", 1, "--cutout", 2, "--fill", 0.5, "--channels-last"),
)


def test_a_time_limit_stops_and_the_same_command_goes_on(verigrad, tmp_path: Path) -> None:
    assert verigrad(*FULL, "--out", tmp_path / "whole").code == 0
    command = (*FULL, "--out", tmp_path / "parts")
    said = verigrad(*command, "--time-limit", "0.001s")
    assert said.code == 0
    assert said.out == "stopped at the time limit after step 1. The same command goes on from there.\n"
    assert files(tmp_path / "parts") == {"training.safetensors"}
    stops = [verigrad(*command, "--time-limit", "0.001s").out.split()[7] for _ in range(5)]
    assert stops == ["2.", "3.", "4.", "5.", "6."]
    left = {"metrics.jsonl", "best", "best/model.json", "best/model.safetensors"}
    assert files(tmp_path / "parts") == left | {"training.safetensors", "training.safetensors.previous"}
    # What a kill between the report of an epoch and its state leaves behind.
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write(f'{json.dumps({"epoch": 3})}\n{{"epo')
    (tmp_path / "parts" / ".best.0123").mkdir()
    assert "epoch 4: " in verigrad(*command).out
    assert files(tmp_path / "parts") == left | {"model.json", "model.safetensors"}
    for inside in ("", "best"):
        one, other = (weights_hash(face.load_model(str(tmp_path / name / inside))) for name in ("whole", "parts"))
        assert one == other
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    assert [line["epoch"] for line in parts] == [1, 2, 3, 4]
    for line in (*whole, *parts):
        assert line.pop("seconds") > 0
    assert whole == parts
    assert set(whole[0]) == {"epoch", "train", "validation", "robust", "lr"}
    assert 0 <= whole[-1]["robust"] <= whole[-1]["validation"] <= 1
    assert "is there already" in verigrad(*command).error


def test_every_way_of_training_is_one_option(verigrad, tmp_path: Path) -> None:
    shown = verigrad("train", "--help").out
    assert "verigrad list objectives" in " ".join(shown.split())
    listed = verigrad("list", "objectives").out
    common = ("train", "--model", "small-conv:channels=2", "--data", "digits", "--n", 20, "--batch", 20, "--epochs", 1)
    values = {"threat": "linf(eps=0.1)", "sigma": "0.25"}
    for entry in (*catalog.entries("objective"), *catalog.entries("algorithm")):
        assert f"\n {entry.name} " in listed
        assert entry.paper in listed
        needed = [setting.name for setting in parameters(entry) if setting.default is None]
        spec = f"{entry.name}:{','.join(f'{name}={values[name]}' for name in needed)}".rstrip(":")
        said = verigrad(*common, f"--{entry.kind}", spec, "--out", tmp_path / entry.name)
        assert said.code == 0, (spec, said.err)
        watched = "threat" in needed
        assert ("under a quick attack, on samples of the training," in said.out) == watched
        assert (metrics(tmp_path / entry.name)[0]["robust"] is not None) == watched


@pytest.mark.parametrize(
    ("options", "watched"),
    [
        (("--algorithm", "successive-approximations:objective=adversarial(threat=linf(eps=0.1))"), True),
        (("--objective", "adversarial:threat=linf(eps=0)"), True),
        (("--watch", "l2:0.5"), True),
        (("--objective", "adversarial:threat=linf(eps=0.1)", "--watch", "none"), False),
    ],
)
def test_the_quick_attack_is_under_the_threat_of_the_training(verigrad, tmp_path: Path, options, watched) -> None:
    said = verigrad(*COMMON[:5], "--n", 20, "--epochs", 1, *options, "--out", tmp_path / "m")
    assert said.code == 0, said.err
    assert ("under a quick attack" in said.out) == watched


@pytest.mark.parametrize("last", ["model.safetensors", "model.json", "training.safetensors"])
def test_a_run_that_is_stopped_while_it_puts_its_model_there_ends_the_same(
    verigrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Before the weights, before the description, or before the state goes."""
    command = (*COMMON, "--validation", 20, "--out")
    assert verigrad(*command, tmp_path / "whole").code == 0

    def stopped(kind: str):
        plain = getattr(training.os if kind == "replace" else Path, kind)

        def stop(path: Path, *rest: object, **named: object) -> None:
            if Path(str(rest[0] if rest else path)).name == last:
                raise KeyboardInterrupt
            plain(path, *rest, **named)

        return stop

    with monkeypatch.context() as patched:
        patched.setattr(training, "os", types.SimpleNamespace(replace=stopped("replace")))
        patched.setattr(Path, "unlink", stopped("unlink"))
        assert verigrad(*command, tmp_path / "parts").code == 130
    assert (tmp_path / "parts" / "training.safetensors").exists()
    assert verigrad(*command, tmp_path / "parts").code == 0
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    one, other = (weights_hash(face.load_model(str(tmp_path / name))) for name in ("whole", "parts"))
    assert one == other


def test_a_damaged_state_is_refused_and_the_line_says_how_to_go_on(verigrad, tmp_path: Path) -> None:
    command = (*COMMON, "--out", tmp_path / "m")
    state, before = tmp_path / "m" / "training.safetensors", tmp_path / "m" / "training.safetensors.previous"
    for _ in range(6):
        verigrad(*command, "--time-limit", "0.001s")
    state.write_bytes(state.read_bytes()[:-7])
    assert f"The last good one is {before}, after step 5: mv {before} {state} goes on" in verigrad(*command).error
    before.rename(state)
    assert verigrad(*command).code == 0
    assert verigrad(*COMMON, "--out", tmp_path / "whole").code == 0
    one, other = (weights_hash(face.load_model(str(tmp_path / name))) for name in ("whole", "m"))
    assert one == other


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill -9")
def test_kill_9_at_any_moment_and_the_same_command_end_with_the_same_bits(verigrad, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, *map(str, FULL), "--save-every", "0.001s", "--out"],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout.split()[-1])
    assert killed > 3
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    for inside in ("", "best"):
        one, other = (weights_hash(face.load_model(str(tmp_path / name / inside))) for name in ("whole", "parts"))
        assert one == other
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    for line in (*whole, *parts):
        line.pop("seconds")
    assert whole == parts


# One whole run, and then lives of the command, each killed at some moment after it has saved anew, until one ends.
KILLED = """
import os, random, signal, sys, time
import torch
from verigrad.cli.main import main
torch.set_num_threads(1)
assert main([*sys.argv[1:], "whole"]) == 0  # and all is imported before the forks
chance, state, killed, complete = random.Random(0), "parts/training.safetensors", 0, False

def saved():
    try:
        return os.stat(state).st_mtime_ns
    except FileNotFoundError:
        return None

while not complete:
    before, child = saved(), os.fork()
    if not child:
        os._exit(main([*sys.argv[1:], "parts"]))
    ended = 0
    while saved() == before and not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.001)
    if not ended:
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    killed += code != 0
    complete = os.path.exists("parts/model.json") and not os.path.exists(state)
print("killed", killed)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes of torchrun in /proc")
def test_a_rank_that_is_killed_under_torchrun_is_restarted_and_the_command_goes_on(tmp_path: Path) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    words = (
        *COMMON[:-1],
        40,
        "--algorithm",
        "free:threat=linf(eps=0.1),replays=2",
        "--validation",
        50,
        "--watch",
        "none",
    )
    script = str(Path(sys.executable).with_name("verigrad"))
    command = [
        sys.executable,
        *launch,
        "--no-python",
        "--",
        script,
        *map(str, words),
        "--save-every",
        "0.001s",
        "--out",
    ]
    done = subprocess.run([*command, "whole"], cwd=tmp_path, timeout=900, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    running = subprocess.Popen([*command, "parts"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "parts" / "training.safetensors.previous").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    os.kill(worker(running.pid, rank=1), signal.SIGKILL)
    told = running.communicate(timeout=900)[1]
    assert running.returncode == 0, told
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    one, other = (weights_hash(face.load_model(str(tmp_path / name))) for name in ("whole", "parts"))
    assert one == other
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    assert [line["train"] for line in whole] == [line["train"] for line in parts]
    assert len(parts) == 40


def worker(launcher: int, rank: int) -> int:
    """The process of this rank that torchrun has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            ours = f"\0RANK={rank}\0" in f"\0{(folder / 'environ').read_text()}"
        except (OSError, UnicodeDecodeError):
            continue
        if parent == launcher and ours:
            return int(folder.name)
    raise AssertionError("There is no such process.")


def test_a_collapse_is_told_at_once(verigrad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verigrad.training import epochs
    from verigrad.training.watching import Accuracies

    robust = iter([0.5, 0.1])
    monkeypatch.setattr(epochs, "validate", lambda *a, **k: Accuracies(0.9, next(robust)))
    said = verigrad(*COMMON, "--validation", 20, "--out", tmp_path / "m")
    assert said.code == 0
    assert "warning: epoch 2: accuracy under the quick attack fell to 0.1000" in said.err
    assert said.err.count("warning") == 1


def test_without_tensorboard_one_line_says_what_to_install(verigrad, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install 'verigrad[track]'" in verigrad(*COMMON, "--track", "--out", tmp_path / "m").error
    assert files(tmp_path) == set()


def test_what_tensorboard_is_told_can_be_read_back(verigrad, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    command = (*COMMON, "--track", "--validation", 40, "--watch", "linf:0.1", "--out", tmp_path / "m")
    for _ in range(6):  # past the first of two epochs, of four steps each
        assert verigrad(*command, "--time-limit", "0.001s").code == 0
    assert verigrad(*command).code == 0
    read = events.EventAccumulator(str(tmp_path / "m" / "tensorboard"))
    read.Reload()
    kept = metrics(tmp_path / "m")
    for name, key in (("validation/clean", "validation"), ("validation/robust", "robust"), ("lr", "lr")):
        assert [event.step for event in read.Scalars(name)] == [1, 2]
        assert [event.value for event in read.Scalars(name)] == pytest.approx([line[key] for line in kept])
    assert {"train/cross_entropy", "train/accuracy", "seconds"} <= set(read.Tags()["scalars"])


def test_with_tensorboard_every_number_is_told(verigrad, tmp_path: Path, monkeypatch) -> None:
    told = {}

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "m" / "tensorboard"), 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told[name, step] = value

        def flush(self) -> None: ...

        def close(self) -> None:
            told["closed"] = True

    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert verigrad(*COMMON, "--track", "--validation", 20, "--out", tmp_path / "m").code == 0
    assert told.pop("closed")
    names = {"train/cross_entropy", "train/accuracy", "validation/clean", "lr", "seconds"}
    assert set(told) == {(name, epoch) for name in names for epoch in (1, 2)}
    assert told["validation/clean", 2] == metrics(tmp_path / "m")[1]["validation"]
