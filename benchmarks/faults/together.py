"""Faults that come in pairs, and may mask each other; accepted is what would be for either."""

from __future__ import annotations

from faults.fault import Fault, Inject
from faults.in_data import swap, tell
from faults.in_objective import _losses
from faults.in_optimisation import RATE, _after, _dropout, _loaded, _optimiser, _round, faster
from faults.in_reference import follows
from faults.in_reward import scored
from faults.in_rollouts import _advantage, _cold, kl_sign, sampled, short
from faults.in_tokens import _responses, _sums, _without_last, prompt_scored, shifted
from faults.stage import Stage


def both(*injections: tuple[Inject, float]) -> Inject:
    """Several faults at once."""

    def inject(stage: Stage, _: float) -> None:
        for injection, strength in injections:
            injection(stage, strength)

    return inject


FAULTS = (
    Fault(
        "F12+F94",
        "labels swapped and loss negated",
        ("dpo",),
        "objective",
        both((swap, 1.0), (_losses(lambda loss, pairs, values: {name: -value for name, value in values.items()}), 1.0)),
        also=("data",),
        invalid="right by accident",
    ),
    Fault(
        "F45+F42",
        "rounded weights and a raised rate",
        ("dpo",),
        "numbers",
        both((_optimiser(_after(_round)), 1.0), (faster, 10.0)),
        also=("optimisation",),
        settings={RATE: 1e-4},
    ),
    Fault(
        "F94+F85",
        "advantages and KL negated",
        ("grpo",),
        "policy update",
        both((_advantage(lambda e, a: -a), 1.0), (kl_sign, 1.0)),
        also=("objective", "reference"),
    ),
    Fault(
        "F28+F30",
        "prompt scored, terminator not",
        ("orpo",),
        "log-probabilities",
        both((prompt_scored, 1.0), (_sums(_without_last), 1.0)),
    ),
    Fault(
        "F05+F26",
        "terminator absent, mask shifted",
        ("sft",),
        "log-probabilities",
        both((_responses(lambda e, n, ids: ids[:-1]), 1.0), (shifted(1), 1.0)),
        also=("data", "rollout"),
    ),
    Fault("F11+F12", "a tell and swapped labels", ("dpo", "reward"), "data", both((swap, 0.3), (tell, 1.0))),
    Fault(
        "F34+F42",
        "dropout and a hot rate",
        ("dpo",),
        "optimisation",
        both((_loaded(_dropout), 0.1), (faster, 30.0)),
        also=("log-probabilities",),
    ),
    Fault(
        "F105+F111", "cold sampler under a small cap", ("grpo",), "rollout", both((sampled(_cold), 0.6), (short, 12.0))
    ),
    Fault(
        "F36+F85",
        "reference follows, KL is a reward",
        ("grpo",),
        "reference",
        both((follows, 0.3), (kl_sign, 1.0)),
        also=("objective", "policy update"),
    ),
    Fault(
        "F91+F114",
        "large and often zero reward",
        ("ppo",),
        "reward",
        both((scored(lambda c, r, rng, s: r * s), 50.0), (scored(lambda c, r, rng, s: r * 0.0), 1.0)),
        also=("policy update",),
    ),
)
