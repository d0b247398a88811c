"""The order of rows, copies, questions inside responses: sound data pass, and each fault of its kind is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trueup.data.store import MappedTrees, TreeWriter
from trueup.data.trees import Tree
from trueup.preflight.alphabet import check_alphabet
from trueup.preflight.copies import check_copies, shared
from trueup.preflight.echo import check_echo
from trueup.preflight.order import check_order
from trueup.preflight.outcome import Outcome
from trueup.preflight.run import SIZES, take_sample
from trueup.preflight.subject import Subject

Prepare = Callable[..., Subject]
RNG = np.random.default_rng(0)


def mapped(folder: Path, trees: Sequence[Tree]) -> MappedTrees:
    folder.mkdir(exist_ok=True)
    writer = TreeWriter(folder / "trees.arrow")
    for number, tree in enumerate(trees, 1):
        writer.add(number, tree)
    writer.close({})
    return MappedTrees(folder / "trees.arrow")


def with_trees(subject: Subject, trees: MappedTrees) -> Subject:
    source = replace(subject.source, trees=trees)
    return replace(subject, source=source, data=replace(subject.data, trees=trees), rows=range(len(trees)))


def verdict(check: Callable[..., Outcome | None], subject: Subject) -> tuple[str, str] | None:
    outcome = check(subject, take_sample(subject, SIZES["quick"]))
    assert outcome is not None
    return (outcome.findings[0].rule, outcome.findings[0].severity) if outcome.findings else None


def ids(length: int) -> tuple[int, ...]:
    return tuple(RNG.integers(5, 200, length).tolist())


def pairs(count: int, prompt: Callable[[int], tuple[int, ...]], shared: int = 0) -> list[Tree]:
    """Pairs whose sides have a beginning of so many tokens in common, another one in every pair."""
    trees = []
    for number in range(count):
        beginning = ids(shared)
        trees.append(Tree(prompt(number), ((*beginning, *ids(6), 2), (*beginning, *ids(5), 2))))
    return trees


# Order


@pytest.fixture
def long(prepare: Prepare, tmp_path: Path) -> Subject:
    """Three hundred rows that the file has in the order of their length."""
    return with_trees(prepare("sft"), mapped(tmp_path, [Tree(ids(3 + n // 30), (ids(4),)) for n in range(300)]))


def test_a_sorted_file_that_is_shuffled_is_sound(long: Subject) -> None:
    assert all(verdict(check_order, replace(long, source=replace(long.source, seed=n))) is None for n in range(40))


def test_a_file_that_is_read_from_its_beginning(long: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_order(step: int, size: int, rows: int, seed: int) -> list[int]:
        return [(step * size + place) % rows for place in range(size)]

    monkeypatch.setattr("trueup.train.sources.step_indices", in_order)
    assert verdict(check_order, long) == ("rows-in-order", "warning")


def test_short_rows_first_from_a_shuffled_file(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = RNG.permutation(300) // 30
    subject = with_trees(prepare("sft"), mapped(tmp_path, [Tree(ids(3 + int(n)), (ids(4),)) for n in lengths]))
    order = np.argsort(lengths, kind="stable").tolist()
    monkeypatch.setattr(
        "trueup.train.sources.step_indices", lambda step, size, *_: order[step * size : (step + 1) * size]
    )
    assert verdict(check_order, subject) == ("rows-in-order", "warning")


# Copies


@pytest.mark.parametrize(
    ("different", "expected"), [(400, None), (390, ("rows-copied", "note")), (150, ("rows-copied", "warning"))]
)
def test_copies_are_counted(prepare: Prepare, tmp_path: Path, different: int, expected: Any) -> None:
    rows = [Tree(ids(5), (ids(6),)) for _ in range(different)]
    trees = mapped(tmp_path, [rows[number % different] for number in range(400)])
    assert verdict(check_copies, with_trees(prepare("sft"), trees)) == expected


def test_a_row_is_its_prompt_and_its_responses_in_their_order(tmp_path: Path) -> None:
    """None of these is a copy of another, although they hold the same tokens."""
    one, two = (7, 8), (9,)
    same = [Tree(one, (two, two)), Tree(one, (one, two)), Tree(one, (two, one)), Tree(two, (one, one))]
    moved = [
        Tree((7,), ((8, 9),)),
        Tree((7, 8), ((9,),)),
        Tree((8, 7), ((9,),)),
        Tree((), ((7, 8, 9),)),
        Tree((7, 8), ()),
    ]
    zeros = [Tree((0,), ()), Tree((0, 0), ()), Tree((), ((0,),)), Tree((), ((), (0,))), Tree((), ())]
    keys = mapped(tmp_path, [*same, *moved, *zeros]).keys
    assert len(set(keys.tolist())) == len(keys)


def test_hashes_are_of_rows_and_not_of_places(tmp_path: Path) -> None:
    """Over two blocks: a row has the same hash wherever it stands, and prompts are compared across files."""
    rows = [Tree(ids(4), (ids(3), ids(2))) for _ in range(1500)]
    first, second = mapped(tmp_path / "one", rows), mapped(tmp_path / "two", rows[::-1])
    assert (first.keys == second.keys[::-1]).all() and len(set(first.keys.tolist())) == 1500
    other = mapped(tmp_path / "three", [*rows[:10], *(Tree(ids(9), ()) for _ in range(5))])
    assert shared(other, first) == (10, 10) and shared(second, first) == (1500, 1500)
    turned = [Tree(row.prompt, row.responses[::-1]) for row in rows[:10]]
    assert shared(mapped(tmp_path / "four", turned), first) == (10, 0)


@pytest.mark.parametrize(("different", "expected"), [(2, None), (1, ("few-prompts", "warning"))])
def test_a_rollout_of_one_prompt(prepare: Prepare, different: int, expected: Any) -> None:
    subject = prepare("grpo")
    drawn = subject.source.plan.prompts
    prompts = [subject.source.prompts[number % (different * drawn // 2)] for number in range(3 * drawn)]
    starved = replace(subject, source=replace(subject.source, prompts=prompts))
    outcome = check_copies(starved, take_sample(subject, SIZES["quick"]))
    assert outcome is not None
    assert [(f.rule, f.severity) for f in outcome.findings] == ([expected] if expected else [])


# Questions inside responses


def test_sides_in_alphabetical_order(prepare: Prepare, tmp_path: Path) -> None:
    subject = prepare("dpo")
    words = subject.encoder.tokenizer.decode

    def found(trees: list[Tree]) -> Any:
        return verdict(check_alphabet, with_trees(subject, mapped(tmp_path, trees)))

    drawn = [(ids(6), ids(6)) for _ in range(200)]
    order = [sorted(pair, key=lambda own: words(list(own))) for pair in drawn]
    assert found([Tree(ids(4), (one, other)) for one, other in drawn]) is None
    for place in (0, 1):
        assert found([Tree(ids(4), (own[place], own[1 - place])) for own in order]) == ("sides-in-order", "warning")
    assert found([Tree(ids(4), tuple(order[0])) for _ in range(30)]) is None, "too few"


def test_questions_inside_responses(prepare: Prepare, tmp_path: Path) -> None:
    subject = prepare("dpo")

    def found(trees: list[Tree]) -> Any:
        return verdict(check_echo, with_trees(subject, mapped(tmp_path, trees)))

    same = ids(4)
    assert found(pairs(60, lambda n: same, shared=9)) == ("question-in-response", "warning")
    assert found(pairs(60, lambda n: same)) is None, "one task for all"
    assert found(pairs(60, lambda n: (n, *same), shared=9)) is None, "answers that begin alike"
    opening = ids(9)
    polite = [Tree(same, ((*opening, *ids(4)), (*opening, *ids(5)))) for _ in range(60)]
    assert found(polite) is None, "one opening for all answers"
