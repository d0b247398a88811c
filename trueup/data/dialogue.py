"""Dialogues as people store them: lists of messages, ShareGPT turns, Anthropic HH strings."""

from __future__ import annotations

import re
from typing import Any

from trueup.data.records import Message, Prompt
from trueup.data.rows import Row, checked_text, describe

_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
_KEYS = (("role", "content"), ("from", "value"))
_HH_MARK = re.compile(r"\n\n(Human|Assistant):")
_HH_ROLES = {"Human": "user", "Assistant": "assistant"}


def one_turn(text: str) -> Prompt:
    """Return a plain prompt as one user turn."""
    return (Message("user", text),)


def messages(row: Row, field: str) -> tuple[Message, ...]:
    """Return the turns of a list of ``{role, content}`` or ``{from, value}`` objects.

    Raises:
        UserError: an empty list, an unknown role, an unknown key that holds something, content that is not text,
            blank content of a turn that is not the system's.
    """
    turns = row.cells[field]
    if not turns:
        raise row.refusal(field, "has no turns", "fill it in or remove the row")
    return tuple(message(row, field, turn, f"{field}[{i}]") for i, turn in enumerate(turns))


def message(row: Row, field: str, turn: Any, part: str) -> Message:
    """Return one turn; ``part`` names it inside its field."""
    if not isinstance(turn, dict):
        problem = f"must hold {{role, content}} objects, but {part} is {describe(turn)}"
        raise row.refusal(field, problem, "correct or remove the row")
    filled = {key for key, value in turn.items() if value is not None}
    speaker, said = next((keys for keys in _KEYS if set(keys) <= filled), ("", ""))
    if not speaker or len(filled) > 2:
        # What a further key says (tool calls, images) would be lost without a word.
        keys = ", ".join(map(repr, sorted(filled))) or "nothing"
        problem = f"must hold turns of role and content (or from and value) alone, but {part} has {keys}"
        raise row.refusal(field, problem, "correct or remove the row")
    role = turn[speaker]
    if not isinstance(role, str) or role not in _ROLES:
        speaker = repr(role) if isinstance(role, str) else describe(role)
        raise row.refusal(
            field, f"has an unknown speaker in {part}, {speaker}", f"the known ones are {', '.join(_ROLES)}"
        )
    if _ROLES[role] == "system" and turn[said] == "":
        return Message("system", "")
    return Message(_ROLES[role], checked_text(row, field, turn[said], part))


def reply(row: Row, field: str) -> str:
    """Return the response in a field that holds one assistant turn, alone or as a list of one."""
    value = row.cells[field]
    turns = (message(row, field, value, field),) if isinstance(value, dict) else messages(row, field)
    if len(turns) != 1:
        remedy = "move the earlier turns to the prompt, or remove the prompt column if each side is a whole dialogue"
        raise row.refusal(field, f"has {len(turns)} turns where one response is wanted", remedy)
    if turns[0].role != "assistant":
        raise row.refusal(field, f"is spoken by the {turns[0].role}, not the assistant", "correct or remove the row")
    return turns[0].content


def split_reply(row: Row, field: str, turns: tuple[Message, ...]) -> tuple[Prompt, str | None]:
    """Return the dialogue before its last reply, and that reply; None if the user has the last word."""
    if turns[-1].role != "assistant":
        return prompt(row, field, turns), None
    return prompt(row, field, turns[:-1]), turns[-1].content


def prompt(row: Row, field: str, turns: tuple[Message, ...]) -> Prompt:
    """Return ``turns`` if they can be answered: the last one is the user's."""
    if not turns:
        raise row.refusal(field, "has a reply but nothing before it", "add the user's turn or remove the row")
    if turns[-1].role != "user":
        remedy = "the turn before a reply must be the user's; correct or remove the row"
        raise row.refusal(field, f"has a prompt that ends with the {turns[-1].role}", remedy)
    return turns


def hh_dialogue(row: Row, field: str) -> tuple[Message, ...]:
    """Return the turns of an Anthropic HH string, ``"\\n\\nHuman: ...\\n\\nAssistant: ..."``.

    The one space after a marker belongs to the marker; all other white space belongs to the turn. A turn may be blank,
    and two neighbours may have one speaker: the published files have both.
    """
    content: str = row.cells[field]
    marks = list(_HH_MARK.finditer(content))
    if not marks or marks[0].start():
        remedy = "add the prompt as a column 'prompt', 'question' or 'instruction', or write whole dialogues"
        problem = f"has no prompt beside it and does not begin with '\\n\\nHuman:'; {row.seen}"
        raise row.refusal(field, problem, remedy)
    ends = [mark.start() for mark in marks[1:]] + [len(content)]
    return tuple(
        Message(_HH_ROLES[mark[1]], content[mark.end() : end].removeprefix(" "))
        for mark, end in zip(marks, ends, strict=True)
    )
