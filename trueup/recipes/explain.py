"""Which cause do the data support? A run is repeated in short with one thing changed at a time, then with several."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from trueup.config.load import read_yaml, validate
from trueup.config.schema import RECIPES, DpoConfig, RecipeConfig
from trueup.data.template import make_encoder
from trueup.errors import RunError, UserError, nearest
from trueup.models import hub
from trueup.recipes.bench import Voice
from trueup.recipes.counterfactuals import FACTORS, Factor, Facts, check_names, factors_of
from trueup.recipes.explain_effects import cells, factorial, gap, single_effects, strongest, typical
from trueup.recipes.explain_material import lengths_of, read_rows
from trueup.recipes.explain_measure import OUTCOMES, Outcome
from trueup.recipes.explain_plan import Wishes, arms_together, choose_steps, describe_plan, freeze_plan, rows_wanted
from trueup.recipes.explain_reference import Given, alternative_reference
from trueup.recipes.explain_runs import BASE, Outcomes, Reruns, arm_name
from trueup.recipes.explain_words import ALPHA, Case, evidence, verdict
from trueup.runtime.folder import check_writable
from trueup.runtime.journal import Journal


def explain(run: str, wishes: Wishes, voice: Voice) -> dict[str, Any]:
    """Repeat a run under counterfactual settings and return what is written to ``explain.json``.

    Raises:
        UserError: the folder is no run that this can repeat, or holds reruns of other wishes.
        Interrupted: stopped; the same call goes on from there.
    """
    reruns, factors, skipped = _set_up(run, wishes, voice)
    verb, outcome = reruns.verb, reruns.main
    measured = _measured(reruns, [[], *([factor] for factor in factors)])
    controls = {factor.name for factor in factors if not factor.candidate}
    single = {name: arm for name, arm in measured.items() if name not in controls}
    aside = {name: arm for name, arm in measured.items() if name in controls}
    effects = {o.name: single_effects(single, aside, o) for o in OUTCOMES[verb]}
    found = effects[outcome.name]["effects"]
    chosen: list[Factor] = []
    if outcome.is_trouble(typical(single[BASE], outcome)) and any(found[f]["p_holm"] < ALPHA for f in found):
        chosen = strongest(factors, found, outcome)
    together = _together(reruns, measured, [factor for factor in factors if factor in chosen], outcome)
    held = len(reruns.rows.held[0]) if reruns.rows else 0
    report: dict[str, Any] = _plain(
        {
            "run": run,
            "method": verb,
            "outcome": outcome.name,
            "plan": {"steps": reruns.steps, "replicates": wishes.seeds, "held_out_rows": held},
            "floored": {"values": effects[outcome.name]["floored"], "at": outcome.floor},
            "observed": _observed(Path(run), outcome),
            "arms": {name: [dict(found) for found in arm] for name, arm in measured.items()},
            "factors": [_row(factor, effects) for factor in factors if factor.name in measured],
            "factorial": together,
            "not_tried": skipped,
            "failed": reruns.failed,
            **_judged(verb, factors, single, effects, outcome),
        }
    )
    text = json.dumps(report, indent=1, ensure_ascii=False)
    (reruns.folder / "explain.json").write_text(text + "\n", encoding="utf-8")
    return report


def _set_up(run: str, wishes: Wishes, voice: Voice) -> tuple[Reruns, list[Factor], dict[str, str]]:
    """Read the run, part its rows, find what can be changed, tell the plan; nothing is rerun yet."""
    verb, config = read_run(Path(run))
    outcome = _outcome(verb, wishes.outcome)
    check_names(verb, wishes.only)
    if verb != "dpo" and wishes.given != Given():
        raise UserError(f"{run}: another reference is tried for dpo only: leave out --reference, --sft and --base")
    folder = check_writable(wishes.out or f"{run}/explain")
    _require_start(config)
    offline = verb in ("dpo", "sft", "reward")
    rows = read_rows(verb, config, wishes.seeds, rows_wanted(config, wishes)) if offline else None
    encoder = make_encoder(hub.load_tokenizer(config.model.tokenizer or config.model.path or ""))
    facts = Facts(verb, config)
    if rows is not None and isinstance(config, DpoConfig):
        lengths, longest = lengths_of(encoder, rows.train[:200])
        other = alternative_reference(wishes.given, config, folder / "reference", voice)
        facts = Facts(verb, config, lengths, longest, other.path, other.about)
    factors, skipped = factors_of(facts, wishes.only)
    journal = list(Journal(Path(run) / "metrics.jsonl").rows())
    steps = freeze_plan(folder, run, wishes, choose_steps(journal, factors, wishes))
    voice.say(describe_plan(verb, steps, factors, journal, wishes, rows))
    for name, why in skipped.items():
        voice.say(f"not tried: {name}: {why}")
    total = wishes.seeds * (1 + len(factors) + arms_together(factors))
    reruns = Reruns(verb, config, folder, steps, wishes.seeds, rows, encoder, facts.cap, outcome, voice, total)
    return reruns, factors, skipped


def read_run(run: Path) -> tuple[str, RecipeConfig]:
    """The verb and the settings of a run folder.

    Raises:
        UserError: it is no run folder, or of a method without counterfactuals.
    """
    file, manifest = run / "config.yaml", run / "manifest.json"
    if not file.exists() or not manifest.exists():
        raise UserError(f"{run}: is not a run folder: it has no {'manifest.json' if file.exists() else 'config.yaml'}")
    verb = json.loads(manifest.read_text(encoding="utf-8")).get("method", "")
    if verb not in FACTORS:
        raise UserError(f"{run}: no counterfactuals are known for '{verb}'; explain repeats {', '.join(FACTORS)}")
    return verb, validate(RECIPES[verb], read_yaml(str(file)), str(file))


def _outcome(verb: str, name: str | None) -> Outcome:
    known = {outcome.name: outcome for outcome in OUTCOMES[verb]}
    if name is None:
        return OUTCOMES[verb][0]
    if name not in known:
        raise UserError(
            f"--outcome: '{name}' is not measured of {verb}{nearest(name, known)}; known: {', '.join(known)}"
        )
    return known[name]


def _require_start(config: RecipeConfig) -> None:
    """Refuse a run whose start is no longer where its settings say."""
    paths = {"model.path": config.model.path, "model.tokenizer": config.model.tokenizer}
    for key, path in paths.items():
        if path is not None and not Path(path).exists():
            raise UserError(
                f"{key}: {path} is not there, and the run cannot be repeated without it; relative paths are seen from "
                "where the run was started"
            )
    if isinstance(config, DpoConfig) and config.model.path is None:
        raise UserError("model.preset: a preference run from fresh weights has no reference that could be at fault")


def _measured(reruns: Reruns, arms: Sequence[Sequence[Factor]]) -> dict[str, list[Outcomes]]:
    """The outcomes of arms by name, those that failed left out; the run's own setting must not fail."""
    found = {arm_name(arm): reruns.arm(arm) for arm in arms}
    if BASE in found and found[BASE] is None:
        raise RunError(f"the run's own setting failed when it was repeated: {reruns.failed[BASE]}")
    return {name: outcomes for name, outcomes in found.items() if outcomes is not None}


