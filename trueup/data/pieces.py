"""Token ids as the pieces of text that they stand for, one by one, so that a sequence can be shown as it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_MOST = 8  # tokens that one character can be spread over; a byte-level token is at least one of its four bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One token, or the few that only together make a character.

    Attributes:
        ids: one id; more where a character is spread over several tokens.
        text: what they decode to inside a text; the name of a special token.
        special: is it a special token?
    """

    ids: tuple[int, ...]
    text: str
    special: bool


def split_pieces(tokenizer: Any, ids: Sequence[int]) -> list[Piece]:
    """Cut a sequence into pieces; their ids, one after the other, are the sequence.

    Every piece is decoded behind an ordinary token, for decoders drop the space at the start of a text.
    """
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    pieces, start = [], 0
    while start < len(ids):
        if ids[start] in special:
            pieces.append(Piece((ids[start],), str(tokenizer.convert_ids_to_tokens(ids[start])), True))
        else:
            pieces.append(_whole_characters(tokenizer, anchor, ids[start : start + _MOST], special))
        start += len(pieces[-1].ids)
    return pieces


def _whole_characters(tokenizer: Any, anchor: Sequence[int], ids: Sequence[int], special: set[int]) -> Piece:
    """The shortest beginning of ``ids`` that decodes to whole characters; its first token alone if none does."""
    first = None
    for count in range(1, len(ids) + 1):
        if ids[count - 1] in special:
            break
        text = _decoded(tokenizer, anchor, ids[:count])
        first = text if first is None else first
        if "\ufffd" not in text:
            return Piece(tuple(ids[:count]), text, False)
    return Piece((ids[0],), first or "", False)


def _decoded(tokenizer: Any, anchor: Sequence[int], ids: Sequence[int]) -> str:
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    return tokenizer.decode([*anchor, *ids], **options).removeprefix(tokenizer.decode(anchor, **options))


def first_difference(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Index of the first token at which two sequences differ; None if they are equal."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return None if len(first) == len(second) else min(len(first), len(second))
