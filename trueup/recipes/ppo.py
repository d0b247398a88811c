"""PPO against a reward, from top to bottom."""

from __future__ import annotations

from trueup.config.schema import PpoConfig
from trueup.data.batching import Batching
from trueup.models.actor_critic import ActorCritic
from trueup.recipes.bench import Voice, load_policy, set_up, train
from trueup.recipes.online import early_online, rollout_source
from trueup.recipes.reference import require_unchanged
from trueup.train.kl_control import KlControl
from trueup.train.lessons import Use, by_credit
from trueup.train.loop import RunSummary
from trueup.train.objectives.ppo import PpoCredit, PpoObjective


def run_ppo(config: PpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy with a value head of its own; ``final/`` holds the policy alone."""
    section = config.ppo
    bench = set_up(config, voice, load_policy)
    trained = ActorCritic(bench.model, separate=section.critic == "separate").to(bench.device)
    kl_coef, in_reward = KlControl(section.kl_coef, section.kl_target), section.kl_placement == "reward"

    def credit(batching: Batching) -> Use:
        assign = PpoCredit(
            batching=batching,
            kl_coef=kl_coef,
            kl_in_reward=in_reward,
            gamma=section.gamma,
            lam=section.lam,
            whiten_rewards=section.whiten_rewards,
            whiten_advantages=section.whiten_advantages,
        )
        return by_credit(assign, config.rollout.mask_truncated)

    online = rollout_source(
        bench,
        config.rollout,
        group_size=1,
        policy_of=lambda model: model.policy,  # type: ignore[arg-type, return-value]
        use=credit,
    )
    objective = PpoObjective(
        clip=section.clip,
        value_clip=section.value_clip,
        vf_coef=section.vf_coef,
        temperature=config.rollout.decoding.temperature,
        kl_coef=None if in_reward else kl_coef,
        kl_estimator=section.kl_estimator or "k3",
    )
    facts = {"method": "ppo", **online.facts}
    steps = bench.steps(online.prompts)
    companions = {"kl_coef": kl_coef}
    early = early_online(bench, config.rollout, "ppo", online, objective, trained)
    summary = train(bench, trained, online.source, objective, steps, facts, early, companions=companions)
    require_unchanged(online.reference, online.facts["reference"])
    return summary
