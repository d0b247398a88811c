"""Variants of GRPO and settings of PPO through the real recipes: they run, tell what they are, refuse what is idle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import OPTIM, Lab, Listener, journal, run_config, settings, weights

from trueup.errors import UserError
from trueup.losses.variants import VARIANTS

SHORT = {**OPTIM, "steps": 4}


def with_settings(lab: Lab, variant: str, **sections: Any) -> tuple[str, dict[str, Any]]:
    """The settings of a variant of the laboratory, four steps of them, with some of its sections replaced in part."""
    verb, values = settings(lab)[variant]
    changed = {name: {**values.get(name, {}), **given} for name, given in sections.items()}
    return verb, {**values, "optim": SHORT, **changed}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_and_says_what_it_is(lab: Lab, name: str, tmp_path: Path) -> None:
    size = 1 if VARIANTS[name].baseline == "none" else 3
    verb, values = with_settings(lab, "grpo", grpo={"variant": name, "group_size": size})
    voice = Listener()
    run_config(verb, values, tmp_path / "run", voice)
    rows = journal(tmp_path / "run" / "metrics.jsonl")
    assert len(rows) == 4 and all(math.isfinite(value) for row in rows for value in row.values())
    # Trained for more than one step: later ones are off the policy that sampled.
    assert abs(rows[-1]["policy/ratio"] - 1) > 1e-6
    assert ("loss/kl" in rows[0]) == (VARIANTS[name].kl_in_loss > 0)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["variant"] == VARIANTS[name].describe()
    assert manifest["variant"] in voice.said


def test_the_verb_is_the_variant(lab: Lab, tmp_path: Path) -> None:
    _, values = with_settings(lab, "rloo")
    grpo = {**values, "grpo": {"variant": "rloo", "group_size": values["rloo"]["group_size"]}}
    del grpo["rloo"]
    run_config("rloo", values, tmp_path / "verb")
    run_config("grpo", grpo, tmp_path / "variant")
    assert weights(tmp_path / "verb") == weights(tmp_path / "variant")


def test_a_target_moves_ppo_s_coefficient_between_rollouts(lab: Lab, tmp_path: Path) -> None:
    verb, values = with_settings(lab, "ppo-separate", ppo={"kl_coef": 0.1, "kl_target": 1e-3})
    run_config(verb, {**values, "optim": OPTIM}, tmp_path / "run")
    rows = [row for row in journal(tmp_path / "run" / "metrics.jsonl") if "objective/kl_coef" in row]
    # The first rollout is the reference's own, its KL rounding error; the second is far over so small a target.
    assert [row["objective/kl_coef"] for row in rows] == pytest.approx([0.1, 0.098], abs=2e-5)
    assert rows[1]["kl/sequence_k1"] > 0.01


@pytest.mark.parametrize(
    ("variant", "sections", "why"),
    [
        ("grpo", {"grpo": {"group_size": 1}}, "grpo.group_size: 1 response has none of its group"),
        ("grpo", {"grpo": {"kl_estimator": "k1"}}, "grpo: kl_estimator: k1 in the loss"),
        ("grpo", {"grpo": {"variant": "ppo"}}, "grpo.variant"),
        ("grpo", {"rollout": {"overlong_buffer": 7}}, "overlong_buffer is above .* 6"),
        (
            "grpo",
            {"grpo": {"variant": "reinforce++", "group_size": 1}, "rollout": {"resample_zero_spread": 1}},
            "resample_zero_spread need 2 or more",
        ),
        ("rloo", {"rloo": {"group_size": 1}}, "rloo.group_size"),
        ("ppo-separate", {"ppo": {"kl_estimator": "k2"}}, "kl_estimator does nothing without"),
        ("ppo-separate", {"ppo": {"kl_coef": 0, "kl_target": 6.0}}, "do nothing with ppo.kl_coef 0"),
        ("ppo-separate", {"rollout": {"resample_zero_spread": 1}}, "PPO has no groups"),
    ],
)
def test_refused_before_anything_is_written(
    lab: Lab, variant: str, sections: dict[str, Any], why: str, tmp_path: Path
) -> None:
    verb, values = with_settings(lab, variant, **sections)
    with pytest.raises(UserError, match=why):
        run_config(verb, values, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_penalty_a_share_of_the_kl_is_measured_and_nothing_else_changes(lab: Lab, tmp_path: Path) -> None:
    for name, share in (("none", 0.0), ("default", None), ("all", 1.0)):
        verb, values = with_settings(lab, "grpo", grpo={"variant": "grpo", "kl_coef": 0.0, "kl_share": share})
        run_config(verb, values, tmp_path / name)
    assert weights(tmp_path / "none") == weights(tmp_path / "default") == weights(tmp_path / "all")
    first = {name: journal(tmp_path / name / "metrics.jsonl")[0] for name in ("none", "default", "all")}
    assert "kl/sequence_k1" not in first["none"]
    assert {"kl/sequence_k1"} <= set(first["default"]) & set(first["all"])
    assert json.loads((tmp_path / "none" / "manifest.json").read_text())["reference"] == "none"


@pytest.mark.parametrize(
    ("variant", "settings", "words"),
    [
        ("grpo", {"grpo": {"kl_coef": 0.1, "kl_share": 0.5}}, "grpo.kl_share: a KL penalty of 0.1"),
        ("rloo", {"rloo": {"kl_coef": 0.05, "kl_share": 0.0}}, "rloo.kl_share"),
        ("grpo", {"grpo": {"kl_coef": 0.0, "kl_share": 0.0}, "rollout": {"reference": "there"}}, "kl_share 0"),
    ],
)
def test_a_share_that_contradicts_other_settings_is_refused(
    lab: Lab, tmp_path: Path, variant: str, settings: dict[str, Any], words: str
) -> None:
    verb, values = with_settings(lab, variant, **settings)
    with pytest.raises(UserError, match=words):
        run_config(verb, values, tmp_path / "run")
