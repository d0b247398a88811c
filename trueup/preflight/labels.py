"""What the labels alone say before training on single responses: both kinds must be there, and weigh about the same."""

from __future__ import annotations

from trueup.health.findings import Finding

REFERENCE = "Ethayarajh et al. 2024, arXiv 2402.01306"

BALANCED = (1.0, 4.0 / 3.0)
"""Where the paper wants λ_D n_D / (λ_U n_U), n the numbers of wanted and unwanted responses."""


def label_findings(
    wanted: int, unwanted: int, desirable_weight: float | None, undesirable_weight: float | None
) -> list[Finding]:
    """Judge the numbers of both labels; the weights are None for a loss that has none."""
    evidence = {"wanted": wanted, "unwanted": unwanted}
    if not wanted or not unwanted:
        kind = "wanted" if wanted else "unwanted"
        message = f"All {wanted + unwanted} responses are {kind}: nothing tells the model what the other kind is."
        remedy = "Add responses of the other label; to imitate wanted responses alone, use trueup sft."
        return [Finding("one-label", "warning", 0, message, remedy, evidence, REFERENCE)]
    if desirable_weight is None or undesirable_weight is None:
        return []
    low, high = BALANCED
    ratio = desirable_weight * wanted / (undesirable_weight * unwanted)
    if low - 1e-9 <= ratio <= high + 1e-9:
        return []
    message = (
        f"Wanted responses weigh {ratio:.3g} times the unwanted ones ({desirable_weight:g} times {wanted} against "
        f"{undesirable_weight:g} times {unwanted}); Ethayarajh et al. 2024 advise 1 to 4/3."
    )
    remedy = _remedy(wanted, unwanted, desirable_weight, undesirable_weight)
    return [Finding("label-balance", "warning", 0, message, remedy, {**evidence, "ratio": ratio}, REFERENCE)]


def _remedy(wanted: int, unwanted: int, desirable_weight: float, undesirable_weight: float) -> str:
    """The paper raises the weight of the kind that lacks and leaves the other."""
    low, high = BALANCED
    if desirable_weight * wanted < low * undesirable_weight * unwanted:
        least, most = (bound * undesirable_weight * unwanted / wanted for bound in (low, high))
        return f"Set kto.desirable_weight between {least:.3g} and {most:.3g}."
    least, most = (desirable_weight * wanted / (bound * unwanted) for bound in (high, low))
    return f"Set kto.undesirable_weight between {least:.3g} and {most:.3g}."
