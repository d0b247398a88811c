"""What of a rollout is trained on: groups that differ, responses that ended, and the price of length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from step_cases import LENGTHS, causal, rollouts, share_of_even_tokens, state_of
from torch import Tensor, nn

from trueup.data.trees import Tree
from trueup.losses.variants import VARIANTS
from trueup.models.forward import frozen_scorer
from trueup.rewards.protocol import Completions, Scores
from trueup.train.experience import Credit, Experience, join, of_groups, spread_groups, without
from trueup.train.lessons import by_credit, by_pairs
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit
from trueup.train.rollout import RolloutSource
from trueup.train.step import count_units, train_step
from trueup.types import Decoding

DAPO = VARIANTS["dapo"]
PROMPTS, CAP = len(LENGTHS), 6
PLAN = {"missing_eos_penalty": 0.0, "decoding": Decoding(max_new_tokens=CAP)}

Judge = Callable[[Completions], Scores]


def responses(completions: Completions) -> list[tuple[int, tuple[int, ...]]]:
    """(row of its prompt, response) of all responses."""
    return [(row, r) for tree, row in zip(completions.trees, completions.rows, strict=True) for r in tree.responses]


def on_some_prompts(completions: Completions) -> Scores:
    """Responses to every third prompt are scored by their tokens, all others alike."""
    return Scores(torch.tensor([sum(r) / len(r) if row % 3 == 0 else 1.0 for row, r in responses(completions)]))


def alike(completions: Completions) -> Scores:
    return Scores(torch.ones(len(responses(completions))))


def source_with(
    judge: Judge, seen: list[Experience] | None = None, mask_truncated: bool = False, **plan: Any
) -> RolloutSource:
    """Eight prompts, four responses each, by the policy ``causal``; ``seen`` gets what credit is assigned to."""
    assign = grpo_credit(DAPO)

    def watched(model: nn.Module, experience: Experience) -> Credit:
        if seen is not None:
            seen.append(experience)
        return assign(model, experience)

    source = rollouts(torch.float32, 10**6, 4, watched)
    source.reward, source.plan = judge, replace(source.plan, **PLAN, **plan)
    source.use = by_credit(watched, mask_truncated)
    return source


def drawn(source: RolloutSource) -> tuple[list[Tree], dict[str, float], Any]:
    """The trees that are trained on, the metrics, and the one micro-batch of the first step."""
    work = source.draw(causal(torch.float32), 0)
    assert source._buffer is not None
    return source._buffer.trees, dict(work.metrics), work.batches[0] if work.batches else None


def test_by_default_everything_is_trained_on() -> None:
    trees, metrics, batch = drawn(source_with(on_some_prompts))
    assert [len(tree.responses) for tree in trees] == [4] * PROMPTS
    assert batch.trees.num_branches == 4 * PROMPTS
    assert not any(name.startswith("rollout/") for name in metrics)


def test_groups_of_equal_rewards_are_left_out() -> None:
    everything, plain, _ = drawn(source_with(on_some_prompts))
    trees, metrics, batch = drawn(source_with(on_some_prompts, resample_zero_spread=0))
    assert len(trees) == 3, "of eight rows 0, 3 and 6"
    assert [tree for tree in everything if tree in trees] == trees, "the sampling itself is as before"
    assert (metrics["rollout/extra_draws"], metrics["rollout/unused_groups"]) == (0, PROMPTS - 3)
    assert {name: metrics[name] for name in plain if name != "reward_group_std"} == {
        name: value for name, value in plain.items() if name != "reward_group_std"
    }
    of_tree = batch.trees.tree[batch.trees.branch]
    assert all(batch.advantages[of_tree == number].abs().max() > 0.1 for number in range(3))


@pytest.mark.parametrize(("most", "kept", "extra"), [(1, 6, 1), (2, 8, 2), (5, 8, 2)])
def test_further_rollouts_fill_their_places_but_not_without_end(most: int, kept: int, extra: int) -> None:
    source = source_with(on_some_prompts, resample_zero_spread=most)
    trees, metrics, _ = drawn(source)
    assert len(trees) == kept, "three of eight a draw, and never more than were asked for"
    assert metrics["rollout/extra_draws"] == extra
    assert metrics["rollout/unused_groups"] == PROMPTS * (1 + extra) - kept
    assert source._consumed["num_prompts"] == PROMPTS * (1 + extra)
    assert len(set(trees)) == kept, "the same prompts came again, and were answered anew"


def test_the_next_rollout_goes_on_where_the_last_draw_ended() -> None:
    """Two rollouts of two draws visit what four plain rollouts visit, in their order, with their luck."""
    model = causal(torch.float32)
    asked: list[tuple[int, ...]] = []

    def noted(completions: Completions) -> Scores:
        asked.append(tuple(tree.responses[0] for tree in completions.trees))  # type: ignore[arg-type]
        return on_some_prompts(completions)

    for plan in ({"resample_zero_spread": 1}, {}):
        source = source_with(noted, **plan)
        for step in range(2 if plan else 4):
            source.draw(model, step)
    assert asked[:4] == asked[4:]


def test_a_rollout_that_teaches_nothing_makes_no_update() -> None:
    source = source_with(alike, resample_zero_spread=1)
    model = causal(torch.float32)
    before = [p.clone() for p in model.parameters()]
    work = source.draw(model, 0)
    assert not work.batches
    assert work.metrics["rollout/unused_groups"] == 2 * PROMPTS
    metrics = train_step(state_of(model), GrpoObjective(DAPO, 1.0, CAP), work.batches, max_grad_norm=1.0)
    assert metrics["loss"] == metrics["grad_norm"] == 0.0
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_truncated_responses_are_compared_and_not_trained_on() -> None:
    seen: list[Experience] = []
    _, _, everything = drawn(source_with(share_of_even_tokens, seen))
    trees, metrics, batch = drawn(source_with(share_of_even_tokens, mask_truncated=True))
    experience = seen[0]
    cut = int((~experience.ended).sum())
    assert 0 < cut < 4 * PROMPTS
    assert metrics["rollout/unused_truncated"] == cut
    assert metrics["completions/clipped_ratio"] == cut / (4 * PROMPTS)
    assert sum(len(tree.responses) for tree in trees) == batch.trees.num_branches == 4 * PROMPTS - cut
    assert all(len(response) < CAP or response[-1] < 10 for tree in trees for response in tree.responses)
    # Micro-batches are laid out longest tree first: compare what each kind of token has, whatever its place.
    kept = grpo_credit(DAPO)(nn.Module(), experience).advantages[experience.ended[experience.branch]]
    assert sorted(batch.advantages.tolist()) == pytest.approx(sorted(kept.tolist()))
    units = count_units(GrpoObjective(VARIANTS["grpo"], 1.0, CAP), [batch])
    assert units == {"sequence": 4.0 * PROMPTS - cut}
    assert len(everything.advantages) > len(batch.advantages)


def test_pairs_are_the_best_and_the_worst_of_every_group_that_differs() -> None:
    everything, _, _ = drawn(source_with(on_some_prompts))
    source = source_with(on_some_prompts, resample_zero_spread=0)
    source.use = by_pairs()
    trees, metrics, batch = drawn(source)
    paid = [[sum(r) / len(r) for r in tree.responses] for tree in trees]
    assert len(trees) == 3 and metrics["rollout/unused_groups"] == PROMPTS - 3, "ties are not among the pairs"
    for tree, (best, worst) in zip(trees, paid, strict=True):
        (group,) = (whole for whole in everything if whole.prompt == tree.prompt)
        of_group = [sum(r) / len(r) for r in group.responses]
        assert (best, worst) == (max(of_group), min(of_group)) and set(tree.responses) <= set(group.responses)
    assert metrics["pairs/reward_gap"] == pytest.approx(sum(best - worst for best, worst in paid) / 3)
    own = frozen_scorer(causal(torch.float32, seed=1))(batch.trees)
    torch.testing.assert_close(batch.ref_logps, own, rtol=1e-5, atol=1e-5)


def test_length_is_paid_for_near_the_cap() -> None:
    plain, priced = [], []
    drawn(source_with(share_of_even_tokens, plain))
    drawn(source_with(share_of_even_tokens, priced, overlong_buffer=4))
    length = torch.bincount(plain[0].branch)
    difference = priced[0].rewards - plain[0].rewards
    torch.testing.assert_close(difference, -(length - (CAP - 4)).clamp(min=0) / 4)
    assert difference.min() == -1.0 and difference.max() == 0.0
    assert torch.equal(priced[0].scores, plain[0].scores), "what the reward said is reported as it was"


def lived(sizes: list[list[int]], seed: int = 0) -> Experience:
    """Groups of responses with these lengths, and random numbers."""
    rng = torch.Generator().manual_seed(seed)
    counts = torch.tensor([n for group in sizes for n in group])
    trees = [Tree((1, g), tuple(tuple(range(n)) for n in group)) for g, group in enumerate(sizes)]
    tokens, numbers = (torch.rand(n, generator=rng) for n in (int(counts.sum()), len(counts)))
    return Experience(
        trees=trees,
        group=torch.tensor([g for g, group in enumerate(sizes) for _ in group]),
        branch=torch.arange(len(counts)).repeat_interleave(counts),
        old_logps=tokens,
        ref_logps=-tokens,
        scores=numbers,
        parts={"half": numbers / 2},
        rewards=numbers.round(decimals=1),
        ended=numbers > 0.3,
    )


def same(one: Experience, other: Experience) -> bool:
    names = ("group", "branch", "old_logps", "ref_logps", "scores", "rewards", "ended")
    equal = [torch.equal(getattr(one, name), getattr(other, name)) for name in names]
    return all(equal) and list(one.trees) == list(other.trees) and torch.equal(one.parts["half"], other.parts["half"])


def test_taken_apart_and_joined_an_experience_is_itself() -> None:
    whole = lived([[3, 1], [2, 5], [1, 1], [4, 2]])
    alone = [of_groups(whole, torch.arange(4) == g) for g in range(4)]
    assert [len(part.old_logps) for part in alone] == [4, 7, 2, 6]
    assert all(part.group.unique().tolist() == [0] and part.branch.max() == 1 for part in alone)
    assert same(join(alone), whole)
    nothing = of_groups(whole, torch.zeros(4, dtype=torch.bool))
    assert same(join([nothing, *alone, nothing]), whole)


def test_groups_differ_if_any_reward_does() -> None:
    rewards = torch.tensor([1.0, 1.0, 1.0, 1.0 + 1e-8, 0.0, 0.1, -2.0, -2.0])
    experience = replace(lived([[1, 1]] * 4), rewards=rewards)
    assert spread_groups(experience).tolist() == [False, False, True, False]


def test_dropped_responses_leave_the_others_in_their_order() -> None:
    trees = lived([[3, 1], [2, 5], [1, 1]]).trees
    dropped: Tensor = torch.tensor([True, False, True, True, False, False])
    assert without(trees, dropped) == [Tree(trees[0].prompt, trees[0].responses[1:]), trees[2]]
