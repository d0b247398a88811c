"""Every number that a live rule compares with, in one place, each with where it comes from.

``rule/warning`` and ``rule/fatal`` are the bounds of a rule's statistic (``limit.Limit``); other names are conditions
beside it. docs/diagnoses.md says the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Origin = Literal["arithmetic", "specification", "catalogue", "house", "fitted"]
"""Arithmetic: follows from definitions. Specification, catalogue: stated there, from reports and papers. House: ours.
Fitted: placed outside what healthy runs show."""

WINDOW = 20
"""Values over which a condition must hold in the median, so that one odd batch says nothing (the specification's)."""

START = 5
"""Values that say where a run began."""

ROLLOUTS = 5
"""Rollouts over which something that is measured once a rollout must hold; a few hundred responses."""


@dataclass(frozen=True)
class Threshold:
    """A bound, where it comes from, and why it is there.

    ``healthy``, of bounds of a statistic: how many healthy runs had it, and how far the furthest of them went, at any
    look; from benchmarks/results/thresholds.cpu.json. None where no run had it.
    """

    value: float
    origin: Origin
    why: str
    healthy: tuple[int, float] | None = None


THRESHOLDS: Mapping[str, Threshold] = {
    # numbers
    "loss-zero/fatal": Threshold(
        10, "catalogue", "F17, F53: more than half of a window's losses are exactly 0", (40, 0.0)
    ),
    # optimisation
    "nothing-trains/fatal": Threshold(
        10, "catalogue", "F49: more than half of a window's gradients are exactly 0", (65, 0.0)
    ),
    "learning-rate-zero/fatal": Threshold(
        10, "arithmetic", "a rate of 0 moves nothing; for more than half a window", (65, 0.0)
    ),
    "learning-rate-schedule/warning": Threshold(0.01, "catalogue", "F44: 1 % off the closed form", (65, 0.0)),
    "loss-spike/warning": Threshold(
        20.0, "house", "robust deviations of the 50 losses before; heavy tails reach 10", (10, 10.04)
    ),
    "loss-divergence/warning": Threshold(
        0.35, "fitted", "rise above the best, in units of the loss at the start", (39, 0.2624)
    ),
    "loss-divergence/fatal": Threshold(1.0, "house", "it has risen by as much as it began with", (39, 0.2624)),
    "gradient-growth/warning": Threshold(10.0, "catalogue", "F46: ten times the median of the first 50", (9, 1.138)),
    "gradient-clipped/warning": Threshold(
        24.0, "fitted", "F46's nine steps in ten, cut to a twenty-fourth and less", (41, 18.95)
    ),
    "hot-update/warning": Threshold(
        1.0, "catalogue", "F42: 1 nat a token where the start gives 1 nat a token", (23, 0.164)
    ),
    # pairs
    "saturation/warning": Threshold(0.3, "specification", "D05: share of pairs that still have a gradient", (23, 0.5)),
    "saturation/fatal": Threshold(0.2, "catalogue", "F56: four pairs in five have none", (23, 0.5)),
    "saturation/margin-warning": Threshold(6.0, "specification", "D05: margin, where the share is not known"),
    "saturation/margin-fatal": Threshold(10.0, "catalogue", "F56: there the weight of a pair is 4.5e-5"),
    "margin-per-token/warning": Threshold(0.5, "specification", "D07, warn", (23, 1.301)),
    "margin-per-token/fatal": Threshold(1.0, "specification", "D07, stop", (23, 1.301)),
    "margin-per-token/chosen": Threshold(0.5, "house", "and chosen responses moved as far; easy pairs: 0.2"),
    "tied-pairs/warning": Threshold(0.005, "catalogue", "F10: half a per cent of the pairs"),
    "tied-pairs/fatal": Threshold(0.05, "catalogue", "F10: blocked at five per cent"),
    "overconfident/warning": Threshold(
        0.0, "arithmetic", "D06: loss above log 2, that of a model that never decides", (2, -0.535)
    ),
    "overconfident/accuracy": Threshold(0.7, "specification", "D06: and yet it ranks right"),
    "displacement/warning": Threshold(
        0.5, "catalogue", "F59: 0.5 nat a token where the start gives 1 nat a token", (23, 0.0)
    ),
    "displacement/entropy": Threshold(1.5, "house", "mass went elsewhere: entropy on the texts against the start"),
    "stuck-at-start/fatal": Threshold(
        1e-6, "arithmetic", "F35, F50: rounding; an update moves rewards by far more", (27, 0.01667)
    ),
    "off-reference-start/warning": Threshold(
        0.3, "house", "F37: well above what two dtypes differ by (0.1)", (26, 5.007e-07)
    ),
    "instant-zero-loss/note": Threshold(0.05, "catalogue", "F58: loss in the first tenth of the run", (16, 0.6194)),
    "instant-zero-loss/share": Threshold(0.1, "catalogue", "F58: share of the run that counts as its beginning"),
    "wrong-way/warning": Threshold(
        -3.0, "house", "standard errors below 0 of the mean margin of 50 steps", (29, -4.31)
    ),
    "wrong-way/fatal": Threshold(-6.0, "house", "the same, where the accuracy is below a coin's as well", (29, -4.31)),
    "wrong-way/coin": Threshold(0.5, "arithmetic", "share of right pairs from which on nothing opposite is learned"),
    "wrong-way/accuracy": Threshold(0.4, "house", "a share of right pairs that no coin has in 50 steps"),
    "margin-units/fatal": Threshold(
        0.01, "catalogue", "F41: 1e-3 of rounding, with room for logged digits", (23, 1.272e-07)
    ),
    "margin-sides/tolerance": Threshold(0.05, "arithmetic", "0 but for the rounding of logged digits"),
    "loss-margin/fatal": Threshold(
        0.02, "arithmetic", "Jensen: nothing below; bfloat16 rounds log 2 by 0.002", (18, -4.221e-05)
    ),
    # held-out data
    "held-out-gap/warning": Threshold(
        0.15, "catalogue", "F69, F77: training accuracy less held-out accuracy", (20, 0.05)
    ),
    "held-out-loss/warning": Threshold(
        0.1, "house", "share by which the held-out loss is above its best", (3, -0.003071)
    ),
    "memorised/note": Threshold(0.99, "house", "accuracy of the next token", (8, 0.7505)),
    "memorised/gap": Threshold(0.1, "house", "and that much less on held-out data"),
    # reward models
    "rm-not-learning/warning": Threshold(
        0.53, "house", "accuracy over 100 steps; a coin has 0.5 +- 0.013", (2, 0.5506)
    ),
    "score-drift/warning": Threshold(
        5.0, "catalogue", "F75: shift of the mean score in units of the scores' spread", (4, 2.449)
    ),
    # rollouts
    "negative-kl/warning": Threshold(-3.0, "catalogue", "F84: standard errors of the mean of 10 rollouts", (25, 0.0)),
    "negative-kl/fatal": Threshold(-6.0, "house", "beyond what 10 rollouts scatter by", (25, 0.0)),
    "negative-kl/floor": Threshold(1e-3, "house", "nats per token below which a sign is rounding and chance"),
    "kl-runaway/warning": Threshold(
        0.32, "fitted", "K03 warns at 0.25: nats per token over entropy at the start", (25, 0.2526)
    ),
    "kl-runaway/fatal": Threshold(0.6, "specification", "K03, stop", (25, 0.2526)),
    "kl-runaway/floor": Threshold(0.1, "house", "an entropy below it counts as this"),
    "kl-absent/fatal": Threshold(
        1e-9, "arithmetic", "F35, F103: rounding of a float32 log-probability, squared", (20, 0.00671)
    ),
    "kl-absent/moved": Threshold(1e-6, "house", "approximate KL of an update that did move the policy"),
    "entropy-collapse/warning": Threshold(
        0.5, "specification", "K04, warn: share of the entropy at the start", (24, 0.7727)
    ),
    "entropy-collapse/fatal": Threshold(0.2, "specification", "K04, stop", (24, 0.7727)),
    "sampler-mismatch/warning": Threshold(0.01, "specification", "K02, warn: nats per token", (21, 6.527e-07)),
    "sampler-mismatch/fatal": Threshold(0.1, "specification", "K02, fail", (21, 6.527e-07)),
    "length-drift/warning": Threshold(
        2.0, "house", "K05's three deviations where their size is not recorded: doubled", (25, 1.283)
    ),
    "truncation/warning": Threshold(
        0.5, "catalogue", "F111, alarm: share of responses that are cut off", (25, 0.03125)
    ),
    "truncation/fatal": Threshold(0.95, "catalogue", "F08, F111: nothing ends by itself", (25, 0.03125)),
    "truncation-rise/warning": Threshold(2.0, "specification", "K05: twice as many as at the start", (25, 0.625)),
    "truncation-rise/floor": Threshold(0.1, "catalogue", "F111, warn: share below which nobody minds"),
    "masked-responses/warning": Threshold(0.5, "house", "G05: most of what is sampled is not trained on"),
    # rewards
    "reward-falling/warning": Threshold(0.25, "house", "fall in standard deviations of a response's score", (25, 0.0)),
    "reward-falling/fatal": Threshold(
        0.75, "house", "the same; a task that is merely hard does not do that", (25, 0.0)
    ),
    "reward-falling/z": Threshold(4.0, "house", "standard errors that the fall must be from 0"),
    "dead-groups/warning": Threshold(
        0.75, "fitted", "G02 warns at 0.5, where rewards that are seldom paid are", (15, 0.5833)
    ),
    "dead-groups/fatal": Threshold(0.9, "specification", "G02, stop", (15, 0.5833)),
    "reward-follows-length/warning": Threshold(0.9, "house", "correlation over rollouts", (2, 0.0)),
    "reward-follows-length/length": Threshold(1.5, "house", "length against the start"),
    "reward-part-falls/warning": Threshold(
        0.2, "catalogue", "F116: share of itself that a part lost as the sum rose", (15, 0.0)
    ),
    "reward-part-falls/z": Threshold(3.0, "house", "standard errors that both changes must be from 0"),
    "reward-part-constant/warning": Threshold(1e-9, "arithmetic", "rounding: scores that never differ teach nothing"),
    # updates
    "ratio-degenerate/warning": Threshold(1e-10, "specification", "P01: variance of the ratio", (20, 7.071e-05)),
    "ratio-blow-up/warning": Threshold(0.05, "specification", "P02: approximate KL of an update", (21, 0.0003542)),
    "ratio-blow-up/fatal": Threshold(0.5, "house", "ten times that", (21, 0.0003542)),
    "ratio-blow-up/clipped": Threshold(0.3, "specification", "P02: share of tokens without a gradient"),
    "critic-useless/warning": Threshold(0.0, "arithmetic", "P03: what a constant explains", (6, 0.00677)),
}


def threshold(name: str) -> float:
    """The value of a threshold by its name."""
    return THRESHOLDS[name].value
