"""A run with preflight is the same run, to the last bit, as one without; looking changes nothing that can be seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_lab import OPTIM, VARIANTS, Lab, Listener, outcome, run_config, run_variant, settings

import trueup.recipes.checks as checks
from trueup.preflight.outcome import Report
from trueup.preflight.subject import Subject
from trueup.runtime.undisturbed import undisturbed

EVERY = (*VARIANTS, "dpo-lora", "dpo-bfloat16")


def bits(subject: Subject) -> list[Any]:
    """All that a check could change."""
    modules = [m for m in (subject.trained, subject.reference) if m is not None]
    tensors = [t.detach().clone() for m in modules for t in (*m.parameters(), *m.buffers())]
    return [
        tensors,
        [p.grad for m in modules for p in m.parameters()],
        [p.requires_grad for m in modules for p in m.parameters()],
        [part.training for m in modules for part in m.modules()],
        subject.source.state(),
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[union-attr]  # noqa: NPY002
    ]


def same(one: Any, two: Any) -> bool:
    """Equality to the bit, tensors included; a gradient of 0 is not none."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and torch.equal(one, two)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize("variant", EVERY)
def test_a_run_with_preflight_is_the_run_without(
    lab: Lab, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_checks, seen = checks.run_checks, []
    verb, values = settings(lab)[variant]

    def watched(subject: Subject, *rest: Any) -> Report:
        before = bits(subject)
        report = run_checks(subject, *rest)
        seen.append([same(a, b) for a, b in zip(before, bits(subject), strict=True)])
        return report

    monkeypatch.setattr(checks, "run_checks", watched)
    made = {}
    for level in ("off", "full"):
        out = tmp_path / level
        run_config(verb, {**values, "optim": {**OPTIM, "steps": 2}}, out, preflight=level)
        made[level] = outcome(out) if "lora" not in variant else adapters(out)
    assert seen == [[True] * 8], "once, and nothing was changed"
    assert {**made["full"], "findings": None} == {**made["off"], "findings": None}


def adapters(out: Path) -> dict[str, Any]:
    return {"weights": (out / "final" / "adapter_model.safetensors").read_bytes(), "findings": None}


@pytest.mark.parametrize("level", ["quick", "full", "off"])
def test_a_run_says_in_a_line_that_it_was_checked(lab: Lab, tmp_path: Path, level: str) -> None:
    voice = Listener()
    run_variant(lab, "dpo", tmp_path / "run", voice, preflight=level)
    assert sum(line.startswith("preflight: ") for line in voice.said) == (level != "off")
    assert ("findings.jsonl" in {path.name for path in (tmp_path / "run").iterdir()}) or level == "off"


def test_a_resumed_run_is_not_checked_again(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_variant(lab, "dpo", tmp_path / "run")

    def fail(*_: Any) -> Report:
        raise AssertionError("checked again")

    monkeypatch.setattr(checks, "run_checks", fail)
    voice = Listener()
    run_variant(lab, "dpo", tmp_path / "run", voice, resume=True)
    assert not [line for line in voice.said if line.startswith("preflight")]


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: float(torch.rand(()))])
def test_random_streams_go_on_as_if_nothing_had_been_drawn(draw: Callable[[], float]) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    wanted = [draw(), draw()]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    found = [draw()]
    with pytest.raises(ValueError), undisturbed():
        draw()
        raise ValueError
    assert [*found, draw()] == wanted
