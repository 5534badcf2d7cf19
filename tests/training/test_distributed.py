"""Two gloo processes train one network: replicas stay equal, gradients are those of the whole batch, runs go on."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from short_training import EVERY, smooth, some
from torch import nn

from verigrad import catalog
from verigrad.core.errors import BadInput
from verigrad.training.batches import batches_of, epoch_batches, split
from verigrad.training.distributed import ALONE, Processes, joined
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train

SCRIPT = Path(__file__).parent / "two_processes.py"


def two(job: str, folder: Path) -> list[dict]:
    """What both ranks found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), job, str(folder)],
            env={**common, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        told = [process.communicate(timeout=600)[1] for process in running]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert [process.returncode for process in running] == [0, 0], told
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in "01"]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return two("replicas", tmp_path_factory.mktemp("replicas"))


@pytest.mark.parametrize("method", ["natural", "adversarial", "default attack", "algorithm"])
def test_replicas_are_equal_after_one_reduction_a_step(replicas: list[dict], method: str):
    one, other = (found[method] for found in replicas)
    assert one == other
    assert one["steps"] == 16
    # With mean weights, augmentation, validation and a quick attack too: nothing else reduces gradients.
    assert one["reductions"] == one["steps"]


def test_two_processes_learn_what_one_learns(replicas: list[dict]):
    """Without batch norm the mean of two halves' gradients is the gradient of the batch."""
    alone = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 5)
    train(alone, *some(), Natural(), Recipe(epochs=2, batch=20, lr=0.1))
    expected = torch.cat([weight.detach().flatten() for weight in alone.parameters()])
    for found in replicas:
        assert (torch.tensor(found["weights"]) - expected).norm() < 1e-5 * expected.norm()


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return two("everything", tmp_path_factory.mktemp("everything"))


@pytest.mark.parametrize("spec", EVERY)
def test_every_method_learns_on_two_processes_what_it_learns_on_one(everything: list[dict], spec: str):
    """In double precision, batches of equal size, draws that belong to samples: the mean of two halves is the whole."""
    alone = initialised(smooth, 5)
    x, y = some()
    train(alone, x.double(), y, catalog.build(EVERY[spec], spec), Recipe(epochs=2, batch=20, lr=0.1))
    expected = torch.cat([weight.detach().flatten() for weight in alone.parameters()])
    one, other = (found[spec] for found in everything)
    assert one == other
    assert (torch.tensor(one["weights"], dtype=torch.float64) - expected).norm() < 1e-9 * expected.norm()
    replays = getattr(catalog.build(EVERY[spec], spec), "replays", 1)  # free updates after each: no fewer are possible
    assert one["reductions"] == replays * one["steps"] == replays * 6


def test_two_processes_go_on_bit_for_bit_with_a_memory_each(tmp_path: Path):
    one, other = two("resumed", tmp_path)
    for name in ("replayed", "free"):
        for found in (one[name], other[name]):
            assert found["first"] == 7
            assert found["again"]["weights"] == found["whole"]["weights"]
            assert found["again"]["history"] == found["whole"]["history"]
        assert one[name]["again"]["weights"] == other[name]["again"]["weights"]
    mine, yours = one["perturbations"]
    assert len(mine) == len(yours) == 8 * 64
    assert mine != yours


@pytest.mark.slow
def test_the_clock_of_process_0_stops_both(tmp_path: Path):
    assert [found["steps"] for found in two("limited", tmp_path)] == [1, 1]


@pytest.mark.slow
def test_what_process_0_finds_wrong_stops_both(tmp_path: Path):
    for found in two("refused", tmp_path):
        assert "no whole training checkpoint" in found["told"]


@pytest.mark.slow
def test_a_rank_that_is_killed_is_restarted_by_torchrun_and_goes_on(tmp_path: Path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    done = subprocess.run(
        [sys.executable, *launch, str(SCRIPT), "killed", str(tmp_path)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in "01"]
    for one in found:
        assert 9 <= one["first"] <= 10
        assert one["again"]["weights"] == one["whole"]["weights"] == found[0]["whole"]["weights"]
        assert one["again"]["history"] == one["whole"]["history"]


@pytest.mark.parametrize(("count", "batch", "each"), [(50, 16, 4), (49, 16, 3), (48, 16, 3), (7, 16, 1)])
def test_parts_of_a_batch_are_equal_and_disjoint(count: int, batch: int, each: int):
    """What two cannot share is left out: at most one sample an epoch."""
    recipe = Recipe(batch=batch)
    ids = split(count, recipe)[1]
    ranks = [Processes(rank=rank, count=2) for rank in range(2)]
    assert batches_of(count, recipe, ranks[0]) == each
    parts = [list(epoch_batches(ids, 3, 0, recipe, rank, torch.device("cpu"))) for rank in ranks]
    whole = list(epoch_batches(ids, 3, 0, recipe, ALONE, torch.device("cpu")))
    seen: list[int] = []
    for both, together in zip(zip(*parts, strict=True), whole, strict=False):
        assert both[0].step == both[1].step
        assert both[0].step - parts[0][0].step == together.step - whole[0].step
        assert len(both[0].rows) == len(both[1].rows)
        rows = torch.cat([part.rows for part in both])
        assert torch.equal(rows, together.rows[: len(rows)])
        changes = torch.cat([part.changes.seeds for part in both])
        assert torch.equal(changes, together.changes.seeds[: len(rows)])
        seen += rows.tolist()
    assert len(set(seen)) == len(seen) == count - count % 2


def test_a_batch_that_cannot_be_shared_is_told():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(BadInput, match=r"3 processes cannot share 60 samples in batches of 100\."):
        train(model, *some(), Natural(), Recipe(), processes=Processes(rank=0, count=3))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined() as processes:
        assert processes == ALONE
        assert processes.agreed("x") == "x"
        assert processes.gathered("x") == ["x"]
