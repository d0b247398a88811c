"""The card of planted reward models: what length, cutting, memory and confidence do to it, and what is said of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.data.batching import Batching
from trueup.data.trees import Layout, Tree
from trueup.evaluate import reward_model, reward_model_truncation
from trueup.evaluate.reward_model import describe_card, reward_card
from trueup.evaluate.reward_model_page import card_page
from trueup.evaluate.reward_model_rules import UNSOUND, chance_error, judge_reward_model
from trueup.evaluate.reward_model_truncation import SHARES, truncation
from trueup.stats.calibration import expected_calibration_error
from trueup.types import TokenTrees

END = 2
BATCHING = Batching("shared", 500, torch.device("cpu"))

Response = tuple[int, ...]


class Planted(torch.nn.Module):
    """Scores a response by a function of its tokens."""

    def __init__(self, score: Callable[[Response], float]) -> None:
        super().__init__()
        self.rule = score
        self.seen: list[Response] = []

    def scores(self, trees: TokenTrees) -> torch.Tensor:
        responses = [tuple(trees.target[trees.branch == k].tolist()) for k in range(trees.num_branches)]
        self.seen += responses
        return torch.tensor([self.rule(response) for response in responses])


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reward_model, reward_model_truncation):
        monkeypatch.setattr(module, "response_scores", lambda model, trees: model.scores(trees))


def pairs(count: int, seed: int = 0, longer: float = 0.5) -> list[Tree]:
    """Random responses of 4 to 20 tokens; ``longer`` is the share of pairs whose chosen side is the longer one."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        sides = sorted((rng.sample(range(10, 200), length) for length in rng.sample(range(4, 21), 2)), key=len)
        chosen, rejected = sides[::-1] if rng.random() < longer else sides
        out.append(Tree((5, 6), ((*chosen, END), (*rejected, END))))
    return out


def card_of(score: Callable[[Response], float], held: Sequence[Tree], train: Sequence[Tree] = ()) -> dict[str, Any]:
    return reward_card(Planted(score), train or held, held, BATCHING, END)


def rules(card: dict[str, Any]) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in judge_reward_model(card)}


def luck(response: Response) -> float:
    """A score that has nothing to do with anything, and is the same for the same response."""
    return random.Random(repr(response)).gauss(0, 1)


def test_a_model_of_length_is_found_out_whichever_side_is_chosen() -> None:
    for longer in (0.2, 0.5, 1.0):
        held = card_of(len, pairs(400, longer=longer))["heldout"]
        assert held["length_correlation"] == pytest.approx(1.0, abs=0.01)
    mixed = card_of(lambda r: len(r) / 10, pairs(400, longer=0.8))
    assert mixed["heldout"]["accuracy_chosen_shorter"]["estimate"] == 0.0
    assert 60 <= mixed["heldout"]["accuracy_chosen_shorter"]["n"] <= 100
    assert rules(mixed)["rm-follows-length"] == "warning"


def test_the_longer_response_by_a_varying_lead_is_length_all_the_same() -> None:
    """Over chosen less rejected alone the ranks of lead and length are independent here."""
    held = pairs(400, longer=1.0)
    better = {tree.responses[0] for tree in held}
    card = card_of(lambda r: (r in better) * abs(luck(r)), held)
    assert card["heldout"]["length_correlation"] > 0.5


def test_a_score_of_something_else_does_not_follow_length() -> None:
    card = card_of(luck, pairs(1000))
    assert abs(card["heldout"]["length_correlation"]) < 0.1
    assert "rm-follows-length" not in rules(card)


def test_what_is_scored_is_the_first_tokens_with_and_without_the_terminator() -> None:
    model = Planted(luck)
    tree = Tree((5,), ((10, 11, 12, 13, 14, 15, 16, 17, END), (20, END)))
    truncation(model, [tree], END, BATCHING)
    first = tuple(range(10, 18))
    expected = [first[:n] for n in (2, 4, 6, 7, 8)] + [(20,)] * 5
    assert sorted(model.seen) == sorted([*expected, *((*cut, END) for cut in expected)])


