"""All checks of a run before its first step, on a few of its rows, leaving everything as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trueup.data.trees import Tree
from trueup.preflight import (
    alphabet,
    composition,
    copies,
    credit,
    cut,
    direction,
    draws,
    echo,
    knobs,
    known,
    next_rollout,
    order,
    padding,
    pay,
    point,
    reach,
    recomputed,
    renderers,
    repeat,
    rescoring,
    rollouts,
    settings,
    stubs,
    support,
)
from trueup.preflight.modes import mode
from trueup.preflight.outcome import Outcome, Report, attempt, skipped
from trueup.preflight.rehearsal import CAP, rehearse, sample_of
from trueup.preflight.subject import Sample, Subject
from trueup.runtime.clock import seconds
from trueup.runtime.undisturbed import undisturbed
from trueup.train.rollout import RolloutSource
from trueup.train.sources import DataBatch, DataSource
from trueup.train.unpaired import UnpairedSource

Level = Literal["full", "quick"]

Probe = Callable[[Subject, Sample], Outcome | None]
"""A check; None where it is not about this kind of run. It may look at anything and may leave no trace."""


@dataclass(frozen=True)
class Size:
    """How much is looked at: rows, short ones of these for gradients, responses of a rehearsal, the cap on one."""

    rows: int
    few: int
    responses: int
    cap: int | None


SIZES = {"quick": Size(rows=8, few=2, responses=8, cap=CAP), "full": Size(rows=8, few=4, responses=16, cap=None)}

PROBES: Sequence[tuple[str, Level, bool, Probe]] = (
    # what stands in the rows
    (renderers.PROMPTS, "quick", False, renderers.check_prompts),
    (renderers.STOPS, "quick", False, renderers.check_stops),
    (known.MASK, "quick", False, known.check_mask),
    # what the model is said to say of them
    (stubs.CHECK, "quick", True, stubs.check_stubs),
    (repeat.CHECK, "quick", True, repeat.check_repeat),
    (composition.CHECK, "quick", True, composition.check_composition),
    (padding.CHECK, "full", True, padding.check_padding),
    # the data
    (known.PAIRS, "quick", False, known.check_pairs),
    (known.LABELS, "quick", False, known.check_labels),
    (order.ORDER, "quick", False, order.check_order),
    (alphabet.CHECK, "quick", False, alphabet.check_alphabet),
    (copies.COPIES, "quick", False, copies.check_copies),
    (echo.ECHO, "quick", False, echo.check_echo),
    (settings.LENGTHS, "quick", False, settings.check_lengths),
    (support.SOURCES, "quick", False, support.check_sources),
    # the reference
    (known.IDENTITY, "quick", False, known.check_identity),
    (support.SUPPORT, "quick", False, support.check_support),
    (reach.STORAGE, "quick", False, reach.check_storage),
    # rollouts, and what is made of them
    (rollouts.AGREEMENT, "quick", False, rollouts.check_agreement),
    (draws.CHECK, "quick", False, draws.check_draws),
    (rollouts.RATIO, "quick", False, rollouts.check_ratio),
    (rollouts.ADVANTAGES, "quick", False, rollouts.check_advantages),
    (rollouts.REWARDS, "quick", False, rollouts.check_rewards),
    (pay.CHECK, "quick", False, pay.check_pay),
    (credit.CHECK, "quick", False, credit.check_credit),
    (next_rollout.CHECK, "quick", False, next_rollout.check_next),
    (rescoring.DIRECT, "quick", False, rescoring.check_direct),
    (rescoring.AGAIN, "quick", False, rescoring.check_again),
    # the update
    (settings.RATE, "quick", False, settings.check_rate),
    (reach.CHECK, "quick", True, reach.check_reach),
    (direction.CHECK, "quick", True, direction.check_direction),
    (cut.CHECK, "full", True, cut.check_cut),
    (recomputed.CHECK, "quick", True, recomputed.check_recomputed),
    (point.CHECK, "quick", True, point.check_point),
    (knobs.CHECK, "full", True, knobs.check_knobs),
)
"""Name, the level from which on it is made, does it need responses, the check.

In the order in which a run goes: what is wrong early shows in all that follows, so the first finding is the cause.
"""


def run_checks(subject: Subject, level: Level, known: Sequence[Outcome] = ()) -> Report:
    """Make every check of a level.

    Weights, modes, random streams and the source's state are afterwards what they were, bit for bit. A check that
    fails by itself (an architecture that it does not know, memory) is skipped with the reason: it must not be what
    stops a run.

    Args:
        subject: the run.
        level: which checks.
        known: checks that were made before, to be reported with these.

    Raises:
        TrueupError: sampling or rewarding fails, as it would in the run.
    """
    started = seconds()
    with undisturbed(), mode(subject.trained, False):
        sample = take_sample(subject, SIZES[level])
        outcomes = [
            _make(name, probe, subject, sample, needs)
            for name, least, needs, probe in PROBES
            if level == "full" or least == "quick"
        ]
    about = [outcome for outcome in outcomes if outcome is not None]
    return Report((*known, *about), seconds() - started)


def _make(name: str, probe: Probe, subject: Subject, sample: Sample, needs_responses: bool) -> Outcome | None:
    if needs_responses and not sample.few:
        return skipped(name, "no rehearsed response is trained on: all groups are paid the same")
    return attempt(name, lambda: probe(subject, sample))


def take_sample(subject: Subject, size: Size) -> Sample:
    """A few of the rows that the run will draw, or a rehearsed rollout."""
    source = subject.source
    if isinstance(source, RolloutSource):
        prompts = max(size.few, -(-size.responses // source.plan.group_size))
        return sample_of(subject, rehearse(subject, prompts, size.cap), size.few)
    rows = list(subject.rows[: size.rows])
    if isinstance(source, UnpairedSource):
        point = source.point(subject.trained, rows)
        trees = [source.trees[row] for row in rows]
        few = _both_labels(_short_first(trees), source.desirable[rows])
        return Sample(trees, lambda numbers: source.batch([rows[i] for i in numbers], point), few[: size.few])
    return _of_data(source, rows, size.few)


def _of_data(source: DataSource, rows: list[int], few: int) -> Sample:
    trees = [source.trees[row] for row in rows]
    if source.complete is not None:
        trees = source.complete(0, trees)

    def batch(numbers: Sequence[int]) -> DataBatch:
        return source.batch([rows[i] for i in numbers], [trees[i] for i in numbers])

    return Sample(trees, batch, _short_first(trees)[:few])


def _short_first(trees: Sequence[Tree]) -> list[int]:
    return np.argsort([tree.size for tree in trees], kind="stable").tolist()


def _both_labels(numbers: list[int], wanted: np.ndarray) -> list[int]:
    """The same numbers, wanted and unwanted by turns as long as there are both."""
    rank = {True: 0, False: 0}
    turns = {}
    for number in numbers:
        label = bool(wanted[number])
        turns[number] = rank[label]
        rank[label] += 1
    return sorted(numbers, key=turns.__getitem__)
