"""GRPO and its relatives as rows of one table: advantage, ratio and clipping, unit, KL term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from trueup.losses.entry import Paper


@dataclass(frozen=True)
class Variant:
    """A policy-gradient method on sampled responses, without a critic.

    Attributes:
        name: its key in ``VARIANTS`` and in a configuration.
        paper: the source.
        equation: the objective, to be maximised, in the notation of docs/losses.md.
        baseline: what a response is compared with, a key of ``ops.baselines.BASELINES``.
        scale_rewards: what the difference is divided by, a key of ``ops.baselines.SCALES``.
        importance: what the ratio is of, a key of ``losses.ratios.RATIOS``.
        clip: surrogate (the lesser of ρ A and clipped ρ times A), weight (CISPO: the clipped ratio as a constant
            weight) or none.
        clip_low, clip_high: the ratio counts within [1 - clip_low, 1 + clip_high].
        unit: what the mean is over: sequence (of a response's tokens, then of responses), token (of the step's tokens)
            or max_length (the sum over tokens, divided by responses times the cap on a response).
        kl_coef: weight of the KL penalty.
        kl_placement: reward (taken off the reward, so without a gradient of its own) or loss.
        kl_estimator: k1, k2 or k3 (``ops.divergences``).
        kl_corrected: whether a KL term of the loss is multiplied by the ratio.
        delta: the largest ratio that counts at all, whatever the advantage; None for no such bound.
    """

    name: str
    paper: Paper
    equation: str
    baseline: str
    scale_rewards: str
    importance: str
    clip: str
    clip_low: float
    clip_high: float
    unit: str
    kl_coef: float = 0.0
    kl_placement: str = "loss"
    kl_estimator: str = "k3"
    kl_corrected: bool = False
    delta: float | None = None

    @property
    def kl_in_loss(self) -> float:
        """The weight of the KL term of the loss."""
        return self.kl_coef if self.kl_placement == "loss" else 0.0

    @property
    def kl_in_reward(self) -> float:
        """The weight of the KL penalty in the reward."""
        return self.kl_coef if self.kl_placement == "reward" else 0.0

    def describe(self) -> str:
        """One line with everything that makes it."""
        bounds = {
            "surrogate": f"ratio of the {self.importance} clipped to [{1 - self.clip_low:g}, {1 + self.clip_high:g}]",
            "weight": f"weight of the {self.importance} cut to [{1 - self.clip_low:g}, {1 + self.clip_high:g}]",
            "none": f"ratio of the {self.importance} not clipped",
        }[self.clip] + (f", at most {self.delta:g}" if self.delta else "")
        corrected = ", times the ratio" if self.kl_corrected else ""
        kl = f"{self.kl_coef:g} {self.kl_estimator} in the {self.kl_placement}{corrected}" if self.kl_coef else "none"
        return (
            f"{self.name}: baseline {self.baseline}, scale {self.scale_rewards}; {bounds}; mean by {self.unit}; KL {kl}"
        )


# fmt: off
# The entries are a table: one argument per line would hide it.
_ROWS = (
    Variant(
        "grpo", Paper("Shao et al.", 2024, "2402.03300", "Eq. 3 and 4"),
        "1/G Σ_i 1/|y_i| Σ_t { min[ρ A, clip(ρ) A] - β k3 }, A = (R - mean R)/std R",
        "group", "group", "token", "surrogate", 0.2, 0.2, "sequence", kl_coef=0.04,
    ),
    Variant(
        "dr_grpo", Paper("Liu et al.", 2025, "2503.20783", "Section 3.2"),
        "1/(G L) Σ_i Σ_t min[ρ A, clip(ρ) A], A = R - mean R, L the cap on a response",
        "group", "none", "token", "surrogate", 0.2, 0.2, "max_length",
    ),
    Variant(
        "dapo", Paper("Yu et al.", 2025, "2503.14476", "Eq. 8"),
        "1/Σ_i |y_i| Σ_i Σ_t min[ρ A, clip(ρ, 1 - low, 1 + high) A], high > low, A = (R - mean R)/std R",
        "group", "group", "token", "surrogate", 0.2, 0.28, "token",
    ),
    Variant(
        "bnpo", Paper("Xiao et al.", 2025, "2506.02864", "the mean over tokens alone, as TRL's loss of that name"),
        "1/Σ_i |y_i| Σ_i Σ_t min[ρ A, clip(ρ) A], A = (R - mean R)/std R",
        "group", "group", "token", "surrogate", 0.2, 0.2, "token",
    ),
    Variant(
        "gspo", Paper("Zheng et al.", 2025, "2507.18071", "Eq. 5 to 7"),
        "1/G Σ_i min[s A, clip(s) A], s = (π(y)/π_old(y))^(1/|y|), A = (R - mean R)/std R",
        "group", "group", "sequence", "surrogate", 3e-4, 4e-4, "sequence",
    ),
    Variant(
        "cispo", Paper("MiniMax", 2025, "2506.13585", "Eq. 4 and 5"),
        "1/Σ_i |y_i| Σ_i Σ_t sg(clip(ρ, 1 - low, 1 + high)) A log π, A = (R - mean R)/std R",
        "group", "group", "token", "weight", 1.0, 4.0, "token",
    ),
    Variant(
        "rloo", Paper("Ahmadian et al.", 2024, "2402.14740", "the leave-one-out estimator; clipped as in TRL"),
        "1/G Σ_i min[ρ(y) A, clip(ρ(y)) A], ρ(y) = π(y)/π_old(y), A_i = R_i - mean of the other R, "
        "R = reward - β Σ_t k1",
        "leave_one_out", "none", "product", "surrogate", 0.2, 0.2, "sequence",
        kl_coef=0.05, kl_placement="reward", kl_estimator="k1",
    ),
    Variant(
        "reinforce++", Paper("Hu et al.", 2025, "2501.03262", "the form without groups"),
        "1/Σ_i |y_i| Σ_i Σ_t min[ρ A, clip(ρ) A], A = (R_t - mean R_t)/std R_t over all tokens of the rollout, "
        "R_t = reward - β Σ_{s≥t} k1",
        "none", "whiten", "token", "surrogate", 0.2, 0.2, "token",
        kl_coef=0.01, kl_placement="reward", kl_estimator="k1",
    ),
)
# fmt: on

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})
"""Name → variant, with the values of its paper where it has any."""
