"""The forms of ``rollout.reward``: what each means, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trueup.config.load import dump, leaves, load_config, parse_value, validate
from trueup.config.rewards import RewardPart, reward_parts
from trueup.config.schema import GrpoConfig
from trueup.errors import UserError

NEEDED = {"model": {"path": "m"}, "data": {"path": "d"}, "run": {"out": "o"}}

FORMS: list[tuple[Any, list[RewardPart]]] = [
    ("runs/rm/final", [RewardPart("text", "runs/rm/final")]),
    ("my.py:f", [RewardPart("text", "my.py:f")]),
    ({"kind": "regex", "pattern": "a"}, [RewardPart("kind", "regex", {"pattern": "a"})]),
    ({"kind": "contains", "text": "a"}, [RewardPart("kind", "contains", {"text": "a"})]),
    ({"judge": "http://h/v1", "model": "m"}, [RewardPart("judge", "http://h/v1", {"model": "m"})]),
    ({"path": "rm", "weight": 2, "name": "r"}, [RewardPart("path", "rm", {}, "r", 2.0)]),
    ({"exact": 1, "my.py:f": -0.5}, [RewardPart("text", "exact"), RewardPart("text", "my.py:f", weight=-0.5)]),
    (
        ["exact", {"kind": "words", "at_most": 9, "weight": 0.1, "standardise": True}],
        [RewardPart("text", "exact"), RewardPart("kind", "words", {"at_most": 9}, None, 0.1, True)],
    ),
]


def setting(value: Any) -> Any:
    return validate(GrpoConfig, {**NEEDED, "rollout": {"reward": value}}, "a test").rollout.reward


@pytest.mark.parametrize(("value", "parts"), FORMS)
def test_forms(value: Any, parts: list[RewardPart], tmp_path: Path) -> None:
    assert list(reward_parts(value)) == parts
    assert setting(value) == value, "a setting is kept as it was given"
    config = validate(GrpoConfig, {**NEEDED, "rollout": {"reward": value}}, "a test")
    (tmp_path / "c.yaml").write_text(dump(config), encoding="utf-8")
    assert load_config(GrpoConfig, str(tmp_path / "c.yaml"), {}) == config


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("runs/rm", "runs/rm"),
        ("my.py:f", "my.py:f"),
        ("2024", "2024"),
        ("{exact: 1, words: 0.5}", {"exact": 1, "words": 0.5}),
        ("[exact, {kind: words, at_most: 3}]", ["exact", {"kind": "words", "at_most": 3}]),
    ],
)
def test_on_the_command_line(text: str, value: Any) -> None:
    assert setting(parse_value(text, leaves(GrpoConfig)["rollout.reward"].annotation)) == value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "rollout.reward: give a folder, file.py:function, a rule, .*, not None"),
        (True, "not True"),
        ("", "not ''"),
        ([], r"not \[\]"),
        ({}, "it has nothing"),
        ({"knd": "exact"}, "it has 'knd'; did you mean 'kind'?"),
        ({"exact": "much"}, "it has 'exact'"),
        ({1: 2}, "keys must be texts"),
        ({"kind": "exact", "judge": "http://h"}, "has kind and judge; a part is one of them"),
        ({"kind": ["exact"]}, r"rollout.reward.kind: must be a text, not \['exact'\]"),
        ({"path": "rm", "wieght": 2}, "unknown key 'wieght'; did you mean 'weight'?"),
        (["exact", {"kind": "words", "weight": "a"}], r"rollout.reward\[1\].weight: must be a number, not 'a'"),
        (["exact", {"kind": "words", "weight": float("nan")}], "must be a number, not nan"),
        (["exact", 0.5], r"rollout.reward\[1\]: give .*, not 0.5"),
        ({"kind": "exact", "name": "a/b"}, "rollout.reward.name: 'a/b'"),
        ({"kind": "exact", "standardise": 1}, "rollout.reward.standardise: must be true or false"),
        ({"exact": 0, "words": 0}, "every weight is 0"),
    ],
)
def test_refusals_say_which_part_and_how(value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        setting(value)
    assert str(error.value).count("rollout.reward") == 1
