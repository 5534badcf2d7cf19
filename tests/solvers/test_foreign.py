"""Calls of torchdiffeq carried onto our engine, however the model came by the function."""

import inspect
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
import torch
from oracles import torchdiffeq_0_0_1, torchdiffeq_0_2_5
from systems import ConvField, PairField, apart, gradients, images, leaf

from verigrad.core.errors import BadInput
from verigrad.solvers import (
    BOSH3,
    DOPRI5,
    HEUN2,
    RK4_38,
    TORCHDIFFEQ_0_0_1,
    TORCHDIFFEQ_0_2_5,
    Adjoint,
    BatchCoupled,
    Direct,
    Fixed,
    PerSample,
    UnsolvedSample,
    solve,
)
from verigrad.solvers.carrier import Choices
from verigrad.solvers.foreign import carried, carried_everywhere
from verigrad.solvers.torchdiffeqs import torchdiffeqs

# torchdiffeq 0.0.1 reads scalars from its graph; torch says so once a process.
pytestmark = pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
CALLS = [
    {"method": "dopri5", "rtol": 0.01, "atol": 0.01},
    {"method": "bosh3", "rtol": 0.01, "atol": 0.01},
    {"method": "adaptive_heun", "rtol": 0.1, "atol": 0.1},
    {"method": "dopri5", "rtol": 1e-1, "atol": 1e-6},
    {"method": "rk4"},
    {"method": "euler", "options": {"step_size": 0.3}},
]


class Model:
    """Somebody else's: it took the function at its own import, and keeps it in an attribute."""

    def __init__(self, library):
        self.integrate = library.odeint
        self.field = ConvField(3)

    def __call__(self, y, **call):
        return self.integrate(self.field, y, T, **call)[1]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: " ".join(map(str, c.values())))
@pytest.mark.parametrize("version", [torchdiffeq_0_0_1, torchdiffeq_0_2_5])
def test_a_carried_call_changes_nothing_by_itself(version, call):
    library = version()
    model = Model(library)
    theirs, ours = leaf(images(3, 3)), leaf(images(3, 3))
    expected = model(theirs, **call)
    with carried(library) as solves:
        got = model(ours, **call)
    assert len(solves) == 1
    assert apart(got, expected) < 1e-6
    assert apart(gradients(got, ours, model.field.weight), gradients(expected, theirs, model.field.weight)) < 1e-5


def test_a_tuple_and_a_frozen_grid():
    library, field = torchdiffeq_0_0_1(), PairField()
    y0 = leaf((images(3, 4), images(3, 2)))
    call = {"rtol": 0.1, "atol": 0.1, "method": "dopri5"}
    plain = tuple(part[1] for part in library.odeint(field, y0, T, **call))
    with carried(library, gradient=Direct(grid="frozen")):
        frozen = tuple(part[1] for part in library.odeint(field, y0, T, **call))
    assert apart(frozen, plain) < 1e-6
    assert apart(gradients(frozen, y0), gradients(plain, y0)) > 1e-3


def test_per_sample_control_frees_a_foreign_model_of_its_batch():
    library, field = torchdiffeq_0_2_5(), ConvField(3)
    y0 = images(4, 3)
    with carried(library, control=lambda own: PerSample(**vars(own))) as solves:
        y1 = library.odeint(field, y0, T, rtol=0.01, atol=0.01)[1]
    assert torch.equal(y1, solve(field, y0, control=PerSample(rtol=0.01, atol=0.01)).y1)
    assert len(solves[0].grid.steps) == 4


@pytest.mark.parametrize("version", [torchdiffeq_0_0_1, torchdiffeq_0_2_5])
def test_the_adjoint_is_carried_as_an_adjoint(version):
    library, field = version(), ConvField(3)
    theirs, ours = leaf(images(3, 3)), leaf(images(3, 3))
    expected = library.odeint_adjoint(field, theirs, T, rtol=1e-6, atol=1e-6)[1]
    with carried(library):
        got = library.odeint_adjoint(field, ours, T, rtol=1e-6, atol=1e-6)[1]
    assert apart(gradients(got, ours, field.weight), gradients(expected, theirs, field.weight)) < 1e-4


