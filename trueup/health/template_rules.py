"""Judgement of what a tokenizer and its template make of a file; the part of an audit's card that needs a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trueup.health.findings import Finding

Card = Mapping[str, Any]


def amount(found: Mapping[str, Any], of_what: str) -> str:
    """The opening of a sentence about a tally: "In 3 of 10 rows (30.0%)"."""
    return f"In {found['count']} of {found['of']} {of_what} ({found['share']:.1%})"


def special_text(card: Card) -> Finding | None:
    """Text that is the name of a special token."""
    responses, prompts = (card["template"][f"special_in_{where}"] for where in ("responses", "prompts"))
    if not responses["count"] + prompts["count"]:
        return None
    message = (
        f"{amount(responses, 'responses')}, and in {prompts['count']} prompts, the name of a special token is text. "
        "In a response it is trained as plain pieces; in a prompt it becomes the token itself."
    )
    remedy = "Remove it: in a prompt it ends or opens a turn that is none."
    evidence = {"responses": responses, "prompts": prompts}
    return Finding("special-text", "warning", 0, message, remedy, evidence, "F20 of the catalogue")


def text_not_kept(card: Card) -> Finding | None:
    """Responses whose tokens decode to another text."""
    found = card["template"]["not_kept"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'responses')} the tokens do not decode to the text they were made from."
    remedy = (
        "Look at one with `trueup data show FILE --model MODEL`: the tokenizer changes its white space or characters."
    )
    severity = "warning" if found["share"] >= 0.001 else "note"
    return Finding("text-not-kept", severity, 0, message, remedy, found, "P3 of the catalogue")


def boundary_merges(card: Card) -> Finding | None:
    """Responses that would be other tokens if they were encoded together with the prompt."""
    found = card["template"]["merges"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'responses')} the first tokens would be others, were prompt and response one text."
    remedy = (
        "trueup encodes them apart, as at sampling time, so its masks are right. Tools that encode both as one text "
        "will see other tokens; leading white space in responses is the usual cause."
    )
    return Finding("boundary-merges", "note", 0, message, remedy, found, "F01 of the catalogue")


def double_begin(card: Card) -> Finding | None:
    """Two begin-of-text tokens in a row."""
    found = card["template"]["begins_twice"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'prompts')} the first two tokens are both begin-of-text."
    remedy = "The texts bring one that the template adds again: remove it from the file."
    return Finding("double-begin", "warning", 0, message, remedy, found, "F03 of the catalogue")


def rewritten_turns(card: Card) -> Finding | None:
    """The template changes earlier replies."""
    said, several = card["template"]["rewrites"], card["template"]["several_turns"]
    if said is None:
        return None
    message = f"The chat template {said}; {several} rows have more than one turn."
    remedy = (
        "The model never wrote the contexts it will be shown. Train single turns, or use a template that keeps replies."
    )
    severity = "warning" if several else "note"
    return Finding("rewritten-turns", severity, 0, message, remedy, {"rows": several}, "F19 of the catalogue")


def pad_ends_turns(card: Card) -> Finding | None:
    """Padding and terminator are one token."""
    found = card["template"]
    if not found["pad_is_terminator"]:
        return None
    message = f"The padding token is one that ends a response (terminator {found['terminator']!r})."
    remedy = (
        "Nothing to do here: masks come from lengths. A tool that masks by the padding's id would not train the "
        "terminator, and its models would not stop."
    )
    return Finding(
        "pad-ends-turns", "note", 0, message, remedy, {"terminator": found["terminator"]}, "F06 of the catalogue"
    )


def prompts_over_context(card: Card) -> Finding | None:
    """Prompts that leave no room for a response."""
    found, context = card["lengths"]["over_context"], card["lengths"]["context"]
    if not found["count"]:
        return None
    message = f"{amount(found, 'rows')} the prompt fills the model's context of {context} tokens."
    remedy = "Without data.max_length they stop a run; with it they are left out. Shorten them."
    return Finding(
        "prompts-over-context", "warning", 0, message, remedy, found | {"context": context}, "F09 of the catalogue"
    )


def rows_over_limits(card: Card) -> Finding | None:
    """What usual values of max_length would leave out."""
    shares = card["lengths"]["left_out"]
    if not any(shares.values()):
        return None
    said = ", ".join(f"{share:.1%} over {limit}" for limit, share in shares.items() if share)
    longest = card["lengths"]["percentiles"]["row"]["p100"]
    message = f"Rows are up to {longest:.0f} tokens long: {said}."
    remedy = "Choose data.max_length with that in mind: what is over it is left out whole, never cut."
    return Finding("rows-over-limits", "note", 0, message, remedy, {"left_out": shares}, "F09 of the catalogue")


TEMPLATE_RULES: tuple[Callable[[Card], Finding | None], ...] = (
    prompts_over_context,
    double_begin,
    special_text,
    text_not_kept,
    rewritten_turns,
    rows_over_limits,
    boundary_merges,
    pad_ends_turns,
)
"""In the order of a report; for cards that were made with a model."""
