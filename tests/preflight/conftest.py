"""Runs of the laboratory as the checks see them: prepared by their recipes, and ended where training would begin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trueup.preflight.subject import Subject

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

if TYPE_CHECKING:
    from tiny_lab import Lab

Prepare = Callable[..., Subject]


class Prepared(Exception):
    """Carries the subject out of a recipe."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Tiny models and data, and the preset they were made with."""
    import tiny_lab

    from trueup.models import hub

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", tiny_lab.SHAPE)  # type: ignore[arg-type]
        yield tiny_lab.build(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def prepare(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """(variant, sections of settings to lay over it) -> the subject, fresh: a test may spoil it."""
    import tiny_lab

    import trueup.recipes.checks as checks

    def caught(subject: Subject, *_: Any) -> Any:
        raise Prepared(subject)

    def make(variant: str, **sections: dict[str, Any]) -> Subject:
        verb, values = tiny_lab.settings(lab)[variant]
        values = values | {name: {**values.get(name, {}), **section} for name, section in sections.items()}
        with monkeypatch.context() as patch:
            patch.setattr(checks, "run_checks", caught)
            with pytest.raises(Prepared) as ended:
                tiny_lab.run_config(verb, values, tmp_path / "never")
        return ended.value.subject

    return make
