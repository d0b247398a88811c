"""GRPO and its relatives, RLOO among them, against a reward, from top to bottom."""

from __future__ import annotations

from trueup.config.policy import GrpoSection, RlooSection
from trueup.config.schema import GrpoConfig, RlooConfig
from trueup.errors import UserError
from trueup.losses.overrides import resolve
from trueup.losses.variants import Variant
from trueup.recipes.bench import Voice, load_policy, set_up, train
from trueup.recipes.online import early_online, rollout_source
from trueup.recipes.reference import require_unchanged
from trueup.train.lessons import by_credit
from trueup.train.loop import RunSummary
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit

KL_SHARE = 0.25
"""Share of the prompts whose KL is measured where nothing is penalised: the reference's forward passes then cost a
quarter of what they would (15 % of a step of SmolLM2-135M if all were scored; docs/log.md)."""


def run_grpo(config: GrpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a variant of GRPO; ``final/`` loads with ``AutoModelForCausalLM``."""
    section = config.grpo
    variant = resolve(section.variant, section.model_dump(exclude={"variant", "group_size", "kl_share"}))
    if section.group_size < 2 and (variant.baseline != "none" or config.rollout.resample_zero_spread is not None):
        raise UserError(
            f"grpo.group_size: 1 response has none of its group to be compared with: baseline {variant.baseline} and "
            "rollout.resample_zero_spread need 2 or more"
        )
    return _run(config, section, variant, "grpo", voice)


def run_rloo(config: RlooConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a leave-one-out baseline; ``final/`` loads with ``AutoModelForCausalLM``."""
    variant = resolve("rloo", config.rloo.model_dump(exclude={"group_size", "kl_share"}), "rloo")
    return _run(config, config.rloo, variant, "rloo", voice)


def _run(
    config: GrpoConfig | RlooConfig, section: GrpoSection | RlooSection, variant: Variant, method: str, voice: Voice
) -> RunSummary:
    if variant.kl_coef and section.kl_share is not None:
        raise UserError(f"{method}.kl_share: a KL penalty of {variant.kl_coef:g} needs the reference of every response")
    bench = set_up(config, voice, load_policy)
    online = rollout_source(
        bench,
        config.rollout,
        group_size=section.group_size,
        policy_of=lambda model: model,
        use=lambda batching: by_credit(grpo_credit(variant), config.rollout.mask_truncated),
        kl_share=1.0 if variant.kl_coef else KL_SHARE if section.kl_share is None else section.kl_share,
    )
    voice.say(variant.describe())
    decoding = config.rollout.decoding
    objective = GrpoObjective(variant, decoding.temperature, decoding.max_new_tokens)
    facts = {"method": method, "variant": variant.describe(), **online.facts}
    early = early_online(bench, config.rollout, method, online, objective, bench.model)
    summary = train(bench, bench.model, online.source, objective, bench.steps(online.prompts), facts, early)
    require_unchanged(online.reference, online.facts["reference"])
    return summary
