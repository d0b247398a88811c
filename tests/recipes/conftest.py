"""The laboratory, built once for all tests of the recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from tiny_lab import SHAPE, Lab, build, outcome, run_variant

from trueup.models import hub


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Tiny models and data, and the preset they were made with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", SHAPE)  # type: ignore[arg-type]
        yield build(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def uninterrupted(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, Any]]:
    """The outcome of an undisturbed run of a variant, made when it is first asked for."""
    folders = tmp_path_factory.mktemp("uninterrupted")

    @cache
    def find(variant: str) -> Mapping[str, Any]:
        run_variant(lab, variant, folders / variant)
        return outcome(folders / variant)

    return find
