"""Each live rule fires on a run that is ill with it, at its grade and since when, and not on a near miss."""

from __future__ import annotations

import pytest
from monitor_cases import CASES, ONSET, Case
from monitor_runs import LENGTH, ROLLOUT, SETTINGS, healthy, watch, with_change, wobble

from trueup.health.rule import RunLog
from trueup.health.table import RULES
from trueup.health.thresholds import WINDOW


def named(case: Case) -> str:
    return f"{case.rule}-{case.severity}-{case.method}"


def test_every_rule_has_an_illness_here() -> None:
    assert {case.rule for case in CASES} == {rule.name for rule in RULES}


@pytest.mark.parametrize("case", CASES, ids=named)
def test_an_ill_run_is_found_out_and_nothing_else_is_said(case: Case) -> None:
    notebook = watch(with_change(healthy(case.method), case.onset, case.ill), case.method, case.settings)
    assert notebook.worst.get(case.rule) == case.severity
    of_pairs = {"rewards/margins", "rewards/chosen", "rewards/rejected"} & case.ill.keys()
    also = case.also | ({"margin-sides"} if 0 < len(of_pairs) < 3 else set())  # told of some, they contradict the rest
    assert set(notebook.rules) <= {case.rule} | also
    row = next(row for row in notebook.rows if row["rule"] == case.rule)
    assert row["message"].endswith(".") and row["remedy"] and row["reference"]
    # The window can begin a few steps before most of it is ill; metrics of rollouts have longer windows.
    assert row["first_step"] >= case.onset - 10 * ROLLOUT or case.rule == "critic-useless"
    assert row["first_step"] <= LENGTH


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_near_miss_is_left_in_peace(case: Case) -> None:
    assert (
        case.rule
        not in watch(with_change(healthy(case.method), case.onset, case.near), case.method, case.settings).rules
    )


@pytest.mark.parametrize("case", CASES, ids=named)
def test_a_rule_that_cannot_see_says_nothing(case: Case) -> None:
    """Without the metrics that it needs, or of another method, a rule is not even asked."""
    rule = next(rule for rule in RULES if rule.name == case.rule)
    assert rule.applies(case.method) and rule.applies(None)
    needed = {name for alternative in rule.needs for name in alternative}
    steps = with_change(healthy(case.method), case.onset, case.ill)
    bare = [{name: v for name, v in metrics.items() if name not in needed} for metrics in steps]
    assert not needed or case.rule not in watch(bare, case.method, case.settings).rules


SUSTAINED = [
    case for case in CASES
    if case.rule in ("saturation", "margin-per-token", "kl-runaway", "dead-groups", "entropy-collapse", "ratio-blow-up",
                     "truncation", "length-drift", "memorised", "rm-not-learning", "score-drift", "gradient-growth")
]  # fmt: skip


@pytest.mark.parametrize("case", SUSTAINED, ids=named)
def test_one_odd_batch_says_nothing(case: Case) -> None:
    """A single bad line, wherever it falls and whenever one looks."""
    ill, well = with_change(healthy(case.method), 1, case.ill), healthy(case.method)
    for odd in (21, 81, 157):
        assert case.rule not in watch([*well[: odd - 1], ill[odd - 1], *well[odd:]], case.method, every=1).rules


@pytest.mark.parametrize("case", CASES, ids=named)
@pytest.mark.parametrize("method", ["ppo", "sft", "dpo"])
def test_a_rule_is_silent_on_methods_that_it_is_not_about(case: Case, method: str) -> None:
    rule = next(rule for rule in RULES if rule.name == case.rule)
    if rule.applies(method):
        return
    assert case.rule not in watch(with_change(healthy(case.method), case.onset, case.ill), method).rules


def test_too_short_a_run_says_nothing_of_trends() -> None:
    ill = with_change(healthy("dpo"), 1, {"margin/raw_per_token": 2.5})
    assert watch(ill[: WINDOW - 1], "dpo", every=1).rules == []
    assert watch(ill[:WINDOW], "dpo", every=1).rules == ["margin-per-token"]


def test_the_kl_is_measured_against_the_entropy_the_run_began_with() -> None:
    """0.9 nats a token are far for a policy of entropy 0.5 and near for one of entropy 5."""
    for entropy, found in ((0.5, ["kl-runaway"]), (5.0, [])):
        run = [{"entropy": entropy, "kl/policy_reference_k3": 0.9} for _ in range(20)]
        assert watch(run).rules == found


def test_entropy_is_judged_online_only() -> None:
    """Supervised training is meant to lower the entropy; only a policy that samples collapses."""
    falling = [{"entropy": 3.0 if step < 30 else 0.1} for step in range(80)]
    assert watch(falling).rules == []
    assert watch([{**metrics, "reward": 0.0} for metrics in falling]).worst == {"entropy-collapse": "fatal"}


def test_groups_that_are_dead_because_the_task_is_learned_are_no_fatal_matter() -> None:
    dead = {"frac_reward_zero_std": 1.0}
    assert watch(with_change(healthy("grpo"), 121, dead), "grpo").worst == {"dead-groups": "note"}
    flat = with_change(healthy("grpo"), 1, {"reward": 0.3})
    assert watch(with_change(flat, 121, dead), "grpo").worst == {"dead-groups": "fatal"}


