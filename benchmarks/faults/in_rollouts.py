"""Faults of rollouts and of the update made of them: sampling, old log-probabilities, advantages, critic, KL."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from faults.fault import Fault
from faults.in_optimisation import faster
from faults.in_reward import scored
from faults.stage import Stage
from trueup.losses import policy
from trueup.models import generate
from trueup.models.actor_critic import ActorCritic
from trueup.models.decoder import Decoder
from trueup.ops import baselines, divergences, returns
from trueup.ops.divergences import ESTIMATORS
from trueup.runtime import seeding
from trueup.train.kl_control import KlControl
from trueup.train.objectives.ppo import PpoCredit
from trueup.train.rollout import RolloutSource

CAP = "rollout.decoding"
ONLINE = ("grpo", "ppo")


def sampled(change: Callable[..., Any]) -> Callable[[Stage, float], None]:
    """A fault of the sampler: (its strength, itself, model, prompts, draws, decoding, stops, generator) -> samples."""

    def inject(stage: Stage, strength: float) -> None:
        def wrap(old: Any) -> Any:
            def draw(self: Any, model: Any) -> Any:
                self.sampler = lambda *arguments: change(strength, generate.sample, *arguments)
                return old(self, model)

            return draw

        stage.wrap(RolloutSource, "_draw", wrap)

    return inject


def _each(samples: Any, change: Callable[[Any], Any]) -> Any:
    return [[change(sample) for sample in group] for group in samples]


def _top_k(whole: bool) -> Callable[..., Any]:
    """Sample among the k best; the log-probabilities are those of all tokens, or of the k."""

    def change(k: float, sample: Any, model: Any, prompts: Any, draws: int, decoding: Any, *rest: Any) -> Any:
        out = sample(model, prompts, draws, replace(decoding, top_k=int(k)), *rest)
        return _each(out, lambda s: replace(s, logps=s.full_logps)) if whole else out

    return change


def _cold(temperature: float, sample: Any, model: Any, prompts: Any, draws: int, decoding: Any, *rest: Any) -> Any:
    return sample(model, prompts, draws, replace(decoding, temperature=temperature), *rest)


def _noisy(sigma: float, sample: Any, *arguments: Any) -> Any:
    rng = torch.Generator().manual_seed(1)
    return _each(
        sample(*arguments), lambda s: replace(s, logps=s.logps + sigma * torch.randn(s.logps.shape, generator=rng))
    )


def _never_ended(_: float, sample: Any, *arguments: Any) -> Any:
    """The flag says that every response ended."""
    return _each(sample(*arguments), lambda s: replace(s, ended=True))


def _repetition(penalty: float, sample: Any, model: Any, prompts: Any, draws: int, *rest: Any) -> Any:
    head = model.get_output_embeddings()

    def discourage(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        return out * penalty

    hook = model.base_model.norm.register_forward_hook(discourage)
    try:
        return sample(model, prompts, draws, *rest)
    finally:
        hook.remove()
        del head


def stale_weights(stage: Stage, rollouts: float) -> None:
    """The sampler's weights are brought up to date only every so many rollouts."""
    held: list[Any] = [0, None]

    def wrap(old: Any) -> Any:
        def draw(self: Any, model: Any) -> Any:
            if held[1] is None or held[0] % int(rollouts) == 0:
                held[1] = copy.deepcopy(self.policy_of(model)).eval()
            held[0] += 1
            self.sampler = lambda model, *rest: generate.sample(held[1], *rest)
            return old(self, model)

        return draw

    stage.wrap(RolloutSource, "_draw", wrap)


def same_luck(stage: Stage, _: float) -> None:
    """Every rollout begins with the same seed."""

    def wrap(old: Any) -> Any:
        def made(seed: int, *stream: object, **options: Any) -> Any:
            return old(seed, *(stream[:1] if stream[0] == "rollout" else stream), **options)

        return made

    stage.wrap(seeding, "generator", wrap)


def lived(change: Callable[[Any, float], Any]) -> Callable[[Stage, float], None]:
    """A fault of what is kept of a rollout."""

    def inject(stage: Stage, strength: float) -> None:
        def wrap(old: Any) -> Any:
            return lambda self, model: change(old(self, model), strength)

        stage.wrap(RolloutSource, "_draw", wrap)

    return inject


def _tiled(experience: Any, _: float) -> Any:
    """Rewards in the order of tiled prompts, groups in that of repeated ones."""
    groups = len(experience.trees)
    return replace(experience, rewards=experience.rewards.view(groups, -1).T.flatten())


def _old_noise(experience: Any, sigma: float) -> Any:
    rng = torch.Generator().manual_seed(2)
    noise = sigma * torch.randn(experience.old_logps.shape, generator=rng)
    return replace(experience, old_logps=experience.old_logps + noise)


