"""A rule that never reads the prompt is found where there is one, and not where the sides differ in what they say."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.preflight.tells import APART, Ids, Tell, find_tell

END, SURE = 0, 99


def written(seed: int, count: int = 120, words: Sequence[int] = range(1, 60)) -> list[Ids]:
    """Responses of one writer: 3 to 14 tokens and the terminator."""
    rng = random.Random(seed)
    return [(*rng.choices(words, k=rng.randint(3, 14)), END) for _ in range(count)]


def tell_of(wanted: list[Ids], unwanted: list[Ids]) -> Tell:
    found = find_tell(wanted, unwanted)
    assert found is not None
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(16, 200))
def test_two_samples_of_one_writer_have_no_tell(seed: int, count: int) -> None:
    assert find_tell(written(seed, count), written(seed + 20_000, count)) is None


def test_responses_to_other_prompts_have_no_tell() -> None:
    """Easy pairs: what is rejected answers another prompt. Only who has read the prompt can know."""
    wanted = written(1)
    assert find_tell(wanted, wanted[7:] + wanted[:7]) is None


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_opening_of_half_of_one_side_is_told(share: float) -> None:
    other = [(SURE, *ids) if number < share * 120 else ids for number, ids in enumerate(written(2))]
    found = tell_of(written(1), other)
    assert (found.kind, found.ids, found.wanted) == ("opening", (SURE,), 0.0)
    assert found.unwanted == pytest.approx(share) and found.right == pytest.approx((1 + share) / 2)


def test_an_ending_is_told_be_it_the_terminator() -> None:
    found = tell_of(written(1), [(*ids[:-1], SURE) for ids in written(2)])
    assert (found.kind, found.ids) == ("ending", (END,)) or (found.kind, found.ids) == ("ending", (SURE,))


def test_a_phrase_in_the_middle_is_told() -> None:
    phrase = (71, 72, 73)
    found = tell_of([(*ids[:2], *phrase, *ids[2:]) for ids in written(1)], written(2))
    assert (found.kind, found.ids, found.wanted, found.unwanted) == ("phrase", phrase, 1.0, 0.0)


def test_length_is_told_with_the_cut_that_tells_best() -> None:
    short, long = [(1, 2)] * 30 + [(1, 2, 3)] * 30, [(2, 1, 3, 1)] * 6 + [(1, 2)] * 4 + [(3, 2, 1, 2)] * 50
    found = find_tell([tuple(range(n, n + 5)) for n in range(100)], [tuple(range(n, n + 9)) for n in range(100)])
    assert found is not None and (found.kind, found.most, found.distance) == ("length", 5, 1.0)
    assert tell_of(short, long).distance == pytest.approx(1 - 4 / 60)


@pytest.mark.parametrize(("share", "fires"), [(APART - 0.1, False), (APART + 0.1, True)])
def test_a_weak_tell_is_left_to_the_audit(share: float, fires: bool) -> None:
    other = [(SURE, *ids) if number < share * 400 else ids for number, ids in enumerate(written(2, 400))]
    assert (find_tell(written(1, 400), other) is not None) == fires


def test_few_responses_must_differ_by_more() -> None:
    """Half of sixteen may be chance among thousands of rules; half of a hundred is not."""
    for count, fires in ((16, False), (100, True)):
        other = [(SURE, *ids) if number % 2 else ids for number, ids in enumerate(written(2, count))]
        assert (find_tell(written(1, count), other) is not None) == fires
