"""TRL's GRPO and RLOO trainers on responses that were not sampled: what they make of rewards, and of a policy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl_peer import EOS, PLAIN, VOCABULARY, tokenizer

from trueup.data.trees import Tree

GROUP, CAP = 4, 12
LENGTHS = ((3, (1, 12, 4, 7)), (9, (5, 5, 12, 2)), (1, (11, 3, 1, 8)))
"""Tokens of a prompt and of its responses; those of 12 are cut off at the cap and have no terminator."""


def draw_groups(seed: int = 0) -> list[Tree]:
    """Prompts with four random responses each."""
    rng = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (n,), generator=rng).tolist())

    def response(n: int) -> tuple[int, ...]:
        return draw(n) if n == CAP else (*draw(n - 1), EOS)

    return [Tree(draw(prompt), tuple(map(response, responses))) for prompt, responses in LENGTHS]


TREES = draw_groups()
REWARDS = [0.5, 2.0, -1.0, 0.25, 1.0, 1.0, 1.0, 1.0, -3.0, 0.0, 4.0, 1.5]
"""Of each response; one group is paid all alike."""


def trainer(kind: str, policy: Any, reference: Any, out: Path, **settings: Any) -> Any:
    """TRL's own trainer around ``policy``, with ``reference`` as its reference; it keeps and reports nothing.

    Args:
        kind: GRPO or RLOO.
        policy: what it trains.
        reference: TRL loads it anew, from the folder that the policy says it comes from.
        out: a folder it may create.
        settings: of its configuration.
    """
    from datasets import Dataset

    library = importlib.import_module("trl")
    reference.save_pretrained(out / "reference")
    policy.config._name_or_path = str(out / "reference")
    config = getattr(library, f"{kind}Config")(
        output_dir=str(out),
        **PLAIN,
        per_device_train_batch_size=len(REWARDS),
        num_generations=GROUP,
        num_iterations=2,
        max_completion_length=CAP,
        **settings,
    )
    rows = Dataset.from_list([{"prompt": "w3"}] * len(REWARDS))
    words = tokenizer()
    words.padding_side = "left"
    peer = getattr(library, f"{kind}Trainer")(
        model=policy,
        reward_funcs=lambda prompts, completions, **_: REWARDS,
        args=config,
        train_dataset=rows,
        processing_class=words,
    )
    peer.current_gradient_accumulation_steps = 1
    return peer


@dataclass(frozen=True)
class Scored:
    """What TRL made of the responses, for its own loss; ``advantages`` ``[K]``."""

    inputs: dict[str, Any]
    advantages: Tensor


def scored(peer: Any, trees: Sequence[Tree] = TREES) -> Scored:
    """Run TRL's scoring with the responses put in for those that it would sample."""
    flat = [(list(tree.prompt), list(response)) for tree in trees for response in tree.responses]
    prompts, responses = [p for p, _ in flat], [r for _, r in flat]
    texts = ["?"] * len(flat)
    generated = (prompts, responses, None, texts, None, {}, None, None)
    peer._generate = lambda _: generated if type(peer).__name__ == "GRPOTrainer" else (prompts, responses, texts)
    inputs = peer._generate_and_score_completions([{"prompt": "w3"} for _ in flat])
    return Scored(inputs, inputs["advantages"])


def loss_of(peer: Any, policy: Any, inputs: dict[str, Any]) -> tuple[float, Tensor]:
    """TRL's loss of a policy, and its gradient with respect to all parameters, flat."""
    policy.train()
    policy.zero_grad()
    loss = peer._compute_loss(policy, inputs)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