def test_more_than_two_times_and_a_state_without_a_batch():
    library = torchdiffeq_0_2_5()
    t = torch.linspace(0, 1, 4, dtype=torch.float64)
    with carried(library) as solves:
        y = library.odeint(lambda t, y: -y, torch.tensor(2.0, dtype=torch.float64), t, rtol=1e-8, atol=1e-8)
    assert len(solves) == 3
    assert y.tolist() == pytest.approx((2 * torch.exp(-t)).tolist(), rel=1e-6)


def test_the_functions_are_left_as_they_were():
    library = torchdiffeq_0_2_5()
    before = library.odeint.__code__, library.odeint.__kwdefaults__
    with carried(library):
        assert library.odeint.__code__ is not before[0]
    assert (library.odeint.__code__, library.odeint.__kwdefaults__) == before
    with pytest.raises(BadInput), carried(library):
        library.odeint(lambda t, y: -y, torch.ones(2), T, method="dopri8")
    assert (library.odeint.__code__, library.odeint.__kwdefaults__) == before


class Watched(ConvField):
    """Asks torchdiffeq to be told of accepted steps."""

    def callback_accept_step(self, t, y, dt):
        raise AssertionError("nobody calls")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"method": "dopri8"}, "dopri8"),
        ({"options": {"norm": None}}, "norm"),
        ({"method": "rk4", "options": {"perturb": True}}, "perturb"),
        ({"event_fn": abs}, "event_fn"),
        ({"rtol": torch.tensor([1e-3, 1e-3])}, "'rtol' for each entry"),
        ({"atol": (1e-3, 1e-4)}, "'atol' for each entry"),
        ({"t": torch.tensor([0.0, 1.0], requires_grad=True)}, "differentiate 't'"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, "rises or falls"),
        ({"t": torch.tensor([0.0, 0.0])}, "rises or falls"),
        ({"func": Watched(), "y0": images(2, 3)}, "callback_accept_step"),
    ],
)
def test_what_cannot_be_carried_is_told(call, said):
    library = torchdiffeq_0_2_5()
    call = {"func": lambda t, y: -y, "y0": torch.ones(2), "t": T, **call}
    with carried(library), pytest.raises(BadInput, match="cannot be carried") as caught:
        library.odeint(**call)
    assert said in str(caught.value)


def test_a_step_size_is_positive():
    library = torchdiffeq_0_2_5()
    for size in (-0.1, 0.0):
        with carried(library), pytest.raises(BadInput, match="'step_size'"):
            library.odeint(lambda t, y: -y, torch.ones(2), T, method="euler", options={"step_size": size})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"adjoint_method": "euler"}, "adjoint_method"),
        ({"adjoint_options": {"norm": "seminorm"}}, "adjoint_options"),
        ({"func": lambda t, y: -y}, "parameters of its field"),
    ],
)
def test_an_adjoint_of_its_own_is_told(call, said):
    library = torchdiffeq_0_2_5()
    call = {"func": ConvField(3), "y0": images(2, 3), "t": T, "rtol": 0.1, "atol": 0.1, **call}
    with carried(library), pytest.raises(BadInput, match=said):
        library.odeint_adjoint(**call)
    if call["adjoint_method" if "adjoint_method" in call else "rtol"] == "euler":
        with carried(library, gradient=Direct()):  # a gradient that was asked for stands in for the call's own
            library.odeint_adjoint(**call)


def test_an_adjoint_of_given_steps_has_a_gradient():
    library, field = torchdiffeq_0_2_5(), ConvField(3)
    call = {"method": "euler", "options": {"step_size": 0.3}}
    theirs, ours = leaf(images(3, 3)), leaf(images(3, 3))
    expected = library.odeint_adjoint(field, theirs, T, **call)[1]
    with carried(library):
        got = library.odeint_adjoint(field, ours, T, **call)[1]
    assert apart(got, expected) < 1e-6
    assert apart(gradients(got, ours, field.weight), gradients(expected, theirs, field.weight)) < 0.2


def test_dense_output_is_told_and_left_as_it_was():
    library = torchdiffeq_0_2_5()
    before = library.odeint_dense.__code__
    with carried(library), pytest.raises(BadInput, match="odeint_dense"):
        library.odeint_dense(lambda t, y: -y, torch.ones(2), torch.tensor(0.0), torch.tensor(1.0))
    assert library.odeint_dense.__code__ is before


