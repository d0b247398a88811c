"""GRPO and its relatives, RLOO among them, against a reward, from top to bottom."""

from __future__ import annotations

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


def run_grpo(config: GrpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a variant of GRPO; ``final/`` loads with ``AutoModelForCausalLM``."""
    section = config.grpo
    variant = resolve(section.variant, section.model_dump(exclude={"variant", "group_size"}))
    if section.group_size < 2 and (variant.baseline != "none" or config.rollout.resample_zero_spread is not None):
        raise UserError(
            f"grpo.group_size: 1 response has none of its group to be compared with: baseline {variant.baseline} and "
            "rollout.resample_zero_spread need 2 or more"
        )
    return _run(config, variant, section.group_size, "grpo", voice)


def run_rloo(config: RlooConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a leave-one-out baseline; ``final/`` loads with ``AutoModelForCausalLM``."""
    variant = resolve("rloo", config.rloo.model_dump(exclude={"group_size"}), "rloo")
    return _run(config, variant, config.rloo.group_size, "rloo", voice)


def _run(config: GrpoConfig | RlooConfig, variant: Variant, group_size: int, method: str, voice: Voice) -> RunSummary:
    bench = set_up(config, voice, load_policy)
    online = rollout_source(
        bench,
        config.rollout,
        group_size=group_size,
        policy_of=lambda model: model,
        use=lambda batching: by_credit(grpo_credit(variant), config.rollout.mask_truncated),
    )
    voice.say(variant.describe())
    decoding = config.rollout.decoding
    objective = GrpoObjective(variant, decoding.temperature, decoding.max_new_tokens)
    facts = {"method": method, "variant": variant.describe(), **online.facts}
    early = early_online(bench, config.rollout, method, online, objective, bench.model)
    summary = train(bench, bench.model, online.source, objective, bench.steps(online.prompts), facts, early)
    require_unchanged(online.reference, online.facts["reference"])
    return summary
