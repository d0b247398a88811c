"""Where responses come from is a field of the rollout source: what a sampler returns is what is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from step_cases import CAP, causal, rollouts

from trueup.models.generate import Sample
from trueup.train.experience import Credit


def test_a_rollout_is_made_of_what_the_sampler_returns() -> None:
    asked: list[Any] = []

    def scripted(
        model: Any, prompts: Any, draws: int, decoding: Any, terminators: frozenset[int], generator: torch.Generator
    ) -> list[list[Sample]]:
        """Responses that tell their prompt and their number, each token with a log-probability of its own."""
        asked.append((model, draws, decoding.max_new_tokens, terminators, generator.initial_seed()))
        return [
            [
                Sample(
                    (20 + place, 30 + number, 2), -torch.tensor([place + 0.1, number + 0.2, 0.3]), torch.zeros(3), True
                )
                for number in range(draws)
            ]
            for place in range(len(prompts))
        ]

    model = causal(torch.float32)
    source = rollouts(torch.float32, 1_000_000, 4, lambda _, seen: Credit(torch.ones(len(seen.branch))))
    source = replace(source, sampler=scripted)
    (batch,) = source.draw(model, 0).batches
    prompts = len(source.prompts)
    responses = batch.trees.target.view(prompts * 4, 3)
    place, number = responses[:, 0] - 20, responses[:, 1] - 30
    assert sorted(zip(place.tolist(), number.tolist(), strict=True)) == [
        (p, n) for p in range(prompts) for n in range(4)
    ]
    expected = -torch.stack([place + 0.1, number + 0.2, torch.full((prompts * 4,), 0.3)], dim=1)
    torch.testing.assert_close(batch.old_logps.view(-1, 3), expected)
    source.draw(model, 1)
    assert [call[:4] for call in asked] == [(model, 4, CAP, source.encoder.stops)] * 2
    assert asked[0][4] != asked[1][4], "every rollout has luck of its own"
