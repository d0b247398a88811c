"""What an arm consumed, by formula from what its runs recorded: labels, prompts, tokens, FLOPs, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trueup.study.plan import DONE
from trueup.study.results import read_config, read_json, read_rows

FORWARD, BACKWARD = 2, 4
"""FLOPs per parameter and token of a forward and of a backward pass (Kaplan et al. 2020, arXiv:2001.08361, table 1)."""


def budgets(method: str, run: Path, parameters: int, reward_pairs: int) -> dict[str, float | None]:
    """Budgets of one run.

    Args:
        method: sft, dpo, ppo or grpo.
        run: its folder.
        parameters: of the model; reward model, reference and critic are of the same size.
        reward_pairs: preference pairs the reward model was trained on: the labels of PPO and GRPO.
    """
    last: dict[str, Any] = {}
    for row in read_rows(run / "metrics.jsonl"):
        last = row
    config = read_config(run)
    tokens = float(last.get("num_tokens", 0))
    passes = _PASSES[method](config)
    labels = {"sft": 0.0, "dpo": min(float(last.get("num_examples", 0)), float(reward_pairs))}
    return {
        "labels": labels.get(method, float(reward_pairs)),
        "prompts": float(last.get("num_prompts", last.get("num_examples", 0))),
        "tokens": tokens,
        "flops": tokens * parameters * passes,
        # A run taken over from a tuning candidate took the time that the candidate took.
        "seconds": (read_json(run / "chosen.json") or {}).get("seconds")
        or (read_json(run / DONE) or {}).get("seconds"),
    }


def _ppo_passes(config: Mapping[str, Any]) -> float:
    """Per sampled token: sample, reference, reward, value; then each epoch a step of policy and critic."""
    networks = 2 if config["ppo"]["critic"] == "separate" else 1
    return 4 * FORWARD + config["rollout"]["epochs"] * networks * (FORWARD + BACKWARD)


def _grpo_passes(config: Mapping[str, Any]) -> float:
    return 3 * FORWARD + config["rollout"]["epochs"] * (FORWARD + BACKWARD)


_PASSES = {
    "sft": lambda config: FORWARD + BACKWARD,
    "dpo": lambda config: 2 * FORWARD + BACKWARD,  # policy forward and backward, reference forward
    "ppo": _ppo_passes,
    "grpo": _grpo_passes,
}
"""FLOPs per parameter and token of a run of each method."""
