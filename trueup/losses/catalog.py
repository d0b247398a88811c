"""Name → loss: the one list from which recipes, configuration, documentation and tests take what is known of a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from trueup.errors import UserError, nearest
from trueup.losses.entries import ANCHORED, MARGIN, RANKING, REFERENCE_FREE, TRANSPORT
from trueup.losses.entries_online import POLICY, UNPAIRED
from trueup.losses.entry import Family, Loss

CATALOG: Mapping[str, Loss] = MappingProxyType(
    {loss.name: loss for loss in (*MARGIN, *ANCHORED, *TRANSPORT, *REFERENCE_FREE, *RANKING, *UNPAIRED, *POLICY)}
)


def lookup(name: str, family: Family | None = None, also: Iterable[str] = ()) -> Loss:
    """Return the loss of that name, or refuse the name with the nearest one known.

    Args:
        name: as written in a configuration.
        family: where given, losses of other families count as unknown.
        also: names that are no entry, but that would have been understood; only the refusal mentions them.
    """
    known = [loss.name for loss in CATALOG.values() if family in (None, loss.family)]
    if name in known:
        return CATALOG[name]
    kind = f"{family} loss" if family else "loss"
    known += also
    raise UserError(f"no {kind} is called '{name}'{_hint(name, known)}; known: {', '.join(known)}")


_ELSEWHERE = {
    "dpo": "; it is called 'sigmoid'",
    "cdpo": "; it is 'sigmoid' with label_smoothing",
    "rdpo": "; it is called 'length_controlled'",
    "kto": "; it is for judged responses: trueup kto",
    "bco": "; on pairs it is 'bco_pair', on judged responses: trueup kto --kto.loss bco",
}
"""Names that are known from elsewhere, of what has another name or place here."""


def _hint(name: str, known: list[str]) -> str:
    return _ELSEWHERE.get(name.lower().replace("-", "")) or nearest(name, known)


def check_options(loss: Loss, options: Iterable[str]) -> None:
    """Refuse options that would do nothing for this loss, ``beta`` included where the loss has none.

    Args:
        loss: an entry of the catalog.
        options: names of options that were given (a mapping will do).
    """
    known = loss.taken
    for option in options:
        if option not in known:
            takes = ", ".join(sorted(known)) or "no options"
            raise UserError(
                f"option '{option}' does nothing for loss '{loss.name}'{nearest(option, known)}; "
                f"the loss takes {takes}: remove the option or choose another loss"
            )


def check_divergence(loss: Loss, divergence: str) -> None:
    """Refuse an f-divergence other than the reverse KL for a loss that has no valid variant of it."""
    if divergence == "reverse_kl" or loss.divergences:
        return
    valid = ", ".join(entry.name for entry in CATALOG.values() if entry.divergences)
    raise UserError(
        f"divergence '{divergence}' is not valid for loss '{loss.name}': its reward is known only up to a term in the "
        f"prompt, which this loss does not cancel; use reverse_kl, or one of {valid}"
    )
