"""Which prompts a split holds: by content and by wording, the same on every machine."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from trueup.worlds.errands import constants
from trueup.worlds.errands.families import FAMILIES
from trueup.worlds.errands.family import Content, Family
from trueup.worlds.errands.templates import Template, compose, templates
from trueup.worlds.protocol import WorldPrompt

_PATIENCE = 2000  # draws without anything new after which a family counts as exhausted


@cache
def prompts_of(split: str) -> tuple[WorldPrompt, ...]:
    """Return the prompts of one split; families take turns, in a new order each round, so every prefix is balanced.

    Contents are held out by hash: the ideal answer of a validation or test prompt is never that of a training prompt.
    Rounds of training prompts go alternately to ``sft`` and ``preference``: they share contents but no prompt.
    """
    if split == "sft":
        drafts = itertools.islice(_rounds("train"), 0, None, 2)
    elif split == "preference":
        drafts = itertools.islice(_rounds("train"), 1, None, 2)
    else:
        drafts = _rounds(split)
    flat = itertools.islice(itertools.chain.from_iterable(drafts), constants.PROMPTS[split])
    return tuple(_numbered(split, draft, number) for number, draft in enumerate(flat))


def portion_of(family: Family, content: Content) -> str:
    """Return ``"train"``, ``"validation"`` or ``"test"`` by a hash of what the family holds out by."""
    digest = hashlib.sha256(f"{family.name}: {family.held_by(content)}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    if share < constants.TEST_SHARE:
        return "test"
    return "validation" if share < constants.TEST_SHARE + constants.VALIDATION_SHARE else "train"


@dataclass(frozen=True)
class _Draft:
    """A prompt before it is dealt to a split."""

    family: Family
    template: Template
    content: Content

    @property
    def text(self) -> str:
        ask = self.family.asks[self.content["kind"]][self.template.ask]
        items = self.family.styles[self.template.style](self.content.get("items", ()))
        return compose(self.template, ask.format_map({**self.content, "items": items}))


def _numbered(split: str, draft: _Draft, number: int) -> WorldPrompt:
    name = f"{split}/{number:05d}"
    return WorldPrompt(name, draft.text, draft.family.name, draft.template.name, split, draft.content)


def _rounds(portion: str) -> Iterator[list[_Draft]]:
    """Yield one prompt of each family at a time, until all families are exhausted."""
    rng = random.Random(f"turns of {portion}")
    streams = [_drafts(family, portion) for family in FAMILIES.values()]
    while turn := [draft for stream in streams if (draft := next(stream, None)) is not None]:
        rng.shuffle(turn)
        yield turn


def _drafts(family: Family, portion: str) -> Iterator[_Draft]:
    """Yield prompts of a family: no text twice and, where they are held out, no content twice."""
    # A string seeds by SHA-512, so the draws depend neither on the process nor on the order of the families.
    rng = random.Random(f"{family.name} {portion}")
    wordings = templates(len(next(iter(family.asks.values()))), len(family.styles), portion)
    seen: set[str] = set()
    misses = 0
    while misses < _PATIENCE:
        draft = _Draft(family, rng.choice(wordings), family.draw(rng))
        mark = draft.text if portion == "train" else _identity(draft.content)
        if mark in seen or portion_of(family, draft.content) != portion:
            misses += 1
            continue
        misses = 0
        seen.add(mark)
        yield draft


def _identity(content: Content) -> str:
    """Return what makes a content the same question, however its items are ordered."""
    return json.dumps({**content, "items": sorted(content.get("items", ()))}, sort_keys=True)
