"""The card of a reward model: how often it is right, how sure, and of what it might be a proxy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trueup.data.batching import Batching, map_responses
from trueup.data.store import response_lengths_of
from trueup.data.trees import Tree
from trueup.evaluate.reward_model_truncation import truncation
from trueup.models.scoring import response_scores
from trueup.stats.association import spearman
from trueup.stats.calibration import expected_calibration_error, reliability
from trueup.stats.intervals import wilson

MOST_TRAINING_PAIRS = 1000
"""Training pairs that are scored."""


def reward_card(
    model: Any,
    train: Sequence[Tree],
    held: Sequence[Tree],
    batching: Batching,
    terminator: int,
    label_ceiling: float | None = None,
) -> dict[str, Any]:
    """Score training pairs (the first 1,000) and all held-out pairs, and summarise them (docs/metrics.md).

    Args:
        model: a model with a scalar head; put into evaluation mode.
        train: pairs that it was trained on, chosen first.
        held: pairs that it was not trained on; may be empty.
        batching: how forward passes are cut.
        terminator: the id that ends a response.
        label_ceiling: share of held-out labels that a perfect judge would agree with, if known.
    """
    model.eval()
    card: dict[str, Any] = {"train": _summary(*_scores(model, train[:MOST_TRAINING_PAIRS], batching))}
    if held:
        card["heldout"] = {
            **_held(*_scores(model, held, batching)),
            "truncation": truncation(model, held, terminator, batching),
            "label_ceiling": label_ceiling,
        }
    return card


def describe_card(card: dict[str, Any]) -> str:
    """One line for people."""
    held = card.get("heldout")
    if held is None:
        return f"reward model: right on {_told(card['train'])} training pairs; no held-out pairs"
    ceiling = held["label_ceiling"]
    most = f" (the labels allow {ceiling:.2f})" if ceiling is not None else ""
    return (
        f"reward model: right on {_told(held)} held-out pairs{most} and on {_told(card['train'])} training pairs; "
        f"calibration error {held['ece']:.2f}"
    )


def _told(part: dict[str, Any]) -> str:
    accuracy = part["accuracy"]
    return f"{accuracy['estimate']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}] of {accuracy['n']}"


@torch.no_grad()
def _scores(model: Any, trees: Sequence[Tree], batching: Batching) -> tuple[np.ndarray, np.ndarray]:
    scores = map_responses(trees, lambda batch: response_scores(model, batch), batching)
    return scores.double().cpu().numpy(), response_lengths_of(trees)


def _summary(scores: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    difference = scores[0::2] - scores[1::2]
    return {
        "accuracy": _accuracy(difference),
        "ties": float((difference == 0).mean()),
        "mean_score": float(scores.mean()),
        "score_sd": float(scores.std()),
    }


def _held(scores: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    difference, longer = scores[0::2] - scores[1::2], lengths[0::2] - lengths[1::2]
    probability = 1 / (1 + np.exp(-difference))
    return {
        **_summary(scores, lengths),
        "ece": float(expected_calibration_error(probability)),
        "length_correlation": _length_correlation(difference, longer),
        "accuracy_chosen_shorter": _accuracy(difference[longer < 0]) if (longer < 0).any() else None,
        "reliability": [
            {"confidence": float(b.confidence), "accuracy": float(b.accuracy), "count": int(b.count)}
            for b in reliability(probability)
            if b.count
        ],
    }


def _accuracy(difference: np.ndarray) -> dict[str, Any]:
    """How often the difference, chosen less rejected, is positive; a tie is half right."""
    right = float((difference > 0).sum() + 0.5 * (difference == 0).sum())
    interval = wilson(right, len(difference))
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}


def _length_correlation(difference: np.ndarray, longer: np.ndarray) -> float | None:
    """Spearman's correlation of score and length of all responses, each less the mean of its pair.

    That is the correlation of the differences taken in both directions, so that it does not matter which side is the
    chosen one: over chosen less rejected alone, a model that prefers the longer response always, by varying amounts,
    would show none if the chosen one is always longer.
    """
    if len(difference) < 3 or not longer.any() or not difference.any():
        return None
    return float(spearman(np.concatenate([difference, -difference]), np.concatenate([longer, -longer])))