def always_one(stage: Stage, _: float) -> None:
    """The ratio is taken against the policy as it is: always 1, nothing is ever clipped."""
    stage.wrap(
        policy,
        "clipped_surrogate",
        lambda old: lambda logps, before, *rest, **o: old(logps, logps.detach(), *rest, **o),
    )
    from trueup.losses import ratios

    stage.wrap(ratios, "token_ratio", lambda old: lambda logps, before, *rest: old(logps, logps.detach(), *rest))


def _advantage(change: Callable[[Any, Tensor], Tensor]) -> Callable[[Stage, float], None]:
    """A fault of credit assignment."""

    def inject(stage: Stage, _: float) -> None:
        if stage.method == "ppo":
            stage.wrap(
                PpoCredit,
                "__call__",
                lambda old: lambda self, model, e: _credited(change, e, old(self, model, e)),
            )
        else:
            stage.wrap(baselines, "advantages", lambda old: lambda paid, *rest: change(paid, old(paid, *rest)))

    return inject


def _credited(change: Callable[[Any, Tensor], Tensor], experience: Any, credit: Any) -> Any:
    return replace(credit, advantages=change(experience, credit.advantages))


def _whitened(_: Any, advantages: Tensor) -> Tensor:
    return (advantages - advantages.mean() - 0.3) / (advantages.std() + 1e-8)


def kl_sign(stage: Stage, _: float) -> None:
    """The penalty is a reward."""
    if stage.method == "ppo":
        stage.replace(KlControl, "value", property(lambda self: -self._value))
    else:
        stage.entry(ESTIMATORS, "k3", lambda logps, ref: -divergences.k3(logps, ref))


def kl_off(stage: Stage, _: float) -> None:
    """The coefficient of the settings does not arrive."""
    if stage.method == "ppo":
        stage.replace(KlControl, "value", property(lambda self: 0.0))
    else:
        stage.entry(ESTIMATORS, "k3", lambda logps, ref: 0.0 * logps.detach())


def k1_in_loss(stage: Stage, _: float) -> None:
    """An estimator whose gradient is zero on average."""
    stage.entry(ESTIMATORS, "k3", divergences.k1)


def paid_early(stage: Stage, _: float) -> None:
    """The reward of a response is paid at its first token instead of its last."""

    def made(self: Any, experience: Any, penalty: Tensor) -> Tensor:
        first = torch.ones_like(experience.branch, dtype=torch.bool)
        first[1:] = experience.branch[1:] != experience.branch[:-1]
        out = -penalty if self.kl_in_reward else torch.zeros_like(penalty)
        out[first] += experience.rewards
        return out

    stage.replace(PpoCredit, "_paid", made)


def paid_next_door(stage: Stage, _: float) -> None:
    """The reward lands on the token after the last: the first one of the next response."""

    def made(self: Any, experience: Any, penalty: Tensor) -> Tensor:
        last = torch.ones_like(experience.branch, dtype=torch.bool)
        last[:-1] = experience.branch[1:] != experience.branch[:-1]
        out = -penalty if self.kl_in_reward else torch.zeros_like(penalty)
        out[(last.nonzero().squeeze(1) + 1) % len(out)] += experience.rewards
        return out

    stage.replace(PpoCredit, "_paid", made)


def leaking_gae(stage: Stage, _: float) -> None:
    """Responses are one long episode: values and advantages run over their ends."""

    def wrap(old: Any) -> Any:
        return lambda rewards, values, branch, number, *rest: old(rewards, values, torch.zeros_like(branch), 1, *rest)

    stage.wrap(returns, "gae", wrap)


def dead_critic(stage: Stage, _: float) -> None:
    """Values are constants to the optimiser."""
    stage.wrap(ActorCritic, "_value", lambda old: lambda self, hidden: old(self, hidden.detach() * 0.0))


def loud_critic(stage: Stage, weight: float) -> None:
    """A shared critic that starts at random, with a heavy loss."""
    stage.set("ppo.vf_coef", weight)

    def wrap(old: Any) -> Any:
        def init(self: Any, *arguments: Any, **options: Any) -> None:
            old(self, *arguments, **options)
            nn.init.normal_(self.value_head.weight, 0.0, 1.0)

        return init

    stage.wrap(ActorCritic, "__init__", wrap)


def left_padded(stage: Stage, _: float) -> None:
    """The sampler counts padding as positions."""

    def wrap(old: Any) -> Any:
        def init(self: Any, *arguments: Any) -> None:
            old(self, *arguments)
            self.position = torch.full_like(self.position, int(self.position.max()) + 2)

        return init

    stage.wrap(Decoder, "__init__", wrap)


