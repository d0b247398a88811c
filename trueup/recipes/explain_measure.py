"""What is measured of every rerun, alike in all arms: on the same held-out rows, against the arm's own reference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch

from trueup.config.schema import DpoConfig, RecipeConfig
from trueup.data.batching import Batching, map_responses
from trueup.data.store import response_lengths_of
from trueup.data.template import make_encoder
from trueup.data.trees import Tree
from trueup.evaluate.policy import sequence_kl
from trueup.losses.pairs import PairLoss
from trueup.models import hub
from trueup.models.forward import scorer
from trueup.models.generate import sample
from trueup.recipes.preference import pair_loss
from trueup.runtime.device import prepare
from trueup.runtime.journal import Journal
from trueup.runtime.seeding import generator
from trueup.stats.association import auc
from trueup.train.objectives.preference import pair_logps
from trueup.types import Decoding, PairLogps, TokenTrees

KL_PROMPTS = 16
"""Prompts that are answered once each to measure the KL on own samples."""

TOKENS = 4096
"""Tokens of a forward pass."""


@dataclass(frozen=True)
class Outcome:
    """One number of a rerun.

    Attributes:
        name: its key.
        label: for people.
        unit: of the number, empty where it has none.
        scale: how arms are compared: by ``difference``, or by the ``ratio`` of sizes, whatever their sign.
        floor: of a ratio: what is nearer to 0 counts as this much, so that noise around 0 makes no ratio.
        limit: healthy runs stay below it; None = no such limit is known.
    """

    name: str
    label: str
    unit: str = ""
    scale: Literal["ratio", "difference"] = "difference"
    floor: float = 0.0
    limit: float | None = None

    def is_trouble(self, value: float) -> bool:
        """Is the value beyond what healthy runs show, or, where no limit is known, enough to be lowered?"""
        size = abs(value) if self.scale == "ratio" else value
        return size > (self.floor if self.limit is None else self.limit)

    def amount(self, value: float) -> str:
        """The number with its unit."""
        return f"{value:.2g} {self.unit}".strip()


TOKEN = "nats per token"

_DPO = (
    Outcome("margin/raw_per_token", "raw margin", TOKEN, "ratio", 0.1, 0.5),
    Outcome("margin/raw", "raw margin", "nats per pair", "ratio", 1.0),
    Outcome("rewards/margins", "beta-scaled margin", "", "ratio", 0.1, 6.0),
    Outcome("gradient_weight/saturated", "share of pairs with a gradient weight under 0.01", limit=0.7),
    Outcome("logps/chosen_lift", "rise of the chosen log-probability over the reference", TOKEN),
    Outcome("kl/token", "KL on own samples", TOKEN, "ratio", 0.01),
    Outcome("loss", "held-out loss", "nats"),
    Outcome("reference/support", "surprise of the reference at chosen text, over ln V", limit=0.8),
    Outcome("reference/separability", "chance that the reference rates chosen above rejected"),
    Outcome("margin/chosen_share", "share of the margin that is the chosen side rising"),
    Outcome("margin/length_correlation", "correlation of the margin with the chosen length", limit=0.7),
)
_SFT = (
    Outcome("eval/loss", "held-out loss", TOKEN, "ratio", 0.001),
    Outcome("loss", "training loss", TOKEN, "ratio", 0.001),
)
_REWARD = (
    Outcome("eval/loss", "held-out loss", "nats", "ratio", 0.001),
    Outcome("eval/accuracy", "held-out accuracy"),
    Outcome("accuracy", "training accuracy"),
)
_ONLINE = (
    Outcome("kl/policy_reference_k3", "KL on own samples", TOKEN, "ratio", 1e-4),
    Outcome("reward", "reward"),
    Outcome("entropy", "entropy", TOKEN, "ratio", 0.001),
    Outcome("completions/mean_length", "response length", "tokens", "ratio", 1.0),
)

OUTCOMES: Mapping[str, tuple[Outcome, ...]] = {
    "dpo": _DPO,
    "sft": _SFT,
    "reward": _REWARD,
    "ppo": _ONLINE,
    "grpo": _ONLINE,
    "rloo": _ONLINE,
}
"""Verb -> what is measured; the first is what is explained unless another is asked for."""

Measure = Callable[[Path, RecipeConfig, Sequence[Tree], int], dict[str, float]]
"""(run folder, its settings, held-out trees, replicate) -> outcome name -> value."""


def measure_pairs(run: Path, config: RecipeConfig, held: Sequence[Tree], replicate: int) -> dict[str, float]:
    """Score held-out pairs under the run's final policy and under its reference, and let the policy write."""
    assert isinstance(config, DpoConfig)
    device = prepare(config.run.device, config.run.threads)
    layout = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["layout"]
    batching = Batching(layout, TOKENS, device)
    policy = hub.load_causal(str(run / "final")).to(device)
    reference = hub.load_causal(reference_path(config)).to(device)
    ours, theirs = (_totals(model, held, batching) for model in (policy, reference))
    pairs = _pairs(ours, theirs, response_lengths_of(held))
    vocabulary = policy.get_output_embeddings().weight.shape[0]
    out = pair_outcomes(pairs, pair_loss(config.preference), vocabulary)
    return out | {"kl/token": _own_kl(policy, reference, run, held, batching, (config.run.seed, replicate))}


