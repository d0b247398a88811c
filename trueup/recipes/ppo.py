"""PPO against a reward model, from top to bottom."""

from __future__ import annotations

from trueup.config.schema import PpoConfig
from trueup.models.actor_critic import ActorCritic
from trueup.recipes.bench import Voice, load_policy, set_up, train
from trueup.recipes.online import rollout_source
from trueup.recipes.reference import require_unchanged
from trueup.train.loop import RunSummary
from trueup.train.objectives.ppo import PpoObjective, ppo_credit


def run_ppo(config: PpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a value head of its own; ``final/`` holds the policy alone."""
    section, temperature = config.ppo, config.rollout.decoding.temperature
    bench = set_up(config, voice, load_policy)
    trained = ActorCritic(bench.model, separate=section.critic == "separate").to(bench.device)
    online = rollout_source(
        bench,
        config.rollout,
        group_size=1,
        policy_of=lambda model: model.policy,  # type: ignore[arg-type, return-value]
        assign=lambda batching: ppo_credit(batching, section.kl_coef, section.gamma, section.lam),
    )
    objective = PpoObjective(section.clip, section.value_clip, section.vf_coef, temperature)
    facts = {"method": "ppo", **online.facts}
    summary = train(bench, trained, online.source, objective, bench.steps(online.prompts), facts)
    require_unchanged(online.reference, online.facts["reference"])
    return summary
