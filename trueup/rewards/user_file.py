"""Run a Python file of the user's without making its folder importable."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from trueup.errors import UserError


def run_file(path: Path) -> ModuleType:
    """Execute a file as a module of its own and return it.

    Raises:
        UserError: there is no such file, or it fails; says what it raised.
    """
    if not path.is_file():
        raise UserError(f"rollout.reward: {path}: no such file; a function is named path/to/file.py:function")
    # The name is made of the path, so that a user's random.py cannot stand in for the real module.
    name = "trueup_reward_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"rollout.reward: {path}: failed while loading: {type(error).__name__}: {error}") from error
    return module
