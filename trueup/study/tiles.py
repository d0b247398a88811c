"""The few numbers that a reader in a hurry should see, chosen by rule and never by hand."""

from __future__ import annotations

from dataclasses import dataclass

from trueup.study.format import DASH, duration, fixed, interval, signed, whole
from trueup.study.schema import Arm, Contrast, Number, Study, Verdict, baseline, labels, mean_of


@dataclass(frozen=True)
class Tile:
    """A number, what it is, and what it rests on. ``tone``: good, bad or plain."""

    title: str
    value: str
    detail: str
    tone: str = "plain"


def tiles(study: Study) -> list[Tile]:
    """Return the key figures in reading order."""
    return [_largest_gain(study), _parting(study), _judge(study), _basis(study), _cost(study)]


def against_baseline(study: Study) -> list[Contrast]:
    """Return the primary metric's contrasts with the baseline, all turned so that the baseline is ``b``."""
    base = baseline(study)["name"]
    primary = [c for c in study["contrasts"] if c["metric"] == study["primary_metric"] and base in (c["a"], c["b"])]
    return [contrast if contrast["b"] == base else _turned(contrast) for contrast in primary]


def _turned(contrast: Contrast) -> Contrast:
    verdicts: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return {
        **contrast,
        "a": contrast["b"],
        "b": contrast["a"],
        "estimate": _negative(contrast["estimate"]),
        "low": _negative(contrast["high"]),
        "high": _negative(contrast["low"]),
        "verdict": verdicts.get(contrast["verdict"], contrast["verdict"]),
    }


def _negative(value: Number) -> Number:
    return None if value is None else -value


def _largest_gain(study: Study) -> Tile:
    base = baseline(study)["label"]
    gains = [c for c in against_baseline(study) if c["verdict"] == "better" and c["estimate"] is not None]
    if not gains:
        return Tile(f"Gain over {base}", "none shown", f"no arm is shown to be better than {base}")
    best = max(gains, key=lambda contrast: contrast["estimate"] or 0.0)
    ends = interval(best["low"], best["high"]).replace(" ", "\N{NO-BREAK SPACE}")
    detail = f"{study['primary_metric']}, {labels(study)[best['a']]} {ends}"
    return Tile(f"Largest gain over {base}", signed(best["estimate"]), detail, "good")


def _parting(study: Study) -> Tile:
    """Find the arm that lost most gold, as its contrast shows, while its mean proxy rose above the baseline's."""
    base, arms = baseline(study), {arm["name"]: arm for arm in study["arms"]}
    worse = [c for c in against_baseline(study) if c["verdict"] == "worse" and c["estimate"] is not None]
    fooled = [c for c in worse if _proxy_rose(arms[c["a"]], base)]
    if not fooled:
        return Tile("Proxy up, gold down", "no arm", "nowhere did the reward model praise what gold marks down")
    arm = arms[min(fooled, key=lambda contrast: contrast["estimate"] or 0.0)["a"]]
    moved = {m: f"{fixed(mean_of(base, m))} → {fixed(mean_of(arm, m))}" for m in ("proxy", study["primary_metric"])}
    gold = moved[study["primary_metric"]]
    return Tile("Proxy up, gold down", gold, f"gold, {base['label']} → {arm['label']}; proxy {moved['proxy']}", "bad")


def _proxy_rose(arm: Arm, base: Arm) -> bool:
    here, there = mean_of(arm, "proxy"), mean_of(base, "proxy")
    return here is not None and there is not None and here > there


def _judge(study: Study) -> Tile:
    per_seed = study["reward_model"]["per_seed"]
    found = sorted(r for row in per_seed if (r := row["heldout_accuracy"]["estimate"]) is not None)
    if not found:
        return Tile("Reward model, held-out", DASH, "accuracy on pairs it was not trained on: not measured")
    ends = list(dict.fromkeys(map(fixed, (found[0], found[-1]))))
    models = f"{len(found)} models" if len(found) > 1 else "one model"
    return Tile("Reward model, held-out", " to ".join(ends), f"accuracy on unseen pairs, {models}; a coin gets 0.50")


def _basis(study: Study) -> Tile:
    design = study["design"]
    seeds = len(design["seeds"])
    detail = f"{whole(design['prompts'])} prompts × {whole(design['draws'])} draws, the same for every arm"
    return Tile("Evidence", f"{seeds} seed{'s' if seeds != 1 else ''}", detail)


def _cost(study: Study) -> Tile:
    peaks = [peak for stage in study["seconds"]["stages"] if (peak := stage["peak_memory_gb"]) is not None]
    memory = f", {fixed(max(peaks))} GB in the largest process" if peaks else ""
    return Tile("Time", duration(study["seconds"]["total"]), f"{len(study['arms'])} arms{memory}")
