"""The demo's nets, as `verigrad demo` trains them with seed 0, for the audits of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from verigrad.data.images import Images
from verigrad.data.load import load_data
from verigrad.models.loading import load_model

NETS = Path(__file__).parents[1] / "nets"


@pytest.fixture(scope="session")
def digits() -> Images:
    return load_data("digits", n=200)


@pytest.fixture
def natural() -> nn.Module:
    return load_model(str(NETS / "conv"))


@pytest.fixture
def hardened() -> nn.Module:
    return load_model(str(NETS / "hardened"))


@pytest.fixture(scope="session")
def sonet() -> nn.Module:
    return load_model(str(NETS / "sonet"))
