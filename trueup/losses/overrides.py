"""Single settings of a variant replaced, and the refusal of those that would do nothing or not what they say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trueup.errors import UserError, nearest
from trueup.losses.variants import VARIANTS, Variant


def resolve(name: str, given: Mapping[str, Any], section: str = "grpo") -> Variant:
    """Return a variant with single settings replaced, or refuse what would do nothing or not what it says.

    Args:
        name: a key of ``VARIANTS``.
        given: settings of ``Variant`` to replace; those that are None are the variant's own.
        section: of the configuration, for errors.
    """
    if name not in VARIANTS:
        raise UserError(f"{section}.variant: no '{name}'{nearest(name, VARIANTS)}; known: {', '.join(VARIANTS)}")
    given = {key: value for key, value in given.items() if value is not None}
    variant = replace(VARIANTS[name], **given)
    for wrong, why in (*_idle(variant, given), *_contrary(variant)):
        if wrong:
            raise UserError(f"{section}: {why}")
    return variant


def _idle(variant: Variant, given: Iterable[str]) -> Iterable[tuple[bool, str]]:
    """What was given and would change nothing."""
    kl = {"kl_placement", "kl_estimator", "kl_corrected"} & set(given)
    yield variant.kl_coef == 0 and bool(kl), f"{' and '.join(sorted(kl))} would do nothing with kl_coef 0"
    bounds = {"clip_low", "clip_high"} & set(given)
    yield variant.clip == "none" and bool(bounds), f"{' and '.join(sorted(bounds))} would do nothing with clip: none"
    unused = variant.clip != "surrogate" and variant.delta is not None
    yield unused, f"delta would do nothing with clip: {variant.clip}"
    in_reward = variant.kl_placement == "reward" and variant.kl_corrected
    yield in_reward, "kl_corrected would do nothing with kl_placement: reward, which has no ratio"


def _contrary(variant: Variant) -> Iterable[tuple[bool, str]]:
    """What would not do what its name says."""
    kl = (variant.kl_placement, variant.kl_estimator) if variant.kl_coef else ("", "")
    pulls_elsewhere = kl[0] == "reward" and kl[1] != "k1"
    yield pulls_elsewhere, f"kl_placement: reward takes kl_estimator: k1; paid out, {kl[1]} is not the price of the KL"
    yield (
        kl == ("loss", "k1") and not variant.kl_corrected,
        "kl_estimator: k1 in the loss has a gradient of mean zero, so it would add noise and hold nothing back: "
        "use k2 or k3, kl_corrected: true, or kl_placement: reward",
    )
    yield (
        variant.importance == "product" and variant.unit != "sequence",
        f"importance: product is the ratio of a whole response, and unit: {variant.unit} would count it once a token: "
        "use unit: sequence",
    )
    yield (
        variant.baseline == "none" and variant.scale_rewards == "group",
        "scale_rewards: group needs groups, and baseline: none has none: use batch, whiten or none",
    )
    beyond = 1 + variant.clip_high
    too_low = variant.delta is not None and variant.delta <= beyond
    yield too_low, f"delta is {variant.delta}: it must lie above 1 + clip_high = {beyond:g}"
