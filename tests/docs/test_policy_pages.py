"""The page of losses on methods that learn from their own samples, against the tables of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trueup.config.load import leaves
from trueup.config.policy import GrpoSection
from trueup.config.schema import PpoConfig, RlooConfig
from trueup.errors import UserError
from trueup.losses.overrides import resolve
from trueup.losses.variants import VARIANTS, Variant

PAGE = (Path(__file__).parents[2] / "docs/losses.md").read_text(encoding="utf-8")


def under(heading: str) -> str:
    """What stands under a heading, until the next one of its level or above."""
    level = len(heading.split(" ", maxsplit=1)[0])
    return re.split(rf"\n#{{1,{level}}} ", PAGE.split(f"\n{heading}\n", 1)[1])[0]


def rows(text: str) -> list[list[str]]:
    """The rows of a table without its head; a pipe in a cell is escaped."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


CRITIC_FREE = rows(under("# Policy gradients without a critic").split("\n## ")[0])


def test_the_rows_of_the_page_are_those_of_the_table() -> None:
    assert [row[0] for row in CRITIC_FREE] == list(VARIANTS)


@pytest.mark.parametrize("row", CRITIC_FREE, ids=lambda row: row[0])
def test_a_row_says_what_the_variant_is(row: list[str]) -> None:
    v: Variant = VARIANTS[row[0]]
    assert row[1].replace("\\|", "|") == v.equation
    assert row[2:6] == [v.baseline, v.scale_rewards, v.importance, v.clip]
    assert row[6] == f"{1 - v.clip_low:g} to {1 + v.clip_high:g}"
    assert row[7] == v.unit
    assert row[8] == (f"{v.kl_coef:g} {v.kl_estimator} in the {v.kl_placement}" if v.kl_coef else "none")
    assert v.paper.arxiv in row[9] and v.paper.place in row[9]


def test_settings_that_are_named_exist() -> None:
    text = under("# Policy gradients without a critic") + under("# Details of PPO")
    known = {*leaves(PpoConfig), *leaves(RlooConfig), *(f"grpo.{name}" for name in GrpoSection.model_fields)}
    named = set(re.findall(r"`((?:ppo|grpo|rloo|rollout)\.[a-z_.]+[a-z])", text))
    assert len(named) > 15 and named <= known, named - known


def test_penalties_that_the_page_calls_refused_are() -> None:
    """And the others are taken."""
    for placement, estimators, corrected, pull in rows(under("## What a KL penalty does")):
        for estimator in estimators.split(", "):
            given = {"kl_placement": placement, "kl_estimator": estimator, "kl_corrected": corrected == "true"}
            if "refused" in pull:
                with pytest.raises(UserError):
                    resolve("grpo", given)
            else:
                assert resolve("grpo", given).kl_estimator == estimator
