"""What each of two processes does in `test_distributed.py`. Arguments: the job's name, and a folder.

It is run by torchrun, or with the same environment. What a rank finds lies in FOLDER/RANK.json.
"""

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from short_training import EPS, EVERY, FULL, METHOD, SHORT, Noisy, smooth, some
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from verigrad import catalog
from verigrad.models.inspecting import weights_hash
from verigrad.training import clock, distributed, state_file
from verigrad.training.algorithms.free import Free
from verigrad.training.distributed import Averaged, joined
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.trainer import initialised, train
from verigrad.training.watching import Watch

reductions = 0


def counted(group, bucket):
    global reductions
    reductions += 1
    return allreduce_hook(group, bucket)


class Counted(Averaged):
    def __init__(self, module):
        super().__init__(module)
        self.shared.register_comm_hook(None, counted)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """Two passes a batch of which only the second is averaged, and a memory that differs from rank to rank."""

    def step(self, state, x, y, *, generator):
        seen = state.memory.setdefault("seen", torch.zeros(4))
        with state.alone():
            nn.functional.cross_entropy(state.model(x), y).backward()
        loss = nn.functional.cross_entropy(state.model(x + 0.01 * seen.mean()), y)
        loss.backward()
        state.update()
        state.memory["seen"] = seen * 0.9 + x.mean() + generator.normal(1).mean()
        return {"cross_entropy": loss.detach()}


class Interrupted(Exception):
    pass


def run(processes, recipe, method, model=Noisy, **arguments):
    """One training: the hash of its weights, its history, and the gradient reductions it took."""
    global reductions
    reductions = 0
    net = initialised(model, 5)
    told = train(net, *some(), method, recipe, processes=processes, **arguments)
    return {"weights": weights_hash(net), "history": told.history, "reductions": reductions, "steps": told.steps}


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def replicas(processes, folder):
    """Natural and adversarial objectives, and an algorithm; the gradients of a net without batch norm."""
    found = {
        "natural": run(processes, SHORT, Natural()),
        "adversarial": run(processes, FULL, METHOD, watch=Watch(threat=EPS, samples=9)),
        "default attack": run(processes, SHORT, Adversarial(threat=EPS)),
        "algorithm": run(processes, SHORT, Replayed()),
    }
    net = initialised(plain, 5)
    train(net, *some(), Natural(), Recipe(epochs=2, batch=20, lr=0.1), processes=processes)
    return found | {"weights": [value for weight in net.parameters() for value in weight.flatten().tolist()]}


def everything(processes, folder):
    """Every method of the catalog on batches of equal size: weights, and reductions of gradients."""
    global reductions
    found = {}
    x, y = some()
    for spec, kind in EVERY.items():
        reductions, net = 0, initialised(smooth, 5)
        recipe = Recipe(epochs=2, batch=20, lr=0.1)
        steps = train(net, x.double(), y, catalog.build(kind, spec), recipe, processes=processes).steps
        weights = [value for weight in net.parameters() for value in weight.flatten().tolist()]
        found[spec] = {"weights": weights, "reductions": reductions, "steps": steps}
    return found


def resumed(processes, folder):
    """For two algorithms with a memory."""
    found = {"replayed": taken_up(processes, folder / "one", Replayed())}
    found["free"] = taken_up(processes, folder / "two", Free(threat=EPS, replays=2, step_size=0.05))
    if processes.rank == 0:
        saved = state_file.read(folder / "two").tensors
        found["perturbations"] = [saved[f"memory/{rank}/perturbation"].flatten().tolist() for rank in range(2)]
    return found


def taken_up(processes, path, method):
    """A run that ends at a step by an exception in both ranks, and goes on from a save between epochs."""
    whole = run(processes, FULL, method)

    def stop(progress):
        if progress.step == 7:
            raise Interrupted

    arguments = {"checkpoint": path, "save_every": 1e-9}
    try:
        run(processes, FULL, method, progress=stop, **arguments)
    except Interrupted:
        dist.barrier()
    first = []
    again = run(processes, FULL, method, progress=lambda one: first.append(one.step), **arguments)
    return {"whole": whole, "again": again, "first": first[0]}


def limited(processes, folder):
    """Only process 0 looks at the clock."""
    limit = 1e-9 if processes.rank == 0 else 1e9
    return run(processes, SHORT, Natural(), checkpoint=folder / "run", time_limit=limit)


def refused(processes, folder):
    """Every process is told what process 0 finds wrong."""
    if processes.rank == 0:
        (folder / "run").write_bytes(b"nothing")
    try:
        run(processes, SHORT, Natural(), checkpoint=folder / "run")
    except Exception as fault:
        return {"told": str(fault)}


def killed(processes, folder):
    """In its first life rank 1 kills itself in the middle of the third epoch."""
    first = []
    method, recipe = Free(threat=EPS, replays=2, step_size=0.05), replace(FULL, epochs=6)

    def told(progress):
        first.append(progress.step)
        if processes.rank == 1 and progress.step == 10 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    arguments = {"checkpoint": folder / "run", "save_every": 1e-9, "progress": told}
    again = run(processes, recipe, method, **arguments)
    return {"again": again, "first": first[0], "whole": run(processes, recipe, method)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.Averaged = Counted
    clock.ASKED = 0.0  # both look at the clock after every step
    job, folder = globals()[sys.argv[1]], Path(sys.argv[2])
    with joined() as processes:
        found = job(processes, folder)
        (folder / f"{processes.rank}.json").write_text(json.dumps(found))
