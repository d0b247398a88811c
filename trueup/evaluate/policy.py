"""Evaluate a policy on fixed prompts: sample, score, measure the distance to the reference; every item is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trueup.data.batching import Batching, map_responses
from trueup.data.encode import EncodedSet
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.evaluate.suites import Suite
from trueup.models.forward import head_of, hidden_states
from trueup.models.generate import sample
from trueup.ops.logprobs import linear_exact_kl, sum_by_branch
from trueup.rewards.protocol import Completions, Reward, Scores
from trueup.runtime.seeding import generator
from trueup.types import Decoding, TokenTrees


@dataclass(frozen=True)
class EvaluationProtocol:
    """How every arm of a comparison is sampled: the same for all, recorded with the results."""

    decoding: Decoding
    draws: int
    seed: int


def evaluate_policy(
    policy: Any,
    suite: Suite,
    prompts: EncodedSet,
    encoder: Encoder,
    batching: Batching,
    protocol: EvaluationProtocol,
    reference: Any | None = None,
    reward: Reward | None = None,
) -> list[dict[str, Any]]:
    """Return one record for each prompt and draw.

    Fields: ``prompt_id``, ``draw``, ``family``, ``template``, ``prompt``, ``response``, ``length`` (tokens, terminator
    included), ``ended``, ``truncated``, and where known ``gold`` with its ``gold/<part>``, ``proxy`` (what the reward
    says) with its ``proxy/<part>`` (before weights; None where the part does not apply), ``kl`` (exact KL of policy
    from reference, summed over the states of this response, nats; at temperature 1).
    """
    rng = generator(protocol.seed, "evaluate", device=batching.device)
    drawn = sample(policy, [t.prompt for t in prompts.trees], protocol.draws, protocol.decoding, encoder.stops, rng)
    trees = [Tree(t.prompt, tuple(s.tokens for s in group)) for t, group in zip(prompts.trees, drawn, strict=True)]
    flat = [s for group in drawn for s in group]
    columns: dict[str, Sequence[float | None]] = {}
    records = suite.prompts.pick(prompts.row_numbers)
    if reference is not None:
        columns["kl"] = sequence_kl(policy, reference, trees, batching).tolist()
    if reward is not None:
        ended = tuple(s.ended for s in flat)
        columns |= _proxy(reward(Completions(trees, prompts.row_numbers.tolist(), ended, encoder, records)))
    items = []
    for place, (record, group) in enumerate(zip(records, drawn, strict=True)):
        for draw, answer in enumerate(group):
            text = encoder.text(answer.tokens)
            index = place * protocol.draws + draw
            items.append(
                {
                    "prompt_id": record.id,
                    "draw": draw,
                    "family": str(record.meta.get("family", "")),
                    "template": str(record.meta.get("template", "")),
                    "prompt": record.prompt[-1].content,
                    "response": text,
                    **_gold(suite, record, text, answer.ended),
                    **{name: values[index] for name, values in columns.items()},
                    "length": len(answer.tokens),
                    "ended": answer.ended,
                    "truncated": not answer.ended,
                }
            )
    return items


@torch.no_grad()
def sequence_kl(policy: Any, reference: Any, trees: Sequence[Tree], batching: Batching) -> Tensor:
    """Exact KL(policy || reference) of the next-token distributions, summed over each response's states ``[K]``.

    On the policy's own samples its mean is an unbiased estimate of the KL of whole responses, with less variance than
    any estimate from the sampled tokens alone.
    """
    was_training = policy.training
    policy.eval()

    def score(batch: TokenTrees) -> Tensor:
        ours, theirs = hidden_states(policy, batch)[batch.source], hidden_states(reference, batch)[batch.source]
        per_token = linear_exact_kl(ours, head_of(policy), theirs, head_of(reference))
        return sum_by_branch(per_token, batch.branch, batch.num_branches).total

    out = map_responses(trees, score, batching)
    policy.train(was_training)
    return out


def summarise(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over items: gold and proxy with their parts, ``kl/sequence``, ``kl/token``, length, EOS, truncation.

    A part of the proxy has its mean over the items that it applies to, and is left out where there are none.
    """
    out = {}
    for name in (name for name in items[0] if name.split("/")[0] in ("gold", "proxy", "length")):
        values = [float(item[name]) for item in items if item[name] is not None]
        if values:
            out[name] = sum(values) / len(values)
    if "kl" in items[0]:
        total = sum(item["kl"] for item in items)
        out["kl/sequence"] = total / len(items)
        out["kl/token"] = total / sum(item["length"] for item in items)
    out["eos_rate"] = sum(item["ended"] for item in items) / len(items)
    out["truncation_rate"] = 1 - out["eos_rate"]
    return out


def _proxy(scores: Scores) -> dict[str, list[float | None]]:
    parts = {f"proxy/{name}": values for name, values in scores.parts.items()}
    columns = {"proxy": scores.total, **parts}
    return {name: [None if math.isnan(x) else x for x in values.tolist()] for name, values in columns.items()}


def _gold(suite: Suite, record: Any, text: str, ended: bool) -> dict[str, float]:
    if suite.gold is None:
        return {}
    parts = suite.gold(record, text, ended)
    return {"gold": sum(parts.values()), **{f"gold/{name}": value for name, value in parts.items()}}
