"""One rollout before and after credit is assigned: joined, thinned out and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trueup.data.trees import Tree
from trueup.ops.divergences import k1, k3

SPREAD = 1e-6
"""Standard deviation of a group's scores below which they are the same."""


@dataclass(frozen=True)
class Experience:
    """One rollout before credit is assigned: K responses in tree order, N response tokens.

    Attributes:
        trees: prompts with their sampled responses.
        group: i64 ``[K]``, the prompt of each response.
        branch: i64 ``[N]``, the response of each token.
        old_logps: ``[N]``.
        ref_logps: ``[N]``; NaN where the reference was not asked.
        scores: ``[K]``, what the reward said.
        parts: name -> ``[K]``, what the scores were made of; NaN where a part does not apply.
        rewards: ``[K]``, what each response is paid, the penalties for length and missing terminators included.
        ended: bool ``[K]``, the response ended by itself.
    """

    trees: Sequence[Tree]
    group: Tensor
    branch: Tensor
    old_logps: Tensor
    ref_logps: Tensor
    scores: Tensor
    parts: Mapping[str, Tensor]
    rewards: Tensor
    ended: Tensor


@dataclass(frozen=True)
class Credit:
    """What credit assignment adds to an experience: ``[N]`` advantages and, with a critic, returns and values."""

    advantages: Tensor
    returns: Tensor | None = None
    values: Tensor | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


AssignCredit = Callable[[nn.Module, Experience], Credit]
"""(model, experience) -> credit. PPO and GRPO differ here, and in their objective, and nowhere else."""


def join(parts: Sequence[Experience]) -> Experience:
    """One experience of several that were scored alike, in their order."""
    groups = torch.tensor([0, *(len(part.trees) for part in parts)]).cumsum(0)
    responses = torch.tensor([0, *(len(part.rewards) for part in parts)]).cumsum(0)
    return Experience(
        trees=[tree for part in parts for tree in part.trees],
        group=torch.cat([part.group + groups[i] for i, part in enumerate(parts)]),
        branch=torch.cat([part.branch + responses[i] for i, part in enumerate(parts)]),
        old_logps=torch.cat([part.old_logps for part in parts]),
        ref_logps=torch.cat([part.ref_logps for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
        parts={name: torch.cat([part.parts[name] for part in parts]) for name in parts[0].parts},
        rewards=torch.cat([part.rewards for part in parts]),
        ended=torch.cat([part.ended for part in parts]),
    )


def of_groups(experience: Experience, chosen: Tensor) -> Experience:
    """The experience of some groups alone, bool ``[number of groups]``, in their order."""
    responses = chosen[experience.group]
    tokens = responses[experience.branch]
    return Experience(
        trees=[tree for tree, keep in zip(experience.trees, chosen.tolist(), strict=True) if keep],
        group=_renumbered(experience.group[responses]),
        branch=_renumbered(experience.branch[tokens]),
        old_logps=experience.old_logps[tokens],
        ref_logps=experience.ref_logps[tokens],
        scores=experience.scores[responses],
        parts={name: values[responses] for name, values in experience.parts.items()},
        rewards=experience.rewards[responses],
        ended=experience.ended[responses],
    )


def _renumbered(kept: Tensor) -> Tensor:
    """The numbers of what was kept, without the gaps."""
    return kept.unique(return_inverse=True)[1]


def spread_groups(experience: Experience) -> Tensor:
    """Bool, one a group: were its responses paid differently? Only then does a comparison within it teach anything."""
    nothing = torch.zeros(len(experience.trees), dtype=experience.rewards.dtype)
    low, high = (
        nothing.scatter_reduce(0, experience.group, experience.rewards, way, include_self=False)
        for way in ("amin", "amax")
    )
    return high - low > SPREAD


def without(trees: Sequence[Tree], dropped: Tensor) -> list[Tree]:
    """The trees without some of their responses, bool ``[K]``; those that keep none are left out."""
    flags = iter(dropped.tolist())
    kept = [Tree(tree.prompt, tuple(r for r in tree.responses if not next(flags))) for tree in trees]
    return [tree for tree in kept if tree.responses]


def describe(experience: Experience) -> dict[str, float]:
    """The rollout's metrics; names are TRL's where the definition is (docs/metrics.md)."""
    scores = experience.scores
    grouped = scores[torch.argsort(experience.group, stable=True)].view(len(experience.trees), -1)
    lengths = torch.bincount(experience.branch, minlength=len(scores)).float()
    metrics = {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std()) if len(scores) > 1 else 0.0,
        "frac_reward_zero_std": float((grouped.std(dim=1) < SPREAD).float().mean()) if grouped.shape[1] > 1 else 0.0,
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float((~experience.ended).float().mean()),
    }
    return metrics | _describe_kl(experience) | _describe_parts(experience.parts)


def _describe_kl(experience: Experience) -> dict[str, float]:
    """Estimates of the KL divergence from the responses that the reference was asked about; none where it was not."""
    asked = ~experience.ref_logps.isnan()
    if not bool(asked.any()):
        return {}
    old, ref = experience.old_logps[asked], experience.ref_logps[asked]
    return {
        "kl/policy_reference_k1": float(k1(old, ref).mean()),
        "kl/policy_reference_k3": float(k3(old, ref).mean()),
        "kl/sequence_k1": float(k1(old, ref).sum() / len(experience.branch[asked].unique())),
    }


def _describe_parts(parts: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean and standard deviation (n - 1) of each part's scores where it applies, and where that is if not always."""
    out = {}
    for name, values in parts.items():
        seen = values[~values.isnan()]
        if len(seen):
            out[f"rewards/{name}/mean"] = float(seen.mean())
            out[f"rewards/{name}/std"] = float(seen.std()) if len(seen) > 1 else 0.0
        if len(seen) < len(values):
            out[f"rewards/{name}/applicable"] = len(seen) / len(values)
    return out
