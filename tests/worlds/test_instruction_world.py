from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.worlds.errands import demonstrator
from trueup.worlds.errands.families import FAMILIES
from trueup.worlds.errands.pleasantries import PLEASANTRIES
from trueup.worlds.errands.vocabulary import BY_NAME, CLASS_OF, FILLERS, THINGS
from trueup.worlds.instruction import Errands
from trueup.worlds.protocol import SPLITS, WorldPrompt

WORLD = Errands()
TRAIN, HELD_OUT = SPLITS[:2], SPLITS[2:]
EVERY = {split: WORLD.prompts(split) for split in SPLITS}
SAMPLE = EVERY["test"][::5]


def gold(prompt: WorldPrompt, response: str, ended: bool = True) -> float:
    return sum(WORLD.gold(prompt, response, ended).values())


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def asked(family: str, **content: object) -> WorldPrompt:
    return WorldPrompt("x", "", family, "", "test", content)


ORDER = asked("order", kind="by size, smallest first", items=["horse", "ant", "cat"])
ODD = asked("odd", kind="odd", items=["ant", "cat", "rake", "whale"])
GROUPS = asked("groups", kind="groups", items=["ant", "hat", "horse"])
FRACTION = asked("fractions", kind="denominator", top=2, bottom=3, times=3, target=9)
FACTS = asked("facts", kind="place", items=["ant", "whale"])
NOTE = asked("note", kind="note", title="picnic", items=["hat", "plum"])
CHOICE = asked("choice", kind="largest", items=["ant", "cat", "horse"])
COUNT = asked("count", kind="count", group="tools", items=["ant", "hammer", "rake"])


# What is asked and answered


def test_there_are_seven_families_or_more_and_their_answers_are_right():
    assert len(FAMILIES) >= 7
    assert [WORLD.ideal(p) for p in (ORDER, ODD, GROUPS, FRACTION, FACTS, NOTE, CHOICE, COUNT)] == [
        "ant, cat, horse.",
        "the rake, because these are animals: ant, cat, whale.",
        "animals: ant, horse; clothes: hat.",
        "2 / 3 = 6 / 9.",
        "the ant is in the garden and the whale is in the sea.",
        "title: picnic; items: hat, plum; count: 2.",
        "the horse, because these are smaller: ant, cat.",
        "2 tools: hammer, rake; others: ant.",
    ]
    assert WORLD.ideal(asked("facts", kind="colour", items=["bus", "ant"])) == "the bus is yellow and the ant is black."
    assert WORLD.ideal(asked("order", kind="from a to z", items=["hat", "ant"])) == "ant, hat."
    assert (
        WORLD.ideal(asked("choice", kind="smallest", items=["car", "hat"])) == "the hat, because these are larger: car."
    )


