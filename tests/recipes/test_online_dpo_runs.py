"""Runs of online DPO: settings that mean nothing, losses of every kind, ties, and what the journal says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_lab import Lab, journal, run_config, settings, weights

from trueup.config.load import validate
from trueup.config.schema import RECIPES
from trueup.errors import UserError


def changed(lab: Lab, **sections: dict[str, Any]) -> dict[str, Any]:
    """The settings of the laboratory's run, sections replaced or laid over."""
    values = dict(settings(lab)["dpo-online"][1])
    return {**values, **{name: {**values.get(name, {}), **section} for name, section in sections.items()}}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"rollout": {"mask_truncated": True}}, "rollout.mask_truncated"),
        ({"data": {"validation": "held.jsonl"}}, "data.validation does nothing"),
        ({"preference": {"group_size": 1}}, "preference.group_size"),
        ({"preference": {"divergence_alpha": 0.3}}, "preference.divergence_alpha does nothing"),
        ({"preference": {"store": "s"}}, "unknown key 'preference.store'"),
        ({"preference": {"rejected": "reference"}}, "unknown key 'preference.rejected'"),
        ({"decoding": {"top_k": 5}}, "unknown key 'decoding'"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(lab: Lab, section: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        validate(RECIPES["online-dpo"], {**changed(lab, **section), "run": {"out": "o"}}, "a test")
    assert says in str(caught.value)


def test_a_rollout_of_ties_makes_no_update_and_says_so(lab: Lab, tmp_path: Path) -> None:
    """A rule that all responses meet alike: nothing is learnt, whatever the loss keeps besides the policy."""
    tied = {"reward": [{"kind": "words", "at_most": 1000}], "missing_eos_penalty": 0.0}
    run_config("online-dpo", changed(lab, rollout=tied, optim={"weight_decay": 0.1}), tmp_path / "run")
    lines = journal(tmp_path / "run" / "metrics.jsonl")
    assert all(line["loss"] == line["grad_norm"] == 0 for line in lines)
    assert all("rewards/chosen" not in line and "pairs/reward_gap" not in line for line in lines)
    sampled = [line for line in lines if "rollout/unused_groups" in line]
    assert [line["rollout/unused_groups"] for line in sampled] == [12, 12], "both rollouts, and one more try each"
    run_config("online-dpo", changed(lab, rollout=tied), tmp_path / "other")
    assert weights(tmp_path / "run") == weights(tmp_path / "other"), "the start: not even the decay moved it"


@pytest.mark.parametrize("loss", ["simpo", "aot"])
def test_losses_without_a_reference_and_losses_that_rank_a_step(lab: Lab, loss: str, tmp_path: Path) -> None:
    values = changed(lab, optim={"micro_batch_tokens": 16}, rollout={"reward": lab.scorer})
    values["preference"] = {"loss": loss, "group_size": 2}
    run_config("online-dpo", values, tmp_path / "run")
    first = journal(tmp_path / "run" / "metrics.jsonl")[0]
    assert ("rewards/margins" in first) == (loss == "aot"), "without a reference nothing is implicitly rewarded"
    assert first["pairs/reward_gap"] > 0 and first["grad_norm"] > 0


def test_it_learns_what_is_paid_for(lab: Lab, tmp_path: Path) -> None:
    """Short responses are paid: after some steps the policy writes them."""
    paid = {"reward": [{"kind": "length", "at_most": 1, "slope": 0.1}], "missing_eos_penalty": 0.0}
    values = changed(lab, rollout={**paid, "prompts_per_rollout": 24}, optim={"steps": 40, "learning_rate": 1e-2})
    values["preference"] = {"beta": 0.1, "group_size": 4}
    run_config("online-dpo", values, tmp_path / "run", on_fatal="continue")
    rewards = [line["reward"] for line in journal(tmp_path / "run" / "metrics.jsonl") if "reward" in line]
    assert rewards[-1] > rewards[0] + 0.1
