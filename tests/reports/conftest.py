"""Made-up audits, each written once into a real ledger and then drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scenes import SCENES, build

from verigrad.reports.write import write_reports


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a scene by name, with its ledger, audit.json and report.html."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = build(tmp_path_factory.mktemp("audits") / name, SCENES[name])
            write_reports(made[name])
        return made[name]

    return folder
