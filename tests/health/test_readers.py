"""Readers: one log written in every format is the same log, nothing in it disappears, and nothing in it is run."""

from __future__ import annotations

import csv
import json
import math
import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.health.doctor import NAMES
from trueup.health.names import SAME, TOOLS
from trueup.health.readers.found import Found
from trueup.health.readers.sources import open_path
from trueup.health.readers.translate import Reading, Told, translate

HERE = Path(__file__).parent
NOTHING_TOLD = Told()
ROWS: list[dict[str, float]] = [
    {"step": 10, "loss": 0.69, "rewards/margins": 0.0, "rewards/accuracies": 0.5},
    {"step": 20, "loss": 0.6, "rewards/margins": 0.25, "rewards/accuracies": 0.75},
    {"step": 30, "loss": 0.5, "rewards/margins": 0.5, "rewards/accuracies": 1.0},
]
SERIES = {name: [(int(row["step"]), row[name]) for row in ROWS] for name in ROWS[0] if name != "step"}


def read(path: Path, told: Told = NOTHING_TOLD) -> Reading:
    readings, tables = open_path(path, told, NAMES)
    assert not tables
    (reading,) = readings
    return reading


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(folder: Path, header: Callable[[str], str]) -> Path:
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([header(name) for name in ROWS[0]])
        writer.writerows(row.values() for row in ROWS)
    return folder / "log.csv"


def columns(key: Callable[[str], str]) -> dict[str, dict[str, float]]:
    return {key(name): {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]}


