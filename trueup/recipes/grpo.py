"""GRPO against a reward model, from top to bottom."""

from __future__ import annotations

from trueup.config.schema import GrpoConfig
from trueup.recipes.bench import Voice, load_policy, set_up, train
from trueup.recipes.online import rollout_source
from trueup.recipes.reference import require_unchanged
from trueup.train.loop import RunSummary
from trueup.train.objectives.grpo import GrpoObjective, grpo_credit


def run_grpo(config: GrpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy with group-relative advantages; ``final/`` loads with ``AutoModelForCausalLM``."""
    section, temperature = config.grpo, config.rollout.decoding.temperature
    bench = set_up(config, voice, load_policy)
    online = rollout_source(
        bench,
        config.rollout,
        group_size=section.group_size,
        policy_of=lambda model: model,
        assign=lambda batching: grpo_credit(section.scale_rewards),
    )
    objective = GrpoObjective(section.clip_low, section.clip_high, section.kl_coef, temperature)
    facts = {"method": "grpo", **online.facts}
    summary = train(bench, bench.model, online.source, objective, bench.steps(online.prompts), facts)
    require_unchanged(online.reference, online.facts["reference"])
    return summary
