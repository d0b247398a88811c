"""Prompts that leave room for what is sampled after them."""

from __future__ import annotations

from trueup.data.encode import Bounds, EncodedSet, encode_prompts
from trueup.data.records import Loaded, PromptOnly
from trueup.data.template import Encoder
from trueup.errors import UserError

MOST = 128
"""Tokens of a response that are enough where nobody asked for more."""


def default_cap(context: int) -> int:
    """Return how many tokens a response may have where nobody said: half the model's context, at most ``MOST``."""
    return max(1, min(MOST, context // 2))


def encode_with_room(loaded: Loaded[PromptOnly], encoder: Encoder, context: int, cap: int, remedy: str) -> EncodedSet:
    """Return the prompts as trees; none is left out.

    Args:
        loaded: the prompts.
        encoder: of the model that is sampled from.
        context: its positions.
        cap: tokens that must fit after every prompt.
        remedy: what to do about a prompt that is too long, in terms of the caller's settings.

    Raises:
        UserError: a prompt leaves less room than ``cap``; says where it was read.
    """
    try:
        return encode_prompts(loaded, encoder, Bounds(context, None, cap))
    except UserError:  # its remedy is a setting of training runs
        _refuse_crowded(loaded, encoder, context, cap, remedy)
        raise


def _refuse_crowded(loaded: Loaded[PromptOnly], encoder: Encoder, context: int, cap: int, remedy: str) -> None:
    room = max(0, context - cap)
    for record in loaded.records:
        length = len(encoder.prompt(record.prompt))
        if length > room:
            raise UserError(
                f"{record.where}: the prompt has {length} tokens; a model's context of {context} less {cap} for the "
                f"response leaves room for {room}. {remedy}"
            ) from None
