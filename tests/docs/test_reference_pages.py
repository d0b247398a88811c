"""The reference pages name what the code has, all of it and nothing else: metrics, rules, losses."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.evaluate.best_of_n import curve
from trueup.evaluate.policy import summarise
from trueup.health.table import RULES
from trueup.health.thresholds import THRESHOLDS
from trueup.losses.catalog import CATALOG
from trueup.losses.implicit import DIVERGENCES
from trueup.losses.mixture import MIXTURES
from trueup.models import hub
from trueup.study.analyse import COLUMNS
from trueup.train.step import _Sums

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs"
SOURCES = ROOT / "trueup"

TABULATED = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
HEADED = re.compile(r"^## `([^`]+)`$", re.MULTILINE)

CHOSEN_BY_NAME = ("preference", "unpaired")
"""Families of losses that have a section each; the method chooses the others."""

NOT_A_METRIC = {"step"}
"""Columns of a journal that number its lines."""


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def once(names: list[str]) -> set[str]:
    assert len(names) == len(set(names)), "a name is documented twice"
    return set(names)


def family(name: str) -> str:
    """A metric's row: part names of a world's gold score, of a loss and of a reward share one."""
    name = re.sub(r"^rewards/.+/", "rewards/NAME/", name.removeprefix("eval/"))
    return re.sub(r"^(gold|proxy|loss)/.+$", r"\1/NAME", name)


@pytest.fixture(scope="module")
def tiny_lab() -> Iterator[Any]:
    """The laboratory of the recipes' tests, as a module."""
    path = ROOT / "tests" / "recipes" / "tiny_lab.py"
    spec = importlib.util.spec_from_file_location("laboratory", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["laboratory"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["laboratory"]


@pytest.fixture(scope="module")
def run_metrics(tiny_lab: Any, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names in the journals of one short run of every variant; held-out data where the method takes them."""
    root = tmp_path_factory.mktemp("laboratory")
    names: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", tiny_lab.SHAPE)
        lab = tiny_lab.build(root)
        held = {"sft": "held_examples.jsonl", "reward-causal": "held.jsonl", "dpo": "held.jsonl"}
        held |= {"orpo": "held.jsonl", "kto": "held_judged.jsonl"}
        settings = tiny_lab.settings(lab)
        verb, values = settings["grpo"]
        parts = {**values["rollout"], "reward": [{"kind": "words", "at_most": 2}]}
        settings["grpo-parts"] = (verb, {**values, "rollout": parts})
        for variant in (*tiny_lab.VARIANTS, "grpo-parts"):
            verb, values = settings[variant]
            if variant in held:
                values = {**values, "data": {**values["data"], "validation": str(root / held[variant])}}
            tiny_lab.run_config(verb, values, root / "runs" / variant)
            lines = (root / "runs" / variant / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            names |= {name for line in lines for name in json.loads(line)}
    return names - NOT_A_METRIC


def evaluation_metrics() -> set[str]:
    item = {"gold": 1.0, "gold/part": 1.0, "proxy": 1.0, "proxy/part": 1.0, "kl": 1.0, "length": 2, "ended": True}
    points = curve([{**item, "proxy": float(draw)} for draw in range(2)], 2, 2)
    bound = {name for name in points[0] if name.startswith("kl/")}
    return set(summarise([item])) | set(COLUMNS) | {"gold/part", "kl/token"} | bound


def test_every_metric_has_a_row_and_every_row_a_metric(run_metrics: set[str]) -> None:
    # Written only in steps that have such pairs or responses, which a short run may not.
    rare = {"pairs/identical", "rewards/NAME/applicable"}
    made = {family(name) for name in run_metrics | evaluation_metrics()} | rare
    table = page("metrics").split("\n## Items\n")[0]  # what follows lists fields of files
    assert once(TABULATED.findall(table)) == made


def test_held_out_metrics_were_among_those_collected(run_metrics: set[str]) -> None:
    """Otherwise the comparison would pass without them."""
    assert {"eval/loss", "eval/accuracy", "eval/rewards/accuracies"} <= run_metrics


@given(st.sets(st.sampled_from(["policy", "value", "kl"]), min_size=1))
def test_terms_are_listed_where_there_are_several(names: set[str]) -> None:
    """What the page says of ``loss/NAME``."""
    sums = _Sums()
    sums.terms = dict.fromkeys(names, (1.0, "token", 1.0))
    listed = {name for name in sums.means({"token": 1.0}) if name != "loss"}
    assert listed == ({f"loss/{name}" for name in names} if len(names) > 1 else set())


def identifiers(path: Path) -> Iterator[str]:
    """First argument of every ``Finding(...)`` of a module; ``Finding(**row)`` reads one back."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding" and node.args:
            rule = ast.literal_eval(node.args[0])
            assert isinstance(rule, str), f"{path}:{node.lineno}: a rule needs a literal name"
            yield rule


def test_every_rule_has_a_section_and_every_section_a_rule() -> None:
    made = {rule for path in SOURCES.rglob("*.py") for rule in identifiers(path)}
    assert once(HEADED.findall(page("diagnoses"))) == made
    assert made > {rule.name for rule in RULES}, "rules outside the monitor were not found"


PARTS = ("Means", "Fires", "Threshold", "Evidence", "Remedy")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_live_rule_has_its_section_with_its_grades_and_bounds(rule: Any) -> None:
    text = page("diagnoses").split("## During training\n", 1)[1].split("\n## After training", 1)[0]
    section = text.split(f"## `{rule.name}`\n", 1)[1].split("\n## ", 1)[0]
    assert [found for found in re.findall(r"^\*\*(\w+)", section, re.MULTILINE) if found in PARTS] == list(PARTS)
    numbers = {float(found) for found in re.findall(r"-?\d+(?:\.\d+)?(?:e-\d+)?", section)}
    for name, bound in THRESHOLDS.items():
        owner, _, what = name.partition("/")
        if owner == rule.name:
            assert bound.value in numbers, f"{name} is {bound.value:g}"
            assert what not in ("note", "warning", "fatal") or what in section, what


def test_every_loss_is_on_the_page() -> None:
    headed = once(HEADED.findall(page("losses")))
    tabulated = once(TABULATED.findall(page("losses")))
    assert headed == {loss.name for loss in CATALOG.values() if loss.family in CHOSEN_BY_NAME}
    assert tabulated == {loss.name for loss in CATALOG.values() if loss.family not in CHOSEN_BY_NAME}


def test_named_sums_are_on_the_page() -> None:
    text = page("losses").split("## Sums of losses\n", 1)[1]
    for name, parts in MIXTURES.items():
        assert f"| {name} | " + " + ".join(f"{weight:g} `{part}`" for part, weight in parts) in text


def test_divergences_are_on_the_page_with_the_losses_they_are_for() -> None:
    text = page("losses").split("## Divergences\n", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| (\w+) \|", text, re.MULTILINE)[1:] == list(DIVERGENCES)
    valid = text.split("Valid for", 1)[1].split(", where", 1)[0]
    assert set(re.findall(r"`(\w+)`", valid)) == {loss.name for loss in CATALOG.values() if loss.divergences}


@pytest.mark.parametrize(
    "loss", [loss for loss in CATALOG.values() if loss.family in CHOSEN_BY_NAME], ids=lambda x: x.name
)
def test_a_loss_section_has_its_facts(loss: Any) -> None:
    text = page("losses").split(f"## `{loss.name}`\n", 1)[1].split("\n## ", 1)[0]
    assert loss.equation in text and loss.paper.arxiv in text
    assert ("none" if loss.default_beta is None else f"{loss.default_beta:g}") in text.split("beta:", 1)[1]
    for option in loss.options:
        assert f"`{option}`" in text