def test_a_score_that_does_not_depend_on_the_end_is_not_changed_by_a_cut() -> None:
    card = card_of(lambda r: r[0] / 100, pairs(300))
    found = card["heldout"]["truncation"]
    summaries = ("sd_ratio", "mean_change", "mean_absolute_change", "beats_whole")
    for ending in ("cut_off", "ended"):
        assert {found[ending][name] for name in summaries} == {0}
        assert {cut["accuracy"] for cut in found[ending]["cuts"]} == {
            card_of(lambda r: r[0] / 100, pairs(200))["heldout"]["accuracy"]["estimate"]
        }
    assert "rm-follows-the-cut" not in rules(card)


def test_a_score_of_the_terminator_moves_cut_responses_alone_and_by_as_much() -> None:
    held = pairs(300)
    first = np.array([response[0] for tree in held[:200] for response in tree.responses])
    card = card_of(lambda r: r[0] / 100 + 5 * (r[-1] == END), held)
    found = card["heldout"]["truncation"]
    expected = -5 / (first / 100).std()
    assert found["score_sd"] == pytest.approx((first / 100).std(), rel=1e-5)
    assert found["cut_off"]["mean_change"] == pytest.approx(expected, rel=1e-4)
    assert found["cut_off"]["mean_absolute_change"] == pytest.approx(-expected, rel=1e-4)
    assert found["cut_off"]["beats_whole"] == 0.0
    # Four equal prefixes and the whole: a fifth of the values lies apart.
    assert found["cut_off"]["sd_ratio"] == pytest.approx(-expected * 0.4, rel=1e-4)
    assert [cut["share"] for cut in found["cut_off"]["cuts"]] == [*SHARES, 1.0]
    assert found["cut_off"]["cuts"][-1]["mean_change"] == pytest.approx(expected, rel=1e-4)
    assert found["ended"]["mean_absolute_change"] == 0.0
    (finding,) = [f for f in judge_reward_model(card) if f.rule == "rm-follows-the-cut"]
    assert finding.evidence["ending"] == "cut_off" and "0% of the cuts score higher" in finding.message
    assert finding.severity == "note"  # a model of responses that end; put the end back and all is well


def test_a_score_of_the_last_word_moves_with_the_cut_whatever_ends_it() -> None:
    card = card_of(lambda r: 3 * luck(tuple(t for t in r if t != END)[-1:]), pairs(300))
    found = card["heldout"]["truncation"]
    for ending in ("cut_off", "ended"):
        # The difference of two independent normal values: mean 2/sqrt(pi) = 1.13; a few cuts keep the last word.
        assert found[ending]["mean_absolute_change"] == pytest.approx(1.13, abs=0.1)
        assert found[ending]["beats_whole"] == pytest.approx(0.5, abs=0.05)
        assert found[ending]["sd_ratio"] == pytest.approx(0.8**0.5, abs=0.1)
    assert found["ended"]["mean_change"] == found["cut_off"]["mean_change"]
    assert rules(card)["rm-follows-the-cut"] == "warning"


def test_equal_scores_have_no_truncation_and_are_ties() -> None:
    card = card_of(lambda r: 1.0, pairs(50))
    assert card["heldout"]["truncation"] is None and card["heldout"]["ties"] == 1.0
    assert card["heldout"]["accuracy"]["estimate"] == 0.5 and card["heldout"]["length_correlation"] is None


@pytest.mark.parametrize("layout", ["flat", "plain"])
def test_the_card_is_the_same_in_every_layout(layout: Layout) -> None:
    held = pairs(40)
    cut = Batching(layout, 30, torch.device("cpu"))
    assert reward_card(Planted(luck), held, held, cut, END) == reward_card(Planted(luck), held, held, BATCHING, END)


def right_on(share: float, held: Sequence[Tree], lead: float) -> Callable[[Response], float]:
    """A model that is right on the first ``share`` of these pairs, always with the same lead."""
    right = {tree.responses[0] for tree in held[: round(share * len(held))]}
    wrong = {tree.responses[1] for tree in held[round(share * len(held)) :]}
    return lambda response: lead * (response in right or response in wrong)


