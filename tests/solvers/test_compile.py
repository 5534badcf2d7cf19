"""A solve whose steps are given reads no scalar, and so compiles to one graph."""

import pytest
import torch
from systems import PairField, apart, gradients, images, leaf
from torch.utils._python_dispatch import TorchDispatchMode

from verigrad.solvers import DOPRI5, RK4, BatchCoupled, Fixed, PerSample, Replay, solve

Y0 = images(3, 4, torch.float32), images(3, 2, torch.float32)


class Reads(TorchDispatchMode):
    """Counts the scalars that leave the tensors."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def grid(end):
    return solve(PairField(torch.float32), Y0, control=BatchCoupled(rtol=0.01, atol=0.01, end=end)).grid


@pytest.mark.parametrize("end", ["clip", "interpolate"])
def test_a_replay_reads_no_scalar(end):
    control = Replay(grid=grid(end))
    with Reads() as reads:
        solve(PairField(torch.float32), Y0, control=control)
    assert reads.count == 0
    with Reads() as reads:
        solve(PairField(torch.float32), Y0, method=RK4, control=Fixed(steps=3))
    assert reads.count == 0


def test_the_reader_is_seen_where_there_is_one():
    with Reads() as reads:
        solve(PairField(torch.float32), Y0, control=PerSample(rtol=0.01, atol=0.01))
    assert reads.count > 0


class Crossings(TorchDispatchMode):
    """Counts what crosses from the float32 of the state to the float64 in which steps are chosen, and scalars read of
    the state itself."""

    def __init__(self):
        super().__init__()
        self.count = self.scalars = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        single = [x for x in args if isinstance(x, torch.Tensor) and x.dtype == torch.float32]
        self.count += func is torch.ops.aten._to_copy.default and bool(single) and out.dtype == torch.float64
        self.scalars += func is torch.ops.aten._local_scalar_dense.default and bool(single)
        return out


@pytest.mark.parametrize("make", [PerSample, BatchCoupled])
@pytest.mark.parametrize("end", ["clip", "interpolate"])
def test_an_attempt_hands_over_its_error_ratio_and_nothing_else(make, end):
    with Crossings() as crossings:
        found = solve(PairField(torch.float32), Y0, control=make(rtol=1e-4, atol=1e-4, end=end))
    attempts = int((found.stats.accepted + found.stats.rejected).max())
    assert attempts > 3
    first_step = 3  # d0, d1 and d2
    assert crossings.count == attempts + first_step
    assert crossings.scalars == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what the compiler itself warns of is not ours
@pytest.mark.parametrize("end", ["clip", "interpolate"])
def test_a_replay_compiles_to_one_graph(end):
    control, field = Replay(grid=grid(end)), PairField(torch.float32)

    def run(x, z):
        return solve(field, (x, z), method=DOPRI5, control=control).y1

    eager, fast = leaf(Y0), leaf(Y0)
    a, b = run(*eager), torch.compile(run, fullgraph=True)(*fast)
    assert apart(b, a) < 1e-5
    assert apart(gradients(b, fast, field.weight), gradients(a, eager, field.weight)) < 1e-5
