"""The command line is tried on the laboratory of the recipes' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

if TYPE_CHECKING:
    from tiny_lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Tiny models and data, and the preset they were made with."""
    import tiny_lab

    from trueup.models import hub

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", tiny_lab.SHAPE)  # type: ignore[arg-type]
        yield tiny_lab.build(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An empty folder for input files, beside the place of ``out``."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"
