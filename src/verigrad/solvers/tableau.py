"""Explicit Runge-Kutta methods as data.

A method with s stages advances y' = f(t, y) from (t, y) by h as

    k_i = f(t + c_i h, y + h Σ_{j<i} a_ij k_j),   y(t + h) ≈ y + h Σ_i b_i k_i       (Hairer, Nørsett & Wanner I, II.1)

and, where it is embedded, estimates the local error as h Σ_i e_i k_i with e = b − b̂. `mid` gives the middle of the
step, y + h Σ_i mid_i k_i, from which the quartic interpolant of an overshooting last step is fitted.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """One explicit Runge-Kutta method.

    name: the name in messages and tables.
    order: global order p of the solution that is advanced.
    c: stage times, as fractions of the step; length s.
    a: rows of the strictly lower triangle, the empty first row included; length s.
    b: weights of the solution; length s.
    error: b − b̂, or None where the method has no embedded partner.
    mid: weights of the value at the middle of the step, or None.
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None
    mid: tuple[float, ...] | None = None

    @property
    def stages(self) -> int:
        """The number of stages s."""
        return len(self.b)

    @property
    def last_is_first(self) -> bool:
        """Whether the last stage is f at the new point, so that it serves as the next step's first ("FSAL")."""
        return self.b[-1] == 0.0 and self.a[-1] == self.b[:-1] and self.c[-1] == 1.0

    @property
    def interpolant(self) -> tuple[tuple[float, float, float, float], ...]:
        """Row j holds the coefficients of x, x², x³, x⁴ in w_j, where y(t + xh) ≈ y + h Σ_j w_j(x) k_j.

        It is the quartic through y(t), y(t + h/2), y(t + h) with slopes k_1 and k_s at the ends, as torchdiffeq fits it
        (`_impl/interp.py`), with the three values written in terms of the stages; the terms in y cancel.
        """
        assert self.mid is not None
        rows = []
        for j, (b, m) in enumerate(zip(self.b, self.mid, strict=True)):
            first, last = float(j == 0), float(j == self.stages - 1)
            rows.append(
                (
                    first,
                    last - 4 * first - 5 * b + 16 * m,
                    5 * first - 3 * last + 14 * b - 32 * m,
                    2 * last - 2 * first - 8 * b + 16 * m,
                )
            )
        return tuple(rows)


def _difference(b: tuple[float, ...], b_hat: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(x - y for x, y in zip(b, b_hat, strict=True))


EULER = Tableau(name="euler", order=1, c=(0.0,), a=((),), b=(1.0,))
"""Euler 1768."""

MIDPOINT = Tableau(name="midpoint", order=2, c=(0.0, 1 / 2), a=((), (1 / 2,)), b=(0.0, 1.0))
"""Runge 1895; Hairer, Nørsett & Wanner I, II.1, Eq. (1.4)."""

HEUN2 = Tableau(
    name="heun2",
    order=2,
    c=(0.0, 1.0),
    a=((), (1.0,)),
    b=(1 / 2, 1 / 2),
    error=(1 / 2, -1 / 2),
    mid=(1 / 2, 0.0),
)
"""Heun 1900 with Euler's step as partner: the "adaptive Heun" of the SONet paper. The rest as in torchdiffeq."""

BOSH3 = Tableau(
    name="bosh3",
    order=3,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    error=_difference((2 / 9, 1 / 3, 4 / 9, 0.0), (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    mid=(0.0, 1 / 2, 0.0, 0.0),
)
"""Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, 1989. `mid` as in torchdiffeq."""

RK4 = Tableau(
    name="rk4",
    order=4,
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
"""The classical method of Kutta 1901; Hairer, Nørsett & Wanner I, Table 1.2, left."""

RK4_38 = Tableau(
    name="rk4_38",
    order=4,
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
)
"""The 3/8 rule of Kutta 1901; Hairer, Nørsett & Wanner I, Table 1.2, right. torchdiffeq calls it `rk4`."""

DOPRI5 = Tableau(
    name="dopri5",
    order=5,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    error=_difference(
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
        (1951 / 21600, 0.0, 22642 / 50085, 451 / 720, -12231 / 42400, 649 / 6300, 1 / 60),
    ),
    mid=(
        6025192743 / 30085553152 / 2,
        0.0,
        51252292925 / 65400821598 / 2,
        -2691868925 / 45128329728 / 2,
        187940372067 / 1594534317056 / 2,
        -1776094331 / 19743644256 / 2,
        11237099 / 235043384 / 2,
    ),
)
"""Dormand & Prince 1980, in Shampine's 1986 form (partner and middle), the numbers that torchdiffeq uses.

The partner is Shampine's, so the estimate differs from Hairer's `DOPRI5`, whose e is (71/57600, 0, −71/16695, …).
"""

TSIT5 = Tableau(
    name="tsit5",
    order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    ),
    b=(
        0.09646076681806523,
        0.01,
        0.4798896504144996,
        1.379008574103742,
        -3.290069515436081,
        2.324710524099774,
        0.0,
    ),
    error=(
        0.00178001105222577714,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    mid=(
        0.10741235230096871,
        0.01135625,
        0.39560903056045305,
        -0.34475214352593553,
        1.3161853649581645,
        -1.0170608542936508,
        0.03125,
    ),
)
"""Tsitouras 2011, Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption.

`mid` is his free fourth-order interpolant at the middle of the step.
"""
