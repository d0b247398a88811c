"""Runs with adapters: only they are trained and saved, their base is the reference, and PEFT loads what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from tiny_lab import Lab, run_config, settings

from trueup.data.trees import Tree, collate
from trueup.errors import UserError
from trueup.models import adapters, hub
from trueup.models.forward import scorer

# PEFT asks transformers for checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

TREES = [Tree((5, 6, 7), ((9, 10), (11, 12, 13))), Tree((30, 31), ((14,), (15, 16)))]


@pytest.fixture(scope="module")
def run(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "run"
    verb, values = settings(lab)["dpo"]
    run_config(verb, {**values, "lora": {"rank": 2}}, folder, save_every=3)
    return folder


def logps(model: Any) -> torch.Tensor:
    return scorer(model)(collate(TREES))


def test_final_is_an_adapter_that_peft_loads_on_its_base(lab: Lab, run: Path) -> None:
    assert not (run / "final" / "model.safetensors").exists()
    base = hf.AutoModelForCausalLM.from_pretrained(lab.model)
    before = logps(base)
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained(run / "final")
    assert (logps(adapted) - before).abs().max() > 1e-3, "training moved something"
    with adapted.disable_adapter():
        assert torch.equal(logps(adapted), before)


def test_our_loader_merges_it(run: Path) -> None:
    adapted = peft.AutoPeftModelForCausalLM.from_pretrained(run / "final")
    merged = hub.load_causal(str(run / "final"))
    assert not adapters.is_adapted(merged)
    torch.testing.assert_close(logps(merged), logps(adapted), rtol=1e-5, atol=1e-5)
    assert hub.load_tokenizer(str(run / "final")).eos_token_id is not None


def test_only_the_adapters_are_trained(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert 0 < manifest["trainable"] < manifest["parameters"] / 2
    assert manifest["start"] == manifest["reference"], "the base is the reference"


def test_policy_is_the_reference_before_the_first_step(run: Path) -> None:
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)


def test_targets_that_are_no_layers_are_refused_with_those_there_are(lab: Lab, tmp_path: Path) -> None:
    verb, values = settings(lab)["dpo"]
    with pytest.raises(UserError, match=r"c_attn.*q_proj"):
        run_config(verb, {**values, "lora": {"rank": 2, "targets": ["c_attn"]}}, tmp_path / "run")


def test_adapters_of_a_model_that_nobody_trained_are_refused(lab: Lab, tmp_path: Path) -> None:
    verb, values = settings(lab)["sft"]
    with pytest.raises(UserError, match=r"lora\.rank"):
        run_config(verb, {**values, "lora": {"rank": 2}}, tmp_path / "run")


def test_options_without_a_rank_are_refused(lab: Lab, tmp_path: Path) -> None:
    verb, values = settings(lab)["dpo"]
    with pytest.raises(UserError, match=r"do nothing without lora\.rank"):
        run_config(verb, {**values, "lora": {"alpha": 8}}, tmp_path / "run")
