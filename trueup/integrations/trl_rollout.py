"""A batch for TRL's GRPO and RLOO losses without sampling: real prompts, each answered by its own words, backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

LENGTH = 16
"""Tokens of a response, its terminator not counted."""


@torch.no_grad()
def rehearsed(trainer: Any, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The prompts of some rows, each with a response and the advantage 1 or -1 by turns.

    The policy as it is now is the one that "sampled", and the reference says what it says, so before the first
    step every ratio is 1 and every KL is 0.

    Args:
        trainer: TRL's.
        tokenizer: its tokenizer.
        rows: with a prompt each.
    """
    prompts = [_ids(tokenizer, row["prompt"]) for row in rows]
    # A response may depend on its own row alone: rows are also looked at in other company.
    responses = [[*ids[::-1][:LENGTH], tokenizer.eos_token_id] for ids in prompts]
    pad, device = tokenizer.pad_token_id, trainer.accelerator.device
    prompt_ids, prompt_mask = _padded(prompts, pad, True, device)
    completion_ids, completion_mask = _padded(responses, pad, False, device)
    batch: dict[str, Any] = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([1.0 - 2.0 * (i % 2) for i in range(len(rows))], device=device),
        "num_items_in_batch": completion_mask.sum(),
        "importance_sampling_ratio": torch.ones_like(completion_ids, dtype=torch.float32),
    }
    trainer.current_gradient_accumulation_steps = 1  # the loss is divided by it; training sets it
    old = _logps(trainer, trainer.model, batch)
    batch["old_per_token_logps"], batch["old_logps"] = old, (old * completion_mask).sum(1)
    if trainer.beta:
        batch["ref_per_token_logps"] = _reference_logps(trainer, batch)
    return batch


def _ids(tokenizer: Any, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]


def _padded(rows: Sequence[Sequence[int]], pad: int, left: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded to the longest row."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, device=device)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, place], mask[i, place] = torch.tensor(row, device=device), 1
    return ids, mask


def _logps(trainer: Any, model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities of the response tokens ``[B, T]``, by the trainer's own forward pass."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    return trainer._get_per_token_logps_and_entropies(model, ids, mask, batch["completion_ids"].shape[1])[0]


def _reference_logps(trainer: Any, batch: Mapping[str, Tensor]) -> Tensor:
    if trainer.ref_model is not None:
        return _logps(trainer, trainer.ref_model, batch)
    bare = getattr(trainer.model, "disable_adapter", nullcontext)
    with bare():
        return _logps(trainer, trainer.model, batch)