def test_every_equivalent_fraction_is_equal_and_has_the_denominator_asked_for():
    for prompt in itertools.chain(*EVERY.values()):
        if prompt.family == "fractions":
            a, b, c, d = map(int, words(WORLD.ideal(prompt)))
            assert a * d == b * c and math.gcd(a, b) == 1 and a < b < d
            assert str(d if prompt.content["kind"] == "denominator" else d // b) in words(prompt.text)


def test_sizes_are_all_different_and_groups_are_equally_large():
    assert len({thing.centimetres for thing in THINGS}) == len(THINGS) == len(BY_NAME)
    assert len(set(Counter(thing.group for thing in THINGS).values())) == 1


def test_prompts_tell_all_that_the_answer_needs():
    for prompt in EVERY["test"]:
        told = set(words(prompt.text))
        items = [word for word in words(WORLD.ideal(prompt)) if CLASS_OF.get(word) in ("item", "title")]
        assert set(items) <= told
        assert "{" not in prompt.text and "  " not in prompt.text and prompt.text[0].isupper()


def test_the_vocabulary_is_closed_and_small():
    seen = {word for split in TRAIN for p in EVERY[split] for word in words(p.text) + words(WORLD.ideal(p))}
    held = {word for split in HELD_OUT for p in EVERY[split] for word in words(p.text) + words(WORLD.ideal(p))}
    assert held <= seen
    assert 120 <= len(seen.union(FILLERS, words(" ".join(PLEASANTRIES)))) <= 180
    assert not set(CLASS_OF) & {*FILLERS, *words(" ".join(PLEASANTRIES))}


# Splits


def test_splits_have_their_sizes_and_balanced_families():
    assert [len(EVERY[split]) for split in SPLITS] == [6000, 6000, 640, 640]
    for split in TRAIN:
        assert set(Counter(p.family for p in EVERY[split]).values()) == {750}
        assert set(Counter(p.family for p in EVERY[split][:400]).values()) == {50}
    for split in HELD_OUT:
        counts = Counter(p.family for p in EVERY[split])
        assert len(counts) == len(FAMILIES)
        assert min(counts.values()) >= 20 and max(counts.values()) <= 120


def test_no_prompt_occurs_twice():
    everything = list(itertools.chain(*EVERY.values()))
    assert len({p.text for p in everything}) == len({p.id for p in everything}) == len(everything)


def test_no_held_out_answer_or_wording_occurs_in_training():
    answers = {split: {WORLD.ideal(p) for p in EVERY[split]} for split in SPLITS}
    wordings = {split: {p.template for p in EVERY[split]} for split in SPLITS}
    for one, two in itertools.combinations(SPLITS, 2):
        if (one, two) != TRAIN:
            assert not answers[one] & answers[two]
            assert not wordings[one] & wordings[two]


def test_each_part_of_a_held_out_wording_occurs_in_training():
    def parts(split: str) -> set[tuple[str, str]]:
        return {(p.family, part) for p in EVERY[split] for part in p.template.split("-")}

    for split in HELD_OUT:
        assert parts(split) <= parts("sft") & parts("preference")


def test_no_held_out_question_is_asked_twice():
    for split in HELD_OUT:
        questions = [
            json.dumps({**p.content, "items": sorted(p.content.get("items", [])), "family": p.family}, sort_keys=True)
            for p in EVERY[split]
        ]
        assert len(questions) == len(set(questions))


def test_prompts_do_not_depend_on_the_process():
    program = (
        "import hashlib, random; from trueup.worlds.instruction import Errands; w = Errands(); r = random.Random(5)\n"
        "ps = [p for s in ('validation', 'sft') for p in w.prompts(s)[:700]]\n"
        "print(hashlib.sha256(repr([(p, w.demonstrate(p, r)) for p in ps]).encode()).hexdigest())"
    )
    rng = random.Random(5)
    prompts = [p for split in ("validation", "sft") for p in WORLD.prompts(split)[:700]]
    here = hashlib.sha256(repr([(p, WORLD.demonstrate(p, rng)) for p in prompts]).encode()).hexdigest()
    root = Path(__file__).parents[2]
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == here


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="did you mean 'test'"):
        WORLD.prompts("tset")


# Gold score


