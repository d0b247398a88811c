"""What PPO and GRPO share: prompts, a frozen reference, a reward, and the rollout source over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from trueup.config.schema import RolloutSection
from trueup.data.encode import EncodedSet, encode_prompts
from trueup.data.read import read_prompts
from trueup.errors import UserError
from trueup.models import hub
from trueup.models.forward import frozen_scorer
from trueup.recipes.bench import Bench, choose_layout, frozen_reference
from trueup.rewards.learned import LearnedReward
from trueup.runtime import fingerprint
from trueup.train.batching import Batching
from trueup.train.rollout import AssignCredit, RolloutPlan, RolloutSource
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
    """Load prompts, reference and reward model, and build the source of rollouts."""
    config, decoding = bench.config, Decoding(**section.decoding.model_dump())
    if decoding.temperature == 0:
        raise UserError("rollout.decoding.temperature: 0 samples one answer only, so there is nothing to learn from")
    loaded = read_prompts(config.data.path, limit=config.data.limit)
    prompts = encode_prompts(loaded, bench.encoder, bench.bounds(decoding.max_new_tokens))
    bench.voice.say(prompts.describe())
    choose_layout(bench, prompts)
    reference = frozen_reference(bench, section.reference)
    scorer = hub.load_scorer(section.reward, config.model.dtype, bench.tokenizer).to(bench.device)
    _same_vocabulary(section.reward, bench.tokenizer)
    plan = RolloutPlan(
        prompts=section.prompts_per_rollout,
        group_size=group_size,
        decoding=decoding,
        epochs=section.epochs,
        mini_batches=section.mini_batches,
        missing_eos_penalty=section.missing_eos_penalty,
        seed=config.run.seed,
    )
    source = RolloutSource(
        prompts=prompts.trees,
        encoder=bench.encoder,
        plan=plan,
        batching=bench.batching,
        policy_of=policy_of,
        reference=frozen_scorer(reference, decoding.temperature),
        reward=LearnedReward(scorer, bench.batching),
        assign=assign(bench.batching),
    )
    facts = {
        "data": prompts.fingerprint,
        "reference": fingerprint.of_weights(reference),
        "reward": fingerprint.of_weights(scorer),
    }
    return Online(source, prompts, reference, facts)


def _same_vocabulary(reward: str, tokenizer: Any) -> None:
    """A reward model reads the policy's token ids: another vocabulary would score noise without any sign."""
    theirs = hub.load_tokenizer(reward)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"rollout.reward: {reward} has another vocabulary than the policy; train it with the same tokenizer"
        )