def log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def test_a_sound_model_has_no_finding() -> None:
    held = pairs(400)
    card = card_of(right_on(0.75, held, log_odds(0.75)), held)
    card["heldout"]["truncation"] = None
    assert card["heldout"]["ece"] == pytest.approx(0.0, abs=1e-6)
    assert rules(card) == {}
    assert "right on 0.75 [0.71, 0.79] of 400 held-out pairs" in describe_card(card)


def test_a_model_that_knows_its_pairs_by_heart_must_not_be_optimised_against() -> None:
    train, held = pairs(300, seed=1), pairs(300, seed=2)
    known = right_on(1.0, train, 4.0)
    half = right_on(0.55, held, 4.0)
    card = card_of(lambda r: known(r) + half(r), held, train)
    found = {finding.rule: finding for finding in judge_reward_model(card)}
    finding = found["rm-memorised"]
    assert finding.severity == "fatal" and next(iter(found)) == "rm-memorised", "the worst comes first"
    assert finding.evidence["gap"] == pytest.approx(0.45)
    assert finding.message.startswith("Do not optimise against this model: it is right on 1.00 [0.99, 1.00] of 300")


def test_over_confidence_alone_is_enough() -> None:
    held = pairs(400)
    card = card_of(right_on(0.75, held, 6.0), held)
    assert card["heldout"]["ece"] == pytest.approx(0.25, abs=0.01)
    assert rules(card)["rm-memorised"] == "fatal"


def test_few_pairs_are_not_taken_for_a_fault() -> None:
    """Six held-out pairs: one more right or wrong is a sixth; the card says that nothing is known, and no more."""
    train, held = pairs(100, seed=1), pairs(6, seed=2)
    right, half = right_on(0.75, train, 1.0), right_on(0.5, held, 1.0)
    card = card_of(lambda r: right(r) + half(r), held, train)
    assert card["heldout"]["ece"] > 0.15 and card["train"]["accuracy"]["estimate"] == 0.75
    assert set(rules(card)) & {"rm-memorised"} == set()
    assert rules(card)["rm-not-validated"] == "warning"


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 600), st.floats(0.5, 0.95), st.integers(0, 2**32 - 1))
def test_a_calibrated_judge_stays_under_the_limit_of_its_number_of_pairs(n: int, sure: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stated = rng.uniform(0.5, sure, size=n)
    chosen = np.where(rng.random(n) < stated, stated, 1 - stated)
    assert expected_calibration_error(chosen) <= max(0.15, chance_error(n))


def test_a_coin_is_called_a_coin() -> None:
    held = pairs(400)
    assert rules(card_of(right_on(0.5, held, 0.1), held))["rm-at-chance"] == "warning"
    assert "rm-at-chance" not in rules(card_of(right_on(0.6, held, 0.1), held))


@pytest.mark.parametrize(("count", "known"), [(299, False), (300, True), (1000, True)])
def test_three_hundred_pairs_validate(count: int, known: bool) -> None:
    held = pairs(count)
    assert ("rm-not-validated" not in rules(card_of(right_on(0.7, held, 0.5), held))) == known


def test_without_held_out_pairs_nobody_knows() -> None:
    card = card_of(luck, [], pairs(20))
    assert rules(card) == {"rm-not-validated": "warning"} and "rm-not-validated" in UNSOUND
    assert "no held-out pairs" in describe_card(card)
    assert "no held-out pairs" in card_page(card, judge_reward_model(card))


def test_the_page_shows_findings_numbers_and_both_plots_and_runs_nothing_of_theirs() -> None:
    held = pairs(300)
    card = reward_card(Planted(luck), held, held, BATCHING, END, label_ceiling=0.83)
    finding = judge_reward_model(card)[0]
    hostile = replace(finding, message="<script>alert(1)</script>")
    page = card_page(card, [hostile])
    assert "<script>alert(1)" not in page and finding.rule in page and "0.830" in page
    assert page.count("Plotly.newPlot(") >= 2 and "Reliability on held-out pairs" in page
    assert 'src="http' not in page, "it opens offline"
