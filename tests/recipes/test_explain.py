"""``explain`` on the write-up's failure in miniature, on a healthy run, on other methods, and when it is stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_lab import Lab, Listener, journal, run_variant

from trueup.config.load import read_yaml
from trueup.config.schema import DpoConfig
from trueup.data.read import read_pairs
from trueup.data.template import make_encoder
from trueup.errors import Interrupted, UserError
from trueup.models import hub
from trueup.recipes import explain_runs
from trueup.recipes.explain import explain
from trueup.recipes.explain_material import capped, read_rows, write_rows
from trueup.recipes.explain_plan import Wishes
from trueup.recipes.explain_reference import Given, alternative_reference
from trueup.recipes.explain_runs import BASE

EXAMPLE = Path(__file__).parents[2] / "examples/writeup_failure.py"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("writeup_failure", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The write-up's failure on a model of width 32: folder with memoriser, broad model and the DPO run."""
    root, example = tmp_path_factory.mktemp("writeup"), load_example()
    optim = {**read_yaml(str(example.CONFIG))["optim"], "steps": 12, "learning_rate": 7e-4}
    decoding = {"temperature": 0.9, "top_k": 50, "max_new_tokens": 12}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "narrow", SHAPE)  # type: ignore[arg-type]
        example.build(root, "narrow", pretraining=30, pairs=220, optim=optim, decoding=decoding)
        yield root


@pytest.fixture(scope="module")
def report(failure: Path) -> dict[str, Any]:
    wishes = Wishes(Given(reference=str(failure / "broad/final")), seeds=2, only=("reference", "batch_size"))
    return explain(str(failure / "dpo"), wishes, Listener())


def test_the_reference_without_support_is_found_and_not_the_batch_of_one(report: dict[str, Any]) -> None:
    assert report["cause"] == "reference"
    assert report["base"]["margin/raw_per_token"] > 1  # rule D07 would stop it
    assert report["base"]["reference/support"] > 0.8  # rule D03
    effects = {row["name"]: row["effects"]["margin/raw_per_token"] for row in report["factors"]}
    assert effects["reference"]["high"] < 1 / 4
    assert effects["batch_size"]["estimate"] > 0.8
    assert "so the batch size is not the cause" in report["verdict"]
    assert report["factorial"]["effects"]["reference"]["high"] < 1 / 4
    other = [found["reference/support"] for found in report["arms"]["reference"]]
    assert max(other) < 0.5


def test_arms_have_equal_updates_and_their_own_amounts_of_data(failure: Path, report: dict[str, Any]) -> None:
    base, larger = (journal(failure / f"dpo/explain/reruns/{arm}/0/metrics.jsonl") for arm in ("asitwas", "batch_size"))
    assert len(base) == len(larger) == report["plan"]["steps"] == 12
    assert larger[-1]["num_examples"] == 8 * base[-1]["num_examples"]
    assert not list((failure / "dpo/explain/reruns").rglob("*.safetensors"))  # weights go once they are measured


def test_a_second_call_repeats_nothing_and_gives_the_same(failure: Path, report: dict[str, Any]) -> None:
    marks = sorted((failure / "dpo/explain/reruns").rglob("outcomes.json"))
    before = [mark.stat().st_mtime_ns for mark in marks]
    wishes = Wishes(Given(reference=str(failure / "broad/final")), seeds=2, only=("reference", "batch_size"))
    assert explain(str(failure / "dpo"), wishes, Listener()) == report
    assert [mark.stat().st_mtime_ns for mark in marks] == before
    assert json.loads((failure / "dpo/explain/explain.json").read_text()) == report
    with pytest.raises(UserError, match="another plan"):
        explain(str(failure / "dpo"), replace(wishes, seeds=3), Listener())


def test_where_no_other_reference_is_tried_no_cause_is_named(failure: Path) -> None:
    wishes = Wishes(seeds=2, only=("learning_rate",), steps=6, out=str(failure / "elsewhere"))
    found = explain(str(failure / "dpo"), wishes, Listener())
    assert found["cause"] is None
    assert "no other one was tried: it may be the cause" in found["verdict"]


def test_sft_behind_the_start_is_found_and_repeated_with_a_fifth_of_its_steps(failure: Path, tmp_path: Path) -> None:
    values = {"model": {"path": str(failure / "memoriser/final")}, "data": {"path": "d"}, "run": {"out": "o"}}
    config, voice = DpoConfig.model_validate(values), Listener()
    found = alternative_reference(Given(), config, tmp_path / "reference", voice)
    assert found.about == "SFT stopped at 60 of 300 steps"
    assert len(journal(tmp_path / "reference/metrics.jsonl")) == 60
    assert alternative_reference(Given(), config, tmp_path / "reference", voice) == found
    assert len(voice.said) == 1  # the second call finds it made


