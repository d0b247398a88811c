"""Somebody's function: found in a module or a file, its parameters known by name or by place, its failures told."""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch

from trueup.errors import UserError, nearest
from trueup.preflight.conformance.protocol import Inputs, Signature

Function = Callable[..., Any]


@dataclass(frozen=True)
class Bound:
    """A function whose parameters are known.

    Attributes:
        invoke: inputs by our names -> whatever the function returns.
        call: the call that is made.
        bound: how the parameters were known.
        takes: our names that it has parameters for.
    """

    invoke: Callable[[Inputs], Any]
    call: str
    bound: str
    takes: frozenset[str]


def load(target: str) -> Function:
    """Find ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``; a file is run, the working directory is importable.

    Raises:
        UserError: no such file, module or function, or it fails while it is loaded.
    """
    place, _, path = target.rpartition(":")
    if not (place and path):
        raise UserError(f"{target}: expected MODULE:FUNCTION or FILE.py:FUNCTION, for example my_dpo.py:dpo_loss")
    found: Any = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    for name in path.split("."):
        if not hasattr(found, name):
            raise UserError(f"{place}: has no '{path}'{nearest(name, [n for n in dir(found) if n[0] != '_'])}")
        found = getattr(found, name)
    if not callable(found):
        raise UserError(f"{target}: is {type(found).__name__}, not a function")
    return found


def bind(function: Function, signature: Signature, call: str | None = None) -> Bound:
    """Find out how to call a function: as stated in ``call``, else by the names of its parameters, else by place.

    Raises:
        UserError: a parameter that must be given has no known name, or an input has no parameter.
    """
    if call is not None:
        return _stated(function, signature, call)
    places = _by_name(function, signature) or _by_place(function, signature)
    names = [name for _, name in places]
    if len(set(names)) < len(names):
        raise UserError(f"two parameters of the function mean the same ({', '.join(names)}): state the call (--call)")
    missing = _missing(names, signature)
    if missing:
        raise UserError(
            f"the function has no parameter for {', '.join(missing)} (it has {_parameters(function)}): state the call, "
            f'for example --call "f({", ".join(n for n in signature.names if n not in signature.optional)})"'
        )
    by_name = all(key is not None for key, _ in places)

    def invoke(inputs: Inputs) -> Any:
        if by_name:
            return _told(function, lambda: function(**{key: inputs[name] for key, name in places if key is not None}))
        return _told(function, lambda: function(*(inputs[name] for name in names)))

    told = ", ".join(name if key in (None, name) else f"{key}={name}" for key, name in places)
    return Bound(invoke, f"f({told})", "by name" if by_name else "by place", frozenset(names))


Places = list[tuple[str | None, str]]
"""(keyword, our name) of each argument; no keyword: by place."""


def _by_name(function: Function, signature: Signature) -> Places | None:
    """None if a parameter that must be given is not known by its name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins and compiled functions do not tell
        return None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    first: Places = []
    for order in (list(signature.names), list(signature.names)[::-1]):  # `labels`: ids where a mask comes along
        places: Places = []
        for parameter in named:
            name = next((n for n in order if parameter.name.lower() in (n, *signature.names[n])), None)
            if name is not None:
                places.append((parameter.name, name))
            elif parameter.default is parameter.empty:
                return None
        first = first or places
        if not _missing([name for _, name in places], signature):
            return places
    return first or None


def _by_place(function: Function, signature: Signature) -> Places:
    known = [name for name in signature.names if name not in signature.instead]
    required = [name for name in known if name not in signature.optional]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [(None, name) for name in required]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [(None, name) for name in required]
    forced = [p for p in parameters if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    given = sum(p.default is p.empty for p in placed)
    if forced or given > len(known):
        raise UserError(
            f"the function must be given {_parameters(function)}, and not all of these are known: "
            "state the call (--call) or write a small function that takes our names"
        )
    count = max(given, min(len(placed), len(required)))
    return [(None, name) for name, _ in zip(known, placed[:count], strict=False)]


def _missing(names: Sequence[str], signature: Signature) -> list[str]:
    replaced = frozenset().union(*(signature.instead.get(name, frozenset()) for name in names))
    return [name for name in signature.names if name not in {*names, *signature.optional, *replaced}]


def _parameters(function: Function) -> str:
    return ", ".join(inspect.signature(function).parameters) or "no parameters"


def _stated(function: Function, signature: Signature, call: str) -> Bound:
    try:
        tree = ast.parse(call, mode="eval")
    except SyntaxError as error:
        raise UserError(f'--call "{call}": is not an expression: {error.msg}') from error
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    stored = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    lambdas = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    known = ["f", "torch", *signature.names]
    for name in sorted(used - stored - lambdas - {*known, *vars(builtins)}):
        raise UserError(f"--call: '{name}' is not known ({', '.join(known)}){nearest(name, known)}")
    if "f" not in used:
        raise UserError(f'--call "{call}": does not call f, which stands for the function')
    code: CodeType = compile(tree, "--call", "eval")

    def invoke(inputs: Inputs) -> Any:
        return _told(function, lambda: eval(code, {"f": function, "torch": torch, **inputs}))

    return Bound(invoke, call, "as stated", frozenset(used & set(signature.names)))


def _told(function: Function, ask: Callable[[], Any]) -> Any:
    """Ask, and turn a failure into one line that names the place in the user's file."""
    try:
        return ask()
    except Exception as error:
        home = _home(function)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == home] or frames
        where = f"{own[-1].filename}:{own[-1].lineno}"
        raise UserError(
            f"{where}: the function failed: {type(error).__name__}: {error} (is this how it is called? See --call)"
        ) from error


def _home(function: Function) -> str | None:
    try:
        return inspect.getfile(inspect.unwrap(function) if inspect.isroutine(function) else type(function))
    except TypeError:
        return None


def _import(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(f"{name}: no such module here; a file is named path/to/file.py:function") from error
        raise UserError(f"{name}: failed while loading: {error}") from error
    except Exception as error:
        raise UserError(f"{name}: failed while loading: {type(error).__name__}: {error}") from error


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{path}: no such file; a function is named path/to/file.py:function")
    # The name is made of the path, so that a user's random.py cannot stand in for the real module.
    name = "trueup_conformance_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up while it runs
    sys.path.insert(0, str(path.resolve().parent))  # a script finds its neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path}: failed while loading: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