def test_a_task_of_right_and_wrong_can_be_learned_from_where_most_is_right() -> None:
    """From 60 % to 97 % right is less than one standard deviation; the spread tells it from dull sampling."""
    begun = {
        "reward": lambda step: 0.6 + 0.1 * wobble(step) if step < 60 else 0.97,
        "reward_std": lambda step: 0.49 if step < 60 else 0.17,
        "frac_reward_zero_std": lambda step: 0.2 if step < 80 else 0.95,
    }
    learned = with_change(healthy("grpo"), 1, begun)
    assert watch(learned, "grpo").worst == {"dead-groups": "note"}
    dull = with_change(learned, 1, {"reward_std": 0.49})
    assert watch(dull, "grpo").worst == {"dead-groups": "fatal"}


def test_a_gradient_of_nothing_is_explained_by_the_rollout_it_was_made_of() -> None:
    """A task that is solved has rollouts without a difference, now one and now none: steps in between say nothing."""
    still = {"grad_norm": 0.0}
    solved = [{**still, "frac_reward_zero_std": 1.0}, {"grad_norm": 0.3, "frac_reward_zero_std": 0.5}, still] * 20
    assert "nothing-trains" in watch([{**row, "frac_reward_zero_std": 0.0} for row in solved], "grpo").rules
    alive_last = [{**still, "frac_reward_zero_std": 1.0}, {"grad_norm": 0.3, "frac_reward_zero_std": 0.5}] * 30
    assert "nothing-trains" not in watch(alive_last, "grpo").rules
    assert watch(solved, "grpo").worst.get("nothing-trains") is None


def test_a_margin_is_fatal_only_where_the_chosen_responses_moved() -> None:
    """Both runs are 1.5 nats a token apart: one lost the rejected responses alone, as with easy pairs, one gained."""
    for chosen, severity in ((-0.4, "note"), (2.5, "fatal"), (-2.5, "fatal")):
        run = {"margin/raw_per_token": 1.5, "rewards/margins": 4.0, "rewards/chosen": chosen}
        assert watch([run] * 20, "dpo").worst["margin-per-token"] == severity
    bare = [{"margin/raw_per_token": 1.5}] * 20
    assert watch(bare, "dpo").worst == {"margin-per-token": "fatal"}


def test_beta_need_not_be_known_for_units_to_be_compared() -> None:
    """The ratio that a run began with is held against the ratio that it has now."""
    scaled = with_change(
        healthy("dpo"), 2, {"rewards/margins": lambda step: 0.05 * step, "margin/raw": lambda step: step}
    )
    assert "margin-units" not in watch(scaled, "dpo").rules
    assert "margin-units" in watch(scaled, "dpo", {"preference.beta": 0.1}).rules


def test_rules_judge_a_log_without_a_monitor() -> None:
    series: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in enumerate(with_change(healthy("dpo"), ONSET, {"margin/raw_per_token": -2.5}), 1):
        for name, value in metrics.items():
            series.setdefault(name, []).append((step, value))
    log = RunLog(series, "dpo", SETTINGS)
    found = [finding for rule in RULES if rule.applies("dpo") and rule.sees(series) and (finding := rule.judge(log))]
    assert [(finding.rule, finding.severity) for finding in found] == [("margin-per-token", "fatal")]
    assert found[0].evidence["margin/raw_per_token"] == -2.5


def test_nothing_opposite_is_learned_where_most_pairs_are_right() -> None:
    """A mean below 0 of margins of which most are above 0 has a few far outliers."""
    margins = [-1.0 if step % 3 == 0 else 0.05 for step in range(50)]
    for accuracy, found in ((0.66, []), (0.45, ["wrong-way"])):
        run = [{"rewards/margins": margin, "rewards/accuracies": accuracy} for margin in margins]
        assert watch(run, "dpo").rules == found
    assert watch([{"rewards/margins": margin} for margin in margins], "dpo").rules == ["wrong-way"]


def test_a_critic_is_given_twenty_rollouts() -> None:
    """Until then 0, give or take, is all that can be expected of it."""
    begun = [{"val/explained_variance": -0.3} for _ in range(19)]
    assert watch(begun, "ppo", every=1).rules == []
    assert watch([*begun, *begun], "ppo", every=1).worst == {"critic-useless": "warning"}


def test_a_critic_a_little_below_a_constant_is_given_a_hundred() -> None:
    """What a short run has by chance is a verdict only on a long one."""
    slightly = [{"val/explained_variance": -0.04 + 0.05 * wobble(step)} for step in range(100)]
    assert watch(slightly[:99], "ppo", every=1).rules == []
    assert watch(slightly, "ppo", every=1).worst == {"critic-useless": "warning"}


def test_the_size_of_clipped_gradients_is_no_matter_but_what_is_left_of_them_is() -> None:
    """Adam divides by a gradient's size; only its epsilon is absolute."""
    for norm, clip, found in ((5000.0, 1.0, []), (0.5, 1e-3, ["gradient-clipped"]), (5e-4, 1e-3, [])):
        run = [{"grad_norm": norm} for _ in range(50)]
        assert watch(run, "dpo", {"optim.max_grad_norm": clip}).rules == found


def test_an_instant_success_is_odd_only_where_chosen_responses_moved() -> None:
    """Easy pairs: the loss is near 0 at once, and the rejected responses alone have lost."""
    for chosen, severity in ((-0.2, "note"), (-4.0, "warning")):
        easy = {"rewards/margins": 5.0, "margin/raw": 50.0, "margin/raw_per_token": 0.8, "rewards/chosen": chosen}
        easy |= {"rewards/rejected": chosen - 5.0, "eval/rewards/accuracies": 0.98, "eval/loss": 0.02}
        run = with_change(healthy("dpo"), 4, {**easy, "loss": 0.02})
        assert watch(run, "dpo").worst["instant-zero-loss"] == severity
