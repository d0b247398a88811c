"""What tells wanted responses from unwanted ones at a glance: their length, and tells on their surface."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trueup.data.audit_sheet import Sheet, tally
from trueup.data.audit_stats import as_dict, cliffs_delta, gap, share
from trueup.stats.intervals import Interval

_ASSENT = re.compile(r"\s*(sure|certainly|of course|absolutely|yes|great question)\b", re.IGNORECASE)
_REFUSAL = re.compile(
    r"""\s*(?:(?:no|oh|hmm|well)[,.!]?\s)?
    (?: (?:i['’]?m|i\ am)\ (?:\w+\ )?(?:sorry|afraid|unable|not\ able)
    |   sorry\b | i\ apologi[sz]e | i\ can(?:not|['’]?t)\b | i\ won['’]?t\b | as\ an\ ai\b )""",
    re.IGNORECASE | re.VERBOSE,
)
_AI = re.compile(
    r"\bas an ai\b|\ban? (?:ai|artificial intelligence)\b|\bai (?:language )?(?:model|assistant)\b", re.IGNORECASE
)
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_FINAL = tuple(".!?…:;。！？)]}\"'”’»`*|>~")
# Markers of known chat formats. A tokenizer's own special tokens are looked for where there is a tokenizer.
_MARKER = re.compile(
    r"""<\|[a-z0-9_]{2,30}\|> | \[/?INST\] | <</?SYS>> | <(?:start|end)_of_turn>
    | ^\#\#\#\ (?:Instruction|Response|Input|Assistant|Human):
    | ^(?:Human|Assistant|USER|ASSISTANT):\ """,
    re.MULTILINE | re.VERBOSE,
)

TELLS: dict[str, Callable[[str], bool]] = {
    "opens with assent (Sure, Of course)": lambda text: bool(_ASSENT.match(text)),
    "opens with a refusal or apology": lambda text: bool(_REFUSAL.match(text)),
    "speaks of itself as an AI": lambda text: bool(_AI.search(text)),
    "has a list": lambda text: bool(_LIST.search(text)),
    "has a heading": lambda text: bool(_HEADING.search(text)),
    "has bold text": lambda text: "**" in text,
    "has a code block": lambda text: "```" in text,
    "has a line break": lambda text: "\n" in text.strip(),
    "has an exclamation mark": lambda text: "!" in text,
    "has characters beyond ASCII": lambda text: not text.isascii(),
    "ends with a question": lambda text: text.rstrip().endswith("?"),
    "ends without final punctuation": lambda text: not text.rstrip().endswith(_FINAL),
    "begins with white space": lambda text: text[:1].isspace(),
    "ends with white space": lambda text: text[-1:].isspace(),
}
"""Name -> does a response have it?"""


def tells(sheet: Sheet) -> dict[str, Any]:
    """Share of responses with each tell, by side, and the difference wanted - unwanted.

    The intervals are simultaneous: each of the k tells gets level 1 - 0.05 / k (Bonferroni), so the chance that any of
    them misses is at most 5 %.
    """
    out = {}
    for name, has in TELLS.items():
        good, bad = ([float(has(text)) for text in side.texts] for side in (sheet.wanted, sheet.unwanted))
        found = gap(good, sheet.groups_of(sheet.wanted), bad, sheet.groups_of(sheet.unwanted), 1 - 0.05 / len(TELLS))
        out[name] = {"wanted": _mean(good), "unwanted": _mean(bad), "difference": as_dict(found)}
    return out


def markers(sheet: Sheet) -> dict[str, Any]:
    """Responses that hold a marker of a chat format: the end of another template, or a turn that was not cut off."""
    found = [
        f"{sheet.where[row]} ({mark[0].strip()})" for text, row in sheet.responses if (mark := _MARKER.search(text))
    ]
    return tally(found, len(sheet.wanted.texts) + len(sheet.unwanted.texts))


def length_bias(sheet: Sheet, wanted: ArrayLike, unwanted: ArrayLike, unit: str) -> dict[str, Any] | None:
    """How far length alone tells the sides apart; None where there is only one side.

    ``longer_wins`` is the accuracy of the rule "the longer is the wanted one", ties half: within a pair, or for judged
    rows between a random wanted and a random unwanted response. ``cliffs_delta`` compares the sides as a whole.

    Args:
        sheet: the rows.
        wanted: lengths of the wanted responses, in their order.
        unwanted: the same of the unwanted ones.
        unit: what they are counted in.
    """
    good, bad = np.asarray(wanted, dtype=np.float64), np.asarray(unwanted, dtype=np.float64)
    if not good.size or not bad.size:
        return None
    delta = cliffs_delta(good, sheet.groups_of(sheet.wanted), bad, sheet.groups_of(sheet.unwanted))
    paired = sheet.kind == "pairs"
    wins = share((np.sign(good - bad) + 1) / 2, sheet.group) if paired else _as_auc(delta)
    return {
        "unit": unit,
        "wanted": {"mean": float(good.mean()), "median": float(np.median(good))},
        "unwanted": {"mean": float(bad.mean()), "median": float(np.median(bad))},
        "longer": float((good > bad).mean()) if paired else None,
        "equal": float((good == bad).mean()) if paired else None,
        "longer_wins": as_dict(wins),
        "cliffs_delta": as_dict(delta),
    }


def _as_auc(delta: Interval) -> Interval:
    return Interval((delta.estimate + 1) / 2, (delta.low + 1) / 2, (delta.high + 1) / 2, delta.n)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
