"""`verigrad audit` on models outside the package: as a new user runs it, as a reviewer doubts it, as a cheat would."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from shell import Said, Shell, files

from verigrad.auditing.audit import audit
from verigrad.cli import progress as progress_module
from verigrad.cli.main import main
from verigrad.core.threat import Linf
from verigrad.data.load import load_data
from verigrad.ledger.store import Ledger
from verigrad.models.loading import load_model, save_checkpoint
from verigrad.models.networks.small import SmallConvNet
from verigrad.reports.write import write_reports

NETS = '''
import torch
from torch import nn

class Means(nn.Linear):
    """A linear classifier of the digits: the nearest class mean, in units in which cross-entropy does not saturate."""

    def __init__(self, scale=1.0):
        super().__init__(64, 10)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x.flatten(1))

class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Means()

    def forward(self, x):
        return self.changed(x)

def masked():
    return Means(scale=1000.0)

class Wrong(Means):
    def forward(self, x):
        return -super().forward(x)

class Two(Means):
    def forward(self, x):
        return super().forward(x)[:, :2]

class Double(Means):
    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x):
        return super().forward(x.double())

class Brain(Means):
    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, x):
        return super().forward(x.bfloat16())

class Constant(nn.Module):
    def forward(self, x):
        return torch.arange(10.0).flip(0).expand(len(x), 10)

class Random(Means):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))

class Mates(Means):
    def forward(self, x):
        logits = super().forward(x)
        return logits + 2 * logits.mean(0)

class NanFar(Means):
    """Finite on the data and near them, NaN beyond a grey level of 0.5 that no image has: no attack gets through."""

    def forward(self, x):
        off = ((x * 16 - (x * 16).round()).abs() > 0.3).any(3).any(2)
        return torch.where(off, torch.nan, super().forward(x))

class RootGradient(Means):
    """Its logits are finite, its gradient 0 / 0."""

    def forward(self, x):
        return super().forward(x) + torch.sqrt((x - x).square().sum((1, 2, 3)))[:, None]

class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.BatchNorm2d(1), Means())
        self.train()

class Twenty(Means):
    def forward(self, x):
        if len(x) != 20:
            raise RuntimeError(f"a batch of 20 is needed\\nnot {len(x)}")
        return super().forward(x)

class InPlace(Means):
    def forward(self, x):
        return super().forward(x.mul_(0.5))

class Uncopied(Means):
    def __init__(self):
        super().__init__()
        self.stream = (i for i in range(3))

class Inference(Means):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)

class Pair(Means):
    def forward(self, x):
        return super().forward(x), x

class Probabilities(Means):
    def forward(self, x):
        return super().forward(x).softmax(1)

class NanWeights(Means):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.bias, torch.nan)

class NanOnTheLast(Means):
    def forward(self, x):
        return torch.where(x.flatten(1).sum(1, keepdim=True) == LAST, torch.nan, super().forward(x))

LAST = -1.0

def broken():
    raise ValueError("no such thing\\nas this")

number = 3
'''
RUN = [sys.executable, "-c", "from verigrad.cli.main import run; run()"]
LISTED = {"verdict", "clean", "claimed", "found", "gap", "n", "interval", "causes", "attacks", "health", "identity"}
COLUMNS = {"accuracy", "forwards", "backwards", "seconds"}
WEIGHTS = ("--weights", "means.safetensors")
SMALL = ("--data", "digits.npz", "--threat", "linf:0.1", "--n", 24)
HONEST = ("audit", "nets:Means", *WEIGHTS)


def weights() -> dict[str, torch.Tensor]:
    """Of the linear classifier by nearest class mean: argmin |x - m|² = argmax (x·m - |m|²/2)."""
    data = load_data("digits", "train")
    means = torch.stack([data.x[data.y == label].flatten(1).mean(0) for label in range(10)])
    return {"weight": 2 * means, "bias": -means.square().sum(1)}


def write(folder: Path) -> None:
    (folder / "nets.py").write_text(NETS)
    state = weights()
    save_file(state, folder / "means.safetensors")
    torch.save(state, folder / "means.pt")
    save_file({name: 1.01 * value for name, value in state.items()}, folder / "other.safetensors")
    data = load_data("digits", n=100)
    np.savez(folder / "digits.npz", x=data.x.numpy(), y=data.y.numpy())
    np.savez(folder / "parity.npz", x=data.x.numpy(), y=data.y.numpy() % 2)
    for number, (x, y) in enumerate(zip(data.x[:24], data.y[:24], strict=True)):
        (folder / "classes" / f"digit {y}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((x[0] * 255).round().byte().numpy()).save(folder / "classes" / f"digit {y}" / f"{number}.png")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of a user: own models, weights and data."""
    folder = tmp_path_factory.mktemp("shop")
    write(folder)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    sys.modules.pop("nets", None)


