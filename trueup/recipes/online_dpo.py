"""Online DPO against a reward, from top to bottom: the policy's own responses, best against worst."""

from __future__ import annotations

from trueup.config.schema import OnlineDpoConfig
from trueup.recipes.bench import Voice, load_policy, set_up, train
from trueup.recipes.online import early_online, rollout_source
from trueup.recipes.preference import baseline_of, keep_steps_whole, pair_loss
from trueup.recipes.reference import require_unchanged
from trueup.train.lessons import by_pairs
from trueup.train.loop import RunSummary
from trueup.train.objectives.preference import PreferenceObjective


def run_online_dpo(config: OnlineDpoConfig, voice: Voice) -> RunSummary:
    """Tune a policy on pairs of its own responses (Guo et al. 2024, arXiv 2402.04792); ``final/`` holds it."""
    section, rollout = config.preference, config.rollout
    loss = pair_loss(section)
    bench = set_up(config, voice, load_policy)
    keep_steps_whole(bench, loss)
    # A group of equal rewards has no best and no worst: it is left out, whether or not others take its place.
    ties = {"resample_zero_spread": rollout.resample_zero_spread or 0}
    online = rollout_source(
        bench,
        rollout.model_copy(update=ties),
        group_size=section.group_size,
        policy_of=lambda model: model,
        use=lambda batching: by_pairs(),
    )
    baseline = baseline_of(loss)
    objective = PreferenceObjective(loss, baseline, rollout.decoding.temperature)
    summary = train(
        bench,
        bench.model,
        online.source,
        objective,
        bench.steps(online.prompts),
        facts={"method": "online-dpo", "loss": loss.name, **online.facts},
        early=early_online(bench, rollout, "online-dpo", online, objective, bench.model),
        companions={} if baseline is None else {"baseline": baseline},
    )
    require_unchanged(online.reference, online.facts["reference"])
    return summary