def test_half_way_back_is_the_mean_of_the_weights(failure: Path, tmp_path: Path) -> None:
    start, base = str(failure / "memoriser/final"), str(failure / "base/final")
    values = {"model": {"path": start}, "data": {"path": "d"}, "run": {"out": "o"}}
    found = alternative_reference(Given(base=base), DpoConfig.model_validate(values), tmp_path, Listener())
    assert found.path is not None
    middle, one, other = (hub.load_causal(path).state_dict() for path in (found.path, start, base))
    assert all((2 * middle[name] - one[name] - other[name]).abs().max() < 1e-6 for name in middle)


@pytest.mark.parametrize(("variant", "outcome"), [("reward-causal", "eval/loss"), ("grpo", "kl/policy_reference_k3")])
def test_other_methods_are_explained_by_their_own_outcomes(
    lab: Lab, tmp_path: Path, variant: str, outcome: str
) -> None:
    run_variant(lab, variant, tmp_path / "run")
    found = explain(str(tmp_path / "run"), Wishes(seeds=2, only=("learning_rate",)), Listener())
    (row,) = found["factors"]
    assert found["outcome"] == outcome
    assert row["effects"][outcome]["low"] <= row["effects"][outcome]["estimate"] <= row["effects"][outcome]["high"]
    assert len(found["arms"][BASE]) == len(found["arms"]["learning_rate"]) == 2


def test_stopped_and_called_again_it_goes_on_to_the_same_numbers(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_variant(lab, "sft", tmp_path / "run")
    wishes = Wishes(seeds=2, only=("learning_rate",))
    whole = explain(str(tmp_path / "run"), replace(wishes, out=str(tmp_path / "whole")), Listener())
    begun: list[int] = []

    def stop_in_the_third(step: int) -> None:
        if step == 1:
            begun.append(step)
        if step == 5 and len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(explain_runs, "Silence", lambda: Listener(stop_in_the_third))
    with pytest.raises(Interrupted, match="the same command goes on"):
        explain(str(tmp_path / "run"), wishes, Listener())
    assert explain(str(tmp_path / "run"), wishes, Listener())["arms"] == whole["arms"]
    assert len(begun) == 4  # the third went on from its checkpoint, past its first step


@pytest.mark.parametrize(
    ("variant", "wishes", "message"),
    [
        ("kto", Wishes(), "no counterfactuals are known for 'kto'"),
        ("sft", Wishes(outcome="margin/raw"), "'margin/raw' is not measured of sft"),
        ("sft", Wishes(only=("beta",)), "'beta' is no factor of sft"),
        ("sft", Wishes(given=Given(reference="m")), "tried for dpo only"),
        ("sft", Wishes(budget=1e-9, seeds=2), "give more"),
    ],
)
def test_refusals(lab: Lab, tmp_path: Path, variant: str, wishes: Wishes, message: str) -> None:
    run_variant(lab, variant, tmp_path / "run")
    with pytest.raises(UserError, match=message):
        explain(str(tmp_path / "run"), wishes, Listener())
    assert not (tmp_path / "run/explain").exists()


def test_rows_are_parted_without_overlap_and_written_rows_read_back(failure: Path, tmp_path: Path) -> None:
    values = {"model": {"path": str(failure / "memoriser/final")}, "data": {"path": str(failure / "pairs.jsonl")}}
    config = DpoConfig.model_validate({**values, "run": {"out": "o"}})
    rows = read_rows("dpo", config, 3, 50)
    places = [pair.where for part in (rows.train, *rows.held) for pair in part]
    assert len(places) == len(set(places)) and len(rows.train) == 50 and len(rows.held) == 3
    again = read_pairs(write_rows(tmp_path / "rows.jsonl", rows.train)).records
    assert [(p.prompt, p.chosen, p.rejected) for p in again] == [(p.prompt, p.chosen, p.rejected) for p in rows.train]
    encoder = make_encoder(hub.load_tokenizer(str(failure / "memoriser/final")))
    cut = [capped(encoder, 4)(pair.chosen) for pair in rows.train]
    assert all(
        len(encoder.response(text)) <= 4 and pair.chosen.startswith(text)
        for text, pair in zip(cut, rows.train, strict=True)
    )