@pytest.fixture
def audited(verigrad: Shell, shop: Path, tmp_path: Path) -> Path:
    """A finished audit, fresh for each test."""
    if not (shop / "kept").exists():
        assert verigrad(*HONEST, *SMALL, "--out", "kept").code == 0
    return Path(shutil.copytree("kept", tmp_path / "kept"))


def read(folder: Path | str) -> dict[str, Any]:
    """audit.json, in which every number is finite."""

    def fail(constant: str) -> None:
        raise AssertionError(f"{constant} in audit.json")

    return json.loads((Path(folder) / "audit.json").read_text(encoding="utf-8"), parse_constant=fail)


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    return summary | {"attacks": [{k: v for k, v in row.items() if k != "seconds"} for row in summary["attacks"]]}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder) if (folder / name).is_file()}


def edit(folder: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    with db:
        db.execute(statement, values)
    db.close()


# What a new user does.


@pytest.mark.parametrize("threat", ["linf:0.1", "l2:0.5", "l0:3"])
def test_a_factory_on_an_archive(verigrad, shop: Path, tmp_path: Path, threat: str) -> None:
    folder = tmp_path / "audit"
    suffix = "pt" if threat.startswith("l2") else "safetensors"
    said = verigrad(
        "audit", "nets:Means", "--weights", f"means.{suffix}", "--data", "digits.npz", "--threat", threat, "--n", 24,
        "--claim", 0.62, "--claim-attack", "pgd:steps=20", "--out", folder,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert files(folder) == {"ledger.sqlite", "audit.json", "report.html"}
    told = read(folder)
    assert set(told) >= LISTED | {"versions"}
    assert all(set(row) >= COLUMNS for row in told["attacks"])
    assert all(set(cause) >= {"name", "witnesses", "evidence"} for cause in told["causes"])
    assert (told["n"], told["claimed"], told["claim"]["stated"]) == (24, 0.62, 0.62)
    assert told["gap"] == pytest.approx(0.62 - told["found"])
    assert told["interval"][0] <= told["found"] <= told["interval"][1]
    assert told["identity"]["claim_attack"].startswith("pgd:")
    assert told["versions"]["torch"] == torch.__version__
    assert told["verdict"].upper() in said.out
    assert f"report: {folder / 'report.html'}" in said.out
    assert told["verdict"] in (folder / "report.html").read_text(encoding="utf-8")
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        assert len({witness.sample for witness in ledger.witnesses()}) == round((told["clean"] - told["found"]) * 24)
    assert verigrad("verify", folder).code == 0


def test_a_checkpoint_on_a_folder_of_images(verigrad, shop: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        save_checkpoint("small-conv:channels=2", SmallConvNet(channels=2), tmp_path / "checkpoint")
    folder = tmp_path / "audit"
    common = ("--data", "classes", "--threat", "linf:0.1", "--title", "[bold]mine[/bold]", "--out", folder)
    said = verigrad("audit", tmp_path / "checkpoint", *common)
    assert said.code == 0, said.err
    assert "[bold]mine[/bold]" in said.out
    told = read(folder)
    assert (told["n"], told["data"]["classes"], told["data"]["shape"]) == (24, 10, [1, 8, 8])
    assert verigrad("verify", folder).code == 0


def test_the_claim_and_what_is_found_are_a_linear_models_closed_form(verigrad, audited: Path, shop: Path) -> None:
    """Under Linf a lead z_y - z_j falls by at most Σ |w_y - w_j| · min(eps, room to the box): no search can do more."""
    data, state = load_data("digits.npz", n=24), weights()
    x, w = data.x.flatten(1).double(), state["weight"].double()
    z = x @ w.T + state["bias"].double()
    slope = w[data.y][:, None] - w[None]  # (N, K, D)
    room = torch.where(slope > 0, x[:, None].clamp(max=0.1), (1 - x[:, None]).clamp(max=0.1))
    lead = z.gather(1, data.y[:, None]) - z - (slope.abs() * room).sum(2)
    stands = (lead > 0).sum(1) == 9  # ahead of every class but its own
    assert read(audited)["found"] == pytest.approx(float(stands.double().mean()))


def test_every_step_is_a_line_of_its_own(verigrad, shop: Path, tmp_path: Path) -> None:
    said = verigrad(*HONEST, *SMALL, "--out", tmp_path / "audit")
    steps = [line.removeprefix("audit: ") for line in said.err.splitlines() if "health: " not in line]
    heads, notes = zip(*(step.split(": ", 1) for step in steps), strict=True)
    assert notes[:2] == ("health", "clean predictions")
    assert notes[2].startswith("claim: claim on")
    assert len(steps) == 2 + len(read(tmp_path / "audit")["attacks"])
    about = int(heads[0].split()[-1])
    assert len(steps) <= about <= 2 * len(steps)
    assert list(heads) == [f"step {number} of about {about}" for number in range(1, len(steps) + 1)]


def test_the_seal_is_printed_to_be_published(verigrad, shop: Path, tmp_path: Path) -> None:
    said = verigrad(*HONEST, *SMALL, "--n", 6, "--out", tmp_path / "audit")
    told = said.out.splitlines()[-1]
    assert told == f"seal: {read(tmp_path / 'audit')['seal']}"
    assert verigrad("verify", tmp_path / "audit", "--seal", told.removeprefix("seal: ")).code == 0


def test_the_progress_is_on_stderr_and_the_table_on_stdout(verigrad, shop: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(progress_module, "PATIENCE", 0.0)
    said = verigrad(*HONEST, *SMALL, "--n", 6, "--out", tmp_path / "audit")
    assert ": health: the margin has a gradient\n" in said.err
    assert "audit: " not in said.out
    assert "Attacks, in order" in said.out


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_is_legible(verigrad, audited: Path, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    said = verigrad("report", audited)
    *lines, last = said.out.splitlines()
    assert last.startswith("report: ")
    assert max(map(len, lines)) <= width
    start = lines.index("Attacks, in order") + 3
    attacks = read(audited)["attacks"]
    table = lines[start : lines.index("Health") - 1]
    assert len(table) <= (1 + len(attacks) * (3 if width == 80 else 1) + 2)
    words = {word for line in table for word in line.split()}
    for row in attacks:
        assert set(row["name"].split()) <= words, "no word is broken"


# The gate.


@pytest.mark.parametrize(
    ("code", "verdict", "model", "more"),
    [
        (0, "upheld", "nets:Means", ("--threat", "linf:0.08")),
        (3, "obfuscated", "nets:masked", ()),
        (4, "undecided", "nets:Random", ()),
        (4, "undecided", "nets:NanFar", ()),
        (5, "overstated", "nets:Means", ("--claim", 0.99)),
    ],
)
def test_the_gate(verigrad, shop: Path, tmp_path: Path, code: int, verdict: str, model: str, more: tuple) -> None:
    common = (model, *WEIGHTS, "--data", "digits.npz", "--threat", "linf:0.1", *more, "--out", tmp_path / "audit")
    said = verigrad("audit", *common, "--gate")
    assert (said.code, read(tmp_path / "audit")["verdict"]) == (code, verdict)
    assert verdict.upper() in said.out
    assert verigrad("audit", *common).code == 0, "without the gate every verdict is a success"


def test_a_model_without_gradient_is_never_upheld(verigrad, shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    said = verigrad("audit", "nets:Constant", "--data", "digits.npz", "--threat", "l2:0.5", "--out", folder, "--gate")
    assert (said.code, read(folder)["found"]) == (4, 0.1)
    assert "zero_gradient" in " ".join(read(folder)["reasons"])


# Resuming.


def test_the_same_command_attacks_nothing_again(verigrad, shop: Path, audited: Path, monkeypatch) -> None:
    from verigrad.evaluation import run

    def fail(*_: object) -> None:
        raise AssertionError("a unit was run again")

    before = contents(audited)
    monkeypatch.setattr(run, "perform", fail)
    said = verigrad(*HONEST, *SMALL, "--out", audited)
    assert said.code == 0, said.err
    after = contents(audited)
    assert after["audit.json"] == before["audit.json"]
    assert after["report.html"] == before["report.html"]
    control = verigrad(*HONEST, *SMALL, "--out", audited.parent / "another")
    assert "a unit was run again" in control.err


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"--seed": 1}, ["seed", "0", "1"]),
        ({"--claim": 0.5}, ["claim_accuracy", "null", "0.5"]),
        ({"--claim-attack": "fgsm"}, ["claim_attack", "pgd", "fgsm"]),
        ({"--weights": "other.safetensors"}, ["weights_sha256", "means.safetensors", "other.safetensors"]),
        ({"--threat": "linf:0.2"}, ["threat", "linf:0.1", "linf:0.2"]),
        ({"--n": 23}, ["n is 24 there and 23 here"]),
        ({"--batch": 5}, ["batch is 100 there and 5 here"]),
    ],
)
def test_another_audit_is_refused(verigrad, shop: Path, audited: Path, change: dict, names: list[str]) -> None:
    before = contents(audited)
    words = dict(zip([*WEIGHTS, *SMALL][::2], [*WEIGHTS, *SMALL][1::2], strict=True)) | change
    said = verigrad("audit", "nets:Means", *(word for pair in words.items() for word in pair), "--out", audited)
    for name in names:
        assert name in said.error
    assert said.out == ""
    assert contents(audited) == before


# Being killed.


def in_process(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    main(arguments)


KILLED = [
    "audit",
    "nets:masked",
    *WEIGHTS,
    "--data",
    "digits.npz",
    "--threat",
    "linf:0.1",
    "--n",
    "30",
    "--batch",
    "10",
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_audit_goes_on(shop: Path, tmp_path: Path) -> None:
    """One run is a process of its own; those that are killed are forked with torch in memory, to be quick."""
    whole = subprocess.Popen(
        [*RUN, *KILLED, "--out", str(tmp_path / "whole")], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "verigrad.auditing.audit", "verigrad.reports.html"])

    def begun(folder: Path) -> Any:
        process = context.Process(target=in_process, args=([*KILLED, "--out", str(folder)],))
        process.start()
        return process

    begun(tmp_path / "warm").join()
    started = time.monotonic()
    begun(tmp_path / "0").join()
    span = time.monotonic() - started
    draw, kills, partial = random.Random(time.time_ns()), 0, 0
    for place in range(1, 4):
        folder = tmp_path / str(place)
        for _ in range(2):
            process = begun(folder)
            while process.is_alive() and not (folder / "ledger.sqlite").exists():
                time.sleep(0.002)
            process.join(draw.uniform(0, 0.4) * span)
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        partial += (folder / "ledger.sqlite").exists() and not (folder / "audit.json").exists()
        last = begun(folder)
        last.join()
        assert last.exitcode == 0
    assert whole.wait() == 0
    expected = timeless(read(tmp_path / "whole"))
    assert expected["verdict"] == "obfuscated"
    for place in range(4):
        assert timeless(read(tmp_path / str(place))) == expected
    assert kills >= 3, (kills, span)
    assert partial >= 1, "no kill left an audit unfinished"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("model", ["nets:masked", "nets:Random"])
def test_a_killed_process_goes_on(shop: Path, tmp_path: Path, model: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*RUN, "audit", model, *KILLED[2:], "--out"]
    started = time.monotonic()
    subprocess.run([*command, tmp_path / "whole"], env=environment, check=True, capture_output=True)
    span = time.monotonic() - started
    draw = random.Random(time.time_ns())
    for place in range(10):
        folder = tmp_path / str(place)
        for _ in range(2):
            process = subprocess.Popen(
                [*command, folder], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(draw.uniform(0.3 * span, span))
            process.kill()
            process.wait()
        subprocess.run([*command, folder], env=environment, check=True, capture_output=True)
        assert timeless(read(folder)) == timeless(read(tmp_path / "whole"))


def test_a_random_model_that_was_cut_off_in_its_health_goes_on(verigrad, shop: Path, tmp_path: Path) -> None:
    """Its draws are named, not taken from where torch's generator happens to stand; and that one is left alone."""
    common = ("audit", "nets:Random", *WEIGHTS, *SMALL, "--n", 12)
    assert verigrad(*common, "--out", tmp_path / "whole").code == 0
    model, before = load_model("nets:Random", "means.safetensors"), torch.random.get_rng_state()
    audit(model, load_data("digits.npz", n=4), Linf(eps=0.1))
    assert torch.equal(before, torch.random.get_rng_state())
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for part in ("units", "timings", "results", "witnesses", "summary", "samples"):
        edit(tmp_path / "cut", f"DELETE FROM {part}")
        edit(tmp_path / "cut", "DELETE FROM receipts WHERE part = ?", part)
    edit(tmp_path / "cut", "DELETE FROM notes WHERE name > 'f'")
    edit(tmp_path / "cut", "DELETE FROM receipts WHERE part = 'notes' AND row > '[\"health\", \"f'")
    assert verigrad(*common, "--out", tmp_path / "cut").code == 0
    whole, cut = timeless(read(tmp_path / "whole")), timeless(read(tmp_path / "cut"))
    assert whole == cut


# Verifying, and drawing again.


def flip(folder: Path) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    unit, sample, blob = db.execute("SELECT unit, sample, x_adv FROM witnesses LIMIT 1").fetchone()
    db.close()
    flipped = blob[:5] + bytes([blob[5] ^ 64]) + blob[6:]
    edit(folder, "UPDATE witnesses SET x_adv = ? WHERE unit = ? AND sample = ?", flipped, unit, sample)


def drop(folder: Path) -> None:
    edit(folder, "DELETE FROM witnesses WHERE rowid = (SELECT max(rowid) FROM witnesses)")


def better(folder: Path) -> None:
    path = folder / "audit.json"
    path.write_text(re.sub(r'"found": [0-9.]+', '"found": 0.9', path.read_text()))


def resealed(folder: Path, **changes: object) -> None:
    """By somebody who knows how receipts and seals are made, and draws the reports again."""
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        summary, identity = ledger.summary(), ledger.identity
    assert summary is not None
    with Ledger.create_or_resume(folder / "ledger.sqlite", identity) as ledger:
        ledger.put_summary(summary | changes | {"seal": ledger.seal()})
        ledger.check()
    write_reports(folder)


def rewritten(folder: Path) -> None:
    resealed(folder, verdict="upheld" if read(folder)["verdict"] != "upheld" else "obfuscated")


def shortened(folder: Path) -> None:
    """Without the last round of the escalation."""
    with Ledger.read(folder / "ledger.sqlite") as ledger:
        key = ledger.units("escalation")[-1].key
    for part, column in (("units", "key"), ("timings", "unit"), ("results", "unit"), ("witnesses", "unit")):
        edit(folder, f"DELETE FROM {part} WHERE {column} = ?", key)
        edit(folder, "DELETE FROM receipts WHERE part = ? AND row LIKE ?", part, f"%{key.rpartition('/')[2]}%")
    resealed(folder, attacks=read(folder)["attacks"][:-1])


def praised(folder: Path) -> None:
    db = sqlite3.connect(folder / "ledger.sqlite")
    (text,) = db.execute("SELECT value FROM summary").fetchone()
    db.close()
    edit(folder, "UPDATE summary SET value = ?", text.replace('"found":', '"found":1'))


@pytest.mark.parametrize("tamper", [flip, drop, better, praised, rewritten, shortened])
def test_an_edited_audit_is_found(verigrad, shop: Path, audited: Path, tamper: Callable[[Path], None]) -> None:
    said = verigrad("verify", audited)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("all ")
    assert files(audited) == {"ledger.sqlite", "audit.json", "report.html"}
    tamper(audited)
    said = verigrad("verify", audited)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("not proven: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda: shutil.copy("other.safetensors", "own.safetensors"), "weights of 'nets:Means'"),
        (lambda: Path("own.safetensors").write_bytes(b"short"), "own.safetensors is no whole safetensors file"),
        (lambda: Path("own.safetensors").unlink(), "There is no weights file own.safetensors"),
        (lambda: shutil.copy("parity.npz", "own.npz"), "images and labels of 'own.npz'"),
        (lambda: Path("own.npz").unlink(), "There is no file 'own.npz'"),
    ],
)
def test_changed_weights_or_data_are_found(verigrad, shop: Path, tmp_path: Path, change: Callable, part: str) -> None:
    shutil.copy("means.safetensors", "own.safetensors")
    shutil.copy("digits.npz", "own.npz")
    own = ("--weights", "own.safetensors", "--data", "own.npz")
    out = tmp_path / "audit"
    assert verigrad("audit", "nets:Means", *own, "--threat", "linf:0.1", "--n", 4, "--out", out).code == 0
    assert verigrad("verify", out).code == 0
    change()
    assert part in verigrad("verify", out).error


def test_the_reports_are_drawn_again_without_torch(audited: Path) -> None:
    before = contents(audited)
    for name in ("audit.json", "report.html"):
        (audited / name).unlink()
    code = (
        "import sys; from verigrad.cli.main import main; code = main(['report', sys.argv[1]]); "
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(audited)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = contents(audited)
    assert {name: after[name] for name in ("audit.json", "report.html")} == {
        name: before[name] for name in ("audit.json", "report.html")
    }


# Bad input.


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return open, ("executed", "w")


def bad_files(folder: Path) -> None:
    x, y = np.zeros((3, 1, 8, 8), np.float32), np.array([0, 1, 2])
    made = {
        "nan": (np.where(np.arange(8) == 3, np.nan, x), y),
        "bright": (x + 3, y),
        "dark": (x - 0.5, y),
        "colour": (np.zeros((3, 3, 8, 8), np.float32), y),
        "large": (np.zeros((3, 1, 9, 9), np.float32), y),
        "labels": (x, y + 8),
        "negative": (x, y - 1),
        "fewer": (x, y[:2]),
        "empty": (x[:0], y[:0]),
        "objects": (x, np.array([0, "one", None], dtype=object)),
    }
    for name, (images, labels) in made.items():
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    np.savez(folder / "noy.npz", x=x)
    (folder / "text.npz").write_text("not an archive")
    (folder / "hollow").mkdir(exist_ok=True)
    torch.save({"weight": Payload()}, folder / "payload.pt")
    (folder / "old.pt").write_bytes(pickle.dumps({"weight": Payload()}))
    save_file({"weight": torch.zeros(3)}, folder / "misfit.safetensors")
    (folder / "syntax.py").write_text("def f(:\n")


BAD: list[tuple[dict[str, object], str]] = [
    ({"model": "nowhere:model"}, "no module 'nowhere'"),
    ({"model": "nets:nothing"}, "no 'nothing' in the module 'nets'"),
    ({"model": "nets:number"}, "cannot be called"),
    ({"model": "nets:broken"}, "failed: ValueError: no such thing."),
    ({"model": "nets"}, "There is no model 'nets'"),
    ({"model": "nets.py"}, "nets.py is a file"),
    ({"model": "hollow"}, "no model.json"),
    ({"model": "syntax:f"}, "cannot be imported: SyntaxError"),
    ({"model": "nets:NanWeights", "--weights": None}, "'bias' of the model holds NaN"),
    ({"model": "nets:Pair"}, "to one tensor of logits"),
    ({"model": "nets:Probabilities"}, "leave out the softmax"),
    ({"model": "nets:Two"}, "has 2 classes, but the labels go up to 9"),
    ({"model": "nets:Twenty", "--n": 20}, "a batch of 20 is needed. Attacks drop"),
    ({"model": "nets:InPlace"}, "changes its images in place"),
    ({"model": "nets:Inference"}, "inference_mode"),
    ({"model": "nets:Uncopied"}, "cannot be copied: TypeError"),
    ({"--weights": "none.safetensors"}, "no weights file none.safetensors"),
    ({"--weights": "misfit.safetensors"}, "'weight' has shape (3,), expected (10, 64)"),
    ({"--weights": "digits.npz"}, "must be a .safetensors, .pt or .pth file"),
    ({"--weights": "payload.pt"}, "holds pickled code, which is never run"),
    ({"--weights": "old.pt"}, "no whole PyTorch file of tensors"),
    ({"--data": "none.npz"}, "no file 'none.npz'"),
    ({"--data": "nonsense"}, "no data 'nonsense'"),
    ({"--data": "hollow"}, "one folder of images for each class"),
    ({"--data": "text.npz"}, "'text.npz' is no .npz archive"),
    ({"--data": "noy.npz"}, "must hold the arrays x and y"),
    ({"--data": "nan.npz"}, "holds NaN"),
    ({"--data": "bright.npz"}, "Got values from 3 to 3. Divide by 255"),
    ({"--data": "dark.npz"}, "Normalisation belongs into the model"),
    ({"--data": "colour.npz"}, "does not take images of shape (3, 3, 8, 8)"),
    ({"--data": "large.npz"}, "does not take images of shape (3, 1, 9, 9)"),
    ({"--data": "labels.npz"}, "has 10 classes, but the labels go up to 10"),
    ({"--data": "negative.npz"}, "from 0 up"),
    ({"--data": "fewer.npz"}, "must have shape (3,)"),
    ({"--data": "empty.npz"}, "holds no images"),
    ({"--data": "objects.npz"}, "could run code"),
    ({"--threat": "l1:3"}, "linf:EPS, l2:EPS or l0:PIXELS"),
    ({"--threat": "linf:-0.1"}, "Got -0.1"),
    ({"--threat": "linf:nan"}, "linf:8/255"),
    ({"--threat": "l0:2.5"}, "l0:PIXELS"),
    ({"--claim-attack": "pdg"}, "Did you mean 'pgd'?"),
    ({"--claim-attack": "pgd:steps=many"}, "steps"),
    ({"--claim-attack": "on-twin:attack=fgsm,change=frozen-grid"}, "ODE blocks"),
    ({"--claim": 62}, "Divide a percentage by 100"),
    ({"--claim": "nan"}, "a fraction in [0, 1]. Got nan"),
    ({"--n": 101}, "Ask for at most 100"),
    ({"--n": 0}, "at least 1. Got 0"),
    ({"--batch": 0}, "'--batch'"),
    ({"--seed": -1}, "The 'seed' must be"),
    ({"--out": "digits.npz"}, "digits.npz"),
    ({"--out": "digits.npz/audit"}, "digits.npz/audit"),
]


@pytest.mark.parametrize(("change", "part"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_input_is_one_line_and_leaves_nothing(verigrad, shop: Path, change: dict, part: str) -> None:
    if not (shop / "payload.pt").exists():
        bad_files(shop)
    words = {"--weights": "means.safetensors", "--data": "digits.npz", "--threat": "linf:0.1", "--out": "refused"}
    words |= change
    model = words.pop("model", "nets:Means")
    before = contents(shop)
    chosen = [word for option, value in words.items() if value is not None for word in (option, value)]
    said = verigrad("audit", model, *chosen)
    assert part in said.error
    assert said.out == ""
    assert contents(shop) == before
    assert not Path("refused").exists()
    assert not Path("executed").exists()


def test_the_payload_would_have_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Payload())).close()
    assert Path("executed").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place where not even root may write")
def test_a_folder_that_cannot_be_written(verigrad, shop: Path) -> None:
    assert "cannot be written" in verigrad(*HONEST, *SMALL, "--out", "/proc/audit").error


def test_a_logit_that_is_not_finite_on_any_image_is_refused(verigrad, shop: Path, tmp_path: Path, monkeypatch) -> None:
    data = load_data("digits.npz")
    assert verigrad(*HONEST, *SMALL, "--n", 1, "--out", tmp_path / "1").code == 0
    monkeypatch.setattr(sys.modules["nets"], "LAST", float(data.x[90].sum()))
    first = int((data.x.flatten(1).sum(1) == data.x[90].sum()).nonzero()[0])
    command = ("audit", "nets:NanOnTheLast", *WEIGHTS, "--data", "digits.npz", "--threat", "linf:0.1", "--batch", 10)
    assert f"not finite on image {first}" in verigrad(*command, "--out", tmp_path / "2").error
    assert not (tmp_path / "2").exists()


def test_batch_norm_is_put_into_eval_mode_and_never_moves(verigrad, shop: Path, tmp_path: Path) -> None:
    """In training mode a prediction would depend on batch-mates, and the running means would move."""
    said = verigrad("audit", "nets:Normed", *SMALL, "--n", 8, "--out", tmp_path / "audit")
    assert said.code == 0, said.err
    told = read(tmp_path / "audit")
    assert not told["batch_coupled"]
    assert next(check for check in told["health"] if check["name"] == "batch_mates")["value"] < 1e-4
    assert verigrad("verify", tmp_path / "audit").code == 0, "the weights, running means among them, are what they were"


# Edges.


def run(verigrad: Shell, out: Path, model: str, *more: object) -> tuple[Said, dict[str, Any]]:
    said = verigrad("audit", model, *more, "--out", out)
    assert said.code == 0, said.err
    told = read(out)
    assert told["verdict"] in ("upheld", "overstated", "obfuscated", "undecided")
    assert all(math.isfinite(told[key]) for key in ("clean", "claimed", "found", "gap"))
    assert verigrad("verify", out).code == 0
    return said, told


def test_two_classes(verigrad, shop: Path, tmp_path: Path) -> None:
    common = ("--data", "parity.npz", "--threat", "linf:0.1", "--n", 24)
    _, told = run(verigrad, tmp_path / "audit", "nets:Two", *WEIGHTS, *common)
    assert not any("dlr" in row["attack"] for row in told["attacks"])
    command = ("audit", "nets:Two", *WEIGHTS, *common, "--claim-attack", "pgd:score=dlr", "--out", tmp_path / "refused")
    assert "at least 3 classes" in verigrad(*command).error
    assert not (tmp_path / "refused").exists()


def test_batch_mates_that_change_the_logits(verigrad, shop: Path, tmp_path: Path) -> None:
    """It is found without a word of the model, and its witnesses are verified in their joint batches."""
    said, told = run(verigrad, tmp_path / "audit", "nets:Mates", *WEIGHTS, *SMALL, "--batch", 8, "--n", 16)
    assert told["batch_coupled"]
    assert told["found_alone"] is not None
    assert "judged in whole batches of 8" in said.out


def test_a_model_that_is_right_on_nothing(verigrad, shop: Path, tmp_path: Path) -> None:
    said, told = run(verigrad, tmp_path / "audit", "nets:Wrong", *WEIGHTS, *SMALL)
    assert (told["clean"], told["found"], told["claimed"]) == (0, 0, 0)
    assert all(check["value"] is None and not check["fired"] for check in told["health"])
    assert "clean 0 %" in said.out


def test_a_claim_without_survivors(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--threat", "linf:0.9")
    assert told["clean"] > 0.5
    assert (told["claimed"], told["found"]) == (0, 0)
    assert [row["stage"] for row in told["attacks"]] == ["claim"]
    assert told["escalation"]["converged"]


@pytest.mark.parametrize("threat", ["linf:0", "l2:0", "l0:0"])
def test_an_attacker_who_may_do_nothing(verigrad, shop: Path, tmp_path: Path, threat: str) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--threat", threat, "--n", 3)
    assert told["found"] == told["claimed"] == told["clean"]
    assert all(row["broken"] == 0 for row in told["attacks"])


def test_one_sample(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:Means", *WEIGHTS, *SMALL, "--n", 1)
    assert told["verdict"] == "undecided"
    assert "too few" in " ".join(told["reasons"])


@pytest.mark.parametrize("model", ["nets:Double", "nets:Brain"])
def test_weights_of_another_precision(verigrad, shop: Path, tmp_path: Path, model: str) -> None:
    own = shop / "double.safetensors"
    kind = torch.float64 if model == "nets:Double" else torch.bfloat16
    save_file({name: value.to(kind) for name, value in weights().items()}, own)
    _, told = run(verigrad, tmp_path / "audit", model, "--weights", own, *SMALL, "--n", 12)
    assert told["clean"] > 0.5


def test_gradients_that_are_not_finite_decide_nothing(verigrad, shop: Path, tmp_path: Path) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:RootGradient", *WEIGHTS, *SMALL, "--n", 12)
    assert told["verdict"] == "undecided"
    assert told["errors"]["non_finite_gradients"] > 0
    assert "cannot be judged" in " ".join(told["reasons"])


def test_logits_that_are_not_finite_only_where_attacks_lead_uphold_nothing(
    verigrad, shop: Path, tmp_path: Path
) -> None:
    _, told = run(verigrad, tmp_path / "audit", "nets:NanFar", *WEIGHTS, *SMALL)
    assert told["errors"]["non_finite_logits"] > 0
    assert told["verdict"] == "undecided"
    assert any(check["name"] == "non_finite_in_attack" and check["fired"] for check in told["health"])
