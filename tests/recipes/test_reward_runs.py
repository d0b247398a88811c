"""Runs of ``trueup reward`` from end to end, and what runs that are given its models say of them."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lab import OPTIM, Lab, Listener, journal, outcome, rows, run_config, settings, weights, write
from transformers import AutoModelForSequenceClassification

import trueup.recipes.bench as bench_module
from trueup.data.template import make_encoder
from trueup.data.trees import Tree, collate
from trueup.errors import Interrupted, UserError
from trueup.models import hub
from trueup.models.scoring import response_scores
from trueup.runtime.trackers import TRACKERS, Tracked, Tracker

# PEFT asks transformers for checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def reward(lab: Lab, out: Path, voice: Listener | None = None, *, run: Mapping[str, Any] = {}, **more: Any) -> Path:
    """A run on the laboratory's pairs with its held-out ones; ``more`` is laid over the sections."""
    verb, values = settings(lab)["reward-causal"]
    values = {**values, "data": {**values["data"], "validation": str(lab.root / "held.jsonl")}}
    values |= {name: {**values.get(name, {}), **section} for name, section in more.items()}
    run_config(verb, values, out, voice, **run)
    return out


@pytest.fixture(scope="module")
def trained(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that has seen its 24 pairs many times."""
    folder = tmp_path_factory.mktemp("reward") / "run"
    return reward(lab, folder, optim={"steps": 60, "learning_rate": 2e-2})


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_card_is_of_the_model_that_was_saved(trained: Path) -> None:
    tokenizer = hub.load_tokenizer(str(trained / "final"))
    model = AutoModelForSequenceClassification.from_pretrained(trained / "final").eval()
    encoder = make_encoder(tokenizer)
    right = []
    for row in rows(30)[24:]:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            chosen, rejected = (
                float(model(input_ids=torch.tensor([[*ids, *encoder.response(row[side])]])).logits)
                for side in ("chosen", "rejected")
            )
        right.append(chosen > rejected)
    card = read(trained / "reward_model.json")
    assert card["heldout"]["accuracy"]["estimate"] == pytest.approx(sum(right) / 6)
    assert card["heldout"]["truncation"]["responses"] == 12
    assert card["train"]["accuracy"]["n"] == 24
    assert "Reliability on held-out pairs" in (trained / "reward_model.html").read_text()


def test_training_accuracy_is_that_of_the_pairs_that_were_drawn(lab: Lab, tmp_path: Path) -> None:
    """Three steps of four pairs: the other twelve were never seen, and say nothing about memory."""
    card = read(reward(lab, tmp_path / "run", optim={"steps": 3}) / "reward_model.json")
    assert card["train"]["accuracy"]["n"] == 12


def test_findings_about_the_model_reach_journal_voice_and_trackers(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Mapping[str, Any]] = []
    endings: list[str] = []

    def book(run: Tracked) -> Tracker:
        return Tracker("n1", "the drawer", None, lambda *_: None, told.append, lambda end: endings.append(str(end)))

    monkeypatch.setitem(TRACKERS, "mlflow", book)  # type: ignore[arg-type]
    monkeypatch.setattr(bench_module, "check_trackers", lambda names: None)
    voice = Listener()
    out = reward(lab, tmp_path / "run", voice, run={"trackers": ["mlflow"]})
    found = journal(out / "findings.jsonl")
    (finding,) = [row for row in found if row["rule"] == "rm-not-validated"]
    assert finding["first_step"] == OPTIM["steps"] and "of 6 held-out pairs" in finding["message"]
    assert told == found and endings == ["finished"]
    assert any(finding["message"] in line for line in voice.said)
    assert any(line.startswith("reward model: right on") for line in voice.said)


def with_margins(lab: Lab, path: Path, *margins: Any) -> str:
    """The laboratory's first pairs, each with its margin; None for none."""
    told = [{} if margin is None else {"margin": margin} for margin in margins]
    return str(write(path, [{**row, **more} for row, more in zip(rows(len(margins)), told, strict=True)]))


def test_margins_are_used_in_their_own_rows_and_only_if_asked_for(lab: Lab, tmp_path: Path) -> None:
    ones = with_margins(lab, tmp_path / "ones.jsonl", *[1.0] * 8)
    twos = with_margins(lab, tmp_path / "twos.jsonl", *[2.0] * 8)
    first_rows = with_margins(lab, tmp_path / "none.jsonl", *[None] * 8)

    folders = map(str, itertools.count())

    def first_loss(path: str, margin: float) -> float:
        out = tmp_path / next(folders)
        reward(lab, out, data={"path": path, "validation": None}, reward={"margin": margin}, optim={"steps": 1})
        return journal(out / "metrics.jsonl")[0]["loss"]

    assert first_loss(ones, 0.0) == first_loss(first_rows, 0.0)
    assert first_loss(ones, 2.0) == first_loss(twos, 1.0) > first_loss(ones, 1.0) > first_loss(ones, 0.0)


@pytest.mark.parametrize(("bad", "said"), [(None, "has no margin"), (-1.0, "rejected response is the better one")])
def test_margins_that_cannot_be_used_are_refused_with_their_place(
    lab: Lab, tmp_path: Path, bad: Any, said: str
) -> None:
    path = with_margins(lab, tmp_path / "pairs.jsonl", 1.0, 2, bad)
    for data in ({"path": path}, {"validation": path, "path": with_margins(lab, tmp_path / "good.jsonl", 1.0, 2.0)}):
        with pytest.raises(UserError, match=rf"pairs\.jsonl:3: .*{said}.*reward\.margin to 0"):
            reward(lab, tmp_path / "run", data=data, reward={"margin": 1.0})
    assert not (tmp_path / "run").exists()


def test_a_label_ceiling_is_on_the_card(lab: Lab, tmp_path: Path) -> None:
    voice = Listener()
    out = reward(lab, tmp_path / "run", voice, reward={"label_ceiling": 0.8}, optim={"steps": 1})
    assert read(out / "reward_model.json")["heldout"]["label_ceiling"] == 0.8
    assert any("the labels allow 0.80" in line for line in voice.said)


ADAPTED: dict[str, Any] = {"lora": {"rank": 2}}


def test_adapters_are_merged_and_their_head_is_not_lost(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[Any] = []
    save = bench_module.hub.save
    monkeypatch.setattr(bench_module.hub, "save", lambda model, *rest: (caught.append(model), save(model, *rest)))
    out = reward(lab, tmp_path / "run", optim={"learning_rate": 3e-2}, **ADAPTED)
    loaded, told = AutoModelForSequenceClassification.from_pretrained(out / "final", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    batch = collate([Tree((5, 6, 7), ((9, 10), (11, 12, 13))), Tree((30, 31), ((14,), (15, 16)))], "plain")
    with torch.no_grad():
        found = response_scores(loaded.eval(), batch)
        torch.testing.assert_close(found, response_scores(caught[0].eval(), batch), rtol=0, atol=0)
        start = hub.load_causal(lab.model)
    now = loaded.model.state_dict()
    moved = {name for name, weight in start.model.state_dict().items() if not torch.equal(weight, now[name])}
    assert moved and all("proj" in name for name in moved), "every linear layer, and no norm or embedding"
    manifest = read(out / "manifest.json")
    assert manifest["trainable"] < manifest["parameters"] / 2
    assert manifest["trainable"] > loaded.score.weight.numel(), "the head is trained whole"
    card = read(out / "reward_model.json")
    assert (loaded.score.weight - caught[0].score.weight).abs().max() == 0 and card["heldout"]["accuracy"]["n"] == 6


def test_an_adapted_run_that_was_stopped_goes_on_to_the_same_model(lab: Lab, tmp_path: Path) -> None:
    more: dict[str, Any] = {"lora": {"rank": 2, "dropout": 0.2}}
    reward(lab, tmp_path / "whole", **more)
    stop = Listener(lambda step: signal.raise_signal(signal.SIGINT) if step == 3 else None)
    with pytest.raises(Interrupted):
        reward(lab, tmp_path / "parts", stop, **more)
    reward(lab, tmp_path / "parts", run={"resume": True}, **more)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_adapters_fit_an_encoder_too(lab: Lab, tmp_path: Path) -> None:
    out = reward(lab, tmp_path / "run", model={"path": lab.encoder}, **ADAPTED)
    loaded = AutoModelForSequenceClassification.from_pretrained(out / "final")
    start = AutoModelForSequenceClassification.from_pretrained(lab.encoder)
    assert not torch.equal(loaded.classifier.weight, start.classifier.weight)
    manifest = read(out / "manifest.json")
    assert manifest["trainable"] < manifest["parameters"] / 2 and manifest["layout"] == "plain"


@pytest.mark.parametrize("adapted", [False, True])
def test_a_bfloat16_run_keeps_its_head_in_float32(lab: Lab, tmp_path: Path, adapted: bool) -> None:
    more = ADAPTED if adapted else {}
    out = reward(lab, tmp_path / "run", model={"dtype": "bfloat16"}, **more)
    model = hub.load_scorer(str(out / "final"), "bfloat16")
    assert model.score.weight.dtype == torch.float32
    assert not torch.equal(model.score.weight, model.score.weight.bfloat16().float())
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16
    card = read(out / "reward_model.json")
    assert card["dtype"] == "bfloat16" and card["train"]["ties"] == 0.0


# what PPO and its relatives say of a reward model


def early(lab: Lab, out: Path, model: Any, variant: str = "grpo") -> dict[str, dict[str, Any]]:
    """What a short run says of its reward before the first step."""
    verb, values = settings(lab)[variant]
    reward = str(model) if isinstance(model, Path) else model
    values = {**values, "rollout": {**values["rollout"], "reward": reward}, "optim": {**OPTIM, "steps": 1}}
    run_config(verb, values, out)
    found = journal(out / "findings.jsonl")
    return {row["rule"]: row for row in found if row["rule"].startswith("reward-model") and row["first_step"] == 0}


def copied(trained: Path, to: Path, **changes: Any) -> Path:
    """The run with some of its card changed; returns the model's folder."""
    shutil.copytree(trained, to)
    card = read(to / "reward_model.json")
    (to / "reward_model.json").write_text(json.dumps({**card, **changes}))
    return to / "final"


GOOD = {"accuracy": {"estimate": 0.7, "low": 0.66, "high": 0.74, "n": 600}, "ece": 0.03, "length_correlation": 0.1}
KNOWN = {"accuracy": {"estimate": 0.99, "low": 0.98, "high": 1.0, "n": 600}}


@pytest.mark.parametrize("variant", ["ppo-separate", "grpo", "rloo", "dpo-online"])
def test_a_model_that_memorised_is_named_before_the_first_step(
    lab: Lab, trained: Path, tmp_path: Path, variant: str
) -> None:
    model = copied(trained, tmp_path / "rm", heldout=GOOD, train=KNOWN)
    finding = early(lab, tmp_path / "run", model, variant)["reward-model-unsound"]
    assert finding["severity"] == "warning"
    assert (
        "rm-memorised: Do not optimise against this model" in finding["message"] and "gap of 0.29" in finding["message"]
    )
    assert list(finding["evidence"]["models"]) == [str(model)]


def test_a_model_that_nobody_validated_is_named_too(lab: Lab, trained: Path, tmp_path: Path) -> None:
    finding = early(lab, tmp_path / "run", trained / "final")["reward-model-unsound"]
    assert "rm-not-validated" in finding["message"] and "of 6 held-out pairs" in finding["message"]


def test_of_a_sound_model_nothing_is_said(lab: Lab, trained: Path, tmp_path: Path) -> None:
    model = copied(trained, tmp_path / "rm", heldout=GOOD, train=GOOD)
    assert not early(lab, tmp_path / "run", model)


def test_a_model_without_a_card_of_its_own_is_unknown(lab: Lab, trained: Path, tmp_path: Path) -> None:
    others = copied(trained, tmp_path / "others", heldout=GOOD, weights="0" * 64)
    broken = copied(trained, tmp_path / "broken", heldout={"accuracy": 3})
    cases = {lab.scorer: "no reward_model.json", str(others): "other weights", str(broken): "cannot be read"}
    for number, (model, why) in enumerate(cases.items()):
        finding = early(lab, tmp_path / f"run-{number}", model)["reward-model-unknown"]
        assert finding["severity"] == "note" and why in finding["message"]


def test_rules_and_functions_have_no_card_to_miss(lab: Lab, tmp_path: Path) -> None:
    assert not early(lab, tmp_path / "run", {"kind": "words", "at_most": 2})


@pytest.mark.parametrize("variant", ["ppo-separate", "grpo", "rloo", "dpo-online"])
def test_what_does_nothing_while_a_policy_samples_is_refused(lab: Lab, tmp_path: Path, variant: str) -> None:
    verb, values = settings(lab)[variant]
    held = {**values, "data": {**values["data"], "validation": str(lab.root / "held.jsonl")}}
    with pytest.raises(UserError, match=r"data\.validation does nothing for .*trueup eval"):
        run_config(verb, held, tmp_path / "run")
    with pytest.raises(UserError, match=r"run\.eval_every does nothing for .*trueup eval"):
        run_config(verb, values, tmp_path / "run", eval_every=7)
    assert not (tmp_path / "run").exists()


def test_the_same_seed_gives_the_same_card(lab: Lab, trained: Path, tmp_path: Path) -> None:
    again = reward(lab, tmp_path / "again", optim={"steps": 60, "learning_rate": 2e-2})
    assert read(again / "reward_model.json") == read(trained / "reward_model.json")
    assert weights(again) == weights(trained)
