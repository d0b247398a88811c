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
        10, "catalogue", "F17, F53: more than half of a window's losses are exactly 0", (37, 0.0)
    ),
    "weights-rounded/share": Threshold(0.9, "arithmetic", "by chance 1 float32 number in 65536 is a bfloat16 one"),
    # optimisation
    "update-swallowed/share": Threshold(
        0.5, "arithmetic", "Adam's first update is |g| / (|g| + epsilon) of the learning rate: epsilon outweighs |g|"
    ),
    "nothing-trains/fatal": Threshold(
        10, "catalogue", "F49: more than half of a window's gradients are exactly 0", (63, 0.0)
    ),
    "learning-rate-zero/fatal": Threshold(
        10, "arithmetic", "a rate of 0 moves nothing; for more than half a window", (63, 0.0)
    ),
    "learning-rate-schedule/warning": Threshold(0.01, "catalogue", "F44: 1 % off the closed form", (63, 0.0)),
    "loss-spike/warning": Threshold(
        20.0, "house", "robust deviations of the 50 losses before; heavy tails reach 10", (8, 5.751)
    ),
    "loss-divergence/warning": Threshold(
        0.35, "fitted", "rise above the best, in units of the loss at the start", (36, 0.1376)
    ),
    "loss-divergence/fatal": Threshold(1.0, "house", "it has risen by as much as it began with", (36, 0.1376)),
    "loss-above-start/warning": Threshold(
        0.5, "house", "F42: half as much again as before the first update", (36, 0.0)
    ),
    "loss-above-start/fatal": Threshold(2.0, "house", "three times the loss of the start", (36, 0.0)),
    "loss-above-start/z": Threshold(3.0, "house", "standard deviations of a single loss"),
    "gradient-growth/warning": Threshold(10.0, "catalogue", "F46: ten times the median of the first 50", (8, 1.128)),
    "gradient-clipped/warning": Threshold(
        0.01, "arithmetic", "F47: among 1e10 weights a tenth of the usual share of it is Adam's epsilon", (21, 1.0)
    ),
    "hot-update/warning": Threshold(
        1.0, "catalogue", "F42: 1 nat a token where the start gives 1 nat a token", (19, 0.2079)
    ),
    # pairs
    "hot-update/fatal": Threshold(
        3.0, "house", "three times the catalogue's: nothing of the start is left", (19, 0.2079)
    ),
    "saturation/warning": Threshold(
        0.3, "specification", "D05: share of pairs that still have a gradient", (19, 0.625)
    ),
    "saturation/fatal": Threshold(0.2, "catalogue", "F56: four pairs in five have none", (19, 0.625)),
    "saturation/margin-warning": Threshold(6.0, "specification", "D05: margin, where the share is not known"),
    "saturation/margin-fatal": Threshold(10.0, "catalogue", "F56: there the weight of a pair is 4.5e-5"),
    "saturation/easy": Threshold(0.95, "house", "accuracy on held-out pairs: they are easy, and the run is done"),
    "margin-per-token/warning": Threshold(0.5, "specification", "D07, warn", (19, 0.9239)),
    "margin-per-token/fatal": Threshold(1.0, "specification", "D07, stop", (19, 0.9239)),
    "margin-per-token/chosen": Threshold(0.5, "house", "and chosen responses moved as far; easy pairs: 0.2"),
    "identical-samples/note": Threshold(0.0, "arithmetic", "D01: any such pair"),
    "identical-samples/warning": Threshold(0.05, "catalogue", "F10, which blocks data that have so many"),
    "tied-pairs/warning": Threshold(0.005, "catalogue", "F10: half a per cent of the pairs"),
    "tied-pairs/fatal": Threshold(0.05, "catalogue", "F10: blocked at five per cent"),
    "overconfident/warning": Threshold(
        0.0, "arithmetic", "D06: loss above log 2, that of a model that never decides", (1, -0.5701)
    ),
    "overconfident/accuracy": Threshold(0.7, "specification", "D06: and yet it ranks right"),
    "displacement/warning": Threshold(
        0.5, "catalogue", "F59: 0.5 nat a token where the start gives 1 nat a token", (19, 0.0)
    ),
    "displacement/entropy": Threshold(1.5, "house", "mass went elsewhere: entropy on the texts against the start"),
    "stuck-at-start/fatal": Threshold(
        1e-6, "arithmetic", "F35, F50: rounding; an update moves rewards by far more", (23, 0.02574)
    ),
    "off-reference-start/warning": Threshold(
        0.3, "house", "F37: well above what two dtypes differ by (0.1)", (22, 1.073e-07)
    ),
    "instant-zero-loss/note": Threshold(0.05, "catalogue", "F58: loss in the first tenth of the run", (14, 0.636)),
    "instant-zero-loss/share": Threshold(0.1, "catalogue", "F58: share of the run that counts as its beginning"),
    "wrong-way/warning": Threshold(
        -3.0, "house", "standard errors below 0 of the mean margin of 50 steps", (27, -1.128)
    ),
    "wrong-way/fatal": Threshold(-6.0, "house", "the same, where the accuracy is below a coin's as well", (27, -1.128)),
    "wrong-way/coin": Threshold(0.5, "arithmetic", "share of right pairs from which on nothing opposite is learned"),
    "wrong-way/accuracy": Threshold(0.4, "house", "a share of right pairs that no coin has in 50 steps"),
    "margin-units/fatal": Threshold(
        0.01, "catalogue", "F41: 1e-3 of rounding, with room for logged digits", (19, 8.526e-08)
    ),
    "margin-sides/tolerance": Threshold(0.05, "arithmetic", "0 but for the rounding of logged digits"),
    "loss-margin/fatal": Threshold(
        0.02, "arithmetic", "Jensen: nothing below; bfloat16 rounds log 2 by 0.002", (15, -7.528e-05)
    ),
    # held-out data
    "held-out-gap/warning": Threshold(
        0.15, "catalogue", "F69, F77: training accuracy less held-out accuracy", (22, 0.0375)
    ),
    "held-out-loss/warning": Threshold(
        0.1, "house", "share by which the held-out loss is above its best", (10, 0.008506)
    ),
    "memorised/note": Threshold(0.99, "house", "accuracy of the next token", (7, 0.743)),
    "memorised/gap": Threshold(0.1, "house", "and that much less on held-out data"),
    "held-out-opposite/warning": Threshold(
        3.0,
        "house",
        "F12: standard errors; two samples of one source in which sides differ are well below 0",
        (25, 0.7808),
    ),
    "held-out-opposite/held": Threshold(2.0, "house", "standard errors from 0 of the held-out difference"),
    "held-out-below-chance/warning": Threshold(
        2.0, "arithmetic", "F12: a coin's standard errors below one half", (11, -0.2739)
    ),
    "held-out-below-chance/training": Threshold(3.0, "house", "and training pairs as far above it"),
    # reward models
    "rm-not-learning/warning": Threshold(
        0.53, "house", "accuracy over 100 steps; a coin has 0.5 +- 0.013", (2, 0.6025)
    ),
    "score-drift/warning": Threshold(
        5.0, "catalogue", "F75: shift of the mean score in units of the scores' spread", (5, 3.44)
    ),
    # rollouts
    "negative-kl/warning": Threshold(-3.0, "catalogue", "F84: standard errors of the mean of 10 rollouts", (26, 0.0)),
    "negative-kl/fatal": Threshold(-6.0, "house", "beyond what 10 rollouts scatter by", (26, 0.0)),
    "negative-kl/floor": Threshold(1e-3, "house", "nats per token below which a sign is rounding and chance"),
    "kl-runaway/warning": Threshold(
        0.32, "fitted", "K03 warns at 0.25: nats per token over entropy at the start", (26, 0.2083)
    ),
    "kl-runaway/fatal": Threshold(0.6, "specification", "K03, stop", (26, 0.2083)),
    "kl-runaway/floor": Threshold(0.1, "house", "an entropy below it counts as this"),
    "kl-absent/fatal": Threshold(
        1e-9, "arithmetic", "F35, F103: rounding of a float32 log-probability, squared", (23, 0.0009592)
    ),
    "kl-absent/moved": Threshold(1e-6, "house", "approximate KL of an update that did move the policy"),
    "kl-coefficient/error": Threshold(1e-6, "arithmetic", "the weight before anything could have moved it"),
    "entropy-collapse/warning": Threshold(
        0.5, "specification", "K04, warn: share of the entropy at the start", (25, 0.7865)
    ),
    "entropy-collapse/fatal": Threshold(0.2, "specification", "K04, stop", (25, 0.7865)),
    "sampler-mismatch/warning": Threshold(0.01, "specification", "K02, warn: nats per token", (24, 6.93e-07)),
    "sampler-mismatch/fatal": Threshold(0.1, "specification", "K02, fail", (24, 6.93e-07)),
    "length-drift/warning": Threshold(
        2.0, "house", "K05's three deviations where their size is not recorded: doubled", (26, 1.303)
    ),
    "truncation/warning": Threshold(0.5, "catalogue", "F111, alarm: share of responses that are cut off", (26, 0.0)),
    "truncation/fatal": Threshold(0.95, "catalogue", "F08, F111: nothing ends by itself", (26, 0.0)),
    "truncation-rise/warning": Threshold(2.0, "specification", "K05: twice as many as at the start", (26, 0.0)),
    "truncation-rise/floor": Threshold(0.1, "catalogue", "F111, warn: share below which nobody minds"),
    "masked-responses/warning": Threshold(0.5, "house", "G05: most of what is sampled is not trained on"),
    # rewards
    "reward-falling/warning": Threshold(0.25, "house", "fall in standard deviations of a response's score", (26, 0.0)),
    "reward-falling/fatal": Threshold(
        0.75, "house", "the same; a task that is merely hard does not do that", (26, 0.0)
    ),
    "reward-falling/z": Threshold(4.0, "house", "standard errors that the fall must be from 0"),
    "dead-groups/warning": Threshold(
        0.75, "fitted", "G02 warns at 0.5, where rewards that are seldom paid are", (17, 0.6667)
    ),
    "dead-groups/fatal": Threshold(0.9, "specification", "G02, stop", (17, 0.6667)),
    "dead-groups/z": Threshold(4.0, "house", "standard errors that a rise of the reward must be from 0"),
    "dead-groups/spread": Threshold(0.5, "house", "and by the spread at the start, or until its spread is half of it"),
    "reward-follows-length/warning": Threshold(0.9, "house", "correlation over rollouts", (1, 0.0)),
    "reward-follows-length/length": Threshold(1.5, "house", "length against the start"),
    "reward-part-falls/warning": Threshold(
        0.2, "catalogue", "F116: share of itself that a part lost as the sum rose", (18, 0.0)
    ),
    "reward-part-falls/z": Threshold(3.0, "house", "standard errors that both changes must be from 0"),
    "reward-part-constant/warning": Threshold(1e-9, "arithmetic", "rounding: scores that never differ teach nothing"),
    # updates
    "ratio-degenerate/warning": Threshold(1e-10, "specification", "P01: variance of the ratio", (23, 2.664e-06)),
    "ratio-blow-up/warning": Threshold(0.05, "specification", "P02: approximate KL of an update", (24, 0.0003847)),
    "ratio-blow-up/fatal": Threshold(0.5, "house", "ten times that", (24, 0.0003847)),
    "ratio-blow-up/clipped": Threshold(0.3, "specification", "P02: share of tokens without a gradient"),
    "critic-useless/warning": Threshold(
        -0.2, "house", "P03 says 0: advantages have a fifth more variance than without a critic", (7, -0.05403)
    ),
    "critic-useless/constant": Threshold(1e-5, "arithmetic", "F89: a constant explains 0 but for rounding"),
    "critic-useless/long": Threshold(0.0, "arithmetic", "P03: what a constant explains, after a hundred rollouts"),
}


def threshold(name: str) -> float:
    """The value of a threshold by its name."""
    return THRESHOLDS[name].value
