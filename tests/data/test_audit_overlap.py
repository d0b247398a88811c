"""Prompts in training and evaluation: the same, nearly the same, a passage in common; and what is not counted."""

from __future__ import annotations

from typing import Any

from audit_rows import asked
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.audit_overlap import overlap
from trueup.data.records import Message, Prompt

NUMBERS = [f"w{i}" for i in range(60)]
LONG = " ".join(NUMBERS[:30])


def compared(training: list[Prompt], evaluation: list[Prompt]) -> dict[str, Any]:
    places = [f"t:{i}" for i in range(1, len(training) + 1)], [f"e:{i}" for i in range(1, len(evaluation) + 1)]
    return overlap(training, places[0], evaluation, places[1])


def counts(training: list[Prompt], evaluation: list[Prompt]) -> tuple[int, int, int]:
    found = compared(training, evaluation)
    assert found["prompts"] == len(evaluation)
    return found["exact"]["count"], found["near"]["count"], found["passage"]["count"]


def test_case_punctuation_and_space_do_not_make_another_prompt() -> None:
    found = compared(
        [asked("x"), asked("Name a large\nanimal.")], [asked("name a LARGE animal"), asked("name a horse")]
    )
    assert found["exact"]["places"] == ["e:1 (as t:2)"] and found["exact"]["share"] == 0.5


def test_a_prompt_with_few_words_changed_is_nearly_the_same() -> None:
    changed = LONG.replace("w29", "other")
    assert counts([asked(LONG)], [asked(changed)]) == (0, 1, 0)


def test_thirteen_words_in_a_row_are_a_passage_and_twelve_are_not() -> None:
    thirteen, twelve = (" ".join(["a", "b", *NUMBERS[5 : 5 + n], "c", "d"]) for n in (13, 12))
    assert counts([asked(LONG)], [asked(thirteen)]) == (0, 0, 1)
    assert counts([asked(LONG)], [asked(twelve)]) == (0, 0, 0)


def test_system_turns_and_replies_do_not_count() -> None:
    framed = [(Message("system", LONG), Message("user", f"question {i}")) for i in range(2)]
    assert counts([framed[0]], [framed[1]]) == (0, 0, 0)
    assert counts([asked("question 0")], [framed[0]]) == (1, 0, 0)


def test_what_every_training_prompt_says_is_boilerplate() -> None:
    training = [asked(f"{LONG} number {i} of many") for i in range(40)]
    found = compared(training, [asked(f"{LONG} and what is the height of the tower")])
    assert found["boilerplate"] == 30 - 13 + 1
    assert [found[name]["count"] for name in ("exact", "near", "passage")] == [0, 0, 0]
    assert counts(training[:5], [asked(f"{LONG} and what is the height of the tower")])[2] == 1


def test_repeated_training_prompts_do_not_become_boilerplate() -> None:
    assert counts([asked(LONG)] * 50, [asked(LONG)]) == (1, 0, 0)
    assert counts([asked(LONG)] * 50, [asked("so " + LONG + " so")])[1:] in {(1, 0), (0, 1)}


def test_prompts_of_other_scripts_and_of_signs_alone() -> None:
    assert counts([asked("名前は何ですか")], [asked("名前は何ですか。"), asked("住所は何ですか")]) == (1, 0, 0)
    assert counts([asked("?!")], [asked("?!"), asked("...")]) == (1, 0, 0)


TEXTS = st.lists(st.text(st.sampled_from("ab c,"), min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=5)


@given(TEXTS, TEXTS)
def test_training_is_found_in_itself_and_more_training_hides_nothing(texts: list[str], more: list[str]) -> None:
    prompts = [asked(text) for text in texts]
    assert counts(prompts, prompts)[0] == len(prompts)
    assert counts([asked(text) for text in more] + prompts, prompts)[0] == len(prompts)
