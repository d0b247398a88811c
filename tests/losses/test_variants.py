"""The table of variants: complete, known to the configuration, and refused where a setting would do nothing."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, get_args

import pytest

from trueup.config.policy import GrpoSection, RlooSection
from trueup.errors import UserError
from trueup.losses.overrides import resolve
from trueup.losses.ratios import RATIOS
from trueup.losses.variants import VARIANTS, Variant
from trueup.ops.baselines import BASELINES, SCALES
from trueup.ops.divergences import ESTIMATORS
from trueup.train.objectives.grpo import CLIPS, UNITS

CHOICES = {
    "variant": VARIANTS,
    "baseline": BASELINES,
    "scale_rewards": SCALES,
    "importance": RATIOS,
    "clip": CLIPS,
    "unit": UNITS,
    "kl_estimator": ESTIMATORS,
}
"""Setting -> the table that it chooses from."""

KNOBS = {field.name for field in fields(Variant)} - {"name", "paper", "equation"}

OTHERS = {"variant", "group_size", "kl_share"}
"""Settings that are no part of a variant: which one, how many responses, and of how many the KL is measured."""


def choices(name: str) -> set[str]:
    """What the configuration takes for a setting."""
    annotation = GrpoSection.model_fields[name].annotation
    literals = [annotation, *get_args(annotation)]
    return {value for literal in literals for value in get_args(literal) if isinstance(value, str)}


@pytest.mark.parametrize("name", CHOICES)
def test_the_configuration_takes_what_the_tables_have(name: str) -> None:
    assert choices(name) == set(CHOICES[name])


def test_every_part_of_a_variant_is_a_setting_and_every_setting_is_the_variant_s_unless_given() -> None:
    assert set(GrpoSection.model_fields) == KNOBS | OTHERS
    assert all(GrpoSection.model_fields[name].default is None for name in KNOBS)
    bare = GrpoSection().model_dump(exclude=OTHERS)
    assert all(resolve(name, bare) == variant for name, variant in VARIANTS.items())


def test_rloo_s_own_settings_have_the_variant_s_values() -> None:
    own = RlooSection().model_dump(exclude=OTHERS)
    assert set(own) <= KNOBS
    assert resolve("rloo", own, "rloo") == VARIANTS["rloo"]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=lambda v: v.name)
def test_a_row_is_complete(variant: Variant) -> None:
    assert all(getattr(variant, name) in table for name, table in CHOICES.items() if name != "variant")
    assert re.fullmatch(r"\d{4}\.\d{5}", variant.paper.arxiv) and variant.paper.place and variant.equation
    assert variant.paper.year == 2000 + int(variant.paper.arxiv[:2])
    assert 0 < variant.clip_low <= 1 and variant.clip_high >= variant.clip_low


def test_no_two_rows_are_one() -> None:
    lines = [variant.describe().partition(": ")[2] for variant in VARIANTS.values()]
    assert len(set(lines)) == len(VARIANTS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseline": "leave_one_out"}, "baseline leave_one_out"),
        ({"clip_high": 0.28}, "1.28"),
        ({"clip": "none"}, "not clipped"),
        ({"delta": 4.0}, "at most 4"),
        ({"kl_coef": 0.0}, "KL none"),
        ({"kl_corrected": True}, "times the ratio"),
        ({"unit": "max_length"}, "mean by max_length"),
        ({"kl_placement": "reward", "kl_estimator": "k1"}, "0.04 k1 in the reward"),
    ],
)
def test_one_setting_replaces_one_part_and_is_told(changes: dict[str, Any], told: str) -> None:
    found = resolve("grpo", changes)
    changed = {name for name in KNOBS if getattr(found, name) != getattr(VARIANTS["grpo"], name)}
    assert changed == set(changes)
    assert told in found.describe() and told not in VARIANTS["grpo"].describe()


@pytest.mark.parametrize(
    ("name", "changes", "why"),
    [
        ("dapo", {"kl_estimator": "k2"}, "kl_estimator would do nothing with kl_coef 0"),
        ("dapo", {"kl_placement": "reward", "kl_corrected": False}, "kl_corrected and kl_placement would do nothing"),
        ("grpo", {"kl_coef": 0.0, "kl_estimator": "k3"}, "do nothing with kl_coef 0"),
        ("grpo", {"clip": "none", "clip_high": 0.3}, "clip_high would do nothing with clip: none"),
        ("cispo", {"delta": 9.0}, "delta would do nothing with clip: weight"),
        ("rloo", {"kl_corrected": True}, "kl_corrected would do nothing with kl_placement: reward"),
        ("grpo", {"kl_placement": "reward"}, "takes kl_estimator: k1"),
        ("grpo", {"kl_estimator": "k1"}, "gradient of mean zero"),
        ("rloo", {"unit": "token"}, "count it once a token"),
        ("dr_grpo", {"importance": "product"}, "use unit: sequence"),
        ("grpo", {"baseline": "none"}, "scale_rewards: group needs groups"),
        ("dapo", {"delta": 1.28}, "must lie above 1 [+] clip_high = 1.28"),
        ("grop", {}, "no 'grop'; did you mean 'grpo'"),
    ],
)
def test_what_would_do_nothing_or_not_what_it_says_is_refused(name: str, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        resolve(name, changes)


def test_refusals_name_the_section() -> None:
    with pytest.raises(UserError, match=r"^rloo: delta"):
        resolve("rloo", {"delta": 1.1}, "rloo")
