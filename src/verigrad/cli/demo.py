"""`verigrad demo`: five small classifiers of the digits, trained, audited and laid side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from verigrad.cli.lanes import Note, begin, end_all, ends

if TYPE_CHECKING:
    from torch import nn

    from verigrad.data.images import Images
    from verigrad.training.recipe import Recipe

EPS = 0.12
# What five audits in five minutes can afford; `verigrad audit` tries more.
BUDGET = {"survivors": 100, "effort": 2, "restarts": 2, "noise_draws": 2, "spsa_steps": 10, "spsa_samples": 8}
CLAIM_ATTACK = f"pgd:steps=20,step_size={EPS / 8},random_start=false,keep=last"
CONV = "small-conv"
SONET = "sonet:channels=16,blocks=1-1-1-1,in_channels=1"


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network that is trained. `recipe` holds fields of `training.recipe.Recipe`, with the schedule as a spec."""

    spec: str
    objective: str
    recipe: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A classifier that is audited: a trained network, behind a mask or not. `budget` goes before `BUDGET`.

    `workers` processes share its units: more than one pays where an attack takes minutes.
    """

    title: str
    net: str
    mask: Mapping[str, Any] | None = None
    budget: Mapping[str, int] = field(default_factory=dict)
    workers: int = 1


CONV_RECIPE = {"epochs": 20, "optimiser": "adam", "lr": 3e-3, "schedule": "one-cycle"}
NETS = {
    "conv": Net(spec=CONV, objective="natural", recipe=CONV_RECIPE),
    "sonet": Net(
        spec=SONET, objective="natural", recipe={"epochs": 8, "optimiser": "adam", "lr": 0.01, "schedule": "one-cycle"}
    ),
    "hardened": Net(
        spec=CONV,
        objective=f"adversarial:threat=linf(eps={EPS}),attack=pgd(steps=7,keep=last)",
        recipe={**CONV_RECIPE, "epochs": 30},
    ),
}
ROWS = {
    "conv": Row(title="(a) conv net", net="conv"),
    # Whole batches are attacked for the few samples that are left, so one round of escalation has to do, and the first
    # batch for the causes.
    "sonet": Row(title="(b) SONet", net="sonet", budget={"rounds": 1, "patience": 1}, workers=2),
    "hardened": Row(title="(c) PGD-trained", net="hardened"),
    "scaled": Row(title="(d) logits×1000", net="conv", mask={"name": "scaled-logits", "scale": 1000.0}),
    "quantised": Row(title="(e) 8 levels", net="conv", mask={"name": "quantised-input", "levels": 8}),
}
# What runs side by side: the SONet takes as long as all the others together.
LANES = {"SONet": ("sonet",), "conv nets": ("conv", "hardened", "scaled", "quantised")}


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for models, ledgers and reports; a second run goes on there.")
    ] = Path("runs/demo"),
    n: Annotated[int, typer.Option(help="Test images to audit.", min=200, max=500)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and every random draw.")] = 0,
) -> None:
    """Train and audit five small classifiers of real digits: one honest, one hardened, three that hide gradients."""
    from rich.console import Console

    from verigrad.reports.html import IndexRow
    from verigrad.reports.terminal import comparison
    from verigrad.reports.write import write_index

    console = Console()
    console.print(f"Training three classifiers and auditing five on {n} digits; about five minutes on two cores.")
    summaries = _both_lanes(out, n, seed)
    rows = [IndexRow(summaries[name], f"audits/{name}/report.html") for name in ROWS]
    page = write_index(rows, out / "report.html", title="Five classifiers of digits, and what their claims are worth")
    console.print(comparison([row.summary for row in rows]))
    console.print(f"\nreport: {page}", soft_wrap=True, highlight=False)


def _both_lanes(out: Path, n: int, seed: int) -> dict[str, dict[str, Any]]:
    """Runs the lanes side by side, one process each, and shows how far they are. Summaries by the name of the row.

    Whatever ends this, an interrupt or a lane that fails, ends both lanes with the workers that they have started.
    """
    from verigrad.cli.progress import lanes

    context = get_context("spawn")
    told = context.Queue()
    running = {
        lane: context.Process(target=begin, name=lane, args=(_lane, (lane, out, n, seed, told), told)) for lane in LANES
    }
    summaries: dict[str, dict[str, Any]] = {}
    try:
        for process in running.values():
            process.start()
        with lanes(LANES) as show:
            for lane, found in ends(running, told, show):
                summaries |= found
                running[lane].join()
    finally:
        end_all(running.values())
    return summaries


def _lane(lane: str, out: Path, n: int, seed: int, told: Any) -> dict[str, dict[str, Any]]:
    """Everything of one lane, in a process of its own. One thread each: on nets this small a second only waits."""
    import torch

    from verigrad.data.load import load_data

    torch.set_num_threads(1)
    train_data, test_data = load_data("digits", "train"), load_data("digits", n=n)
    summaries = {}
    for name in LANES[lane]:
        row = ROWS[name]
        net = _trained(row.net, train_data, out, seed, lambda note, share: told.put(Note(lane, note, share)))
        _save(row, net, out / "models" / name)
        summaries[name] = _audited(
            row,
            out / "models" / name,
            test_data,
            out / "audits" / name,
            seed,
            lambda note: told.put(Note(lane, note, None)),
        )
    return summaries


def _trained(name: str, data: Images, out: Path, seed: int, tell: Callable[[str, float], None]) -> nn.Module:
    """The network of `out/nets/name`, trained first if it is not there."""
    from verigrad import catalog
    from verigrad.models.loading import load_model, save_checkpoint
    from verigrad.training.trainer import Progress, initialised, train

    net, folder = NETS[name], out / "nets" / name
    if folder.exists():
        return load_model(str(folder))
    recipe = _recipe(net, seed)
    model = initialised(lambda: catalog.build("model", net.spec), seed)
    state = folder.with_name(f"{name}.training")

    def told(now: Progress) -> None:
        tell(f"training {name}, step {now.step} of {now.steps}", now.step / now.steps)

    objective = catalog.build("objective", net.objective)
    train(model, data.x, data.y, objective, recipe, progress=told, checkpoint=state)
    save_checkpoint(net.spec, model, folder)
    state.unlink(missing_ok=True)
    return model


def _recipe(net: Net, seed: int) -> Recipe:
    from verigrad import catalog
    from verigrad.training.recipe import Recipe

    fields = {"schedule": "steps", **net.recipe}
    return Recipe(**{**fields, "schedule": catalog.build("schedule", fields["schedule"])}, seed=seed)


def _save(row: Row, net: nn.Module, folder: Path) -> None:
    """The classifier of a row as a checkpoint, so that `verigrad verify` finds it again."""
    from verigrad import catalog
    from verigrad.models.loading import save_checkpoint

    if folder.exists():
        return
    spec = NETS[row.net].spec
    if row.mask is None:
        save_checkpoint(spec, net, folder)
        return
    settings = {key: value for key, value in row.mask.items() if key != "name"}
    masked = catalog.load(catalog.find("model", row.mask["name"]))(module=net, **settings)
    save_checkpoint({"name": row.mask["name"], "kwargs": {**settings, "module": spec}}, masked.eval(), folder)


def _audited(row: Row, model: Path, data: Images, out: Path, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    from verigrad import catalog
    from verigrad.auditing.audit import audit
    from verigrad.auditing.claim import Budget, Claim
    from verigrad.auditing.identity import Names
    from verigrad.core.threat import Linf
    from verigrad.models.loading import load_model

    several = row.workers > 1
    with ProcessPoolExecutor(row.workers, get_context("spawn")) if several else nullcontext() as executor:
        found = audit(
            load_model(str(model)),
            data,
            Linf(eps=EPS),
            claim=Claim(attack=catalog.build("attack", CLAIM_ATTACK)),
            budget=Budget(**{**BUDGET, **row.budget}),
            seed=seed,
            executor=executor,
            out=out,
            names=Names(title=row.title, model=str(model), data="digits"),
            progress=lambda note: tell(f"auditing {row.title}: {note}"),
        )
    return found.summary
