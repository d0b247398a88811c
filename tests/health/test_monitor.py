"""The monitor: what it records and when, numbers that are none, resumed runs, and what a look costs."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from monitor_cases import CASES, Case
from monitor_runs import SETTINGS, Metrics, Notebook, Report, Steps, healthy, watch, with_change

from trueup.health.findings import Finding
from trueup.health.monitor import Monitor, diagnose
from trueup.health.rule import RunLog
from trueup.runtime.journal import Journal

BOTH_GRADES = [
    case for case in CASES if case.rule in ("kl-runaway", "entropy-collapse", "loss-divergence", "saturation")
]


def names(case: Case) -> str:
    return f"{case.rule}-{case.severity}-{case.method}"


def drifting() -> Steps:
    """A run that leaves its reference slowly: at first far, in the end too far."""
    return with_change(healthy("grpo"), 41, {"kl/policy_reference_k3": lambda step: 0.008 * step})


def test_a_rule_is_recorded_again_only_when_it_gets_graver() -> None:
    for every in (1, 7, 10):
        rows = watch(drifting(), "grpo", every=every).rows
        assert [(row["rule"], row["severity"]) for row in rows] == [("kl-runaway", "warning"), ("kl-runaway", "fatal")]
        assert rows[0]["first_step"] < rows[1]["first_step"]


def test_a_fatal_rule_does_not_come_back_as_a_warning() -> None:
    first_fatal = with_change(drifting(), 161, {"kl/policy_reference_k3": 0.6})
    bad = with_change(first_fatal, 1, {"kl/policy_reference_k3": lambda step: 1.4 if step < 80 else 0.6})
    assert [row["severity"] for row in watch(bad, "grpo").rows] == ["fatal"]


def test_findings_are_said_as_they_are_written() -> None:
    notebook = watch(drifting(), "grpo")
    for row, said in zip(notebook.rows, notebook.said, strict=True):
        assert all(part in said for part in (row["severity"], row["rule"], row["message"], row["remedy"]))


def test_findings_made_elsewhere_are_recorded_once_and_fatal_ones_remembered() -> None:
    notebook = Notebook()
    monitor = Monitor(notebook, notebook.said.append, "dpo")
    note, fatal = (Finding("step0-identity", severity, 0, "Differs.", "Look.") for severity in ("note", "fatal"))
    monitor.tell([note, note])
    assert notebook.rows == [note.row()] and monitor.fatal == []
    monitor.tell([fatal, note])
    assert notebook.rows == [note.row(), fatal.row()] and monitor.fatal == ["step0-identity"]


def test_the_end_is_looked_at_when_it_is_asked_for() -> None:
    notebook = Notebook()
    monitor = Monitor(notebook, notebook.said.append, "dpo", every=1000)
    for step, metrics in enumerate(with_change(healthy("dpo"), 81, {"margin/raw_per_token": 0.7}), 1):
        monitor(Report(step, metrics))
    assert notebook.rows == []
    monitor.look()
    assert notebook.rules == ["margin-per-token"]


@pytest.mark.parametrize("cut", [37, 80, 100, 141])
@pytest.mark.parametrize("case", CASES[::3], ids=names)
def test_a_replayed_run_finds_what_an_undisturbed_one_does(case: Case, cut: int, tmp_path: Any) -> None:
    """Stop anywhere, read the journal back, go on: nothing twice, nothing lost, the same evidence.

    The journal writes numbers that are not finite as null.
    """
    steps = with_change(healthy(case.method), case.onset, case.ill)
    settings, notebook, journal = {**SETTINGS, **case.settings}, Notebook(), Journal(tmp_path / "metrics.jsonl")
    first = Monitor(notebook, notebook.said.append, case.method, settings)
    for step, metrics in enumerate(steps[:cut], 1):
        journal.append({"step": step, **metrics})
        first(Report(step, metrics))
    second = Monitor(notebook, notebook.said.append, case.method, settings)
    second.replay(journal.rows(), notebook.rows)
    assert second.fatal == first.fatal
    for step, metrics in enumerate(steps[cut:], cut + 1):
        second(Report(step, metrics))
    second.look()
    assert notebook.rows == watch(steps, case.method, case.settings).rows


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "grad_norm", "reward", "kl/policy_reference_k3", "policy/approxkl"])
def test_a_number_that_is_none_is_fatal_wherever_it_falls(name: str, value: float) -> None:
    known = [step for step, metrics in enumerate(healthy("ppo"), 1) if name in metrics]
    for at in (known[0], known[len(known) // 2], known[-1]):
        steps: list[Metrics] = healthy("ppo")
        steps[at - 1][name] = value
        (row,) = watch(steps, "ppo").rows
        assert (row["rule"], row["severity"], row["first_step"]) == ("not-finite", "fatal", at)
        assert row["evidence"] == {"steps": {name: at}}


def test_other_rules_wait_while_a_window_has_no_numbers() -> None:
    """A median of values that are none would say anything."""
    for case in CASES:
        if case.rule not in ("not-finite", "reward-part-constant", "identical-samples"):
            steps = with_change(healthy(case.method), 1, dict.fromkeys(case.ill, math.nan))
            assert case.rule not in watch(steps, case.method, case.settings).rules


@pytest.mark.parametrize("case", BOTH_GRADES, ids=names)
def test_a_finished_log_is_diagnosed_as_it_would_have_been(case: Case) -> None:
    steps = with_change(healthy(case.method), case.onset, case.ill)
    series: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in enumerate(steps, 1):
        for name, value in metrics.items():
            series.setdefault(name, []).append((step, value))
    found = diagnose(RunLog(series, case.method, {**SETTINGS, **case.settings}))
    assert [finding.row() for finding in found] == watch(steps, case.method, case.settings).rows


def test_an_illness_that_passes_is_found_in_a_finished_log() -> None:
    """Rules look at the last values; a log is gone through from its start."""
    steps = with_change(
        with_change(healthy("dpo"), 61, {"margin/raw_per_token": 2.0}), 101, {"margin/raw_per_token": 0.1}
    )
    points = [(step, metrics["margin/raw_per_token"]) for step, metrics in enumerate(steps, 1)]
    (finding,) = diagnose(RunLog({"margin/raw_per_token": points}, "dpo"))
    assert finding.rule == "margin-per-token" and 50 <= finding.first_step <= 80
    assert diagnose(RunLog({}, "dpo")) == []


@pytest.mark.parametrize("method", ["sft", "reward", "dpo", "kto", "ppo", "grpo"])
def test_a_look_costs_little_and_no_more_in_a_long_run(method: str) -> None:
    """Milliseconds a look after 200 and after 20,000 steps; processor time, the least of a few."""

    def cost(repeats: int) -> float:
        monitor, run = Monitor(Notebook(), lambda text: None, method, SETTINGS), healthy(method)
        for number in range(repeats):
            for step, metrics in enumerate(run, 1):
                monitor._take(number * len(run) + step, metrics)
        times = []
        for _ in range(5):
            began = time.process_time()
            monitor.look()
            times.append(time.process_time() - began)
        return 1e3 * min(times)

    short, long = cost(1), cost(84)
    assert long < 10 and long < 5 * short + 1
