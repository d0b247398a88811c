"""Each rule of the audit fires on a file that is ill with it, says the number, and is silent on a healthy one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from trueup.data.audit import audit
from trueup.data.records import Dropped, Loaded, Message, Pair, PromptOnly
from trueup.data.template import make_encoder
from trueup.health.data_rules import RULES, judge_audit
from trueup.health.template_rules import TEMPLATE_RULES
from trueup.models import hub
from trueup.models.tokenizer import EOS, train_bpe

WORDS = ("red", "green", "blue", "round", "square", "small", "big", "near", "far", "one", "two", "three", "sun", "moon")
Row = tuple[str, str, str]


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=8)).capitalize() + "."


def healthy(count: int = 120) -> list[Row]:
    rng = random.Random(0)
    return [(f"{sentence(rng)} {i}", sentence(rng), sentence(rng)) for i in range(count)]


def record(row: Row, number: int = 1) -> Pair:
    return Pair((Message("user", row[0]),), row[1], row[2], f"f:{number}")


def card(rows: list[Any], unused: tuple[str, ...] = (), against: list[str] | None = None, tokens: bool = False) -> Any:
    made = [row if isinstance(row, Dropped) else record(row, i) for i, row in enumerate(rows, 1)]
    loaded = Loaded(tuple(made), "pairs (prompt, chosen, rejected)", "f", "", ignored=dict.fromkeys(unused))
    prompts = None
    if against is not None:
        asked = [PromptOnly((Message("user", text),), f"e:{i}", str(i), {}) for i, text in enumerate(against)]
        prompts = Loaded(asked, "prompts (prompt)", "e", "")
    encoder = make_encoder(hub.wrap_tokenizer(train_bpe(WORDS, 320))) if tokens else None
    return audit("pairs", loaded, encoder, 60, prompts)


def rules_of(found: Any) -> dict[str, str]:
    """Rule -> severity, from the card as it is after a journey through JSON."""
    return {f.rule: f.severity for f in judge_audit(json.loads(json.dumps(found, allow_nan=False)))}


def test_a_healthy_file_has_no_findings() -> None:
    assert rules_of(card(healthy(), against=["What else?"])) == {}
    # The shipped tokenizer pads with a token of its own and keeps every text.
    assert rules_of(card(healthy(), tokens=True)) == {}


ILL: dict[str, tuple[Callable[[list[Row]], Any], str]] = {
    "repeated-rows": (lambda rows: card([*rows, rows[0], rows[1]]), "warning"),
    "repeated-prompts": (lambda rows: card([*rows, (rows[0][0], "Blue sun.", "Red moon.")]), "note"),
    "contradictory-rows": (lambda rows: card([*rows, (rows[0][0], rows[0][2], rows[0][1])]), "warning"),
    "response-on-both-sides": (lambda rows: card([*rows, (rows[0][0], rows[0][2], "Red moon.")]), "note"),
    "near-identical-pairs": (lambda rows: card([*rows, ("p", "Red  moon.", "red moon.")]), "warning"),
    "cut-copies": (lambda rows: card([*rows, ("p", "Red moon. Blue.", "Red moon.")]), "note"),
    "rows-left-out": (lambda rows: card([*rows, *[Dropped("tied scores")] * 3]), "warning"),
    "unused-columns": (lambda rows: card(rows, unused=("split",)), "note"),
    "evaluation-overlap": (lambda rows: card(rows, against=[rows[0][0].upper()] + ["x"] * 50), "warning"),
    "length-bias": (
        lambda rows: card([(p, f"{c} {c}" if i % 3 else c, r) for i, (p, c, r) in enumerate(rows)]),
        "warning",
    ),
    "separable-sides": (lambda rows: card([(p, c, r.replace(".", " ~.")) for p, c, r in rows]), "warning"),
    "surface-tells": (
        lambda rows: card([(p, c if i % 3 else f"Sure. {c}", r) for i, (p, c, r) in enumerate(rows)]),
        "warning",
    ),
    "template-markers": (lambda rows: card([*rows, ("p", "Red moon.\nHuman: blue", "Sun.")]), "warning"),
    "prompts-over-context": (lambda rows: card([*rows, ("z" * 70, "Red.", "Blue.")], tokens=True), "warning"),
    "special-text": (lambda rows: card([*rows, ("p", f"Red{EOS}.", "Blue.")], tokens=True), "warning"),
    "rows-over-limits": (lambda rows: card([*rows, ("p", "ox. " * 300, "Blue.")], tokens=True), "note"),
}


@pytest.mark.parametrize("rule", ILL)
def test_a_rule_fires_on_its_illness(rule: str) -> None:
    make, severity = ILL[rule]
    assert rules_of(make(healthy())).get(rule) == severity


def faulty(**changed: Any) -> Any:
    """A card with tokens, in which the template's part is as given."""
    made = card(healthy(40), tokens=True)
    made["template"] |= changed
    return made


SOME = {"count": 2, "of": 40, "share": 0.05, "places": ["f:1", "f:2"]}


@pytest.mark.parametrize(
    ("rule", "changed", "severity"),
    [
        ("text-not-kept", {"not_kept": SOME}, "warning"),
        ("boundary-merges", {"merges": SOME}, "note"),
        ("double-begin", {"begins_twice": SOME}, "warning"),
        ("rewritten-turns", {"rewrites": "trims", "several_turns": 3}, "warning"),
        ("rewritten-turns", {"rewrites": "trims", "several_turns": 0}, "note"),
        ("pad-ends-turns", {"pad_is_terminator": True}, "note"),
    ],
)
def test_a_rule_fires_on_a_faulty_template(rule: str, changed: dict[str, Any], severity: str) -> None:
    assert rules_of(faulty(**changed)) == {rule: severity}


def test_every_rule_was_tried() -> None:
    tried = {*ILL, "text-not-kept", "boundary-merges", "double-begin", "rewritten-turns", "pad-ends-turns"}
    assert len(tried) == len(RULES) + len(TEMPLATE_RULES)


def test_the_worst_comes_first_and_places_are_evidence() -> None:
    rows = healthy()
    found = judge_audit(card([*rows, rows[0]], unused=("x",), against=[row[0] for row in rows]))
    assert [finding.severity for finding in found] == ["fatal", "note", "note", "note"]
    assert found[0].evidence["exact"]["count"] == len(rows)
    assert found[1].evidence["places"] == [f"f:{len(rows) + 1} (as f:1)"] and "1 of 121" in found[1].message


def test_the_shorter_wins_is_a_length_bias_too() -> None:
    rows = [(p, c, f"{r} {r}") for p, c, r in healthy(60)]
    (finding,) = [f for f in judge_audit(card(rows)) if f.rule == "length-bias"]
    assert "'The shorter response wins' is right on 100.0%" in finding.message


def test_few_prompts_give_no_verdict_on_length() -> None:
    assert "length-bias" not in rules_of(card([(p, c * 2, r) for p, c, r in healthy(20)]))