def library_of(version, **functions):
    """A module with the face of torchdiffeq."""
    module = ModuleType(f"torchdiffeq_{version}")
    if version:
        module.__version__ = version

    def odeint(func, y0, t, rtol=1e-7, atol=1e-9, method=None, options=None):
        raise AssertionError("not carried")

    def odeint_adjoint(func, y0, t, rtol=1e-7, atol=1e-9, method=None, options=None, adjoint_rtol=None):
        raise AssertionError("not carried")

    vars(module).update({"odeint": odeint, "odeint_adjoint": odeint_adjoint, **functions})
    return module


@pytest.mark.parametrize(
    ("version", "law", "grid"),
    [
        ("0.0.1", TORCHDIFFEQ_0_0_1, "all"),
        ("0.1.1", TORCHDIFFEQ_0_2_5, "all"),
        ("0.2.5", TORCHDIFFEQ_0_2_5, "first"),
        ("", TORCHDIFFEQ_0_0_1, "all"),
        ("events", TORCHDIFFEQ_0_2_5, "first"),
    ],
)
def test_the_version_says_the_law_and_the_gradient(version, law, grid):
    library, field = library_of("") if version == "events" else library_of(version), PairField()
    if version == "events":  # a copy that does not name its version, but is a later one

        def odeint(func, y0, t, *, rtol=1e-7, atol=1e-9, method=None, options=None, event_fn=None):
            raise AssertionError("not carried")

        library.odeint = odeint
    theirs, ours = (leaf((images(4, 4) * 5, images(4, 2))) for _ in range(2))
    with carried(library):
        got = tuple(part[1] for part in library.odeint(field, theirs, T, rtol=0.1, atol=0.1, method="adaptive_heun"))
    control = BatchCoupled(rtol=0.1, atol=0.1, law=law)
    want = solve(field, ours, method=HEUN2, control=control, gradient=Direct(grid=grid)).y1
    assert apart(got, want) < 1e-12
    assert apart(gradients(got, theirs), gradients(want, ours)) < 1e-12


def test_a_wrapped_function_is_told_and_nothing_is_exchanged():
    library = library_of("0.2.5")
    inner = library.odeint_adjoint
    library.odeint_adjoint = lambda *args, **call: inner(*args, **call)
    before = library.odeint.__code__
    for _ in range(2):
        with pytest.raises(BadInput, match=r"odeint_adjoint .*wrapped"), carried(library):
            pass
        assert library.odeint.__code__ is before


def test_the_failed_sample_of_a_carried_batch_is_named():
    library = torchdiffeq_0_2_5()
    y0 = torch.tensor([[1.0], [9.0], [2.0]])
    with carried(library), pytest.raises(UnsolvedSample, match=r"Sample 1 .*not finite"):
        library.odeint(lambda t, y: torch.where(y > 5, torch.nan, -y), y0, T, rtol=0.1, atol=0.1)


def test_the_inner_context_wins_and_leaves_the_rest_to_the_outer_one():
    library, field = torchdiffeq_0_2_5(), ConvField(3)

    def run():
        library.odeint(field, images(2, 3), T, rtol=0.01, atol=0.01)

    with carried(library, control=Fixed(steps=3), gradient=Direct(grid="all")) as outer:
        run()
        with carried(library, control=Fixed(steps=5), method=RK4_38) as inner:
            run()
        run()
    told = [(one.method, one.control, one.gradient.grid) for one in outer]
    three, five = (DOPRI5.name, Fixed(steps=3), "all"), (RK4_38.name, Fixed(steps=5), "all")
    assert told == [three, five, three]
    assert [one.control for one in inner] == [Fixed(steps=5)]


def test_only_the_thread_that_opened_the_context_is_carried():
    library, field, y0 = torchdiffeq_0_2_5(), ConvField(3), images(2, 3)
    own = library.odeint.__code__
    ready, go = threading.Barrier(2, timeout=30), threading.Event()

    def other(control):
        """Opens its own context while this thread has one, and closes it after this one."""
        free = library.odeint(field, y0, T, rtol=0.01, atol=0.01)[1]
        with carried(library, control=control) as solves:
            ready.wait()
            go.wait(30)
            library.odeint(field, y0, T, rtol=0.01, atol=0.01)
        return free, [one.control for one in solves]

    plain = library.odeint(field, y0, T, rtol=0.01, atol=0.01)[1]
    with ThreadPoolExecutor(1) as pool:
        with carried(library, control=Fixed(steps=2)) as solves:
            there = pool.submit(other, Fixed(steps=7))
            ready.wait()
            library.odeint(field, y0, T)
        assert torch.equal(library.odeint(field, y0, T, rtol=0.01, atol=0.01)[1], plain)  # though exchanged till then
        assert library.odeint.__code__ is not own
        go.set()
        free, controls = there.result(30)
    assert torch.equal(free, plain)
    assert ([one.control for one in solves], controls) == ([Fixed(steps=2)], [Fixed(steps=7)])
    assert library.odeint.__code__ is own


