"""Trueup in TRL's own trainers: quiet where nothing is wrong, loud where something is, and without a trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("trl")

from trl_peer import QUIET, moved, tiny_llama
from trl_runs import Watched, dpo, drawn, kto, online, reward, variety, watched

from trueup.integrations.trl import TrueupCallback
from trueup.integrations.trl_preflight import preflight

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore::FutureWarning")]


def statuses(run: Watched) -> dict[str, str]:
    assert run.callback.report is not None
    return {outcome.check: outcome.status for outcome in run.callback.report.outcomes}


@pytest.mark.parametrize("build", [dpo, reward, kto], ids=["dpo", "reward", "kto"])
def test_a_healthy_run_is_quiet(build: Any, tmp_path: Path) -> None:
    run = watched(build(tmp_path), on_fatal="stop")
    assert run.rules == {}
    assert run.trainer.state.global_step == run.trainer.args.max_steps
    assert [line for line in run.said if line.startswith("trueup: nothing found in")] == [run.said[-1]]
    assert not (tmp_path / "findings.jsonl").exists()
    made = [check for check, status in statuses(run).items() if status == "passed"]
    assert {"repeated forward pass", "rows alone and in a batch", "direction of a tiny step"} <= set(made)


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_a_healthy_run_that_samples_is_quiet(kind: str, tmp_path: Path) -> None:
    run = watched(online(kind, tmp_path, variety), on_fatal="stop")
    assert run.rules == {}
    assert run.trainer.state.global_step == run.trainer.args.max_steps
    skipped = {check for check, status in statuses(run).items() if status == "skipped"}
    assert skipped == {"learning rate"}


def test_a_healthy_adapter_is_quiet(tmp_path: Path) -> None:
    """The reference is the model without it, and half of its tensors have no gradient while the other half is 0."""
    from peft import LoraConfig

    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    run = watched(dpo(tmp_path, ref_model=None, peft_config=adapter, max_steps=2), on_fatal="stop")
    assert run.rules == {}
    assert statuses(run)["policy = reference at step 0"] == statuses(run)["reach of the gradient"] == "passed"


def test_stored_values_of_the_reference_are_held_against_the_policy(tmp_path: Path) -> None:
    good = dpo(tmp_path / "good", precompute_ref_log_probs=True, max_steps=2)
    assert watched(good, on_fatal="stop").rules == {}
    bad = dpo(tmp_path / "bad", precompute_ref_log_probs=True, max_steps=2)
    bad.ref_model = None
    bad.train_dataset = bad.train_dataset.map(lambda row: {"ref_chosen_logps": row["ref_chosen_logps"] - 0.5})
    assert watched(bad).rules["step0-identity"] == "fatal"


class Collator:
    """Changes the mask of what another collator makes."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner, self.change = inner, change

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        batch = self.inner(rows)
        return {**batch, **self.change(batch)}


def shifted(batch: Any) -> dict[str, Any]:
    return {"completion_mask": torch.roll(batch["completion_mask"], -1, 1)}


def everything(batch: Any) -> dict[str, Any]:
    return {"completion_mask": batch["attention_mask"].clone()}


@pytest.mark.parametrize(
    ("change", "rule", "words"),
    [
        (shifted, "mask-read-back", "shifted"),
        (everything, "mask-read-back", "the prompt is trained on"),
    ],
)
def test_a_wrong_mask_stops_the_run_before_its_first_step(change: Any, rule: str, words: str, tmp_path: Path) -> None:
    peer = dpo(tmp_path)
    peer.data_collator = Collator(peer.data_collator, change)
    before = [p.clone() for p in peer.model.parameters()]
    run = watched(peer, on_fatal="stop")
    assert rule in run.refused and run.trainer.state.global_step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, peer.model.parameters(), strict=True))
    (line,) = [json.loads(row) for row in (tmp_path / "findings.jsonl").read_text().splitlines() if rule in row]
    assert words in line["message"] and line["severity"] == "fatal" and line["first_step"] == 0


def test_a_reference_that_is_another_model(tmp_path: Path) -> None:
    model = tiny_llama()
    run = watched(dpo(tmp_path, model=model, ref_model=moved(model, 0.05), max_steps=2))
    assert run.rules["reference-elsewhere"] == "warning"


def test_a_reference_that_is_the_policy_itself(tmp_path: Path) -> None:
    peer = dpo(tmp_path, max_steps=2)
    peer.ref_model = peer.model
    assert watched(peer).rules["reference-aliased"] == "fatal"


def test_a_reference_with_another_calculation(tmp_path: Path) -> None:
    """The same weights, and yet other numbers: what drops or scales in one of the two only."""
    peer = dpo(tmp_path, max_steps=2)
    peer.ref_model.model.layers[0].self_attn.register_forward_hook(lambda m, i, out: (out[0] * 1.05, *out[1:]))
    assert watched(peer).rules["step0-identity"] == "fatal"


def test_dropout(tmp_path: Path) -> None:
    model = tiny_llama()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.2
    run = watched(dpo(tmp_path, model=model, disable_dropout=False, max_steps=2))
    assert run.rules["dropout-on"] == "warning"


def test_identical_pairs(tmp_path: Path) -> None:
    rows = [{**row, "rejected": row["chosen"]} if i % 4 == 0 else row for i, row in enumerate(drawn())]
    run = watched(dpo(tmp_path, rows, max_steps=2))
    (finding,) = [finding for finding in run.callback.findings if finding.rule == "identical-pairs"]
    assert finding.evidence == {"pairs": 12, "of": 48}


