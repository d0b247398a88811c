"""The stage of one run: its settings, its data and the code it will use, all of which a fault may change."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from trueup.recipes.bench import Silence

Row = dict[str, Any]

STOP = 24
"""Steps after which a run that is to be resumed is stopped."""


class _Stopped(Exception):
    """Ends the first part of a run that is to be resumed."""


class Stage:
    """Changes of one run, undone when it is over.

    Attributes:
        lab: folder of the laboratory.
        method: the verb as it was asked for.
        verb: the verb that is run.
        values: the settings, a nest.
        folder: scratch.
        seed: of the run.
        resumed: is the run stopped half-way (``STOP``) and resumed? ``between`` is then called before the second part.
    """

    def __init__(self, lab: Path, method: str, values: dict[str, Any], folder: Path, seed: int) -> None:
        self.lab, self.method, self.verb, self.values, self.folder, self.seed = (
            lab,
            method,
            method,
            values,
            folder,
            seed,
        )
        self.resumed = False
        self.between: Callable[[], None] = lambda: None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def set(self, key: str, value: Any) -> None:
        """Set a value by its dotted key; a dictionary replaces what was there."""
        *parents, last = key.split(".")
        nest = self.values
        for name in parents:
            nest = nest.setdefault(name, {})
        nest[last] = value

    def get(self, key: str) -> Any:
        """The value of a dotted key."""
        nest: Any = self.values
        for name in key.split("."):
            nest = nest[name]
        return nest

    def replace(self, place: Any, name: str, new: Any) -> None:
        """Replace an attribute of a class, or a function wherever a module of the package has it."""
        old = getattr(place, name)
        if isinstance(place, type):
            self._stack.enter_context(patch.object(place, name, new))
            return
        for key, module in list(sys.modules.items()):
            if not key.startswith("trueup"):
                continue
            for own, value in list(vars(module).items()):
                if value is old:
                    self._stack.enter_context(patch.object(module, own, new))
                elif isinstance(value, dict) and own.isupper():
                    for entry in [entry for entry, held in value.items() if held is old]:
                        self._stack.enter_context(patch.dict(value, {entry: new}))

    def wrap(self, place: Any, name: str, change: Callable[[Any], Any]) -> None:
        """Replace a function by what ``change`` makes of it."""
        self.replace(place, name, change(getattr(place, name)))

    def entry(self, table: dict[Any, Any], name: Any, new: Any) -> None:
        """Replace an entry of a table."""
        self._stack.enter_context(patch.dict(table, {name: new}))

    def rows(self, key: str = "data.path") -> list[Row]:
        """The rows of the run's data."""
        return [json.loads(line) for line in Path(self.get(key)).read_text(encoding="utf-8").splitlines()]

    def write(self, rows: Sequence[Row], key: str = "data.path") -> None:
        """Give the run other data."""
        path = self.folder / f"{key}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        self.set(key, str(path))

    def rewrite(self, change: Callable[[int, Row], Row], key: str = "data.path") -> None:
        """Give the run data in which every row (number, row) is changed."""
        self.write([change(number, dict(row)) for number, row in enumerate(self.rows(key))], key)

    def interrupt(self, run: Callable[[], Any]) -> None:
        """Run as far as ``STOP`` steps, where there is a checkpoint; then call ``between``."""

        def stop(report: Any) -> None:
            if report.step > STOP:
                raise _Stopped

        with patch.object(Silence, "__call__", lambda self, report: stop(report)), suppress(_Stopped):
            run()
        self.between()
