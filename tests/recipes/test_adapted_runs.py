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


def test_the_adapter_names_its_base_wherever_it_is_loaded_from(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.root)
    verb, values = settings(lab)["dpo"]
    run_config(verb, {**values, "model": {"path": "model"}, "lora": {"rank": 2}}, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    hub.load_causal(str(tmp_path / "run" / "final"))


def test_all_weights_of_an_adapted_model_can_be_tuned_on(lab: Lab, run: Path, tmp_path: Path) -> None:
    verb, values = settings(lab)["dpo"]
    run_config(verb, {**values, "model": {"path": str(run / "final")}}, tmp_path / "run")
    tuned, start = (logps(hub.load_causal(str(folder / "final"))) for folder in (tmp_path / "run", run))
    assert (tuned - start).abs().max() > 1e-3
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["trainable"] == manifest["parameters"]


def test_adapters_over_adapters_keep_what_both_learnt(lab: Lab, run: Path, tmp_path: Path) -> None:
    """A new adapter on the first one's base alone would forget the first; peft must find what it was trained on."""
    verb, values = settings(lab)["dpo"]
    again = {**values, "model": {"path": str(run / "final")}, "lora": {"rank": 2}}
    run_config(verb, again, tmp_path / "again")
    second = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "again" / "final")
    start = logps(hub.load_causal(str(run / "final")))
    assert (logps(second) - start).abs().max() > 1e-3, "the second one learnt something"
    with second.disable_adapter():
        torch.testing.assert_close(logps(second), start, rtol=1e-5, atol=1e-5)
    merged = hub.load_causal(str(tmp_path / "again" / "final"))
    torch.testing.assert_close(logps(merged), logps(second), rtol=1e-5, atol=1e-5)


def test_a_reward_model_starts_from_base_and_adapter(lab: Lab, run: Path) -> None:
    causal, scorer_model = hub.load_causal(str(run / "final")), hub.load_scorer(str(run / "final"))
    theirs = dict(causal.named_parameters())
    for name, weight in scorer_model.named_parameters():
        assert weight.requires_grad
        assert name.startswith("score.") or torch.equal(weight, theirs[name]), name


def test_an_adapter_whose_base_is_elsewhere_is_refused_with_the_file_to_correct(run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "final" / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/model"}))
    with pytest.raises(UserError, match=r"adapter_config\.json: adapts the model 'some/model'.*base_model_name"):
        hub.load_causal(str(tmp_path))


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
