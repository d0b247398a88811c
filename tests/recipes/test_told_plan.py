"""What a run says before its first step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny_lab import Lab, Listener, run_config, settings

from trueup.data.batching import Batching
from trueup.data.trees import Tree
from trueup.models import hub
from trueup.preflight.memory import estimate_memory


def plan(lab: Lab, out: Path, **changes: object) -> str:
    verb, values = settings(lab)["dpo"]
    voice = Listener()
    run_config(verb, {**values, **changes}, out, voice)
    return next(line for line in voice.said if line.startswith("plan:"))


def test_steps_passes_and_tokens_are_those_of_the_run(lab: Lab, tmp_path: Path) -> None:
    line = plan(lab, tmp_path / "run", optim={"steps": 12, "batch_size": 4})
    assert "12 steps of 4 pairs, 2.00 passes over 24" in line
    last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    tokens = float(re.search(r'"num_tokens": ([0-9.]+)', last)[1])  # type: ignore[index]
    told = float(re.search(r"about ([0-9.]+) k tokens", line)[1]) * 1000  # type: ignore[index]
    assert told == pytest.approx(tokens, rel=0.05)
    assert "all trained" in line


def test_adapters_are_a_share_of_the_weights(lab: Lab, tmp_path: Path) -> None:
    line = plan(lab, tmp_path / "run", lora={"rank": 1})
    share = float(re.search(r"([0-9.]+)% of them trained", line)[1])  # type: ignore[index]
    assert 0 < share < 50


def test_bfloat16_says_what_would_be_lost(lab: Lab, tmp_path: Path) -> None:
    verb, values = settings(lab)["dpo"]
    voice = Listener()
    model = {"path": lab.model, "dtype": "bfloat16"}
    run_config(verb, {**values, "model": model, "optim": {"steps": 1, "learning_rate": 1e-7}}, tmp_path / "r", voice)
    assert any(re.search(r"round away (9\d|100)% of updates of 1e-07", line) for line in voice.said)


def test_counted_parts_are_exact_and_activations_grow_with_tokens(lab: Lab) -> None:
    model = hub.load_causal(lab.model)
    batching = Batching("flat", 512, torch.device("cpu"))
    tree = Tree(tuple(range(3, 13)), ((20, 21, 22), (23, 24)))
    small, large = (estimate_memory(model, tree, batching, tokens) for tokens in (tree.size, 10 * tree.size))
    weights = sum(p.numel() for p in model.parameters())
    assert (small.weights, small.gradients, small.optimizer) == (4 * weights, 4 * weights, 8 * weights)
    assert large.activations == 10 * small.activations > 0


def test_activations_are_what_a_forward_pass_saves(lab: Lab) -> None:
    """Checkpointing keeps less, whatever the model."""
    tree = Tree(tuple(range(3, 23)), ((20, 21, 22), (23, 24)))
    batching = Batching("flat", 512, torch.device("cpu"))
    model = hub.load_causal(lab.model).train()
    kept = estimate_memory(model, tree, batching, tree.size).activations
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert estimate_memory(model, tree, batching, tree.size).activations < kept