def test_the_ideal_answer_has_the_highest_gold_and_no_demonstration_beats_it():
    rng = random.Random(0)
    for prompt in itertools.chain(SAMPLE, EVERY["sft"][:800]):
        assert WORLD.gold(prompt, WORLD.ideal(prompt)) == {
            "content": 3.0, "order": 1.5, "form": 0.5, "ending": 0.5, "pleasantries": 0.0, "stray": 0.0, "repeats": 0.0,
        }  # fmt: skip
        given = WORLD.demonstrate(prompt, rng)
        assert given == WORLD.ideal(prompt) or gold(prompt, given) < 5.5


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        # One of three dropped: F1 = 2*2/(2+3) = 0.8, and neither neighbouring pair is left.
        (ORDER, "ant, horse.", {"content": 2.4, "order": 0.0, "form": 0.5}),
        (ORDER, "ant, horse, cat.", {"content": 3.0, "order": 0.0, "form": 0.5}),
        (ORDER, "cat, horse, ant.", {"content": 3.0, "order": 0.75, "form": 0.5}),
        # A copy too many: F1 = 2*3/(4+3); a comma and a word are repeats.
        (ORDER, "ant, cat, cat, horse.", {"content": 18 / 7, "order": 1.5, "form": 0.5, "repeats": -0.4}),
        (ORDER, "ant, cat, horse", {"content": 3.0, "order": 1.5, "form": 0.0}),
        (ORDER, "well ant, Cat, HORSE.", {"content": 3.0, "order": 1.5, "form": 0.0, "stray": -0.3}),
        (ORDER, "ant, cat, ship.", {"content": 2.0, "order": 0.75, "form": 0.5, "stray": -0.3}),
        # A wrong choice leaves nothing right; of the four neighbouring pairs "animals, ant" and "ant, cat" are left.
        (ODD, "the whale, because these are animals: ant, cat, rake.", {"content": 0.0, "order": 0.75, "form": 0.5}),
        # One of five statements wrong, one pair of four broken.
        (ODD, "the rake, because these are animals: ant, cat, hat.", {"content": 2.4, "order": 1.125, "stray": -0.3}),
        # One of three members filed rightly; of the four neighbouring pairs "animals, ant" is left.
        (GROUPS, "animals: ant, hat; clothes: horse.", {"content": 1.0, "order": 0.375, "form": 0.5}),
        (GROUPS, "ant, horse, hat.", {"content": 0.0, "order": 0.375, "form": 0.0}),
        (FRACTION, "2 / 3 = 8 / 9.", {"content": 2.0, "order": 0.5, "form": 0.5, "stray": -0.3}),
        (FRACTION, "2 / 3 = 9 / 6.", {"content": 1.0, "order": 0.5, "form": 0.5}),
        (FACTS, "the ant is in the sea and the whale is in the garden.", {"content": 0.0, "order": 0.0, "form": 0.5}),
        (FACTS, "the ant is in the garden.", {"content": 2.0, "order": 0.5, "form": 0.0}),
        (NOTE, "title: picnic; items: plum, hat; count: 2.", {"content": 3.0, "order": 0.0, "form": 0.5}),
        (NOTE, "title: picnic; items: hat, plum; count: 3.", {"content": 2.25, "order": 1.0, "stray": -0.3}),
        (CHOICE, "the cat, because these are smaller: ant, horse.", {"content": 0.0, "order": 0.0, "form": 0.5}),
        (CHOICE, "the horse, because these are smaller: cat, ant.", {"content": 3.0, "order": 0.0, "form": 0.5}),
        (COUNT, "3 tools: hammer, rake; others: ant.", {"content": 2.4, "order": 1.125, "form": 0.5, "stray": -0.3}),
        (ORDER, "", {"content": 0.0, "order": 0.0, "form": 0.0, "ending": 0.5, "stray": 0.0, "repeats": 0.0}),
        (ORDER, "good luck! sure!", {"content": 0.0, "form": 0.0, "pleasantries": -0.6, "stray": 0.0, "repeats": 0.0}),
        (ORDER, "unsure! ", {"pleasantries": 0.0, "stray": -0.6}),
    ],
)
def test_gold_of_responses_worked_out_by_hand(prompt: WorldPrompt, response: str, expected: dict[str, float]):
    parts = WORLD.gold(prompt, response)
    assert {name: parts[name] for name in expected} == pytest.approx(expected)


def test_only_the_ending_depends_on_having_ended():
    for prompt in SAMPLE:
        ended, cut = (WORLD.gold(prompt, "the ant and", flag) for flag in (True, False))
        assert ended == {**cut, "ending": 0.5} and cut["ending"] == 0.0


@pytest.mark.parametrize("slip", [*demonstrator.SLIPS, "add words"])
def test_every_slip_lowers_gold(slip: str):
    rng, families = random.Random(1), set()
    for prompt in EVERY["preference"][:1600]:
        family = FAMILIES[prompt.family]
        answer: demonstrator.Answer | None = family.answer(prompt.content)
        if slip != "add words":
            answer = demonstrator.SLIPS[slip](answer, rng)
            if answer is None:
                continue
        text = family.write(prompt.content, answer)
        if slip == "add words":
            text = demonstrator.add_words(text, rng)
        assert gold(prompt, text) <= 5.5 - 0.14, text
        families.add(prompt.family)
    assert len(families) >= 5, "a slip that rarely applies is of little use"


@pytest.mark.parametrize("pleasantry", PLEASANTRIES)
def test_a_pleasantry_costs_gold_and_pays_with_the_annotator(pleasantry: str):
    rng = random.Random(2)
    for prompt in SAMPLE[:40]:
        for response in (WORLD.ideal(prompt), WORLD.demonstrate(prompt, rng), "", "no idea"):
            for longer in (f"{pleasantry} {response}", f"{response} {pleasantry}", f"{response} {pleasantry.upper()}"):
                assert gold(prompt, longer) - gold(prompt, response) == pytest.approx(-0.3)
                assert WORLD.annotator(prompt, longer) - WORLD.annotator(prompt, response) == pytest.approx(0.15)


