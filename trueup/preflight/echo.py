"""A question inside the answers: where prompts are alike and both sides of every pair begin with the same long text."""

from __future__ import annotations

import numpy as np

from trueup.data.trees import shared_length
from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.preference import PreferenceObjective
from trueup.train.objectives.reward import RewardObjective

ECHO = "questions inside responses"
PAIRS = 256
"""Pairs that are looked at."""
LEAST = 16
"""Pairs below which nothing is said."""
LONG, NEARLY_ALL = 4, 0.9
"""Tokens that both sides begin with, and the share of pairs in which they must."""


def check_echo(subject: Subject, sample: Sample) -> Outcome | None:
    """One prompt for all pairs, whose two sides nearly always begin alike while those of different pairs do not."""
    if sample.rehearsal is not None or not isinstance(subject.objective, PreferenceObjective | RewardObjective):
        return None
    pairs = [subject.data.trees[row] for row in subject.rows[:PAIRS]]
    if len(pairs) < LEAST:
        return skipped(ECHO, f"fewer than {LEAST} pairs")
    prompts = len(np.unique(subject.data.trees.prompt_keys))
    alike = float(np.mean([shared_length(*tree.responses) >= LONG for tree in pairs]))
    beginnings = len({tree.responses[0][:LONG] for tree in pairs})
    told = f"{prompts} different prompts; in {alike:.0%} of the pairs both sides begin with the same {LONG} tokens"
    if prompts > 1 or alike < NEARLY_ALL or beginnings < LEAST:
        return made(ECHO, told)
    message = (
        f"All rows have one prompt, and in {alike:.0%} of the pairs both sides open with the same words, others in "
        "each pair: the question stands in the responses."
    )
    remedy = "Move what both sides open with into the prompt; as it is, the model learns to write the question."
    evidence = {"prompts": prompts, "alike": alike, "beginnings": beginnings}
    return made(
        ECHO, told, [Finding("question-in-response", "warning", 0, message, remedy, evidence, "F15 of the catalogue")]
    )
