"""What methods that learn from their own samples share: prompts, a frozen reference, a reward, a rollout source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from trueup.config.schema import RolloutSection
from trueup.data.batching import Batching
from trueup.data.encode import EncodedSet, encode_prompts
from trueup.data.read import read_prompts
from trueup.data.records import Loaded, PromptOnly
from trueup.errors import UserError
from trueup.health.findings import Finding
from trueup.models import hub
from trueup.models.forward import frozen_scorer
from trueup.preflight.outcome import made
from trueup.recipes.bench import Bench, choose_layout
from trueup.recipes.checks import early_findings
from trueup.recipes.reference import frozen_reference, require_same_vocabulary
from trueup.recipes.reward_cards import card_findings
from trueup.recipes.rewards import Scored, load_rewards
from trueup.runtime import fingerprint
from trueup.train.lessons import Use
from trueup.train.protocols import Objective
from trueup.train.rollout import RolloutPlan, RolloutSource
from trueup.types import Decoding


@dataclass(frozen=True)
class Online:
    """The online half of a run; ``early`` are findings about its reward. ``reference`` is None where none is kept."""

    source: RolloutSource
    loaded: Loaded[PromptOnly]
    prompts: EncodedSet
    reference: Any
    facts: dict[str, str]
    early: list[Finding]


def rollout_source(
    bench: Bench,
    section: RolloutSection,
    group_size: int,
    policy_of: Callable[[nn.Module], nn.Module],
    use: Callable[[Batching], Use],
    kl_share: float = 1.0,
) -> Online:
    """Load prompts, reference and reward, and build the source of rollouts.

    Args:
        bench: the prepared run.
        section: settings of its rollouts.
        group_size: responses to a prompt.
        policy_of: the causal model inside what is trained.
        use: what the method makes of a rollout.
        kl_share: share of the prompts whose KL is measured; at 0 no reference is kept in memory.
    """
    config, decoding = bench.config, Decoding(**section.decoding.model_dump())
    _require_usable(bench, section, decoding, kl_share)
    loaded = read_prompts(config.data.path, limit=config.data.limit)
    prompts = encode_prompts(loaded, bench.encoder, bench.bounds(decoding.max_new_tokens))
    reference = frozen_reference(bench, section.reference) if kl_share else None
    scored = Scored(bench.tokenizer, config.model.dtype, bench.device)
    rewards = load_rewards(section.reward, scored, loaded, prompts)
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
        resample_zero_spread=section.resample_zero_spread,
        kl_share=kl_share,
    )
    source = RolloutSource(
        prompts=prompts.trees,
        encoder=bench.encoder,
        plan=plan,
        batching=bench.batching,
        policy_of=policy_of,
        reference=None if reference is None else frozen_scorer(reference, decoding.temperature),
        reward=rewards.reward(bench.batching),
        use=use(bench.batching),
        records=rewards.rows,
    )
    facts = {
        "data": prompts.fingerprint,
        "reference": "none" if reference is None else fingerprint.of_weights(reference),
        "reward": rewards.identity,
    }
    return Online(source, loaded, prompts, reference, facts, card_findings(rewards.parts, config.model.dtype))


def _require_usable(bench: Bench, section: RolloutSection, decoding: Decoding, kl_share: float) -> None:
    """Refuse settings under which nothing could be learnt, or something else than is said."""
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
    if section.reference is not None and not kl_share:
        raise UserError("rollout.reference: with kl_share 0 no reference is kept; leave out one of the two")
    if section.reference is not None:
        require_same_vocabulary("reference", section.reference, bench.tokenizer)


def early_online(
    bench: Bench, section: RolloutSection, method: str, online: Online, objective: Objective, trained: nn.Module
) -> list[Finding]:
    """What can be known before the first update, what is known of the reward included."""
    return early_findings(
        bench,
        method,
        objective,
        online.source,
        online.prompts,
        online.loaded,
        trained=trained,
        reference=online.reference,
        same_model=section.reference is None and online.reference is not None,
        known=[made("reward model", "by the card it was trained with", online.early)],
    )