def greedy_groups(stage: Stage, temperature: float) -> None:
    """Responses of a group are nearly the same."""
    stage.set(CAP, {"max_new_tokens": 40, "temperature": temperature})


def free_fall(stage: Stage, times: float) -> None:
    """A high rate and nothing that keeps the entropy up."""
    faster(stage, times)
    stage.set("grpo.kl_coef", 0.0)


def short(stage: Stage, cap: float) -> None:
    """A cap that hardly any answer fits under."""
    stage.set(CAP, {"max_new_tokens": int(cap)})


POLICY = "policy update"

FAULTS = (
    Fault("F31", "padding counted as positions", ("grpo",), "rollout", left_padded, also=("log-probabilities",)),
    Fault("F84", "top-k sampling, scored in full", ONLINE, "rollout", sampled(_top_k(True)), (2.0, 20.0), "k"),
    Fault("F106", "top-k sampling, renormalised", ONLINE, "rollout", sampled(_top_k(False)), (3.0, 20.0), "k"),
    Fault("F105", "temperature in the sampler only", ONLINE, "rollout", sampled(_cold), (0.6,), "temperature"),
    Fault(
        "F104", "sampler's log-probabilities are noisy", ONLINE, "rollout", sampled(_noisy), (0.01, 0.1, 0.5), "nats"
    ),
    Fault(
        "F107", "sampler scales logits by its own setting", ("grpo",), "rollout", sampled(_repetition), (1.1,), "factor"
    ),
    Fault("F109", "sampler's weights are old", ONLINE, "rollout", stale_weights, (4.0, 1000.0), "rollouts"),
    Fault(
        "F119",
        "every rollout has the same luck",
        ("grpo",),
        "rollout",
        same_luck,
        invalid="samples are not independent",
    ),
    Fault("F111", "cap too small", ONLINE, "rollout", short, (8.0, 16.0), "tokens"),
    Fault(
        "F82",
        "all responses said to have ended",
        ("grpo",),
        "rollout",
        sampled(_never_ended),
        settings={CAP: {"max_new_tokens": 16}},
        also=("reward",),
        invalid="the penalty of the settings is not paid",
    ),
    Fault(
        "F87",
        "old log-probabilities are noisy",
        ONLINE,
        POLICY,
        lived(_old_noise),
        (0.05, 0.5),
        "nats",
        also=("rollout",),
    ),
    Fault("F88", "ratio always 1", ONLINE, POLICY, always_one),
    Fault("F81", "reward paid at the first token", ("ppo",), POLICY, paid_early, also=("reward",)),
    Fault("F81", "reward paid one token too late", ("ppo",), POLICY, paid_next_door, also=("reward",)),
    Fault("F83", "episodes run into each other", ("ppo",), POLICY, leaking_gae),
    Fault("F89", "dead critic", ("ppo",), POLICY, dead_critic, also=("optimisation",)),
    Fault("F90", "loud critic", ("ppo",), POLICY, loud_critic, (10.0,), "weight", also=("optimisation",)),
    Fault(
        "F91",
        "reward times fifty",
        ("ppo",),
        "reward",
        scored(lambda completions, scores, rng, s: scores * s),
        (50.0,),
        "times",
        also=(POLICY,),
    ),
    Fault("F94", "advantages negated", ONLINE, POLICY, _advantage(lambda e, a: -a), also=("objective",)),
    Fault("F86", "whitened with padding", ("ppo",), POLICY, _advantage(_whitened)),
    Fault("F99", "groups mixed", ("grpo", "rloo"), POLICY, lived(_tiled), also=("reward",)),
    Fault(
        "F96",
        "noise among equal rewards",
        ("grpo",),
        "reward",
        scored(lambda completions, scores, rng, s: s * torch.randn(len(scores), generator=rng)),
        (1e-3,),
        "noise",
        also=(POLICY,),
    ),
    Fault("F101", "whitened after grouping", ("grpo",), POLICY, _advantage(_whitened)),
    Fault("F85", "KL penalty is a reward", ONLINE, "objective", kl_sign, also=("reference", POLICY), settings={}),
    Fault(
        "F103",
        "KL penalty off",
        ONLINE,
        "objective",
        kl_off,
        also=("reference",),
        invalid="not the method that was asked for",
    ),
    Fault(
        "F102",
        "k1 in the loss",
        ("grpo",),
        "objective",
        k1_in_loss,
        also=("reference",),
        invalid="the penalty holds nothing back",
    ),
    Fault(
        "F118", "entropy collapses", ("grpo",), "rollout", free_fall, (10.0,), "times", also=(POLICY, "optimisation")
    ),
    Fault("F95", "groups all the same", ("grpo",), "rollout", greedy_groups, (0.05,), "temperature", also=("reward",)),
)