def test_rows_that_are_cut(tmp_path: Path) -> None:
    peer = dpo(tmp_path, max_steps=2)
    peer.args.max_length = peer.data_collator.max_length = 9
    rules = watched(peer).rules
    assert "rows-too-long" in rules and "mask-read-back" not in rules


def test_rows_that_see_padding(tmp_path: Path) -> None:
    """Right padding is invisible to causal attention, so a model that reads it is made by a mask on the left."""
    peer = reward(tmp_path, max_steps=2)
    peer.model.model.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {**kwargs, "attention_mask": None}), with_kwargs=True
    )
    inner = peer.data_collator

    def left(rows: Sequence[Any]) -> dict[str, Any]:
        batch = inner(rows)
        lengths = batch["attention_mask"].sum(1)
        pairs = zip(batch["input_ids"], (batch["input_ids"].shape[1] - lengths).tolist(), strict=True)
        ids = torch.stack([row.roll(shift) for row, shift in pairs])
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}

    peer.data_collator = left
    assert watched(peer).rules["batch-dependent"] == "fatal"


def test_a_learning_rate_that_destroys_the_model(tmp_path: Path) -> None:
    run = watched(dpo(tmp_path, learning_rate=1e-1, beta=0.01, max_steps=21))
    assert run.rules["hot-update"] == "warning"
    assert run.said[-1].startswith("trueup: found in 21 steps: ") and "hot-update" in run.said[-1]


def test_a_constant_reward(tmp_path: Path) -> None:
    run = watched(online("GRPO", tmp_path, lambda completions, **_: [1.0] * len(completions)))
    assert run.rules["dead-groups"] == "fatal"


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    peer = dpo(tmp_path)
    with torch.no_grad():
        peer.model.lm_head.weight[7, 0] = float("nan")
    assert "gradient-not-finite" in watched(peer, on_fatal="stop").refused


def test_a_number_that_is_lost_on_the_way(tmp_path: Path) -> None:
    """TRL's log hides it in the loss (``logging_nan_inf_filter``), not in the norm of the gradient."""
    peer = dpo(tmp_path, max_steps=30)
    inner, calls = peer.compute_loss, []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        loss = inner(*args, **kwargs)
        return loss * float("nan") if peer.state.global_step == 5 else loss

    peer.compute_loss = broken
    run = watched(peer, on_fatal="stop")
    assert run.rules["not-finite"] == "fatal"
    assert run.trainer.state.global_step <= 20


BUILDS = {
    "dpo": lambda out: dpo(out, max_steps=4),
    "reward": lambda out: reward(out, max_steps=4),
    "grpo": lambda out: online("GRPO", out, variety, max_steps=4),
}


@pytest.mark.parametrize("kind", BUILDS)
def test_a_watched_run_is_the_same_run(kind: str, tmp_path: Path) -> None:
    """Weights and every line of the log, bit for bit; of a model with dropout, which draws from the global stream."""
    runs = []
    for name in ("alone", "watched"):
        peer = BUILDS[kind](tmp_path / name)
        for layer in peer.model.model.layers:
            layer.self_attn.attention_dropout = 0.1
        peer.model.gradient_checkpointing_enable({"use_reentrant": False})  # TRL's default
        if name == "alone":
            peer.train()
        else:
            watched(peer)
        clocks = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "step_time")
        log = [{k: v for k, v in row.items() if k not in clocks} for row in peer.state.log_history]
        runs.append((log, [p.detach().clone() for p in peer.model.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))


def test_checks_leave_the_trainer_as_it_was(tmp_path: Path) -> None:
    peer = dpo(tmp_path)
    peer.model.eval()
    peer.model.model.layers[0].train()
    modes = [part.training for part in peer.model.modules()]
    state, weights = torch.get_rng_state(), [p.clone() for p in peer.model.parameters()]
    noted = {name: dict(metrics) for name, metrics in peer._metrics.items()}
    tokens = peer._total_train_tokens
    preflight(peer)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in peer.model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(weights, peer.model.parameters(), strict=True))
    assert all(p.grad is None for p in peer.model.parameters())
    assert {name: dict(metrics) for name, metrics in peer._metrics.items()} == noted
    assert peer._total_train_tokens == tokens


def test_the_callback_alone_monitors(tmp_path: Path) -> None:
    said: list[str] = []
    callback = TrueupCallback(say=said.append)
    peer = online("GRPO", tmp_path, lambda completions, **_: [0.0] * len(completions), max_steps=30)
    peer.add_callback(callback)
    peer.train()
    assert callback.report is None
    assert "dead-groups" in {finding.rule for finding in callback.findings}
    stopped = peer.state.global_step
    assert stopped < 30 and (tmp_path / f"checkpoint-{stopped}").is_dir()
    assert said[-1].startswith(f"trueup: found in {stopped} steps: ")


def test_findings_of_an_earlier_run_are_set_aside(tmp_path: Path) -> None:
    (tmp_path / "findings.jsonl").write_text('{"rule": "old"}\n')
    run = watched(dpo(tmp_path, max_steps=2))
    assert run.rules == {}
    assert not (tmp_path / "findings.jsonl").exists()
    assert "old" in (tmp_path / "earlier-findings.jsonl").read_text()
