"""What PPO and GRPO share: prompts, a frozen reference, a reward, and the rollout source over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from trueup.config.schema import RolloutSection
from trueup.data.batching import Batching
from trueup.data.encode import EncodedSet, encode_prompts
from trueup.data.read import read_prompts
from trueup.errors import UserError
from trueup.models import hub
from trueup.models.forward import frozen_scorer
from trueup.recipes.bench import Bench, choose_layout
from trueup.recipes.reference import frozen_reference, require_same_vocabulary
from trueup.recipes.rewards import load_rewards
from trueup.runtime import fingerprint
from trueup.train.experience import AssignCredit
from trueup.train.rollout import RolloutPlan, RolloutSource
from trueup.types import Decoding


@dataclass(frozen=True)
class Online:
    """The online half of a run."""

    source: RolloutSource
    prompts: EncodedSet
    reference: Any
    facts: dict[str, str]


def rollout_source(
    bench: Bench,
    section: RolloutSection,
    group_size: int,
    policy_of: Callable[[nn.Module], nn.Module],
    assign: Callable[[Batching], AssignCredit],
) -> Online:
    """Load prompts, reference and reward, and build the source of rollouts."""
    config, decoding = bench.config, Decoding(**section.decoding.model_dump())
    if decoding.temperature == 0:
        raise UserError("rollout.decoding.temperature: 0 samples one answer only, so there is nothing to learn from")
    if decoding.top_k or decoding.top_p < 1:
        raise UserError(
            "rollout.decoding: top_k and top_p cut the distribution that is sampled from, while the update and the "
            "reference score the whole one; the ratio and the KL would both be wrong. Leave them at 0 and 1"
        )
    context = hub.context_length(bench.model)
    if decoding.max_new_tokens >= context:
        raise UserError(
            f"rollout.decoding.max_new_tokens: {decoding.max_new_tokens} leave no room for a prompt in the model's "
            f"context of {context}"
        )
    if section.reference is not None:
        require_same_vocabulary("reference", section.reference, bench.tokenizer)
    loaded = read_prompts(config.data.path, limit=config.data.limit)
    prompts = encode_prompts(loaded, bench.encoder, bench.bounds(decoding.max_new_tokens))
    reference = frozen_reference(bench, section.reference)
    rewards = load_rewards(section.reward, bench, loaded, prompts)
    bench.voice.say(prompts.describe())
    choose_layout(bench, prompts)
    plan = RolloutPlan(
        prompts=section.prompts_per_rollout,
        group_size=group_size,
        decoding=decoding,
        epochs=section.epochs,
        mini_batches=section.mini_batches,
        missing_eos_penalty=section.missing_eos_penalty,
        seed=config.run.seed,
        overlong_buffer=section.overlong_buffer,
        mask_truncated=section.mask_truncated,
        resample_zero_spread=section.resample_zero_spread,
    )
    source = RolloutSource(
        prompts=prompts.trees,
        encoder=bench.encoder,
        plan=plan,
        batching=bench.batching,
        policy_of=policy_of,
        reference=frozen_scorer(reference, decoding.temperature),
        reward=rewards.reward(bench.batching),
        assign=assign(bench.batching),
        records=rewards.rows,
    )
    facts = {
        "data": prompts.fingerprint,
        "reference": fingerprint.of_weights(reference),
        "reward": rewards.identity,
    }
    return Online(source, prompts, reference, facts)
