"""Where the fault of each finding lies: one entry for every finding that the package can make."""

from __future__ import annotations

from collections.abc import Mapping

from trueup.health.rule import Family
from trueup.health.table import RULES

_ELSEWHERE: Mapping[str, Family] = {
    # before the first step
    "step0-identity": "reference",
    "reference-elsewhere": "reference",
    "mask-read-back": "log-probabilities",
    "identical-pairs": "data",
    "empty-responses": "data",
    "one-label": "data",
    "label-balance": "data",
    "batch-dependent": "log-probabilities",
    "padding-leak": "log-probabilities",
    "logps-misaligned": "log-probabilities",
    "logps-miscounted": "log-probabilities",
    "dropout-on": "log-probabilities",
    "cut-dependent": "optimisation",
    "saved-otherwise": "optimisation",
    "gradient-lost": "optimisation",
    "gradient-missing": "optimisation",
    "unusual-rate": "optimisation",
    "gradient-not-finite": "numbers",
    "loss-value": "objective",
    "wrong-direction": "objective",
    "inert-knob": "objective",
    "ungrouped-advantage": "policy update",
    "reference-aliased": "reference",
    "reference-unsupported": "reference",
    "rehearsal-kl": "reference",
    "source-separable": "data",
    "rows-too-long": "data",
    "begins-twice": "data",
    "prompts-differ": "data",
    "never-stops": "rollout",
    "stops-elsewhere": "rollout",
    "rollouts-cut": "rollout",
    "rehearsal-mismatch": "rollout",
    "rehearsal-ratio": "rollout",
    "reward-not-finite": "reward",
    "reward-constant": "reward",
    "reward-model-unsound": "reward",
    "reward-model-unknown": "reward",
    # after a reward model is trained
    "rm-not-validated": "reward",
    "rm-memorised": "reward",
    "rm-follows-length": "reward",
    "rm-at-chance": "reward",
    "rm-follows-the-cut": "reward",
    # when a study is analysed
    "over-optimised": "reward",
    # the doctor: one log, several logs, tables of scores
    "margin-without-beta": "objective",
    "gradient-gone": "objective",
    "exact-zero-margin": "data",
    "beta-direction": "objective",
    "same-examples": "data",
    "unequal-protocol": "rollout",
    "printed-order": "numbers",
    "unestablished-differences": "numbers",
    "cut-changes-score": "reward",
    "identical-responses": "rollout",
    "draw-noise": "rollout",
    # data audit
    "evaluation-overlap": "data",
    "rows-left-out": "data",
    "repeated-rows": "data",
    "repeated-prompts": "data",
    "contradictory-rows": "data",
    "response-on-both-sides": "data",
    "near-identical-pairs": "data",
    "cut-copies": "data",
    "unused-columns": "data",
    "length-bias": "data",
    "separable-sides": "data",
    "surface-tells": "data",
    "template-markers": "data",
    "special-text": "data",
    "text-not-kept": "data",
    "boundary-merges": "data",
    "double-begin": "data",
    "rewritten-turns": "data",
    "pad-ends-turns": "data",
    "prompts-over-context": "data",
    "rows-over-limits": "data",
}
"""Findings that no rule over metrics makes. Add a line for a new one; a test names those that are missing."""

FAMILIES: Mapping[str, Family] = {**_ELSEWHERE, **{rule.name: rule.family for rule in RULES}}
"""Name of a finding -> the part of the system that it accuses."""
