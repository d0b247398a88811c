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
from trueup.rewards.learned import LearnedReward
from trueup.runtime import fingerprint
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
    loaded = read_prompts(config.data.path, limit=config.data.limit)
    prompts = encode_prompts(loaded, bench.encoder, bench.bounds(decoding.max_new_tokens))
    reference = frozen_reference(bench, section.reference)
    scorer = load_reward("rollout.reward", section.reward, config.model.dtype, bench.tokenizer).to(bench.device)
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


def load_reward(what: str, path: str, dtype: str, tokenizer: Any) -> Any:
    """Load a reward model, after checking that it is one and that it reads the policy's token ids.

    ``what`` is the setting that named it, for errors.
    """
    scorer = hub.load_scorer(path, dtype, tokenizer)
    kind = ", ".join(scorer.config.architectures or ("a model of no known kind",))
    if not kind.endswith("ForSequenceClassification"):
        # transformers would give it a scalar head of random numbers, and training would follow them.
        raise UserError(f"{what}: {path} holds {kind}, not a reward model; train one with 'trueup reward'")
    require_same_vocabulary(what, path, tokenizer)
    return scorer
