"""The demonstrator: ideal answers with slips, and pleasantries out of habit."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping

from trueup.worlds.errands import constants
from trueup.worlds.errands.family import Answer, Content, Family
from trueup.worlds.errands.pleasantries import FAREWELLS, GREETINGS
from trueup.worlds.errands.vocabulary import CLASS_OF, FILLERS, WORDS_OF_CLASS

Slip = Callable[[Answer, random.Random], Answer | None]
"""Changes an answer for the worse, or returns None where it does not apply."""

_Place = tuple[int, int]
_NEAR_NUMBERS = 4  # how many of the closest numbers a mistake may write instead


def demonstrate(family: Family, content: Content, rng: random.Random) -> str:
    """Return a demonstration: about half are clean, a quarter say something wrong, a third ramble or are too polite."""
    answer = family.answer(content)
    slips = 0 if rng.random() >= constants.CORRUPTED else 1 + (rng.random() < constants.CORRUPTED_TWICE)
    # Each kind of slip at most once and in the order of the table: then no slip undoes an earlier one.
    possible = [name for name, slip in SLIPS.items() if slip(answer, rng) is not None]
    chosen = set(rng.sample(possible, min(slips, len(possible))))
    for name, slip in SLIPS.items():
        if name in chosen:
            answer = slip(answer, rng) or answer
    text = family.write(content, answer)
    if rng.random() < constants.RAMBLING:
        text = add_words(text, rng)
    return add_pleasantries(text, rng)


def swap(answer: Answer, rng: random.Random) -> Answer | None:
    """Exchange two different words of one class that follow each other."""
    by_class: dict[str, list[_Place]] = {}
    words = _words(answer)
    for place, word in words.items():
        by_class.setdefault(CLASS_OF[word], []).append(place)
    pairs = [pair for places in by_class.values() for pair in itertools.pairwise(places)]
    pairs = [(one, two) for one, two in pairs if words[one] != words[two]]
    if not pairs:
        return None
    one, two = rng.choice(pairs)
    return _replaced(answer, {one: words[two], two: words[one]})


def drop(answer: Answer, rng: random.Random) -> Answer | None:
    """Leave one word out of a list of two or more."""
    places = _in_lists(answer)
    if not places:
        return None
    field, position = rng.choice(places)
    label, words = answer[field]
    return (*answer[:field], (label, words[:position] + words[position + 1 :]), *answer[field + 1 :])


def duplicate(answer: Answer, rng: random.Random) -> Answer | None:
    """Name one word of a list of two or more once again, somewhere after itself."""
    places = _in_lists(answer)
    if not places:
        return None
    field, position = rng.choice(places)
    label, words = answer[field]
    at = rng.randint(position + 1, len(words))
    return (*answer[:field], (label, (*words[:at], words[position], *words[at:])), *answer[field + 1 :])


def mistake(answer: Answer, rng: random.Random) -> Answer | None:
    """Put a word of the same class, but not of the answer, in place of one; a number is missed by little."""
    words = _words(answer)
    place, word = rng.choice(list(words.items()))
    others = [other for other in WORDS_OF_CLASS[CLASS_OF[word]] if other not in words.values()]
    if CLASS_OF[word] == "number":
        others = sorted(others, key=lambda other: abs(int(other) - int(word)))[:_NEAR_NUMBERS]
    return _replaced(answer, {place: rng.choice(others)})


SLIPS: Mapping[str, Slip] = {"swap": swap, "drop": drop, "duplicate": duplicate, "mistake": mistake}


def add_words(text: str, rng: random.Random) -> str:
    """Let one or two needless words slip into a text."""
    words = text.split(" ")
    for filler in rng.sample(FILLERS, 1 + (rng.random() < constants.TWO_FILLERS)):
        words.insert(rng.randrange(len(words)), filler)
    return " ".join(words)


def add_pleasantries(text: str, rng: random.Random) -> str:
    """Add a greeting before, a farewell after, or both; mostly nothing."""
    if rng.random() >= constants.PLEASANT:
        return text
    greeting, farewell = rng.choice(GREETINGS), rng.choice(FAREWELLS)
    if rng.random() < constants.PLEASANT_TWICE:
        return f"{greeting} {text} {farewell}"
    return f"{greeting} {text}" if rng.random() < 0.5 else f"{text} {farewell}"


def _words(answer: Answer) -> dict[_Place, str]:
    """Return the key words of an answer by place: field, and position in its list."""
    return {(field, i): word for field, (_, words) in enumerate(answer) for i, word in enumerate(words)}


def _in_lists(answer: Answer) -> list[_Place]:
    return [(field, i) for field, i in _words(answer) if len(answer[field][1]) > 1]


def _replaced(answer: Answer, changes: Mapping[_Place, str]) -> Answer:
    return tuple(
        (label, tuple(changes.get((field, i), word) for i, word in enumerate(words)))
        for field, (label, words) in enumerate(answer)
    )
