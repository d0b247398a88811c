"""Each live rule fires on a run that is ill with it and on nothing else; the monitor says so once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from trueup.health.findings import Finding
from trueup.health.monitor import Monitor
from trueup.health.rules import RULES, WINDOW

Metrics = dict[str, float]
Steps = list[Metrics]
LENGTH = 80


@dataclass(frozen=True)
class Report:
    """What the loop tells an observer."""

    step: int
    metrics: Mapping[str, float]


@dataclass
class Notebook:
    """Collects what a monitor writes and says."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def append(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    @property
    def rules(self) -> list[str]:
        return [row["rule"] for row in self.rows]


def wobble(step: int) -> float:
    """A deterministic disturbance in -1..1, so that no fixture is a straight line."""
    return ((step * 7919) % 21 - 10) / 10


def healthy_pairs() -> Steps:
    """A DPO run as it should be: margins grow slowly, nearly every pair keeps its gradient."""
    return [
        {
            "loss": 0.69 - 0.002 * step,
            "rewards/margins": 0.01 * step + 0.02 * wobble(step),
            "margin/raw_per_token": 0.004 * step + 0.05 * wobble(step),
            "gradient_weight/active": 1.0,
            "entropy": 1.8 - 0.002 * step,
        }
        for step in range(1, LENGTH + 1)
    ]


def healthy_rollouts(critic: bool) -> Steps:
    """A PPO or GRPO run as it should be; what is measured once a rollout is there every fourth step."""
    steps: Steps = []
    for step in range(1, LENGTH + 1):
        metrics = {"loss": 0.1 * wobble(step), "entropy": 1.8 - 0.004 * step}
        if step % 4 == 1:
            metrics |= {
                "reward": 0.02 * step,
                "kl/policy_reference_k3": 0.002 * step,
                "frac_reward_zero_std": 0.2 + 0.1 * wobble(step),
                "sampling/sampling_logp_difference/mean": 2e-6,
            }
            metrics |= {"val/explained_variance": 0.3 + 0.2 * wobble(step)} if critic else {}
        steps.append(metrics)
    return steps


def with_change(steps: Steps, onset: int, **changes: float) -> Steps:
    """The run with metrics replaced from step ``onset`` on, wherever they are there ("/" is written "__")."""
    wanted = {name.replace("__", "/"): value for name, value in changes.items()}
    return [
        {name: wanted.get(name, value) if step >= onset else value for name, value in metrics.items()}
        for step, metrics in enumerate(steps, 1)
    ]


@dataclass(frozen=True)
class Illness:
    """A run that is ill from ``onset`` on: which rule must say so, and of which metric."""

    rule: str
    steps: Steps
    onset: int
    metric: str
    value: float


def _sampled_copies() -> Steps:
    """The reference sampled the chosen response itself, in one step."""
    steps = healthy_pairs()
    steps[32]["pairs/identical"] = 0.25
    return steps


ONSET = 33
ILLNESSES = (
    Illness(
        "saturation",
        with_change(healthy_pairs(), ONSET, gradient_weight__active=0.1, rewards__margins=9.0),
        ONSET,
        "gradient_weight/active",
        0.1,
    ),
    Illness(
        "margin-per-token",
        with_change(healthy_pairs(), ONSET, margin__raw_per_token=-2.5),
        ONSET,
        "margin/raw_per_token",
        -2.5,
    ),
    Illness("identical-samples", _sampled_copies(), ONSET, "steps", 1),
    Illness(
        "kl-runaway",
        with_change(healthy_rollouts(critic=False), ONSET, kl__policy_reference_k3=1.4),
        ONSET,
        "kl/policy_reference_k3",
        1.4,
    ),
    Illness("entropy-collapse", with_change(healthy_rollouts(critic=False), ONSET, entropy=0.2), ONSET, "entropy", 0.2),
    Illness(
        "dead-groups",
        with_change(healthy_rollouts(critic=False), ONSET, frac_reward_zero_std=0.9),
        ONSET,
        "frac_reward_zero_std",
        0.9,
    ),
    Illness(
        "sampler-mismatch",
        with_change(healthy_rollouts(critic=True), ONSET, **{"sampling__sampling_logp_difference__mean": 0.05}),
        ONSET,
        "sampling/sampling_logp_difference/mean",
        0.05,
    ),
    Illness(
        "critic-useless",
        with_change(healthy_rollouts(critic=True), 1, val__explained_variance=-0.4),
        1,
        "val/explained_variance",
        -0.4,
    ),
)


def watch(steps: Steps, every: int = 10) -> Notebook:
    """Run a fresh monitor over a whole run."""
    notebook = Notebook()
    monitor = Monitor(notebook, notebook.said.append, every=every)
    for step, metrics in enumerate(steps, 1):
        monitor(Report(step, metrics))
    monitor.close()
    return notebook


def series(steps: Steps) -> dict[str, list[tuple[int, float]]]:
    """The same run as the rules see it."""
    out: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in enumerate(steps, 1):
        for name, value in metrics.items():
            out.setdefault(name, []).append((step, value))
    return out


def test_every_rule_has_an_illness_here() -> None:
    assert len(RULES) == len(ILLNESSES) == len({illness.rule for illness in ILLNESSES})


@pytest.mark.parametrize("run", [healthy_pairs(), healthy_rollouts(True), healthy_rollouts(False)])
def test_a_healthy_run_is_left_in_peace(run: Steps) -> None:
    assert watch(run, every=1).rows == []


