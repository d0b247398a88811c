"""Find a world by name, or load a third party's from one Python file."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from trueup.errors import UserError, nearest
from trueup.worlds.instruction import Errands
from trueup.worlds.protocol import World

BUILT_IN: dict[str, Callable[[], World]] = {"errands": Errands}
MEMBERS = ("name", "description", "prompts", "demonstrate", "gold", "annotator", "prefers_first", "ideal")


def load_world(name: str) -> World:
    """Return the world called ``name``.

    Args:
        name: A built-in name, or ``path/to/file.py:attribute`` where the attribute is a world, or a class or
            function that gives one when called without arguments. The file is executed.

    Raises:
        UserError: The name is unknown, the file cannot be loaded, or the attribute is no world.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _load_from_file(Path(path), attribute)
    known = ", ".join(sorted(BUILT_IN))
    raise UserError(
        f"unknown world '{name}'{nearest(name, BUILT_IN)} (known: {known}; or give path/to/file.py:attribute)"
    )


def _load_from_file(path: Path, attribute: str) -> World:
    module = _run_file(path)
    if not hasattr(module, attribute):
        raise UserError(
            f"{path}: has no '{attribute}'{nearest(attribute, vars(module))}; name the world it defines after the colon"
        )
    found: Any = getattr(module, attribute)
    where = f"{path}:{attribute}"
    if isinstance(found, type) or (callable(found) and not hasattr(found, "prompts")):
        found = _guarded(where, found)
    missing = [member for member in MEMBERS if not hasattr(found, member)]
    if missing:
        raise UserError(f"{where}: is not a world, it lacks {', '.join(missing)}; see trueup/worlds/protocol.py")
    return cast(World, found)


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{path}: no such file; a world is named path/to/file.py:attribute")
    # The name is made of the path, so that a user's random.py or json.py cannot stand in for the real module.
    name = "trueup_world_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it runs
    try:
        _guarded(str(path), lambda: cast(Any, spec.loader).exec_module(module))
    except UserError:
        del sys.modules[name]
        raise
    return module


def _guarded(where: str, call: Callable[[], Any]) -> Any:
    """Run a third party's code; whatever it raises becomes one line that names the place."""
    try:
        return call()
    except Exception as error:
        raise UserError(f"{where}: failed while loading: {type(error).__name__}: {error}") from error
