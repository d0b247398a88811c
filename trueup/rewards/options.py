"""Options from a configuration become the arguments of a factory, or one clear line of what is wrong with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError, validate_call

from trueup.errors import UserError, nearest
from trueup.rewards.protocol import TextReward

T = TypeVar("T")


def make(what: str, factory: Callable[..., T], options: Mapping[str, Any]) -> T:
    """Call ``factory`` with options that are its keyword arguments, each of the annotated type.

    Args:
        what: the setting that the options are of, for errors.
        factory: its signature is the list of known options.
        options: what was given.

    Raises:
        UserError: an option is unknown (the nearest is named), missing, of a wrong type, or refused by the factory.
    """
    known = inspect.signature(factory).parameters
    for name in options:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{what}: unknown option '{name}'{nearest(name, known)} ({has})")
    missing = [name for name, option in known.items() if option.default is option.empty and name not in options]
    if missing:
        raise UserError(f"{what}: needs the option '{missing[0]}'")
    try:
        return validate_call(factory)(**options)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(f"{what}: option {place}: {problem['msg']} (got {problem['input']!r})") from None


def require_columns(what: str, reward: TextReward, columns: Collection[str]) -> None:
    """Refuse a reward that needs a metadata column which no row of the data has."""
    for name in reward.columns:
        if name not in columns:
            has = ", ".join(sorted(columns)) or "none beside the prompt"
            raise UserError(
                f"{what}: no row of the data has a column '{name}'{nearest(name, columns)} (columns: {has})"
            )
