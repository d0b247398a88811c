"""What tables of scores allow to say about their arms, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, median, pvariance, stdev
from typing import Any

from trueup.health.findings import Finding, Severity
from trueup.health.rules_foreign.score_table import ScoreTable, shared

ALPHA = 0.05
LENGTHS = 1.5
"""How many times as long the longest response of one arm may be as that of another under one token limit."""

Tables = Sequence[ScoreTable]


def unestablished(tables: Tables) -> Finding | None:
    """E03: differences that these prompts cannot tell from none, by exact sign-flip tests with Holm's correction."""
    prompts = shared(tables)
    if len(tables) < 2 or len(prompts) < 2:
        return None
    rows = _contrasts(tables, prompts)
    open_ones = [row for row in rows if row["p_holm"] >= ALPHA]
    if not open_ones:
        return None
    shown = [f"{row['a']} against {row['b']} ({row['mean']:+.2f})" for row in rows if row["p_holm"] < ALPHA]
    none = "The only difference in mean score is not established" if len(rows) == 1 else ""
    some = f"{f'Only {len(shown)}' if shown else 'None'} of the {len(rows)} differences in mean score"
    smallest, largest = min(rows, key=lambda row: row["p"]), max(open_ones, key=lambda row: abs(row["mean"]))
    message = (
        f"{none or some + ' survives Holm correction'} over {len(prompts)} prompts (exact sign-flip test)"
        f"{': ' + ', '.join(shown) if shown else ''}. Smallest p: {smallest['a']} against {smallest['b']}, "
        f"{smallest['p']:.3f}, after Holm {smallest['p_holm']:.2f}. The largest that is not established is "
        f"{largest['a']} against {largest['b']}, {largest['mean']:+.2f}; a difference of "
        f"{largest['detectable']:.1f} would have been found with 80 % power."
    )
    remedy = "Print no ranking of these arms. Take more prompts and seeds, and say first what difference would matter."
    evidence = {"prompts": len(prompts), "contrasts": rows}
    severity: Severity = "note" if shown else "warning"
    return Finding("unestablished-differences", severity, 0, message, remedy, evidence, "rules E03, E04")


