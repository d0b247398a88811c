"""A study's results in plain words: verdicts, over-optimisation, cautions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trueup.health.findings import Finding
from trueup.stats.crossed import crossed_effect
from trueup.study.format import fixed, interval, signed
from trueup.study.plan import SFT
from trueup.study.results import Items, per_prompt


def over_optimised(arms: Sequence[str], items: Items, seeds: Sequence[int]) -> dict[str, Finding]:
    """Rule O01: arms whose reward-model score rose above SFT's while the true score fell, both beyond doubt.

    Beyond doubt = the 95 % intervals of both differences, over prompts and seeds, exclude 0.
    """
    return {arm: found for arm in arms if arm != SFT and (found := _parted(arm, items, seeds))}


def _parted(arm: str, items: Items, seeds: Sequence[int]) -> Finding | None:
    change = {
        name: crossed_effect(per_prompt(items, arm, seeds, name) - per_prompt(items, SFT, seeds, name))
        for name in ("proxy", "gold")
    }
    proxy, gold = change["proxy"], change["gold"]
    if not (proxy.low > 0 and gold.high < 0):
        return None
    part, loss = _largest_loss(arm, items, seeds)
    rise = f"{fixed(proxy.estimate)} {interval(proxy.low, proxy.high)}"
    fall = f"{fixed(-gold.estimate)} {interval(-gold.high, -gold.low)}"
    message = (
        f"Over-optimised: the reward model's score rose by {rise} while the true score fell by {fall}, "
        f"most of all in '{part}' ({signed(loss)})."
    )
    remedy = "Raise kl_coef or train for fewer steps; do not choose between runs by the score that was trained on."
    evidence = {"proxy": proxy.estimate, "gold": gold.estimate, f"gold/{part}": loss}
    return Finding(
        "over-optimised", "fatal", 0, message, remedy, evidence, "rule O01; Gao et al. 2022, arXiv:2210.10760"
    )


def _largest_loss(arm: str, items: Items, seeds: Sequence[int]) -> tuple[str, float]:
    parts = [name for name in items[arm, seeds[0]][0] if name.startswith("gold/")]
    change = {
        part: float((per_prompt(items, arm, seeds, part) - per_prompt(items, SFT, seeds, part)).mean())
        for part in parts
    }
    worst = min(change, key=lambda part: change[part])
    return worst.removeprefix("gold/"), change[worst]


def verdict_sentences(study: Mapping[str, Any], untrained: float | None, overs: Mapping[str, Finding]) -> list[str]:
    """What the study says, in sentences for someone who never heard of Holm."""
    arms = {arm["name"]: arm for arm in study["arms"]}
    against = {c["a"]: c for c in study["contrasts"] if c["b"] == SFT}
    out = []
    if SFT in arms and untrained is not None:
        start = arms[SFT]["metrics"]["gold"]["mean"]
        out.append(
            f"Supervised fine-tuning took the true score from {fixed(untrained)} (untrained) to {fixed(start)}; "
            "every arm starts there."
        )
    for word, opening in (
        ("better", "Better than SFT"),
        ("worse", "Worse than SFT"),
        ("equivalent", "Equal to SFT for our purposes"),
    ):
        named = [_with_interval(arms[name]["label"], c) for name, c in against.items() if c["verdict"] == word]
        if named:
            out.append(f"{opening}: {'; '.join(named)}.")
    unclear = [(name, c) for name, c in against.items() if c["verdict"] == "inconclusive"]
    if unclear:
        named = "; ".join(f"{_with_interval(arms[name]['label'], c)}, {_need(c)}" for name, c in unclear)
        out.append(f"No difference from SFT shown: {named}.")
    if overs:
        names = _listed([arms[name]["label"] for name in overs])
        out.append(
            f"{names} fooled the reward model: its score went up while the true score went down. "
            "Judged by the score that was trained on, this would have looked like success."
        )
    out += _best(study, arms)
    return out


def _best(study: Mapping[str, Any], arms: Mapping[str, Any]) -> list[str]:
    ranks = study["rank_sets"]["gold"]
    first = [arms[name]["label"] for name, (best, _) in ranks.items() if best == 1]
    if len(first) == len(ranks):
        return ["No ranking of the arms is supported by these data."]
    if len(first) == 1:
        return [f"{first[0]} has the highest true score of all arms, beyond doubt."]
    return [f"Which of {_listed(first)} is best is not decided by these data; each of them may be."]


def _with_interval(label: str, contrast: Mapping[str, Any]) -> str:
    return f"{label} by {signed(contrast['estimate'])} {interval(contrast['low'], contrast['high'])}"


def _need(contrast: Mapping[str, Any]) -> str:
    n = contrast["n_needed"]
    return (
        f"about {n:,} prompts would be needed" if n else "more prompts alone would not settle it: more seeds are needed"
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def cautions(study: Mapping[str, Any], missing: Sequence[str]) -> list[str]:
    """What limits the verdicts."""
    seeds = len(study["design"]["seeds"])
    first = sum(SFT in (c["a"], c["b"]) for c in study["contrasts"])
    second = len(study["contrasts"]) - first
    out = [
        f"A difference is called only if it survives correction for all comparisons of its kind (Holm, 5 %): {first} "
        f"with SFT, {second} between the other arms. "
        "Intervals are for one comparison at a time (95 %), over prompts and seeds.",
        "The arms did not spend the same: see the budgets. This study compares settings, not methods at equal cost.",
    ]
    tuned = [arm["label"] for arm in study["arms"] if "tuned" in arm["settings"]]
    if tuned:
        out.append(f"Budgets leave out the trials in which a setting was chosen: {_listed(tuned)}.")
    if seeds < 5:
        out.append(f"{seeds} seeds tell little about how much seeds differ; intervals are wide for that reason.")
    if any(point["step"] is None for point in study["frontier"]):
        out.append(
            "On the frontier, the candidates of a tuned setting were measured on validation prompts, one draw each."
        )
    unreliable = [
        r["seed"] for r in study["reward_model"]["per_seed"] if (r["heldout_accuracy"]["estimate"] or 0) < 0.65
    ]
    if unreliable:
        out.append(f"The reward models of seeds {unreliable} are right on fewer than 65 % of held-out pairs.")
    if missing:
        out.append(f"Not in this report, because a run failed: {_listed(list(missing))}.")
    return out
