"""Models that we did not write: their calls of torchdiffeq, carried onto this engine.

    with carried(torchdiffeq, gradient=Direct(grid="frozen")) as solves:
        logits = model(x)

Inside, `odeint` and `odeint_adjoint` of that module are solved here. It is the code of the two functions that is
exchanged, not their names, so every reference is carried, also that of a model which did `from torchdiffeq import
odeint` long before. The exchange ends with the context. Only the thread that opened the context is carried: in all
others, those of a backward pass on an accelerator included, the functions do what they always did.
"""

import inspect
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from verigrad.core.errors import BadInput
from verigrad.solvers.carrier import Carried, Carrier, Choices, Chosen
from verigrad.solvers.gradient import Gradient, GridGradient
from verigrad.solvers.law import Law
from verigrad.solvers.solve import Method
from verigrad.solvers.torchdiffeqs import NAMES, STAND_IN, torchdiffeqs, version


@contextmanager
def carried(
    module: ModuleType,
    *,
    control: Chosen | None = None,
    gradient: Gradient | None = None,
    method: Method | None = None,
    raises: bool = True,
) -> Iterator[list[Carried]]:
    """Carry the calls of torchdiffeq's `odeint` and `odeint_adjoint` onto `solve` while the context is open.

    module: torchdiffeq; its version is read from it. Up to 0.1.x it differentiates the whole grid, later the first
        step; 0.0.x has the older law.
    control: a control, which stands in for the options of the call too; or a function from the call's own control to
        another, e.g. `lambda own: PerSample(**vars(own))`. None keeps what the call asked for, under the law of the
        version.
    gradient, method: in place of the call's own; None keeps what torchdiffeq of that version does.
    raises: whether an unsolved sample raises, as in torchdiffeq; else it comes out as NaN.

    Contexts of one module nest: the inner one wins, and what it leaves None it takes from the outer one.

    Yields the list to which each carried solve is added, those of inner contexts included. Between more than two times
    each stretch is solved on its own, where torchdiffeq would go on with its last step. What cannot be carried raises
    BadInput: events, dense output, callbacks, a tolerance for each entry, gradients with respect to t, an
    `adjoint_method` or `adjoint_options` of its own, and options other than `step_size` and `max_num_steps`.
    """
    choices, solves = Choices(control=control, gradient=gradient, method=method, raises=raises), list[Carried]()
    with _open(module, choices, solves):
        yield solves


@contextmanager
def carried_everywhere(choices: Choices) -> Iterator[list[Carried]]:
    """As `carried`, for every module of `torchdiffeqs()` at once; the solves are in the order in which they ended."""
    solves = list[Carried]()
    with ExitStack() as stack:
        for module in torchdiffeqs():
            stack.enter_context(_open(module, choices, solves))
        yield solves


@dataclass(frozen=True, kw_only=True)
class _Exchange:
    """A module, its functions, copies of them as they were, and a place for each context, of all threads, in need.

    It outlives its last user: another thread may be on its way in.
    """

    module: ModuleType
    functions: dict[str, FunctionType]
    own: dict[str, FunctionType]
    law: Law
    grid: GridGradient
    users: list[None]


class _Stacks(threading.local):
    """The open contexts of this thread, by the module's number: the innermost is last."""

    def __init__(self) -> None:
        self.of: dict[int, list[tuple[Choices, list[Carried]]]] = {}


_lock = threading.Lock()
_exchanges: dict[int, _Exchange] = {}
_stacks = _Stacks()


@contextmanager
def _open(module: ModuleType, choices: Choices, solves: list[Carried]) -> Iterator[None]:
    key = id(module)
    with _lock:
        if key not in _exchanges or not _exchanges[key].users:
            _exchanges[key] = _exchange(module)
            for name, function in _exchanges[key].functions.items():
                function.__code__ = _stand_in(key, name).__code__
        exchange = _exchanges[key]
        exchange.users.append(None)
    stack = _stacks.of.setdefault(key, [])
    stack.append((choices.within(stack[-1][0]) if stack else choices, solves))
    try:
        yield
    finally:
        stack.pop()
        with _lock:
            exchange.users.pop()
            if not exchange.users:
                for name, function in exchange.functions.items():
                    function.__code__ = exchange.own[name].__code__


def _exchange(module: ModuleType) -> _Exchange:
    """What is to be exchanged: all functions of the module, or it is refused."""
    functions: dict[str, FunctionType] = {}
    for name in (*NAMES, "odeint_dense"):
        function = getattr(module, name, None)
        if function is None and name == "odeint_dense":  # old versions have none
            continue
        if not isinstance(function, FunctionType) or function.__code__.co_freevars:
            called = module.__name__
            raise BadInput(f"The {name} of {called} is wrapped in another function and cannot be carried. Unwrap it.")
        functions[name] = function
    own = {name: _copy(function) for name, function in functions.items()}
    law, grid = version(module, own["odeint"])
    return _Exchange(module=module, functions=functions, own=own, law=law, grid=grid, users=[])


def _copy(function: FunctionType) -> FunctionType:
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def carry(key: int, name: str, positional: tuple[Any, ...], call: dict[str, Any]) -> Any:
    """Where an exchanged function lands."""
    exchange, stack = _exchanges[key], _stacks.of.get(key)
    own = exchange.own[name]
    if not stack:
        return own(*positional, **call)
    if name == "odeint_dense":
        raise BadInput("Calls of odeint_dense cannot be carried. Leave the model to torchdiffeq.")
    bound = inspect.signature(own).bind(*positional, **call)
    bound.apply_defaults()

    def note(one: Carried) -> None:
        for solves in {id(solves): solves for _, solves in stack}.values():
            solves.append(one)

    carrier = Carrier(law=exchange.law, grid=exchange.grid, choices=stack[-1][0], note=note)
    return carrier(name, bound.arguments)


def _stand_in(key: int, name: str) -> FunctionType:
    """A function without free variables, whose code can take another's place; it finds its way back by import."""
    source = (
        "def stand_in(*positional, **call):\n"
        "    from verigrad.solvers.foreign import carry\n"
        f"    return carry({key!r}, {name!r}, positional, call)\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, STAND_IN, "exec"), scope)
    return scope["stand_in"]