def _contrasts(tables: Tables, prompts: Sequence[str]) -> list[dict[str, Any]]:
    from trueup.stats.multiple import holm
    from trueup.stats.permutation import sign_flip
    from trueup.stats.power import prompts_needed, smallest_detectable

    rows: list[dict[str, Any]] = []
    for b, a in combinations(tables, 2):
        d = [a.mean_of(prompt) - b.mean_of(prompt) for prompt in prompts]
        needed, spread = prompts_needed(stdev(d), fmean(d)), stdev(d)
        rows.append(
            {
                "a": a.arm,
                "b": b.arm,
                "mean": fmean(d),
                "sd": spread,
                "p": sign_flip(d),
                "wins": sum(value > 0 for value in d),
                "losses": sum(value < 0 for value in d),
                "ties": sum(value == 0 for value in d),
                "detectable": smallest_detectable(spread, len(d)),
                "prompts_needed": int(needed) if math.isfinite(needed) else None,
            }
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def printed_order(tables: Tables) -> Finding | None:
    """E04: the ranks that a table prints are not those of its means, or a printed mean is not that of its rows."""
    ranked = sorted((table for table in tables if table.rank is not None), key=lambda table: table.rank or 0)
    wrong = [(a, b) for a, b in combinations(ranked, 2) if _shown(b) > _shown(a)]
    off = [table for table in tables if table.printed and abs(table.printed[0] - table.mean) > _slack(table)]
    if not (wrong or off):
        return None
    parts = [f"{a.arm} is placed before {b.arm} with {_shown(a):.2f} against {_shown(b):.2f}" for a, b in wrong]
    parts += [f"the mean of {t.arm} is printed as {t.printed[0]:g} and is {t.mean:.4f}" for t in off if t.printed]
    message = f"The table contradicts itself: {'; '.join(parts)}."
    remedy = "Correct it, and whatever was concluded from the order; then see whether any order can be had at all."
    evidence = {"out_of_order": [[a.arm, b.arm] for a, b in wrong], "means": {t.arm: t.mean for t in tables}}
    return Finding("printed-order", "fatal" if wrong else "warning", 0, message, remedy, evidence, "rule E04")


def _shown(table: ScoreTable) -> float:
    return table.printed[0] if table.printed else table.mean


def _slack(table: ScoreTable) -> float:
    """What rounding allows: of the printed mean, and of scores that were rounded to four decimals before."""
    return (0.51 * 10.0 ** -(table.printed[1]) if table.printed else 0.0) + 1e-4


def unequal_protocol(tables: Tables) -> Finding | None:
    """E02: arms that were not sampled alike, as far as their files show."""
    if len(tables) < 2:
        return None
    settings = _differing(tables)
    draws = {table.arm: table.draws for table in tables}
    lengths = {t.arm: max(len(text) for texts in t.responses.values() for text in texts) for t in tables if _texts(t)}
    parts = [f"{key} is {_each(values)}" for key, values in settings.items()]
    if len(set(draws.values())) > 1:
        parts.append(f"prompts have {_each(draws)} draws, and the mean of several varies less than a single one")
    if len(lengths) > 1 and max(lengths.values()) > LENGTHS * min(lengths.values()):
        parts.append(f"the longest response has {_each(lengths)} characters: the limits on tokens look different")
    if not parts:
        return None
    message = f"The arms were not sampled alike: {'; '.join(parts)}."
    remedy = "Sample all arms with one temperature, top-k, limit and number of draws before comparing them."
    evidence = {"settings": settings, "draws": draws, "longest": lengths}
    return Finding("unequal-protocol", "fatal" if settings else "warning", 0, message, remedy, evidence, "rule E02")


def _differing(tables: Tables) -> dict[str, dict[str, float]]:
    keys = dict.fromkeys(key for table in tables for key in table.protocol)
    given = {key: {t.arm: t.protocol[key] for t in tables if key in t.protocol} for key in keys}
    return {key: values for key, values in given.items() if len(set(values.values())) > 1}


def _each(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} ({arm})" for arm, value in values.items())


def _texts(table: ScoreTable) -> bool:
    return any(table.responses.values())


def identical_responses(tables: Tables) -> Finding | None:
    """Arms that answer a prompt with the same text: those prompts say nothing about their difference."""
    counts = {
        f"{one.arm}, {two.arm}": sum(_same(one, two, prompt) for prompt in shared((one, two)))
        for one, two in combinations([table for table in tables if _texts(table)], 2)
    }
    counts = {pair: count for pair, count in counts.items() if count}
    if not counts:
        return None
    prompts = len(shared(tables))
    most = max(counts.values())
    message = f"Of {prompts} prompts, these pairs of arms answer alike, to the character: {_counted(counts)}."
    remedy = "Report wins, losses and ties; agreement on memorised answers is not stability, nor quality."
    severity: Severity = "warning" if most >= prompts / 4 else "note"
    evidence = {"prompts": prompts, "identical": counts}
    return Finding("identical-responses", severity, 0, message, remedy, evidence, "house rule")


def _same(one: ScoreTable, two: ScoreTable, prompt: str) -> bool:
    left, right = one.responses.get(prompt, ()), two.responses.get(prompt, ())
    return bool(left) and list(left) == list(right)


def _counted(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return "; ".join(f"{pair}: {count}" for pair, count in ordered[:6]) + ("; ..." if len(ordered) > 6 else "")


def cut_changes_score(tables: Tables) -> Finding | None:
    """R03: the same text, cut off earlier, gets another score: the judge pays for where it ends."""
    cuts = [
        cut for one, two in combinations(tables, 2) for prompt in shared((one, two)) for cut in _cuts(one, two, prompt)
    ]
    spread = stdev([s for table in tables for values in table.scores.values() for s in values]) if cuts else 0.0
    worst = max(cuts, key=lambda cut: abs(cut["longer"] - cut["shorter"]), default=None)
    if worst is None or abs(worst["longer"] - worst["shorter"]) <= spread:
        return None
    changes = [abs(cut["longer"] - cut["shorter"]) for cut in cuts]
    message = (
        f"In {len(cuts)} cases the response of one arm is that of another, cut off earlier. The score changes by "
        f"{median(changes):.1f} in the median and by up to {max(changes):.1f} (scores have a standard deviation of "
        f"{spread:.1f}): {worst['prompt'][:50]!r} has {worst['longer']:.2f} in full and {worst['shorter']:.2f} cut."
    )
    remedy = "What is compared is partly where texts end. Score responses that ended by themselves, under one limit."
    evidence = {"cuts": cuts, "spread": spread}
    return Finding("cut-changes-score", "warning", 0, message, remedy, evidence, "rule R03")


def _cuts(one: ScoreTable, two: ScoreTable, prompt: str) -> list[dict[str, Any]]:
    """The prompt's single responses, if one is a true beginning of the other."""
    texts = [table.responses.get(prompt, ()) for table in (one, two)]
    if any(len(text) != 1 for text in texts):
        return []
    (short, low), (long, high) = sorted(
        [(texts[0][0].rstrip(), one.mean_of(prompt)), (texts[1][0].rstrip(), two.mean_of(prompt))],
        key=lambda pair: len(pair[0]),
    )
    cut = len(short) >= 20 and short != long and long.startswith(short)
    return [{"prompt": prompt, "arms": [one.arm, two.arm], "longer": high, "shorter": low}] if cut else []


def draw_noise(tables: Tables) -> Finding | None:
    """How much one draw a prompt adds to the noise of a mean, from an arm that has several."""
    several = [table for table in tables if table.draws > 1]
    single = [table for table in tables if table.draws == 1]
    if not (several and single):
        return None
    source = several[0]
    drawn = [values for values in source.scores.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in drawn)
    spread = math.sqrt(sum(pvariance(values) * len(values) for values in drawn) / freedom)
    error = spread / math.sqrt(len(source.scores))
    message = (
        f"Draws of {source.arm} for one prompt scatter with a standard deviation of {spread:.2f}. A mean over "
        f"{len(source.scores)} prompts with one draw each, such as that of {single[0].arm}, carries a standard error "
        f"of {error:.2f} from that alone."
    )
    remedy = "Draw several responses a prompt for every arm, or count differences below twice that error as none."
    evidence = {"spread": spread, "standard_error": error, "draws": source.draws}
    return Finding("draw-noise", "note", 0, message, remedy, evidence, "house rule")


SCORE_RULES: tuple[Callable[[Tables], Finding | None], ...] = (
    unequal_protocol,
    printed_order,
    unestablished,
    cut_changes_score,
    identical_responses,
    draw_noise,
)
"""Judged over all tables that are given together."""