@pytest.mark.parametrize("version", [torchdiffeq_0_0_1, torchdiffeq_0_2_5])
@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_what_a_call_leaves_out_is_the_functions_own(version, name):
    library, field = version(), ConvField(3)
    known = inspect.signature(getattr(library, name)).parameters
    with carried(library) as solves:
        getattr(library, name)(field, images(2, 3), T)
    control, gradient = solves[0].control, solves[0].gradient
    assert (control.rtol, control.atol) == (known["rtol"].default, known["atol"].default)
    if name == "odeint_adjoint":
        assert (gradient.rtol, gradient.atol) == (known["rtol"].default, known["atol"].default)


def test_a_call_that_torchdiffeq_would_not_take_is_not_taken():
    library = torchdiffeq_0_2_5()
    with carried(library), pytest.raises(TypeError):
        library.odeint(lambda t, y: -y, torch.ones(2), T, 1e-3)
    with carried(library), pytest.raises(TypeError):
        library.odeint(lambda t, y: -y, torch.ones(2), T, tol=1e-3)


@pytest.mark.parametrize("version", [torchdiffeq_0_0_1, torchdiffeq_0_2_5])
@pytest.mark.parametrize(
    "call", [{"method": "rk4", "options": {"step_size": 0.3}}, {"method": "rk4"}, {"rtol": 1e-3, "atol": 1e-3}]
)
def test_time_may_run_backwards(version, call):
    library, field = version(), ConvField(3)
    back = torch.tensor([1.0, -0.25], dtype=torch.float64)
    theirs, ours = leaf(images(3, 3)), leaf(images(3, 3))
    expected = library.odeint(field, theirs, back, **call)[1]
    with carried(library) as solves:
        got = library.odeint(field, ours, back, **call)[1]
    assert apart(got, expected) < 1e-7
    assert apart(gradients(got, ours, field.weight), gradients(expected, theirs, field.weight)) < 1e-6
    assert bool((solves[0].grid.h < 0).all())
    if "options" in call:
        assert solves[0].grid.t[0].tolist() == pytest.approx([1.0, 0.7, 0.4, 0.1, -0.2])


def test_the_adjoint_differentiates_the_parameters_that_it_is_given():
    library, weight, other = torchdiffeq_0_2_5(), *(torch.ones(3, dtype=torch.float64) * v for v in (0.5, 2.0))

    def run():
        y0, ours, others = leaf(images(3, 3)[:, :, 0, 0]), leaf(weight), leaf(other)
        y1 = library.odeint_adjoint(
            lambda t, y: torch.tanh(ours * y) - others * y, y0, T, rtol=1e-8, atol=1e-8, adjoint_params=(ours,)
        )[1]
        return torch.autograd.grad(y1.square().sum(), (y0, ours, others), allow_unused=True)

    expected = run()
    with carried(library):
        got = run()
    assert apart(got[:2], expected[:2]) < 1e-6
    assert got[2] is None
    assert expected[2] is None


def test_the_adjoint_goes_back_at_its_own_tolerance():
    library, field = torchdiffeq_0_2_5(), ConvField(3)

    def error(**call):
        y0 = leaf(images(3, 3))
        with carried(library) as solves:
            y1 = library.odeint_adjoint(field, y0, T, rtol=1e-9, atol=1e-9, **call)[1]
        return gradients(y1, y0, field.weight), solves[0].gradient

    exact, fine = error()
    rough, coarse = error(adjoint_rtol=0.1, adjoint_atol=0.2)
    assert (fine.rtol, fine.atol, coarse.rtol, coarse.atol) == (1e-9, 1e-9, 0.1, 0.2)
    assert 1e-6 < apart(rough, exact) < 0.5


