"""The same units in threads and in other processes give the same numbers."""

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest
import torch
from controls import Coupled
from subjects import Cheat, opened, right, subject

from verigrad.attacks.pgd import PGD
from verigrad.core.errors import BadInput
from verigrad.evaluation.run import attempt


def seal(path, executor, wrap=None) -> str:
    of = subject(40, batch=5, wrap=wrap)
    with opened(path, of) as ledger:
        for name, attack in (("a", PGD(steps=3)), ("b", PGD(steps=5, restarts=2))):
            attempt(of, ledger, stage="claim", name=name, attack=attack, samples=right(ledger), executor=executor)
        assert ledger.witnesses()
        return ledger.seal()


@pytest.mark.parametrize("wrap", [None, Coupled])
def test_threads(tmp_path, wrap):
    with ThreadPoolExecutor(3) as pool:
        assert seal(tmp_path / "a.sqlite", pool, wrap) == seal(tmp_path / "b.sqlite", None, wrap)


def test_processes(tmp_path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert seal(tmp_path / "a.sqlite", pool, Coupled) == seal(tmp_path / "b.sqlite", None, Coupled)


class Late(ThreadPoolExecutor):
    """Fails in the third unit, and counts what is cancelled."""

    def __init__(self) -> None:
        super().__init__(1)
        self.futures: list[Future] = []

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(self.fail if len(self.futures) == 2 else fn, *args, **kwargs)
        self.futures.append(future)
        return future

    @staticmethod
    def fail(*_: object) -> None:
        raise RuntimeError("the worker is gone")


def test_a_failing_worker_leaves_what_was_done(tmp_path):
    of = subject(40, batch=2)
    with opened(tmp_path / "a.sqlite", of) as ledger:
        told = {"stage": "claim", "name": "a", "attack": PGD(steps=2), "samples": right(ledger)}
        with Late() as pool, pytest.raises(RuntimeError, match="the worker is gone"):
            attempt(of, ledger, executor=pool, **told)
        ledger.check()
        assert len(ledger.units()) < len(right(ledger)) / 2
        resumed = attempt(of, ledger, **told)
    with opened(tmp_path / "b.sqlite", of) as ledger:
        whole = attempt(of, ledger, **told)
        assert (whole.broken, whole.forwards, whole.units) == (resumed.broken, resumed.forwards, resumed.units)


def test_errors_of_an_attack_come_through(tmp_path):
    of = subject()
    with opened(tmp_path / "a.sqlite", of) as ledger, ThreadPoolExecutor(1) as pool:
        told = {"stage": "claim", "name": "a", "samples": right(ledger), "executor": pool}
        with pytest.raises(BadInput, match="must give x_adv of shape"):
            attempt(of, ledger, attack=Cheat(how="short"), **told)


def test_a_model_that_cannot_be_sent_is_named(tmp_path):
    class Local(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2]

    of = subject(wrap=lambda _: Local())
    with opened(tmp_path / "a.sqlite", of) as ledger, ThreadPoolExecutor(1) as pool:
        told = {"stage": "claim", "name": "a", "attack": PGD(steps=2), "samples": right(ledger)}
        with pytest.raises(BadInput, match="cannot be sent to a worker"):
            attempt(of, ledger, executor=pool, **told)
        attempt(of, ledger, **told)
