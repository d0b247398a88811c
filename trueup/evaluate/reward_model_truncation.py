"""Does a reward model score a response, or where it happens to be cut? The same responses, shortened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trueup.data.batching import Batching, map_responses
from trueup.data.trees import Tree
from trueup.models.scoring import response_scores

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Shares of a response's own tokens, its terminator not counted, that are kept."""

MOST_PAIRS = 200
"""Held-out pairs that are cut: each response is scored ten times."""

_CUT_OFF, _ENDED = 0, 1


@torch.no_grad()
def truncation(model: Any, pairs: Sequence[Tree], terminator: int, batching: Batching) -> dict[str, Any] | None:
    """Score the responses of the first pairs whole and cut to their first tokens, and summarise the change.

    Of n own tokens ``max(1, floor(share * n))`` are kept. ``cut_off`` is a response as a cap leaves it, without a
    terminator; ``ended`` has the terminator put behind the cut. The whole response has all n and its terminator. A
    change is the score of the cut less that of the whole, in standard deviations of the whole responses' scores.

    Args:
        model: a model with a scalar head, in evaluation mode.
        pairs: trees of two responses, chosen first, each ending in the terminator.
        terminator: the id that ends a response.
        batching: how forward passes are cut.

    Returns:
        The entry ``truncation`` of a reward model's card (docs/metrics.md); None where all wholes score alike.
    """
    scores = _cut_scores(model, pairs[:MOST_PAIRS], terminator, batching)
    whole = scores[:, _ENDED, -1]
    spread = float(whole.std())
    if not spread > 0:
        return None
    change = (scores - whole[:, None, None]) / spread
    return {
        "responses": len(whole),
        "score_sd": spread,
        "cut_off": _ending(change[:, _CUT_OFF], scores[:, _CUT_OFF], (*SHARES, 1.0)),
        "ended": _ending(change[:, _ENDED], scores[:, _ENDED], SHARES),
    }


def _cut_scores(model: Any, pairs: Sequence[Tree], terminator: int, batching: Batching) -> np.ndarray:
    """Scores ``[responses, 2, 5]``: cut off and ended, at ``SHARES`` and at 1."""
    trees = [
        Tree(pair.prompt, tuple((*cut, *end) for cut in _cuts(response)))
        for pair in pairs
        for response in pair.responses
        for end in ((), (terminator,))
    ]
    found = map_responses(trees, lambda batch: response_scores(model, batch), batching)
    return found.double().cpu().numpy().reshape(-1, 2, len(SHARES) + 1)


def _cuts(response: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The first tokens of a response at every share, and all of them, without its terminator."""
    own = response[:-1]
    return [*(own[: max(1, int(share * len(own)))] for share in SHARES), own]


def _ending(change: np.ndarray, scores: np.ndarray, told: Sequence[float]) -> dict[str, Any]:
    """Summary over all shares below 1 of changes ``[responses, 5]``, and each share of ``told`` by itself."""
    cuts = change[:, : len(SHARES)]
    # The whole counts as one of the prefixes: its change is 0.
    within = np.concatenate([cuts, np.zeros((len(cuts), 1))], axis=1)
    return {
        "sd_ratio": float(np.sqrt(within.var(axis=1).mean())),
        **_changes(cuts),
        "cuts": [
            {"share": share, **_changes(change[:, place]), "accuracy": _accuracy(scores[:, place])}
            for place, share in enumerate(told)
        ],
    }


def _changes(change: np.ndarray) -> dict[str, float]:
    return {
        "mean_change": float(change.mean()),
        "mean_absolute_change": float(np.abs(change).mean()),
        "beats_whole": float((change > 0).mean()),
    }


def _accuracy(scores: np.ndarray) -> float:
    difference = scores[0::2] - scores[1::2]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
