"""What is sampled: its distance from the reference, its entropy, its agreement with what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from trueup.health.findings import Finding, Severity
from trueup.health.limit import Limit
from trueup.health.rule import ONLINE, Rule, RunLog, all_of, any_of
from trueup.health.rules.rewards import is_learned
from trueup.health.signals import Point, last, latest, measured, middle, standard_errors, start, values
from trueup.health.thresholds import ROLLOUTS, START, WINDOW, threshold

UNPENALISED = frozenset({"dr_grpo", "dapo", "bnpo", "gspo", "cispo"})
"""Variants of GRPO that have no KL penalty unless one is set."""

KL_WINDOW = 10
"""Rollouts over which the sign of a KL is judged (F84)."""


def penalises_kl(settings: Mapping[str, Any]) -> bool:
    """Is the run meant to stay near its reference? Unless the settings say otherwise, yes."""
    given = [settings[key] for key in ("ppo.kl_coef", "grpo.kl_coef", "rloo.kl_coef") if settings.get(key) is not None]
    return given[0] > 0 if given else settings.get("grpo.variant") not in UNPENALISED


def negative_sign(log: RunLog) -> Point | None:
    """K01: mean k1 of the last 10 rollouts in its standard errors; 0 where it is too small to mean anything."""
    name = "kl/policy_reference_k1"
    recent = last(log, name, KL_WINDOW)
    if not recent:
        return None
    mean = fmean(values(recent))
    return recent[0][0], standard_errors(values(recent)) if mean < -threshold("negative-kl/floor") else 0.0


NEGATIVE = Limit("negative-kl", negative_sign, below=True)


def negative_kl(log: RunLog) -> Finding | None:
    """K01, F84: samples of the policy cannot be less probable under it than under another, on average."""
    hit = NEGATIVE.exceeded(log)
    if hit is None:
        return None
    mean = fmean(values(last(log, "kl/policy_reference_k1", KL_WINDOW)))
    message = f"Over {KL_WINDOW} rollouts the KL estimate k1 has a mean of {mean:.4f} nats per token: below 0."
    remedy = (
        "Samples are not drawn from what is scored: compare temperature, top-k, top-p, minimum length, stop tokens. "
        "A policy can earn reward from a negative KL."
    )
    evidence = hit.evidence("standard_errors", **{"kl/policy_reference_k1": mean})
    return Finding("negative-kl", hit.severity, hit.step, message, remedy, evidence, "rule K01; F84")


def distance(log: RunLog) -> Point | None:
    """K03: median k3 of the last 3 rollouts over the entropy at the start."""
    began, found = start(log, "entropy"), middle(log, "kl/policy_reference_k3", 3)
    if began is None or found is None:
        return None
    return found[0], found[1] / max(began, threshold("kl-runaway/floor"))


DISTANCE = Limit("kl-runaway", distance)


def anchor_of(method: str | None) -> str:
    """The setting that holds a policy at its reference."""
    return "preference.beta" if method == "online-dpo" else f"{method}.kl_coef"


def kl_runaway(log: RunLog) -> Finding | None:
    """K03: the policy is far from the reference, measured against the entropy it started with."""
    hit, found = DISTANCE.exceeded(log), middle(log, "kl/policy_reference_k3", 3)
    if hit is None or found is None:
        return None
    free = not penalises_kl(log.settings)
    began = start(log, "entropy") or 0.0
    message = f"The policy is {found[1]:.2f} nats per token from the reference; its entropy began at {began:.2f}."
    remedy = (
        f"Raise {anchor_of(log.method)} or train for fewer optim.steps, and look at a score that was not trained on "
        "(trueup eval)."
    )
    evidence = {"kl/policy_reference_k3": found[1], "share_of_entropy": hit.value, "bound": hit.bound}
    severity: Severity = "warning" if free else hit.severity
    return Finding("kl-runaway", severity, hit.step, message, remedy, evidence, "rule K03")


def residual_kl(log: RunLog) -> Point | None:
    """Largest k3 of the last rollouts, where updates are known to move the policy."""
    recent, moved = last(log, "kl/policy_reference_k3", ROLLOUTS), last(log, "policy/approxkl", ROLLOUTS)
    still = not moved or max(values(moved)) < threshold("kl-absent/moved")
    if not recent or still or measured(log, "kl/policy_reference_k3") <= ROLLOUTS:
        return None
    return recent[0][0], max(abs(value) for value in values(recent))


RESIDUAL = Limit("kl-absent", residual_kl, below=True)


def kl_absent(log: RunLog) -> Finding | None:
    """F35, F103: the policy moves, and its distance from the reference stays 0."""
    hit = RESIDUAL.exceeded(log)
    if hit is None:
        return None
    message = f"Updates move the policy, yet its KL from the reference is {hit.value:.0e}: the reference moves with it."
    remedy = "Policy and reference share their weights, or the reference is never asked: the KL penalty does nothing."
    evidence = hit.evidence("kl/policy_reference_k3")
    return Finding("kl-absent", hit.severity, hit.step, message, remedy, evidence, "F35, F36, F103")


def kl_coefficient(log: RunLog) -> Finding | None:
    """F103: the weight of the KL penalty that arrives is not the one that was set."""
    points, asked = log.series.get("objective/kl_coef", ()), log.settings.get("ppo.kl_coef")
    if not points or asked is None:
        return None
    step, found = points[0]
    if not abs(found - asked) > threshold("kl-coefficient/error") * max(abs(asked), 1.0):
        return None
    message = f"The first rollout is penalised with a KL weight of {found:g}, and ppo.kl_coef is {asked:g}."
    remedy = "Look for where the setting is lost or overwritten on its way: what a sweep over it shows would be noise."
    evidence = {"objective/kl_coef": found, "set": asked}
    return Finding("kl-coefficient", "fatal", step, message, remedy, evidence, "F103")


def entropy_left(log: RunLog) -> Point | None:
    """K04: median entropy of the last 20 steps over that of the first five; only in runs that sample."""
    began, found = start(log, "entropy", START), middle(log, "entropy")
    if not began or found is None or measured(log, "entropy") < 2 * WINDOW or not measured(log, "reward"):
        return None
    return found[0], found[1] / began


ENTROPY = Limit("entropy-collapse", entropy_left, below=True)


def entropy_collapse(log: RunLog) -> Finding | None:
    """K04, F118: the policy has lost most of the entropy it sampled with; a note where the task is learned."""
    hit, found = ENTROPY.exceeded(log), middle(log, "entropy")
    if hit is None or found is None:
        return None
    same = "the policy writes nearly the same every time"
    message = f"Entropy fell to {found[1]:.2f} nats per token, {hit.value:.0%} of what it was: {same}"
    evidence, reference = {"entropy": found[1], "share": hit.value, "bound": hit.bound}, "rule K04; F118"
    if is_learned(log):
        remedy = "Right where a prompt has one good answer; where it has many, read some samples."
        return Finding(
            "entropy-collapse", "note", hit.step, f"{message}, while the reward rose.", remedy, evidence, reference
        )
    remedy = f"Raise rollout.decoding.temperature or {anchor_of(log.method)}; see whether the reward still rises."
    return Finding("entropy-collapse", hit.severity, hit.step, f"{message}.", remedy, evidence, reference)


def disagreement(log: RunLog) -> Point | None:
    """K02: mean difference of log-probabilities as sampled and as trained, in the latest rollout."""
    return latest(log, "sampling/sampling_logp_difference/mean")


DISAGREEMENT = Limit("sampler-mismatch", disagreement)


def sampler_mismatch(log: RunLog) -> Finding | None:
    """K02: the log-probabilities of sampling and of training differ on the same weights."""
    hit = DISAGREEMENT.exceeded(log)
    if hit is None:
        return None
    message = f"Sampler and trainer disagree by {hit.value:.3f} nats a token on the same weights."
    remedy = "They must agree: compare the temperature, top-k, the dtype, the KV cache and the weights of the two."
    evidence = hit.evidence("sampling/sampling_logp_difference/mean")
    return Finding("sampler-mismatch", hit.severity, hit.step, message, remedy, evidence, "rule K02; F87, F104 to F110")


RULES = (
    Rule("negative-kl", "rollout", ONLINE, all_of("kl/policy_reference_k1"), negative_kl),
    Rule("kl-coefficient", "objective", frozenset({"ppo"}), all_of("objective/kl_coef"), kl_coefficient),
    Rule("kl-runaway", "optimisation", ONLINE, all_of("kl/policy_reference_k3", "entropy"), kl_runaway),
    Rule("kl-absent", "reference", ONLINE, all_of("kl/policy_reference_k3", "policy/approxkl"), kl_absent),
    Rule("entropy-collapse", "policy update", ONLINE, all_of("entropy", "reward"), entropy_collapse),
    Rule("sampler-mismatch", "rollout", ONLINE, any_of("sampling/sampling_logp_difference/mean"), sampler_mismatch),
)
LIMITS = (NEGATIVE, DISTANCE, RESIDUAL, ENTROPY, DISAGREEMENT)
