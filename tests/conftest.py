"""What holds for every test: one thread, so that numbers and times do not depend on the machine's other work; and the
same draws, so that no test depends on those that ran before it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (what somebody's library may draw from)
