"""What data and settings say by themselves: what was left out, and a learning rate of another kind of run."""

from __future__ import annotations

from collections.abc import Mapping

from trueup.health.findings import Finding
from trueup.models.adapters import is_adapted
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject

LENGTHS, RATE = "rows left out for their length", "learning rate"
LEFT_OUT = 0.05
LARGE = 100_000_000
"""Weights from which on the usual learning rates hold; smaller models take larger ones."""
USUAL: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "sft": ((1e-6, 1e-4), (1e-5, 1e-3)),
    "reward": ((1e-6, 1e-4), (1e-5, 1e-3)),
    "dpo": ((1e-7, 1e-5), (5e-7, 1e-4)),
    "kto": ((1e-7, 1e-5), (5e-7, 1e-4)),
    "orpo": ((1e-6, 5e-5), (5e-6, 5e-4)),
    "online-dpo": ((1e-7, 1e-5), (5e-7, 1e-4)),
    "ppo": ((1e-7, 2e-5), (1e-6, 2e-4)),
    "grpo": ((1e-7, 1e-5), (1e-6, 1e-4)),
    "rloo": ((1e-7, 1e-5), (1e-6, 1e-4)),
}
"""Method -> lowest and highest usual peak learning rate with AdamW, of all weights and of adapters."""


def check_lengths(subject: Subject, sample: Sample) -> Outcome:
    """The share of rows that were dropped for being too long."""
    left_out = {reason: count for reason, count in subject.data.dropped.items() if reason.startswith("longer than")}
    lost = sum(left_out.values())
    total = len(subject.data) + lost
    told = f"{lost} of {total} rows are too long"
    if lost < LEFT_OUT * total:
        return made(LENGTHS, told)
    message = f"{lost} of {total} rows ({lost / total:.0%}) are {' or '.join(left_out)} and are not trained on."
    remedy = (
        "Raise data.max_length, at most to the model's context, or take a model with a longer one: what is left is "
        "biased to short answers."
    )
    finding = Finding(
        "rows-too-long", "warning", 0, message, remedy, {"rows": lost, "of": total}, "F09 of the catalogue"
    )
    return made(LENGTHS, told, [finding])


def check_rate(subject: Subject, sample: Sample) -> Outcome:
    """Compare the learning rate with what runs of the method usually have."""
    size = sum(p.numel() for p in subject.policy.parameters())
    if size < LARGE or subject.method not in USUAL:
        return skipped(RATE, f"usual rates are known for models of {LARGE // 10**6} M weights and more")
    adapted = is_adapted(subject.policy)
    low, high = USUAL[subject.method][adapted]
    kind = "adapters" if adapted else "all weights"
    told = f"{subject.learning_rate:g}; {subject.method} of {kind} usually has {low:g} to {high:g}"
    if low <= subject.learning_rate <= high:
        return made(RATE, told)
    message = f"The learning rate is {told}."
    remedy = (
        "Unless you chose it, set optim.learning_rate inside this range: ten times too high, the loss reaches 0 and "
        "the model writes gibberish; far too low, nothing is learned."
    )
    evidence = {"learning_rate": subject.learning_rate, "low": low, "high": high}
    return made(RATE, told, [Finding("unusual-rate", "note", 0, message, remedy, evidence, "F42 of the catalogue")])
