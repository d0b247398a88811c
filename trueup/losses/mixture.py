"""Weighted sums of preference losses: those with a name, and what every such sum must keep to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from trueup.errors import UserError
from trueup.losses.catalog import check_options, lookup

MIXTURES: Mapping[str, tuple[tuple[str, float], ...]] = MappingProxyType(
    {
        "mpo": (("sigmoid", 0.8), ("bco_pair", 0.2), ("sft", 1.0)),
        "rpo": (("sigmoid", 1.0), ("sft", 1.0)),
    }
)
"""Mixtures with a name. mpo: Wang et al. 2024, arXiv 2411.10442. rpo: Pang et al. 2024, arXiv 2404.19733, Eq. 1."""


def check_parts(parts: Sequence[tuple[str, float]], options: Mapping[str, Mapping[str, object]]) -> None:
    """Refuse a mixture that is empty, names a loss twice, or has a part or an option that would do nothing."""
    if not parts:
        raise UserError("a mixture of losses has no parts: name at least one loss and its weight")
    names = [name for name, _ in parts]
    for name, weight in parts:
        lookup(name, "preference")
        if not weight > 0.0:
            raise UserError(f"mixture part '{name}' has weight {weight}: weights must be above 0; leave the part out")
        if names.count(name) > 1:
            raise UserError(f"mixture part '{name}' is named more than once: give it one weight")
    for name, given in options.items():
        if name not in names:
            raise UserError(f"options were given for '{name}', which is no part of the mixture {', '.join(names)}")
        check_options(lookup(name), given)
