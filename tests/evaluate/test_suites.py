"""Evaluation suites: what ships, what a world brings, what a user's file needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trueup.errors import UserError
from trueup.evaluate.suites import load_suite, shipped
from trueup.worlds.registry import load_world


def test_sixteen_prompts_ship_and_are_all_different_kinds_of_question() -> None:
    suite = load_suite("sixteen")
    assert len(suite.prompts.records) == 16
    assert len({record.id for record in suite.prompts.records}) == 16
    assert len({record.prompt for record in suite.prompts.records}) == 16
    assert suite.gold is None and "sixteen" in shipped()


def test_a_world_brings_its_test_prompts_and_its_gold_score() -> None:
    world, suite = load_world("errands"), load_suite("errands", limit=5)
    assert suite.gold is not None
    for record, prompt in zip(suite.prompts.records, world.prompts("test"), strict=False):
        assert record.prompt[-1].content == prompt.text
        ideal = world.ideal(prompt)
        assert suite.gold(record, ideal, True) == world.gold(prompt, ideal, True)
        assert sum(suite.gold(record, ideal, True).values()) > sum(suite.gold(record, "no idea", True).values())


def test_a_file_of_a_user_works_and_says_what_gold_needs(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"prompt": "what is up?"}) + "\n")
    assert load_suite(str(file)).prompts.records[0].prompt[-1].content == "what is up?"
    scored = load_suite(str(file), load_world("errands"))
    assert scored.gold is not None
    with pytest.raises(UserError, match=r"mine\.jsonl:1: .*'family'"):
        scored.gold(scored.prompts.records[0], "x", True)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'sixteen'"):
        load_suite("sixten")
