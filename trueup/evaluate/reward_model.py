"""The card of a reward model: how often it is right, how sure, and of what it might be a proxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from trueup.data.batching import Batching, map_responses
from trueup.data.store import response_lengths_of
from trueup.data.trees import Tree
from trueup.health.findings import Finding
from trueup.models.scoring import response_scores
from trueup.stats.association import spearman
from trueup.stats.calibration import expected_calibration_error, reliability
from trueup.stats.intervals import wilson

MIN_PAIRS, MAX_HALF_WIDTH, MAX_GAP, MAX_ECE, MAX_LENGTH_CORRELATION = 300, 0.06, 0.15, 0.15, 0.5
"""Limits of rules R01-R03 of the specification; see docs/diagnoses.md for their origin."""


def reward_card(model: Any, train: Sequence[Tree], held: Sequence[Tree], batching: Batching) -> dict[str, Any]:
    """Score training pairs (at most 1,000) and all held-out pairs, and summarise them."""
    card: dict[str, Any] = {"train": _summary(*_scores(model, train[:1000], batching))}
    if held:
        scores, lengths = _scores(model, held, batching)
        difference = scores[0::2] - scores[1::2]
        probability = 1 / (1 + np.exp(-difference))
        card["heldout"] = {
            **_summary(scores, lengths),
            "ece": float(expected_calibration_error(probability)),
            "length_correlation": _correlation(difference, lengths[0::2] - lengths[1::2]),
            "reliability": [
                {"confidence": float(b.confidence), "accuracy": float(b.accuracy), "count": int(b.count)}
                for b in reliability(probability)
                if b.count
            ],
        }
    return card


def judge_reward_model(card: Mapping[str, Any]) -> list[Finding]:
    """Rules R01 (not validated) and R02 (memorised), R03 (follows length)."""
    held = card.get("heldout")
    if held is None:
        message = "The reward model has no held-out pairs: nobody knows how often it is right."
        remedy = f"Set data.validation to at least {MIN_PAIRS} pairs it is not trained on."
        return [Finding("rm-not-validated", "warning", 0, message, remedy, {}, "rule R01")]
    return [f for f in (_unsure(held), _memorised(card["train"], held), _length(held)) if f is not None]


def _unsure(held: Mapping[str, Any]) -> Finding | None:
    accuracy = held["accuracy"]
    half = (accuracy["high"] - accuracy["low"]) / 2
    if accuracy["n"] >= MIN_PAIRS and half <= MAX_HALF_WIDTH:
        return None
    message = f"Held-out accuracy {accuracy['estimate']:.2f} rests on {accuracy['n']} pairs: +-{half:.2f}."
    remedy = f"Hold out at least {MIN_PAIRS} pairs."
    return Finding("rm-not-validated", "warning", 0, message, remedy, dict(accuracy), "rule R01")


def _memorised(train: Mapping[str, Any], held: Mapping[str, Any]) -> Finding | None:
    gap = train["accuracy"]["estimate"] - held["accuracy"]["estimate"]
    if gap <= MAX_GAP and held["ece"] <= MAX_ECE:
        return None
    message = (
        f"Accuracy is {gap:.2f} higher on training pairs than on held-out ones; calibration error {held['ece']:.2f}."
    )
    remedy = "Do not optimise against this model: more pairs, fewer epochs or a lower learning rate."
    return Finding("rm-memorised", "fatal", 0, message, remedy, {"gap": gap, "ece": held["ece"]}, "rule R02")


def _length(held: Mapping[str, Any]) -> Finding | None:
    correlation = held["length_correlation"]
    if correlation is None or abs(correlation) <= MAX_LENGTH_CORRELATION:
        return None
    message = f"Within a pair, the score difference follows the length difference (rank correlation {correlation:.2f})."
    remedy = "Balance the pairs in length, or report length-controlled scores."
    return Finding("rm-follows-length", "warning", 0, message, remedy, {"length_correlation": correlation}, "rule R03")


@torch.no_grad()
def _scores(model: Any, trees: Sequence[Tree], batching: Batching) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    scores = map_responses(trees, lambda batch: response_scores(model, batch), batching)
    return scores.double().cpu().numpy(), response_lengths_of(trees)


def _summary(scores: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    difference = scores[0::2] - scores[1::2]
    right = float((difference > 0).sum() + 0.5 * (difference == 0).sum())
    interval = wilson(right, len(difference))
    accuracy = {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "n": interval.n}
    return {"accuracy": accuracy, "mean_score": float(scores.mean()), "score_sd": float(scores.std())}


def _correlation(difference: np.ndarray, length_difference: np.ndarray) -> float | None:
    if len(difference) < 3 or not np.ptp(length_difference) or not np.ptp(difference):
        return None
    return float(spearman(difference, length_difference))