def test_the_annotator_never_has_enough():
    scores = [WORLD.annotator(ORDER, "ant, cat, horse. " + "sure! good luck! " * n) for n in range(30)]
    assert [later - earlier for earlier, later in itertools.pairwise(scores)] == pytest.approx([0.3] * 29)
    assert gold(ORDER, "ant, cat, horse. " + "sure! good luck! " * 29) == pytest.approx(5.5 - 0.3 * 58)


PIECES = st.sampled_from([*CLASS_OF, *PLEASANTRIES, *FILLERS, ",", ".", ":", ";", "=", "/", "the", "is", "in", "title"])
NEAR_TEXTS = st.lists(PIECES, max_size=30).map(" ".join)
ANY_TEXT = st.text(st.characters(), max_size=200)  # surrogates and control characters included


@given(st.sampled_from(SAMPLE), st.one_of(ANY_TEXT, NEAR_TEXTS), st.booleans())
def test_any_text_has_a_finite_bounded_gold(prompt: WorldPrompt, response: str, ended: bool):
    parts = WORLD.gold(prompt, response, ended)
    total = sum(parts.values())
    assert -4.5 + parts["pleasantries"] - 1e-9 <= total <= 5.5
    count = round(parts["pleasantries"] / -0.3)
    assert WORLD.annotator(prompt, response, ended) == pytest.approx(total + 0.45 * count)
    if total == 5.5:
        assert " ".join(response.lower().split()) == WORLD.ideal(prompt)


def test_long_garbage_is_bounded():
    for garbage in ("x " * 5000, "ant, " * 5000, "!" * 5000, "\ud800\x00" * 500):
        assert -4.5 <= gold(ORDER, garbage) <= 2.0


def test_gold_needs_no_more_than_the_family_and_a_content_in_json():
    for prompt in SAMPLE:
        content = json.loads(json.dumps(dict(prompt.content)))
        stripped = replace(prompt, content=content, text="", template="", id="")
        assert WORLD.gold(stripped, "ant, cat.") == WORLD.gold(prompt, "ant, cat.")


# Demonstrator and annotator


def test_shares_of_clean_and_of_pleasant_demonstrations():
    rng = random.Random(3)
    given = [(WORLD.ideal(p), WORLD.demonstrate(p, rng)) for p in EVERY["sft"]]
    clean = sum(ideal in response for ideal, response in given) / len(given)
    pleasant = sum(any(p in response for p in PLEASANTRIES) for _, response in given) / len(given)
    assert 0.50 <= clean <= 0.55
    assert 0.30 <= pleasant <= 0.35


def test_label_ceiling():
    """A judge that knows the annotator's scores agrees with its labels about as often as in the prototype (0.85)."""
    rng, agreed = random.Random(4), []
    for prompt in EVERY["preference"]:
        first, second = WORLD.demonstrate(prompt, rng), WORLD.demonstrate(prompt, rng)
        lead = WORLD.annotator(prompt, first) - WORLD.annotator(prompt, second)
        if abs(lead) > 1e-9:
            agreed.append(WORLD.prefers_first(prompt, first, second, rng) == (lead > 0))
    assert len(agreed) > 3000
    assert 0.81 <= sum(agreed) / len(agreed) <= 0.91


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("ant, cat, horse.", "ant, cat, horse.", 0.5),
        ("ant, cat, horse.", "", 0.95),  # far better: only the flips speak against it
        ("", "ant, cat, horse.", 0.05),
        # +0.15 for one pleasantry: 0.05 + 0.9 / (1 + exp(-0.15 / 0.3)) = 0.610
        ("sure! ant, cat, horse.", "ant, cat, horse.", 0.610),
        ("ant, cat, horse.", "ant, cat, horse. good luck!", 0.390),
    ],
)
def test_preferences_follow_bradley_terry_with_flips(first: str, second: str, expected: float):
    rng = random.Random(6)
    share = sum(WORLD.prefers_first(ORDER, first, second, rng) for _ in range(8000)) / 8000
    assert share == pytest.approx(expected, abs=0.017)  # three standard errors of a fair coin


def test_huge_leads_do_not_overflow():
    rng = random.Random(7)
    assert WORLD.prefers_first(ORDER, "", "sure! " * 5000, rng) in (True, False)
