"""A question inside the answers: where prompts are alike and both sides of every pair begin with the same long text."""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from trueup.data.trees import Tree
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
    alike = float(np.mean([_beginning(tree) >= LONG for tree in pairs]))
    beginnings = len({tree.responses[0][:LONG] for tree in pairs})
    told = f"{prompts} different prompts; in {alike:.0%} of the pairs both sides begin with the same {LONG} tokens"
    if prompts > 1 or alike < NEARLY_ALL or beginnings < LEAST:
        return made(ECHO, told)
    message = f"All rows have one prompt, and {told.split('; ')[1]}, of {beginnings} kinds: the questions are there."
    remedy = "Put what both sides begin with into the prompt: the model learns to ask, and is never asked."
    evidence = {"prompts": prompts, "alike": alike, "beginnings": beginnings}
    return made(
        ECHO, told, [Finding("question-in-response", "fatal", 0, message, remedy, evidence, "F15 of the catalogue")]
    )


def _beginning(tree: Tree) -> int:
    """Tokens that the two responses have in common before they part."""
    return sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], zip(*tree.responses, strict=False)))