FORMATS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda d: write(d / "log.jsonl", lines(ROWS)),
    "jsonl out of order": lambda d: write(d / "log.jsonl", lines(ROWS[::-1])),
    "rows that hold their numbers in one field": lambda d: write(
        d / "log.jsonl", lines([{"step": row["step"], "data": {k: row[k] for k in SERIES}} for row in ROWS])
    ),
    "json list": lambda d: write(d / "log.json", json.dumps(ROWS)),
    "W&B history": lambda d: write(
        d / "wandb-history.jsonl",
        lines(
            [{f"train/{k}": v for k, v in r.items() if k != "step"} | {"_step": r["step"], "_runtime": 3} for r in ROWS]
        ),
    ),
    "W&B history in columns": lambda d: write(
        d / "log.json", json.dumps(columns(lambda name: "_step" if name == "step" else f"train/{name}"))
    ),
    "W&B logs more often than it steps": lambda d: write(
        d / "log.jsonl",
        lines([{"train/global_step": r["step"], "_step": 3 * r["step"], **{k: r[k] for k in SERIES}} for r in ROWS]),
    ),
    "csv": lambda d: as_csv(d, lambda name: name),
    "W&B export": lambda d: as_csv(d, lambda name: "Step" if name == "step" else f"my-run - train/{name}"),
    "trainer_state": lambda d: write(d / "trainer_state.json", json.dumps({"log_history": ROWS})),
    "output folder": lambda d: write(
        d / "out/checkpoint-30/trainer_state.json", json.dumps({"log_history": ROWS})
    ).parents[1],
    "torchtune": lambda d: write(
        d / "log_17.txt",
        "".join(f"Step {r['step']} | " + " ".join(f"{k}:{r[k]}" for k in SERIES) + " \n" for r in ROWS),
    ),
    "trueup": lambda d: (
        write(
            write(d / "run/metrics.jsonl", lines(ROWS)).parent / "manifest.json", json.dumps({"method": "dpo"})
        ).parent
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_one_log_in_every_format_is_one_log(form: str, tmp_path: Path) -> None:
    reading = read(FORMATS[form](tmp_path))
    assert reading.log.series == SERIES
    assert (reading.log.method, reading.unknown) == ("dpo", ())


def test_a_run_of_trueup_keeps_settings_findings_and_numbers_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", "preference:\n  beta: 0.3\n  loss: null\noptim:\n  steps: 40\n")
    write(tmp_path / "manifest.json", json.dumps({"method": "dpo", "loss": "ipo"}))
    write(tmp_path / "metrics.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n{"step": 3, "lo')
    finding = {"rule": "identical-pairs", "severity": "note", "first_step": 0, "message": "m", "remedy": "r"}
    write(tmp_path / "findings.jsonl", lines([{**finding, "evidence": {}, "reference": ""}]))
    reading = read(tmp_path)
    assert reading.log.settings == {"preference.beta": 0.3, "preference.loss": "ipo", "optim.steps": 40}
    assert [rule.rule for rule in reading.recorded] == ["identical-pairs"]
    (first, second) = reading.log.series["loss"]
    assert first == (1, 0.5) and second[0] == 2 and math.isnan(second[1])  # the torn line is gone


def test_the_last_checkpoint_counts_by_number_and_nothing_is_unpickled(tmp_path: Path) -> None:
    for step in (9, 10):
        state = {"log_history": [{"step": step, "loss": float(step)}], "logging_steps": 5, "max_steps": 20}
        write(tmp_path / f"checkpoint-{step}/trainer_state.json", json.dumps(state))
    trap = tmp_path / "sprung"
    (tmp_path / "checkpoint-10/training_args.bin").write_bytes(pickle.dumps(_Trap(str(trap))))
    write(tmp_path / "training_args.yaml", "beta: 0.2\nloss_type: [sigmoid]\nlearning_rate: 1.0e-6\n")
    write(tmp_path / "README.md", "---\ntags:\n- generated_from_trainer\n- dpo\n- trl\n---\n# Card\n- kto\n")
    reading = read(tmp_path)
    assert reading.log.series == {"loss": [(10, 10.0)]}
    assert reading.log.method == "dpo"
    assert reading.log.settings == {
        "optim.steps": 20,
        "preference.beta": 0.2,
        "preference.loss": "sigmoid",
        "optim.learning_rate": 1e-6,
    }
    assert any("5 steps" in note for note in reading.notes) and not trap.exists()


class _Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def test_an_export_of_several_runs_is_several_logs(tmp_path: Path) -> None:
    header = "Step,a - b - loss,a - b - loss__MIN,a - b - loss__MAX,c - loss\n"
    path = write(tmp_path / "export.csv", f"{header}1,0.5,0.4,0.6,\n2,0.4,0.3,0.5,9\n")
    readings, _ = open_path(path, Told(), NAMES)
    assert {r.label.rpartition(" (")[2]: r.log.series for r in readings} == {
        "a - b)": {"loss": [(1, 0.5), (2, 0.4)]},
        "c)": {"loss": [(2, 9.0)]},
    }


def test_what_is_not_a_number_or_came_twice_is_said(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 1.0, "phase": "warm"}, {"step": 1, "loss": 2.0, "phase": "x"}, {"loss": 3.0}]
    reading = read(write(tmp_path / "log.jsonl", lines(rows)))
    assert reading.log.series["loss"] == [(1, 2.0)]  # a row without a step has no place
    assert any("phase" in note for note in reading.notes) and any("twice" in note for note in reading.notes)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_everything_that_trl_logs_is_known(name: str, tmp_path: Path) -> None:
    """Logs of real runs of TRL 1.16."""
    state = (HERE / f"trl_{name}_trainer_state.json").read_text(encoding="utf-8")
    reading = read(write(tmp_path / "trainer_state.json", state))
    assert (reading.log.method, reading.unknown) == (name, ())
    assert {"loss", "grad_norm", "learning_rate", "entropy"} <= set(reading.log.series)


def translated(series: Mapping[str, float], tool: str | None = None, told: Told = NOTHING_TOLD) -> Reading:
    found = Found({name: [(1, value)] for name, value in series.items()}, tool=tool)
    return translate(found, "log", "test", told, NAMES)


KNOWN = sorted({name for tool in TOOLS.values() for name in tool.names if "*" not in name} | NAMES)


@given(st.sets(st.sampled_from(KNOWN) | st.text("abc/_", min_size=1), min_size=1, max_size=8))
def test_every_name_is_accounted_for_once(names: set[str]) -> None:
    reading = translated(dict.fromkeys(names, 1.0))
    listed = {*reading.unused, *reading.unknown}
    assert not set(reading.unused) & set(reading.unknown)
    taken = names - listed
    assert len(reading.log.series) == len(taken) >= len(set(reading.renamed))
    assert set(reading.renamed) <= taken


@pytest.mark.parametrize(
    ("names", "tool", "method", "ours"),
    [
        # One name, four meanings: k3 a token, k1 a token, KTO's reference point, nothing that is known.
        ({"kl", "frac_reward_zero_std"}, None, None, "kl/policy_reference_k3"),
        ({"kl", "frac_reward_zero_std"}, None, "rloo", "kl/policy_reference_k1"),
        ({"kl", "rewards/chosen", "logits/chosen"}, None, None, "kl"),
        ({"objective/kl"}, None, None, "kl/sequence_k1"),
        ({"actor/kl_loss", "critic/score/mean"}, None, None, "kl/policy_reference_k3"),
        ({"eval_rewards/margins"}, None, None, "eval/rewards/margins"),
        ({"train/loss"}, None, None, "loss"),
        ({"rewards_eval/margins"}, None, None, "eval/rewards/margins"),
        ({"accuracy", "mean_reward", "margin"}, "trl", "reward", "accuracy"),
        ({"accuracy"}, "llama-factory", None, "rewards/accuracies"),
        ({"reward_margin", "accuracy"}, None, None, "rewards/margins"),
        ({"chosen_reward", "acc"}, "openrlhf", None, "rewards/chosen"),
    ],
)
def test_what_a_name_means_depends_on_the_tool_and_the_method(
    names: set[str], tool: str | None, method: str | None, ours: str
) -> None:
    assert ours in translated(dict.fromkeys(names, 1.0), tool, Told(method)).log.series


def test_rewards_without_beta_need_it() -> None:
    """NeMo-RL logs log-ratios as rewards."""
    names = {"rewards_chosen_mean": 20.0, "rewards_rejected_mean": -10.0, "preference_loss": 0.5, "loss": 0.5}
    unscaled = translated(names)
    assert "preference.beta" in unscaled.unused["rewards_chosen_mean"] and unscaled.log.method == "dpo"
    scaled = translated(names, told=Told(settings={"preference.beta": 0.05}))
    assert scaled.log.series["rewards/chosen"] == [(1, 1.0)] and scaled.log.series["rewards/rejected"] == [(1, -0.5)]


def test_the_user_has_the_last_word() -> None:
    told = Told("ppo", {"my/score": "reward", "loss": "loss/policy", "x": "no/such"}, {"ppo.kl_coef": 0.1})
    reading = translated({"my/score": 2.0, "loss": 1.0, "x": 0.0}, told=told)
    assert reading.log.method == "ppo" and reading.log.settings == {"ppo.kl_coef": 0.1}
    assert {"reward": [(1, 2.0)], "loss/policy": [(1, 1.0)]}.items() <= reading.log.series.items()
    assert any("no rule reads no/such" in note for note in reading.notes)


def test_two_columns_for_one_metric_are_not_merged() -> None:
    reading = translated({"lr": 1.0, "learning_rate": 2.0, "loss": 0.0, "grad_norm": 0.0})
    assert len(reading.log.series["learning_rate"]) == 1
    assert [why for why in reading.unused.values() if "another column" in why]


def test_names_of_the_table_are_those_of_the_page() -> None:
    page = (HERE.parents[1] / "docs/metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    for tool in TOOLS.values():
        for table in (tool.names, *tool.by_method.values()):
            meant = {name if meaning.ours == SAME else meaning.ours for name, meaning in table.items() if meaning.ours}
            plain = {re.sub(r"^rewards/\*/", "rewards/NAME/", name.removeprefix("eval/")) for name in meant if name}
            assert {re.sub(r"^loss/\w+$", "loss/NAME", name) for name in plain} <= listed, tool.title


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("log.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n', "log.jsonl:2"),
        ("log.jsonl", "[1]\n", "log.jsonl:1"),
        ("log.json", '{"step": [', "log.json:1"),
        ("trainer_state.json", '{"log_history": []}', "empty"),
        ("trainer_state.json", "{}", "log_history"),
        ("log.csv", "step,loss\n", "no rows"),
        ("log.csv", "name,text\na,b\n", "no numbers"),
        ("notes.md", "words", "docs/doctor.md"),
        ("other.json", '{"a": 1}', "docs/doctor.md"),
        ("folder/part.csv", "step,loss\n1,2\n", "part.csv"),
        ("study/arm/metrics.jsonl", '{"step": 1, "loss": 1}\n', "did you mean"),
    ],
)
def test_refusals_say_where_and_what(name: str, text: str, told: str, tmp_path: Path) -> None:
    write(tmp_path / name, text)
    with pytest.raises(UserError, match=re.escape(told)):
        open_path(tmp_path / name.split("/", maxsplit=1)[0], Told(), NAMES)


def test_event_files_of_tensorboard_are_read(tmp_path: Path) -> None:
    """Written by PyTorch's own writer, one folder a run, as trainers of transformers write them."""
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")
    for name, margin in (("one", 0.1), ("two", 0.2)):
        with tensorboard.SummaryWriter(str(tmp_path / name)) as writer:
            for step in range(1, 31):
                writer.add_scalar("train/loss", 0.6, step)
                writer.add_scalar("train/rewards/margins", margin * step, step)
    readings, _ = open_path(tmp_path, Told(), NAMES)
    found = [reading.log.series["rewards/margins"] for reading in readings]
    assert [len(series) for series in found] == [30, 30] and "two" in readings[1].label
    assert found[1][-1] == (30, pytest.approx(6.0))


def test_event_files_need_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing", None)
    write(tmp_path / "events.out.tfevents.1", "")
    with pytest.raises(UserError, match="pip install tensorboard"):
        open_path(tmp_path, Told(), NAMES)


def test_a_trainer_state_may_have_another_name() -> None:
    reading = open_path(Path(__file__).parent / "trl_grpo_trainer_state.json", Told(), NAMES)[0][0]
    assert reading.log.method == "grpo" and len(reading.log.series["reward"]) == 20
