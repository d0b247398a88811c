"""The table of families."""

from __future__ import annotations

from trueup.worlds.errands.fact_families import CHOICE, FACTS, FRACTION, ODD
from trueup.worlds.errands.family import Family
from trueup.worlds.errands.list_families import COUNT, GROUP, NOTE, ORDER

FAMILIES: dict[str, Family] = {
    family.name: family for family in (ORDER, ODD, GROUP, FRACTION, FACTS, NOTE, CHOICE, COUNT)
}
