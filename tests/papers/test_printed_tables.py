"""Every number of every table that the papers print is here, and no other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from verigrad.papers import gradient_regularization, natural_robustness, optimal_control, sonet
from verigrad.papers.table import Table

PAPERS = Path(__file__).parents[3] / "shared" / "papers"
ALL = [*sonet.TABLES, *optimal_control.TABLES, *natural_robustness.TABLES, *gradient_regularization.TABLES]

# By table how many cells its text has, counted by hand.
COUNTS = [
    (sonet.TABLE1, 16 * 3),
    (sonet.TABLE2, 16 * 3),
    (sonet.TABLE3, 9),
    (sonet.TABLE4, 8 * 3),
    (optimal_control.TABLE1, 4 * 3),
    (optimal_control.COST, 1),
    (natural_robustness.TABLE1_MNIST, 4 * 4),
    (natural_robustness.TABLE1_CIFAR, 4 * 4),
    (natural_robustness.TABLE2, 4 * 2),
    (natural_robustness.CLEAN, 2 * 2),
    (gradient_regularization.TABLE1, 9 * 6),
    (gradient_regularization.TABLE1_IMAGENET, 3 * 6),
    (gradient_regularization.TABLE2, 9 * 5),
    (gradient_regularization.TABLE2_IMAGENET, 3 * 5),
    (gradient_regularization.B3, 9 * 4),
    (gradient_regularization.B3_IMAGENET, 3 * 4),
    (gradient_regularization.B4, 7 * 3),
    (gradient_regularization.B5, 4 * 8),
    (gradient_regularization.B6, 5 * 6),
]

# By table where the paper's text prints it: the file, the line it follows, and how its first and last rows begin.
PLACES = {
    "sonet 1": ("sonet.txt", "Table 1: Comparisons", [sonet.TABLE1]),
    "sonet 2": ("sonet.txt", "Table 2: Comparisons", [sonet.TABLE2]),
    "sonet 3": ("sonet.txt", "Table 3: Adaptive steps", [sonet.TABLE3]),
    "sonet 4": ("sonet.txt", "Table 4: Comparisons", [sonet.TABLE4]),
    "optimal-control 1": ("optimal-control.txt", "Method\tVanilla", [optimal_control.TABLE1]),
    "natural-robustness 1": (
        "natural-robustness.txt",
        "Datasets\tAttack",
        [natural_robustness.TABLE1_MNIST, natural_robustness.TABLE1_CIFAR],
    ),
    "natural-robustness 2": ("natural-robustness.txt", "Model\tAdversarial training", [natural_robustness.TABLE2]),
    "gradient-regularization 1": (
        "gradient-regularization.txt",
        "\t% clean error\t$\\omega$ -bound",
        [gradient_regularization.TABLE1, gradient_regularization.TABLE1_IMAGENET],
    ),
    "gradient-regularization 2": (
        "gradient-regularization.txt",
        "\t% clean error\tMean",
        [gradient_regularization.TABLE2, gradient_regularization.TABLE2_IMAGENET],
    ),
    "gradient-regularization b3": (
        "gradient-regularization.txt",
        "## Table B.3",
        [gradient_regularization.B3, gradient_regularization.B3_IMAGENET],
    ),
    "gradient-regularization b4": ("gradient-regularization.txt", "#### Table B.4", [gradient_regularization.B4]),
    "gradient-regularization b5": ("gradient-regularization.txt", "## Table B.5", [gradient_regularization.B5]),
    "gradient-regularization b6": ("gradient-regularization.txt", "# Table B.6", [gradient_regularization.B6]),
}
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


def numbers(table: Table) -> list[float]:
    found = []
    for cell in table.cells():
        assert cell.printed is not None
        found += cell.printed if isinstance(cell.printed, tuple) else [cell.printed]
    return found


@pytest.mark.parametrize(("table", "count"), COUNTS, ids=[f"{t.id} {t.title[:20]}" for t, _ in COUNTS])
def test_a_table_has_all_its_cells(table: Table, count: int) -> None:
    assert len(table.cells()) == count
    assert len({(cell.row, cell.column) for cell in table.cells()}) == count


def test_all_tables_are_counted() -> None:
    assert [table for table, _ in COUNTS] == ALL


@pytest.mark.skipif(not PAPERS.exists(), reason="the papers' texts are not beside this checkout")
@pytest.mark.parametrize("place", PLACES)
def test_the_numbers_are_those_of_the_text(place: str) -> None:
    """Row by row the numbers of the text end with those of the table; what stands before them names the row."""
    name, start, tables = PLACES[place]
    lines = (PAPERS / name).read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(start))
    rows = [row for table in tables for row in zip(table.rows(), _by_row(table), strict=True)]
    printed = [line for line in lines[at + 1 : at + 3 * len(rows) + 14] if "\t" in line]
    texts = [[float(n) for n in NUMBER.findall(re.sub(r"</?b>|%|\\\w+", "", line))] for line in printed]
    place_in_text = 0
    for words, wanted in rows:
        while texts[place_in_text][-len(wanted) :] != wanted:
            place_in_text += 1
            assert place_in_text < len(texts), f"{words} with {wanted} is not in the text, or not in this order"
        place_in_text += 1


def _by_row(table: Table) -> list[list[float]]:
    width = len(table.columns)
    cells = table.cells()
    found = []
    for first in range(0, len(cells), width):
        row: list[float] = []
        for cell in cells[first : first + width]:
            assert cell.printed is not None
            row += cell.printed if isinstance(cell.printed, tuple) else [cell.printed]
        found.append(row)
    return found


@pytest.mark.skipif(not PAPERS.exists(), reason="the papers' texts are not beside this checkout")
def test_every_id_of_the_index_that_has_a_table_is_here() -> None:
    index = (PAPERS / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`((?:sonet|optimal-control|natural-robustness|gradient-regularization)/table\d)`", index))
    listed |= {"gradient-regularization/table2"}
    assert listed <= {table.id for table in ALL}


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Table(id="x", title="", protocol="", keys=("a",), columns=("b", "c"), text="one : 1")


def test_a_number_is_found_by_its_words() -> None:
    assert sonet.TABLE1.printed("SONet", "64", "PGD-1000", column="Linf 0.031 %") == 24.25
    assert sonet.TABLE3.printed("dopri5 0.001", "1000", column="times") == (0.0, 0.094, 0.409, 0.981, 1.0)
    assert Counter(cell.printed for cell in gradient_regularization.B6.cells())[100.0] == 6 + 4 + 2 + 4 + 1
    with pytest.raises(KeyError):
        sonet.TABLE1.printed("SONet", "16", "PGD-20", column="natural %")
