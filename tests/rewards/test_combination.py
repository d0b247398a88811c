"""Sums of rewards, and the rows of the data that rewards look up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trueup.data.read import read_prompts
from trueup.data.records import Message, PromptOnly
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.errors import RunError
from trueup.rewards import rows as rows_module
from trueup.rewards.combine import Combination, Part, by_text, by_tokens, standardised
from trueup.rewards.protocol import Completions, Scores, TextReward
from trueup.rewards.rows import PromptRows

NAN = math.nan


class Letters:
    """A tokenizer whose ids are characters."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids))


def completions() -> Completions:
    """Two prompts with two responses each; ``!`` ends one."""
    trees = [Tree((1,), ((97, 33), (98, 98))), Tree((2,), ((99, 33), (33,)))]
    records = [PromptOnly((Message("user", f"p{n}"),), f"f:{n}", str(n), {"n": n}) for n in (1, 2)]
    encoder = Encoder(Letters(), terminator=33, stops=frozenset({33}))
    return Completions(trees, (4, 9), (True, False, True, True), encoder, records)


def fixed(*values: float) -> Tensor:
    return torch.tensor(values)


def part(name: str, *values: float, weight: float = 1.0, standardise: bool = False) -> Part:
    return Part(name, lambda _: fixed(*values), weight, standardise)


def test_answers_are_the_responses_in_tree_order() -> None:
    found = completions().answers
    assert [a.response for a in found] == ["a", "bb", "c", ""]
    assert [a.prompt[0].content for a in found] == ["p1", "p1", "p2", "p2"]
    assert [a.meta["n"] for a in found] == [1, 1, 2, 2]
    assert [a.ended for a in found] == [True, False, True, True]
    assert [a.tokens for a in found] == [(97, 33), (98, 98), (99, 33), (33,)]


def test_the_sum_is_weighted_and_not_normalised() -> None:
    scores = Combination((part("a", 1, 2, 3, 4, weight=2.0), part("b", 1, 0, 1, 0, weight=-0.5)))(completions())
    assert scores.total.tolist() == [1.5, 4.0, 5.5, 8.0]
    assert {name: values.tolist() for name, values in scores.parts.items()} == {"a": [1, 2, 3, 4], "b": [1, 0, 1, 0]}


def test_a_part_that_does_not_apply_adds_nothing() -> None:
    scores = Combination((part("a", 1, NAN, 3, 4), part("b", NAN, 5, 6, 7, weight=0.1)))(completions())
    torch.testing.assert_close(scores.total, fixed(1, 0.5, 3.6, 4.7))
    assert scores.parts["a"].isnan().tolist() == [False, True, False, False]


def test_a_response_to_which_nothing_applies_stops_the_run() -> None:
    with pytest.raises(RunError, match=r"no part of the reward applies to the response 'c' to prompt 'p2' \(f:2\)"):
        Combination((part("a", 1, NAN, NAN, 4), part("b", NAN, 5, NAN, 7)))(completions())


def test_standardised_parts_have_one_scale_and_are_shown_raw() -> None:
    scores = Combination((part("a", 100, 300, NAN, 200, standardise=True), part("b", 0, 0, 1, 0)))(completions())
    assert scores.total.tolist() == [-1.0, 1.0, 1.0, 0.0]
    assert scores.parts["a"][:2].tolist() == [100, 300]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20), st.integers(0, 19))
def test_standardised_has_mean_0_and_deviation_1_or_is_0(values: list[float], hole: int) -> None:
    scores = fixed(*values)
    scores[hole % len(values)] = NAN
    out = standardised(scores)
    assert torch.equal(out.isnan(), scores.isnan())
    seen = out[~out.isnan()].double()
    assert abs(float(seen.mean())) < 1e-2
    spread = float(seen.std()) if len(seen) > 1 else 0.0
    assert spread == pytest.approx(1.0, abs=1e-2) or bool((seen == 0).all())


@pytest.mark.parametrize("value", [0.0, 0.7, 1e6])
def test_equal_scores_are_no_signal(value: float) -> None:
    """0.7 is not a float32 whose mean over five is sure to be itself."""
    assert standardised(fixed(*[value] * 5)).tolist() == [0.0] * 5


def test_text_is_scored_and_none_is_a_hole() -> None:
    reward = TextReward(lambda answers: [None if not a.response else len(a.response) for a in answers])
    scored = by_text(reward)(completions())
    assert scored[:3].tolist() == [1, 2, 1] and bool(scored[3].isnan())


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_model_s_broken_score_is_not_taken_for_a_hole(value: float) -> None:
    model = by_tokens("rm", lambda _: Scores(fixed(1, value, 1, 1)))
    with pytest.raises(RunError, match="'rm' gave a score that is not finite"):
        Combination((Part("rm", model), part("b", 1, 1, 1, 1)))(completions())


@pytest.mark.parametrize("in_memory", [1, 2**20])
def test_rows_are_found_by_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(rows_module, "_IN_MEMORY", in_memory)
    lines = [{"prompt": f"p{n}", "answer": n, **({"rare": [n]} if n == 3 else {})} for n in range(1, 7)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    loaded = read_prompts(tmp_path / "p.jsonl")
    rows = PromptRows(loaded, [1, 3, 6])
    assert len(rows) == 3 and rows.columns == {"answer", "rare"} and not rows.several_turns
    for place in (2, 0, 1, 0):
        assert rows[place] == loaded.pick([[1, 3, 6][place]])[0]
    assert PromptRows(loaded, [1, 2]).columns == {"answer"}
