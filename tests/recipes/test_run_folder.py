"""What a finished run leaves behind, by the contract, and that ``transformers`` alone can use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lab import OPTIM, VARIANTS, Lab, Listener, journal, rows, run_variant, settings
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import trueup.recipes.bench as bench_module
from trueup.config.load import read_yaml, validate
from trueup.config.schema import RECIPES
from trueup.data.template import make_encoder
from trueup.runtime import fingerprint


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, the model it had in memory, what it said."""

    variant: str
    folder: Path
    model: Any
    voice: Listener


@pytest.fixture(scope="module", params=VARIANTS)
def finished(request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """One run of every variant, with the trained model caught as it is saved."""
    caught, voice = [], Listener()
    folder = tmp_path_factory.mktemp("finished") / request.param
    save = bench_module.hub.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module.hub, "save", lambda model, *rest: (caught.append(model), save(model, *rest)))
        run_variant(lab, request.param, folder, voice)
    yield Finished(request.param, folder, caught[0].eval(), voice)


def test_the_folder_holds_what_the_contract_names(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    card = {"reward_model.json", "reward_model.html"} if finished.variant.startswith("reward") else set()
    assert names == {"config.yaml", "manifest.json", "metrics.jsonl", "findings.jsonl", "final"} | card


def test_final_loads_with_transformers_alone_and_computes_the_same(finished: Finished) -> None:
    scorer = finished.variant.startswith("reward")
    kind = AutoModelForSequenceClassification if scorer else AutoModelForCausalLM
    loaded, told = kind.from_pretrained(finished.folder / "final", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(finished.folder / "final")
    turns = [{"role": "user", "content": rows(1)[0]["prompt"]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    held, own = finished.model.state_dict(), loaded.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in own.items())
    with torch.no_grad():
        found, expected = loaded.eval()(input_ids=ids).logits, finished.model(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # sums depend on where in memory weights lie


def test_final_answers_with_the_terminator_it_was_taught(finished: Finished) -> None:
    """Generation of transformers stops where training put the end: EOS is in the saved settings."""
    tokenizer = AutoTokenizer.from_pretrained(finished.folder / "final")
    config = json.loads((finished.folder / "final" / "config.json").read_text(encoding="utf-8"))
    assert config["eos_token_id"] == tokenizer.eos_token_id == make_encoder(tokenizer).terminator


def test_metrics_have_one_line_a_step(finished: Finished) -> None:
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, OPTIM["steps"] + 1))
    for line in lines:
        assert {"loss", "grad_norm", "learning_rate", "step_time", "num_tokens"} <= line.keys()
        assert all(isinstance(value, int | float) for value in line.values())
    tokens = [line["num_tokens"] for line in lines]
    assert tokens == sorted(tokens) and tokens[0] > 0


def test_findings_have_the_fields_of_the_contract(finished: Finished) -> None:
    findings = journal(finished.folder / "findings.jsonl")
    for finding in findings:
        assert finding.keys() == {
            *("step", "rule", "severity", "first_step", "evidence", "message", "remedy", "reference")
        }
        assert finding["severity"] in ("note", "warning", "fatal")
        assert any(finding["message"] in said for said in finished.voice.said), "a finding that nobody was told"
    assert len({finding["rule"] for finding in findings}) == len(findings)
    if finished.variant.startswith(("reward", "dpo")) and finished.variant != "dpo-online":
        assert [f["evidence"] for f in findings if f["rule"] == "identical-pairs"] == [{"pairs": 1}]
    assert not [finding for finding in findings if finding["severity"] == "fatal"]


def test_the_manifest_says_what_the_run_was_made_of(lab: Lab, finished: Finished) -> None:
    manifest = json.loads((finished.folder / "manifest.json").read_text(encoding="utf-8"))
    _, values = settings(lab)[finished.variant]
    known = {"trueup", "date", "python", "torch", "transformers", "tokenizers", "machine", "commit", "seed", "device"}
    assert known <= manifest.keys()
    assert manifest["seed"] == 0 and manifest["device"] == "cpu"
    assert manifest["data"] == fingerprint.of_file(values["data"]["path"])
    assert manifest["parameters"] == sum(p.numel() for p in finished.model.parameters())
    start = manifest.get("start") or manifest["reference"]
    assert start != fingerprint.of_weights(finished.model), "the start's fingerprint is that of the result"
    if values["model"].get("path") and not finished.variant.startswith("reward"):
        assert start == fingerprint.of_weights(AutoModelForCausalLM.from_pretrained(values["model"]["path"]))
    if isinstance(values.get("rollout", {}).get("reward"), str):
        scorer = AutoModelForSequenceClassification.from_pretrained(values["rollout"]["reward"])
        assert manifest["reward"] == fingerprint.of_weights(scorer)


def test_config_yaml_is_complete_and_makes_the_same_run(lab: Lab, finished: Finished) -> None:
    verb, values = settings(lab)[finished.variant]
    written = read_yaml(str(finished.folder / "config.yaml"))
    schema = RECIPES[verb]
    assert validate(schema, written, "").model_dump(mode="json") == written, "a default is missing"
    asked = validate(schema, {**values, "run": {"out": str(finished.folder), "threads": 1}}, "")
    assert validate(schema, written, "") == asked
