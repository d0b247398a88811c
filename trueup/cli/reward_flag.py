"""The flag ``--reward`` of verbs that do not train: it takes what the setting ``rollout.reward`` of a run takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trueup.config.load import leaves, parse_value
from trueup.config.rewards import reward_parts
from trueup.config.schema import RolloutSection
from trueup.errors import TrueupError, UserError


def reward_setting(text: str) -> Any:
    """The value as a training run would read it; its form is checked, and nothing is loaded.

    Raises:
        UserError: it has none of the forms of a reward.
    """
    value = parse_value(text, leaves(RolloutSection)["reward"].annotation)
    with naming_the_flag():
        try:
            reward_parts(value)
        except ValueError as error:
            raise UserError(str(error)) from None
    return value


@contextmanager
def naming_the_flag() -> Iterator[None]:
    """Rewards name the setting of a training run in their errors; here it is a flag."""
    try:
        yield
    except TrueupError as error:
        raise type(error)(str(error).replace("rollout.reward", "--reward")) from error
