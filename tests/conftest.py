"""Shared by all tests: one thread (sums are then the same on every machine), fixtures for tiny models and data."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What tests compute is kept apart from the user's cache, and goes when they end.
os.environ["TRUEUP_CACHE"] = tempfile.mkdtemp(prefix="trueup-tests-")

import pytest
from hypothesis import settings

# A shared machine can stall a single example for seconds; that is no failure of the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

try:
    import torch

    torch.set_num_threads(1)
except ImportError:  # pragma: no cover - the torch-free rooms are also tested without it
    pass

DATA = Path(os.environ.get("TRUEUP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["TRUEUP_CACHE"], ignore_errors=True)


@pytest.fixture
def real_data() -> Path:
    """The folder of real preference data, which is not part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"real data not found at {DATA}; set TRUEUP_DATA")
    return DATA