def _together(
    reruns: Reruns, measured: dict[str, list[Outcomes]], factors: Sequence[Factor], outcome: Outcome
) -> dict[str, Any] | None:
    """Run what the factorial of these factors still lacks, and return its effects; None if it cannot be made."""
    if len(factors) < 2:
        return None
    every = cells(factors)
    absent = [cell for cell in every if arm_name(cell) not in measured]
    reruns.total = reruns.done + len(absent) * reruns.replicates
    measured |= _measured(reruns, absent)
    if any(arm_name(cell) not in measured for cell in every):
        return None
    return {"factors": [factor.name for factor in factors], "effects": factorial(measured, factors, outcome)}


def _judged(
    verb: str,
    factors: Sequence[Factor],
    single: Mapping[str, Sequence[Outcomes]],
    effects: Mapping[str, Any],
    outcome: Outcome,
) -> dict[str, Any]:
    """The cause, the verdict and the direct evidence."""
    base = {o.name: typical(single[BASE], o) for o in OUTCOMES[verb]}
    case = Case(
        outcome,
        base[outcome.name],
        {factor.name: factor for factor in factors if factor.name in single},
        {name: effect for name, effect in effects[outcome.name]["effects"].items() if name in single},
        lambda first, second: gap(single, outcome, first, second),
        _doubts(verb, single),
    )
    cause, words = verdict(case)
    return {"base": base, "evidence": evidence(base) if verb == "dpo" else [], "cause": cause, "verdict": words}


def _doubts(verb: str, single: Mapping[str, Sequence[Outcomes]]) -> list[str]:
    """Say where another reference was tried, or none, and the reference has no support: it was then not tested."""
    if verb != "dpo":
        return []
    support = next(o for o in OUTCOMES[verb] if o.name == "reference/support")
    assert support.limit is not None
    if typical(single[BASE], support) < support.limit:
        return []
    if "reference" not in single:
        return ["The reference has no support on the chosen text and no other one was tried: it may be the cause."]
    other = typical(single["reference"], support)
    if other < support.limit:
        return []
    return [
        f"The reference has no support on the chosen text, and neither has the other one that was tried ({other:.2f} "
        "ln V): that was no test of the reference. Give --reference a model that knows such text."
    ]


def _observed(run: Path, outcome: Outcome) -> float | None:
    """What the run itself recorded of the outcome over its last 20 steps, on its training rows."""
    rows = Journal(run / "metrics.jsonl").rows()
    values = [row[outcome.name] for row in rows if row.get(outcome.name) is not None]
    return fmean(values[-20:]) if values else None


def _row(factor: Factor, effects: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: {"scale": e["scale"], **e["effects"][factor.name]} for name, e in effects.items()}
    about = {"name": factor.name, "label": factor.label, "candidate": factor.candidate, "note": factor.note}
    return {**about, "effects": found}


def _plain(value: Any) -> Any:
    """The value with null for what is not a number, as JSON wants it."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
