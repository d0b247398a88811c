"""The page on rewards names every rule, option and form that there is, and its examples are accepted."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trueup.config.rewards import OF_A_PART, reward_parts
from trueup.rewards import custom
from trueup.rewards.judge import make_judge
from trueup.rewards.rules import RULES, make_rule

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def examples() -> list[Any]:
    return [yaml.safe_load(text)["rollout"]["reward"] for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_s_row_has_its_options_and_defaults(rule: str) -> None:
    (row,) = re.findall(rf"^\| `{rule}` \|.*\| ([^|]*) \|$", section("Rules"), re.MULTILINE)
    for name, option in inspect.signature(RULES[rule]).parameters.items():
        default = option.default
        shown = f" ({str(default).lower().replace('1e-06', '1e-6')})" if default not in (None, option.empty) else ""
        assert f"`{name}`{shown}" in row
    assert len(re.findall(r"^\| `\w+` \|", section("Rules"), re.MULTILINE)) == len(RULES)


def test_what_a_function_may_ask_for() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", section("Functions"), re.MULTILINE))
    assert told == {*custom._ALWAYS, *custom._OF_TEXTS} == {*custom._ALWAYS, *custom._OF_CONVERSATIONS}


def test_a_judge_s_options_are_shown_with_their_defaults() -> None:
    (example,) = [value for value in examples() if isinstance(value, dict) and "judge" in value]
    known = inspect.signature(make_judge).parameters
    assert set(example) == set(known)
    for name in ("scale", "timeout", "retries", "backoff", "workers"):
        default = known[name].default
        assert example[name] == (list(default) if isinstance(default, tuple) else default)


def test_the_examples_have_forms_that_are_accepted() -> None:
    found = [part for value in examples() for part in reward_parts(value)]
    assert len(found) > 5 and all(f"`{key}`" in PAGE for key in OF_A_PART)
    for part in found:
        if part.kind == "kind":
            make_rule(part.target, part.options)
