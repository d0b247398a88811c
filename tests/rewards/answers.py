"""Answers as rewards see them, made of a few words."""

from __future__ import annotations

from typing import Any

from trueup.data.records import Message
from trueup.rewards.protocol import Answer


def answer(response: str, prompt: str = "sort: b a", tokens: int = 2, ended: bool = True, **meta: Any) -> Answer:
    """One turn answered, with the row's other columns."""
    return Answer((Message("user", prompt),), response, tuple(range(tokens)), ended, meta, "prompts.jsonl:3", "3")
