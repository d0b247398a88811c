"""What was restored is compared with what stood at the checkpoint, before the next step and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lab import Lab, Listener, journal, outcome, run_variant

import trueup.recipes.bench as bench
from trueup.errors import GateError, Interrupted
from trueup.train.sources import DataSource
from trueup.train.unpaired import UnpairedSource

Change = Callable[[Any], Any]


def stopped(lab: Lab, variant: str, out: Path, step: int = 3) -> None:
    import signal

    def react(now: int) -> None:
        if now == step:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run_variant(lab, variant, out, Listener(react))


def restoring(patch: pytest.MonkeyPatch, change: Change) -> None:
    honest = bench.unpack_state
    patch.setattr(bench, "unpack_state", lambda saved, state, source: honest(change(saved), state, source))


def rounded(saved: Any) -> Any:
    return {**saved, "model": {name: value.bfloat16().to(value.dtype) for name, value in saved["model"].items()}}


LOSSES: dict[str, tuple[Change, str]] = {
    "weights": (rounded, "weights"),
    "moments": (lambda saved: {**saved, "optimizer": {**saved["optimizer"], "state": {}}}, "moments"),
    "schedule": (lambda saved: {**saved, "scheduler": {"last_epoch": 0}}, "rate"),
    "totals": (lambda saved: {**saved, "source": {**saved["source"], "tokens": 0}}, "source"),
}


@pytest.mark.parametrize("lost", LOSSES)
def test_what_is_lost_is_named_and_a_repaired_run_goes_on(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    run_variant(lab, "sft", tmp_path / "whole")
    stopped(lab, "sft", tmp_path / "run")
    change, name = LOSSES[lost]
    with monkeypatch.context() as patch:
        restoring(patch, change)
        with pytest.raises(GateError, match=r"after step 3 .*resumed-otherwise"):
            run_variant(lab, "sft", tmp_path / "run", resume=True)
    row = journal(tmp_path / "run" / "findings.jsonl")[-1]
    assert (row["rule"], row["evidence"]["different"]) == ("resumed-otherwise", [name])
    assert len(journal(tmp_path / "run" / "metrics.jsonl")) == 3, "nothing was trained"

    run_variant(lab, "sft", tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize(("variant", "kind"), [("sft", DataSource), ("dpo", DataSource), ("kto", UnpairedSource)])
def test_an_order_that_begins_anew(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, kind: Any
) -> None:
    stopped(lab, variant, tmp_path / "run")
    honest = kind.draw
    monkeypatch.setattr(kind, "draw", lambda self, model, step: honest(self, model, step - 3))
    with pytest.raises(GateError, match="resumed-elsewhere"):
        run_variant(lab, variant, tmp_path / "run", resume=True)


def test_another_cut_of_the_same_rows_is_no_other_order(lab: Lab, tmp_path: Path) -> None:
    from tiny_lab import run_config, settings

    stopped(lab, "dpo", tmp_path / "run")
    verb, values = settings(lab)["dpo"]
    values = {**values, "optim": {**values["optim"], "micro_batch_tokens": 64}}
    run_config(verb, values, tmp_path / "run", resume=True)
    assert not [row for row in journal(tmp_path / "run" / "findings.jsonl") if row["rule"].startswith("resumed")]


def test_saving_that_changes_the_weights_in_memory_is_found(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file then equals memory, and neither is what the last step left (F131)."""
    from trueup.models import hub

    honest = hub.save

    def rounding(model: Any, tokenizer: Any, folder: Path) -> None:
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.bfloat16())
        honest(model, tokenizer, folder)

    monkeypatch.setattr(hub, "save", rounding)
    run_variant(lab, "sft", tmp_path / "run")
    row = next(r for r in journal(tmp_path / "run" / "findings.jsonl") if r["rule"] == "saved-otherwise")
    assert row["severity"] == "fatal" and row["evidence"]["changed_by_saving"] > 0
