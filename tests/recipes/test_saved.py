"""What lies in final/ is compared with what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lab import Lab, journal, run_variant

from trueup.models import hub


def found(folder: Path) -> set[str]:
    return {row["rule"] for row in journal(folder / "findings.jsonl")}


@pytest.mark.parametrize("variant", ["sft", "dpo", "reward-causal"])
def test_a_saved_model_is_the_trained_one(lab: Lab, tmp_path: Path, variant: str) -> None:
    run_variant(lab, variant, tmp_path / "run")
    assert "saved-otherwise" not in found(tmp_path / "run")


@pytest.mark.parametrize("spoil", [torch.zeros_like, lambda tensor: tensor.to(torch.bfloat16).to(tensor.dtype)])
def test_a_spoilt_file_is_found(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    honest = hub.save

    def spoilt(model: Any, tokenizer: Any, folder: Path) -> None:
        kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict({name: spoil(tensor) for name, tensor in kept.items()})
        honest(model, tokenizer, folder)
        model.load_state_dict(kept)

    monkeypatch.setattr(hub, "save", spoilt)
    run_variant(lab, "sft", tmp_path / "run")
    assert "saved-otherwise" in found(tmp_path / "run")