def pair_outcomes(pairs: PairLogps, loss: PairLoss, vocabulary: int) -> dict[str, float]:
    """The outcomes that are functions of the log-probabilities of held-out pairs.

    The gradient weight is σ of minus what the loss's σ is taken of: β times the margin, or times the margin per token
    where the loss is one of margins per token.
    """
    assert pairs.ref_chosen is not None and pairs.ref_rejected is not None
    chosen, rejected = pairs.chosen - pairs.ref_chosen, pairs.rejected - pairs.ref_rejected
    raw = chosen - rejected
    lift = chosen / pairs.chosen_count
    per_token = lift - rejected / pairs.rejected_count
    scaled = loss.beta * (per_token if loss.name == "sigmoid_norm" else raw)
    support = pairs.ref_chosen / pairs.chosen_count, pairs.ref_rejected / pairs.rejected_count
    return {
        "margin/raw_per_token": float(per_token.mean()),
        "margin/raw": float(raw.mean()),
        "rewards/margins": float(scaled.mean()),
        "gradient_weight/saturated": float((torch.sigmoid(-scaled) < 0.01).double().mean()),
        "logps/chosen_lift": float(lift.mean()),
        "loss": float(loss.total(pairs).mean()),
        "reference/support": -float(support[0].mean()) / math.log(vocabulary),
        "reference/separability": auc(support[0].numpy(), support[1].numpy()),
        "margin/chosen_share": float(chosen.mean() / raw.mean()) if float(raw.mean()) else math.nan,
        "margin/length_correlation": _correlation(raw.numpy(), pairs.chosen_count.double().numpy()),
    }


def measure_journal(run: Path, config: RecipeConfig, held: Sequence[Tree], replicate: int) -> dict[str, float]:
    """Means over the last quarter of the steps that recorded an outcome; of held-out ones the last value."""
    rows = list(Journal(run / "metrics.jsonl").rows())
    out: dict[str, float] = {}
    for name in {outcome.name for outcomes in OUTCOMES.values() for outcome in outcomes}:
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        if values:
            out[name] = values[-1] if name.startswith("eval/") else fmean(values[-max(1, len(values) // 4) :])
    return out


MEASURES: Mapping[str, Measure] = {
    "dpo": measure_pairs,
    **dict.fromkeys(("sft", "reward", "ppo", "grpo", "rloo"), measure_journal),
}


def reference_path(config: DpoConfig) -> str:
    """The model that a run's policy is compared with; the policy's own start where none is named."""
    return config.preference.reference or config.model.path or ""


def _totals(model: Any, held: Sequence[Tree], batching: Batching) -> torch.Tensor:
    """Summed log-probabilities ``[2n]`` of both sides of the pairs, chosen first."""
    score = scorer(model)

    def total(batch: TokenTrees) -> torch.Tensor:
        pairs = pair_logps(score(batch), None, batch)
        return torch.stack([pairs.chosen, pairs.rejected], dim=1).flatten()

    return map_responses(held, total, batching).double().cpu()


def _pairs(ours: torch.Tensor, theirs: torch.Tensor, lengths: np.ndarray) -> PairLogps:
    count = torch.from_numpy(lengths)
    return PairLogps(ours[0::2], ours[1::2], count[0::2], count[1::2], theirs[0::2], theirs[1::2])


def _own_kl(
    policy: Any, reference: Any, run: Path, held: Sequence[Tree], batching: Batching, seed: tuple[int, int]
) -> float:
    """Exact KL(policy || reference) per token over the states of the policy's own samples at temperature 1."""
    encoder = make_encoder(hub.load_tokenizer(str(run / "final")))
    prompts = [tree.prompt for tree in held[:KL_PROMPTS]]
    room = hub.context_length(policy) - max(map(len, prompts))
    longest = max(len(response) for tree in held for response in tree.responses)
    rng = generator(seed[0], "explain", "kl", seed[1], device=batching.device)
    drawn = sample(policy, prompts, 1, Decoding(max_new_tokens=max(1, min(room, longest))), encoder.stops, rng)
    trees = [Tree(prompt, (answer[0].tokens,)) for prompt, answer in zip(prompts, drawn, strict=True)]
    kl = sequence_kl(policy, reference.eval(), trees, batching)
    return float(kl.sum()) / sum(len(tree.responses[0]) for tree in trees)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; NaN where either never varies."""
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(first) and np.ptp(second) else math.nan
