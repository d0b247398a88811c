"""Reference log-probabilities on disk: what costs nothing the second time, and what must cost again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_lab import Lab, Listener, run_config, settings, weights

from trueup.train import reference


class Counter:
    """Counts the rows that are scored by the reference."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_after: int | None = None) -> None:
        self.rows = 0
        inner = reference.map_tokens

        def counted(trees: Any, *rest: Any) -> torch.Tensor:
            if fail_after is not None and self.rows >= fail_after:
                raise KeyboardInterrupt
            self.rows += len(trees)
            return inner(trees, *rest)

        monkeypatch.setattr(reference, "map_tokens", counted)


def dpo(lab: Lab, store: Path, out: Path, **changes: Any) -> None:
    verb, values = settings(lab)["dpo"]
    preference = {"store": str(store), **changes.pop("preference", {})}
    optim = {**values["optim"], "steps": 6, **changes.pop("optim", {})}
    run_config(verb, {**values, "optim": optim, "preference": preference, **changes}, out, seed=changes.pop("seed", 0))


def test_another_beta_loss_rate_or_seed_pays_nothing(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dpo(lab, tmp_path / "store", tmp_path / "first")
    counter = Counter(monkeypatch)
    dpo(lab, tmp_path / "store", tmp_path / "beta", preference={"beta": 0.7})
    dpo(lab, tmp_path / "store", tmp_path / "loss", preference={"loss": "ipo"})
    dpo(lab, tmp_path / "store", tmp_path / "rate", optim={"learning_rate": 1e-5, "micro_batch_tokens": 31})
    dpo(lab, tmp_path / "store", tmp_path / "lora", lora={"rank": 2})
    assert counter.rows == 0


def test_the_store_changes_no_number(lab: Lab, tmp_path: Path) -> None:
    dpo(lab, tmp_path / "store", tmp_path / "cold")
    dpo(lab, tmp_path / "store", tmp_path / "warm")
    assert weights(tmp_path / "cold") == weights(tmp_path / "warm")


def test_other_weights_behind_the_same_path_miss(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    shutil.copytree(lab.model, model)
    dpo(lab, tmp_path / "store", tmp_path / "first", model={"path": str(model)})
    counter = Counter(monkeypatch)
    dpo(lab, tmp_path / "store", tmp_path / "same", model={"path": str(model)})
    assert counter.rows == 0
    tensors = load_file(model / "model.safetensors")
    name = next(iter(tensors))
    tensors[name][0, 0] += 1e-3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    dpo(lab, tmp_path / "store", tmp_path / "moved", model={"path": str(model)})
    assert counter.rows == 24


def test_a_store_that_was_interrupted_goes_on(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "WINDOW", 5)
    with monkeypatch.context() as patch:
        Counter(patch, fail_after=10)
        with pytest.raises(KeyboardInterrupt):
            dpo(lab, tmp_path / "store", tmp_path / "stopped")
    counter = Counter(monkeypatch)
    dpo(lab, tmp_path / "store", tmp_path / "again")
    assert counter.rows == 14


def test_only_the_rows_that_are_drawn_are_scored(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter(monkeypatch)
    dpo(lab, tmp_path / "store", tmp_path / "short", optim={"steps": 2, "batch_size": 4})
    assert counter.rows == 8
    dpo(lab, tmp_path / "store", tmp_path / "longer", optim={"steps": 6, "batch_size": 4})
    assert counter.rows == 24


def test_the_run_says_what_was_computed(lab: Lab, tmp_path: Path) -> None:
    verb, values = settings(lab)["dpo"]
    for expected in ("24 rows computed, 0 read", "0 rows computed, 24 read"):
        voice = Listener()
        preference = {"store": str(tmp_path / "store")}
        run_config(verb, {**values, "preference": preference}, tmp_path / expected[:2], voice)
        assert any(expected in line for line in voice.said)
