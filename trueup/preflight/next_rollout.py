"""What a second rollout says: it has luck of its own, and the sampler has the weights of the moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trueup.data.trees import shared_length
from trueup.health.findings import Finding
from trueup.preflight.encore import aim
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Encore, Sample, Subject

CHECK = "next rollout"
CHANCE = 1e-7
"""Probability below which what two rollouts have in common is no chance."""
FELT = 0.1
"""Share of the change that was aimed at by which log-probabilities must have moved for weights to be told apart."""
REFERENCE = "probe P11 of the catalogue of silent failures"


def check_next(subject: Subject, sample: Sample) -> Outcome | None:
    """Compare a second rollout, by slightly moved weights, with the first one and with the scores of training."""
    if sample.rehearsal is None:
        return None
    encore = sample.rehearsal.encore
    if encore is None:
        return skipped(CHECK, "a second rollout, by slightly moved weights, could not be made")
    shared = _shared_beginnings(encore)
    luck = {name: chance_of(found) for name, found in shared.items()}
    fresh = float((encore.lived.old_logps - encore.moved).abs().mean())
    stale = float((encore.lived.old_logps - encore.still).abs().mean())
    change = float((encore.moved - encore.still).abs().mean())
    chances = ", ".join(f"of {name} by chance {chance:.1g}" for name, chance in luck.items() if shared[name])
    told = f"what answers have in common, {chances}; weights moved by {change:.0e} nats, sampler by {stale:.0e}"
    findings = [_repeated(name, shared[name], chance) for name, chance in luck.items() if chance < CHANCE][:1]
    if change >= FELT * aim(subject) and stale < 0.5 * fresh:
        findings.append(_stale(change, stale, fresh))
    return made(CHECK, told, findings)


def _shared_beginnings(encore: Encore) -> dict[str, list[float]]:
    """-log p of what each response has in common, from its first token on, with one that it is independent of."""
    parts = iter(encore.lived.old_logps.double().split([len(r) for tree in encore.lived.trees for r in tree.responses]))
    found: dict[str, list[float]] = {"two rollouts": [], "one group": []}
    for tree, earlier in zip(encore.lived.trees, encore.before, strict=True):
        for number, (response, other) in enumerate(zip(tree.responses, earlier.responses, strict=True)):
            logps = next(parts)
            found["two rollouts"].append(-float(logps[: shared_length(response, other)].sum()))
            if number:
                length = shared_length(response, tree.responses[number - 1])
                found["one group"].append(-float(logps[:length].sum()))
    return found


def chance_of(surprises: Sequence[float]) -> float:
    """Probability that independent responses have as much in common.

    That a response agrees with a given one in a beginning of probability q has probability q, so that q is at least
    as large as a uniform number, and the sum of -log q at most as large as that of n exponential ones (Fisher's
    combination of n tests): the upper tail of a gamma distribution of shape n.
    """
    if not surprises:
        return 1.0
    shape, total = (torch.tensor(float(value), dtype=torch.float64) for value in (len(surprises), sum(surprises)))
    return float(torch.special.gammaincc(shape, total))


def _repeated(where: str, surprises: Sequence[float], chance: float) -> Finding:
    message = (
        f"Responses of {where} to the same prompt begin alike: {len(surprises)} pairs share beginnings of "
        f"{sum(surprises):.0f} nats, which independent samples do with probability {chance:.0e}."
    )
    remedy = "They are drawn with the same random numbers: seed a rollout by its number, a response by its own."
    evidence = {"pairs": len(surprises), "nats": sum(surprises), "chance": chance}
    return Finding("same-luck", "fatal", 0, message, remedy, evidence, f"{REFERENCE}; F119")


def _stale(change: float, stale: float, fresh: float) -> Finding:
    message = (
        f"The weights were moved by {change:.3g} nats a token, and the sampler did not notice: its log-probabilities "
        f"are within {stale:.3g} of those of the weights before, and {fresh:.3g} from those now."
    )
    remedy = "Bring the sampler's weights up to date before every rollout."
    evidence = {"change": change, "from_old": stale, "from_new": fresh}
    return Finding("sampler-stale", "fatal", 0, message, remedy, evidence, f"{REFERENCE}; F109")