@pytest.mark.parametrize("illness", ILLNESSES, ids=lambda illness: illness.rule)
def test_an_ill_run_is_found_out_and_nothing_else_is_said(illness: Illness) -> None:
    notebook = watch(illness.steps)
    assert notebook.rules == [illness.rule]
    (row,) = notebook.rows
    assert row["severity"] == "warning" and row["message"] and row["remedy"] and row["reference"]
    assert row["evidence"][illness.metric] == pytest.approx(illness.value)
    assert len(notebook.said) == 1 and row["message"] in notebook.said[0] and row["remedy"] in notebook.said[0]
    # The window can begin a few steps before most of it is ill, never more than its own length.
    assert illness.onset - WINDOW <= row["first_step"] <= LENGTH
    if illness.onset > 1 and illness.rule != "critic-useless":
        assert row["first_step"] >= illness.onset - WINDOW // 2


@pytest.mark.parametrize("illness", ILLNESSES, ids=lambda illness: illness.rule)
def test_a_rule_says_nothing_of_a_run_that_does_not_measure_its_metric(illness: Illness) -> None:
    bare = [{k: v for k, v in step.items() if k != "pairs/identical" and k != illness.metric} for step in illness.steps]
    assert watch(bare).rows == [] and watch([{} for _ in illness.steps]).rows == []


SUSTAINED = [i for i in ILLNESSES if i.rule in ("saturation", "margin-per-token", "kl-runaway", "dead-groups")]


@pytest.mark.parametrize("illness", SUSTAINED, ids=lambda illness: illness.rule)
def test_one_odd_batch_says_nothing(illness: Illness) -> None:
    """A single bad value, wherever it falls and whenever one looks."""
    measured = [step for step, metrics in enumerate(illness.steps, 1) if illness.metric in metrics]
    healthy = healthy_pairs() if "kl/policy_reference_k3" not in illness.steps[0] else healthy_rollouts(critic=False)
    for odd in (measured[0], measured[len(measured) // 2], measured[-1]):
        run = [dict(metrics) for metrics in healthy]
        run[odd - 1][illness.metric] = illness.value
        assert illness.rule not in watch(run, every=1).rules


def test_too_short_a_run_says_nothing_of_trends() -> None:
    for illness in SUSTAINED[:2]:
        ill = illness.steps[illness.onset :]
        assert watch(ill[: WINDOW - 1], every=1).rows == []
        assert watch(ill[:WINDOW], every=1).rules == [illness.rule]


def test_the_kl_is_measured_against_the_entropy_the_run_began_with() -> None:
    """0.9 nats a token are far for a policy of entropy 0.5 and near for one of entropy 5."""
    for entropy, found in ((0.5, ["kl-runaway"]), (5.0, [])):
        run: Steps = [{"entropy": entropy, "kl/policy_reference_k3": 0.9} for _ in range(20)]
        assert watch(run).rules == found


def test_entropy_is_judged_online_only() -> None:
    """Supervised training is meant to lower the entropy; only a policy that samples collapses."""
    falling: Steps = [{"entropy": 3.0 if step < 30 else 0.1} for step in range(80)]
    assert watch(falling).rules == []
    assert watch([{**metrics, "reward": 0.0} for metrics in falling]).rules == ["entropy-collapse"]


@pytest.mark.parametrize("every", [1, 7, 10])
def test_a_rule_is_recorded_once_however_often_it_holds(every: int) -> None:
    for illness in ILLNESSES:
        assert watch(illness.steps, every).rules == [illness.rule]


def test_several_illnesses_are_all_recorded() -> None:
    both = with_change(healthy_pairs(), 20, gradient_weight__active=0.0, margin__raw_per_token=3.0)
    assert sorted(watch(both).rules) == ["margin-per-token", "saturation"]


def test_early_findings_come_first_and_are_not_repeated() -> None:
    notebook = Notebook()
    early = Finding("identical-samples", "note", 0, "Two pairs.", "None.")
    monitor = Monitor(notebook, notebook.said.append, [early, early])
    for step, metrics in enumerate(_sampled_copies(), 1):
        monitor(Report(step, metrics))
    monitor.close()
    assert notebook.rows == [early.row()]


def test_close_looks_at_the_end_of_a_run_that_ends_between_two_looks() -> None:
    notebook = Notebook()
    monitor = Monitor(notebook, notebook.said.append, every=1000)
    for step, metrics in enumerate(ILLNESSES[0].steps, 1):
        monitor(Report(step, metrics))
    assert notebook.rows == []
    monitor.close()
    assert notebook.rules == [ILLNESSES[0].rule]


@pytest.mark.parametrize("cut", range(5, LENGTH, 5))
@pytest.mark.parametrize("illness", ILLNESSES, ids=lambda illness: illness.rule)
def test_a_replayed_run_finds_what_an_undisturbed_one_does(illness: Illness, cut: int) -> None:
    """Stop anywhere, replay the journal, go on: nothing twice, nothing lost, the same evidence."""
    notebook = Notebook()
    first = Monitor(notebook, notebook.said.append)
    for step, metrics in enumerate(illness.steps[:cut], 1):
        first(Report(step, metrics))
    second = Monitor(notebook, notebook.said.append)
    journal = [{"step": step, **metrics} for step, metrics in enumerate(illness.steps[:cut], 1)]
    second.replay(journal, [row["rule"] for row in notebook.rows])
    for step, metrics in enumerate(illness.steps[cut:], cut + 1):
        second(Report(step, metrics))
    second.close()
    whole = watch(illness.steps)
    assert notebook.rows == whole.rows and notebook.said == whole.said


def test_rules_judge_a_series_without_a_monitor() -> None:
    """The same table serves a finished log: rules are functions of the series alone."""
    for illness in ILLNESSES:
        found = [finding for rule in RULES if (finding := rule(series(illness.steps)))]
        assert [finding.rule for finding in found] == [illness.rule]
