"""Rules over the series of a run's metrics: each returns a finding or None. Thresholds: docs/diagnoses.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

from trueup.health.findings import Finding

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Metric name -> (step, value) in order of steps."""

WINDOW = 20
"""Steps over which a condition must hold in the median, so that one odd batch says nothing."""


def saturated(series: Series) -> Finding | None:
    """D05: most pairs have no gradient left."""
    active = series.get("gradient_weight/active", ())
    found = _sustained(active, lambda value: value < 0.3)
    if found is None:
        return None
    step, value = found
    margin = median([v for _, v in series.get("rewards/margins", ())[-WINDOW:]] or [float("nan")])
    message = (
        f"Only {value:.0%} of the pairs still have a gradient (weight over 0.01); "
        f"the beta-scaled margin is {margin:.1f}."
    )
    remedy = "Stop here, or use a bounded loss (ipo). A loss near 0 and an accuracy of 1 are not success."
    return Finding("saturation", "warning", step, message, remedy, {"gradient_weight/active": value}, "rule D05")


def far_per_token(series: Series) -> Finding | None:
    """D07: the margin per token is further than a healthy run goes."""
    found = _sustained(series.get("margin/raw_per_token", ()), lambda value: abs(value) > 1.0)
    if found is None:
        return None
    step, value = found
    message = f"The raw margin is {value:.2f} nats per token: policy and reference no longer describe the same text."
    remedy = "Check that the reference gives the chosen responses a sane probability; then lower the learning rate."
    return Finding("margin-per-token", "warning", step, message, remedy, {"margin/raw_per_token": value}, "rule D07")


def identical_samples(series: Series) -> Finding | None:
    """D01, live: sampled rejected responses equal the chosen ones."""
    seen = series.get("pairs/identical", ())
    if not seen:
        return None
    message = (
        f"In {len(seen)} steps a sampled rejected response was token for token the chosen one: "
        "those pairs teach nothing."
    )
    remedy = "The reference reproduces its training answers: sample at a higher temperature, or use other prompts."
    return Finding("identical-samples", "warning", seen[0][0], message, remedy, {"steps": len(seen)}, "rule D01")


def kl_runaway(series: Series) -> Finding | None:
    """K03: the policy is far from the reference, measured against the entropy it started with."""
    entropy = series.get("entropy", ())
    if not entropy:
        return None
    start = fmean(v for _, v in entropy[:5])
    limit = 0.6 * max(start, 0.1)
    found = _sustained(series.get("kl/policy_reference_k3", ()), lambda value: value > limit, window=3)
    if found is None:
        return None
    step, value = found
    message = f"The policy is {value:.2f} nats per token from the reference; it started with an entropy of {start:.2f}."
    remedy = "Raise kl_coef or stop earlier, and look at a score that was not trained on."
    return Finding(
        "kl-runaway", "warning", step, message, remedy, {"kl/policy_reference_k3": value, "limit": limit}, "rule K03"
    )


def entropy_collapse(series: Series) -> Finding | None:
    """K04: the policy has lost most of the entropy it sampled with."""
    entropy = series.get("entropy", ())
    if len(entropy) < 2 * WINDOW or "reward" not in series:
        return None
    start, now = fmean(v for _, v in entropy[:5]), median(v for _, v in entropy[-WINDOW:])
    if now > 0.2 * start:
        return None
    message = (
        f"Entropy fell from {start:.2f} to {now:.2f} nats per token: the policy writes nearly the same every time."
    )
    remedy = "Raise the sampling temperature or kl_coef."
    return Finding("entropy-collapse", "warning", entropy[-WINDOW][0], message, remedy, {"entropy": now}, "rule K04")


def dead_groups(series: Series) -> Finding | None:
    """G02: groups whose responses all score the same give no gradient."""
    found = _sustained(series.get("frac_reward_zero_std", ()), lambda value: value > 0.5, window=3)
    if found is None:
        return None
    step, value = found
    message = f"In {value:.0%} of the groups all responses score the same: they teach nothing."
    remedy = "Raise the temperature or the group size, or drop prompts that are solved or hopeless."
    return Finding("dead-groups", "warning", step, message, remedy, {"frac_reward_zero_std": value}, "rule G02")


def sampler_mismatch(series: Series) -> Finding | None:
    """K02: the log-probabilities of sampling and of training differ on the same weights."""
    found = _sustained(series.get("sampling/sampling_logp_difference/mean", ()), lambda v: v > 0.01, window=1)
    if found is None:
        return None
    step, value = found
    message = f"Sampler and trainer disagree by {value:.3f} nats a token on the same weights."
    remedy = "They must agree: compare the temperature, the dtype and the KV cache of the two."
    return Finding(
        "sampler-mismatch",
        "warning",
        step,
        message,
        remedy,
        {"sampling/sampling_logp_difference/mean": value},
        "rule K02",
    )


def critic_useless(series: Series) -> Finding | None:
    """P03: late in the run the critic explains less than a constant would."""
    explained = series.get("val/explained_variance", ())
    if len(explained) < 10 or median(v for _, v in explained[len(explained) // 2 :]) >= 0:
        return None
    value = median(v for _, v in explained[len(explained) // 2 :])
    message = f"The critic explains {value:.2f} of the variance of the returns: a constant would do better."
    remedy = "Raise vf_coef or the number of epochs; check the scale of the rewards."
    step = explained[len(explained) // 2][0]
    return Finding("critic-useless", "warning", step, message, remedy, {"val/explained_variance": value}, "rule P03")


def _sustained(
    values: Sequence[tuple[int, float]], wrong: Callable[[float], bool], window: int = WINDOW
) -> tuple[int, float] | None:
    """First step of the last ``window`` values and their median, if the median is wrong."""
    if len(values) < window:
        return None
    recent = values[-window:]
    middle = median(value for _, value in recent)
    return (recent[0][0], middle) if wrong(middle) else None


RULES: tuple[Callable[[Series], Finding | None], ...] = (
    saturated,
    far_per_token,
    identical_samples,
    kl_runaway,
    entropy_collapse,
    dead_groups,
    sampler_mismatch,
    critic_useless,
)
"""Every rule of the live monitor. The full doctor reads the same table."""