def test_an_adjoint_in_place_of_backpropagation_takes_the_fields_parameters():
    library, field = torchdiffeq_0_2_5(), ConvField(3)
    theirs, ours = leaf(images(3, 3)), leaf(images(3, 3))
    expected = library.odeint(field, theirs, T, rtol=1e-8, atol=1e-8)[1]
    with carried(library, gradient=Adjoint(rtol=1e-8, atol=1e-8)):
        got = library.odeint(field, ours, T, rtol=1e-8, atol=1e-8)[1]
    assert apart(gradients(got, ours, field.weight), gradients(expected, theirs, field.weight)) < 1e-5


def test_a_method_without_a_counterpart_keeps_its_control():
    library, field = torchdiffeq_0_2_5(), ConvField(3)
    with carried(library, method=BOSH3) as solves:
        library.odeint(field, images(2, 3), T, rtol=1e-4, atol=1e-4, method="dopri8")
        library.odeint(field, images(2, 3), T, method="heun3", options={"step_size": 0.5})
    assert solves[0].control == BatchCoupled(rtol=1e-4, atol=1e-4)
    assert int(solves[0].grid.steps[0]) > 1
    assert solves[1].grid.t.tolist() == [[0.0, 0.5]]


def test_a_step_size_that_divides_the_interval_leaves_no_sliver():
    library, field, y0 = torchdiffeq_0_2_5(), ConvField(3), images(2, 3)
    t = torch.tensor([0.0, 1.1, 1.9], dtype=torch.float64)
    with carried(library) as solves:
        library.odeint(field, y0, t, method="euler", options={"step_size": 0.1})
    assert [int(one.grid.steps[0]) for one in solves] == [11, 8]


def test_the_limit_of_a_call_is_kept():
    library, field = torchdiffeq_0_2_5(), ConvField(3)
    call = {"method": "dopri5", "rtol": 1e-9, "atol": 1e-9}
    with carried(library), pytest.raises(UnsolvedSample, match="too many steps"):
        library.odeint(field, images(2, 3), T, options={"max_num_steps": 3}, **call)
    with pytest.raises(AssertionError, match="max_num_steps"):
        library.odeint(field, images(2, 3), T, options={"max_num_steps": 3}, **call)


def test_an_unsolved_sample_may_come_out_as_nan():
    library = torchdiffeq_0_2_5()
    y0 = torch.tensor([[1.0], [9.0], [2.0]])

    def field(t, y):
        return torch.where(y > 5, torch.nan, -y)

    with carried(library, control=lambda own: PerSample(**vars(own)), raises=False):
        y1 = library.odeint(field, y0, T, rtol=0.1, atol=0.1)[1]
    assert torch.isnan(y1).flatten().tolist() == [False, True, False]
    with carried(library, raises=False):
        assert bool(torch.isnan(library.odeint(field, y0, T, rtol=0.1, atol=0.1)[1]).all())


class Lazy(ModuleType):
    """A module that loads itself when it is asked for anything."""

    def __getattribute__(self, name):
        raise AssertionError("loaded")


def test_every_torchdiffeq_of_the_process_is_found(monkeypatch):
    new, old = torchdiffeq_0_2_5(), torchdiffeq_0_0_1()
    copy = library_of("")
    for name, function in (("odeint", copy.odeint), ("odeint_adjoint", copy.odeint_adjoint)):
        monkeypatch.setattr(function, "__module__", f"somebody.vendor.torchdiffeq._impl.{name}")
    user = ModuleType("net")  # took the functions by `from torchdiffeq import ...`
    vars(user).update(odeint=new.odeint, odeint_adjoint=new.odeint_adjoint)
    monkeypatch.setitem(sys.modules, "somebody.vendor.torchdiffeq", copy)
    monkeypatch.setitem(sys.modules, "net", user)
    monkeypatch.setitem(sys.modules, "somebody.lazy", Lazy("lazy"))
    assert {module.__name__ for module in torchdiffeqs()} >= {new.__name__, old.__name__, copy.__name__}
    assert len(torchdiffeqs()) == len(set(map(id, torchdiffeqs())))
    assert not {"net", "somebody.lazy", "torchdiffeq._impl"} & {m.__name__ for m in torchdiffeqs()}
    with carried(new):
        assert new in torchdiffeqs()
    field = ConvField(3)
    with carried_everywhere(Choices(method=DOPRI5, control=Fixed(steps=1))) as solves:
        for library in (new, old, copy):
            library.odeint(field, images(2, 3), T)
    assert len(solves) == 3
