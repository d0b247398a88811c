"""Best-of-n sampling: what the best of n draws is worth, estimated from N of them, and how far it may be from one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueup.errors import UserError


def best_of_n(rewards: ArrayLike, values: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return, for every n up to N, the mean value of the draw with the highest reward among n of N draws.

    It is the mean over all subsets of n draws, ties broken evenly: with the draws in ascending order of reward,

        Σ_i value_(i) C(i - 1, n - 1) / C(N, n)

    which is unbiased for independent draws and, as a mean over all subsets, of the least variance (Nakano et al. 2021,
    arXiv 2112.09332). The best of the first n alone is noisier; n draws with replacement from the N are biased.

    Args:
        rewards: ``[..., N]``, what the choice is made by; no NaN.
        values: ``[..., N]``, what the chosen draw is judged by: a gold score, a length; None = the rewards.

    Returns:
        ``[..., N]``, entry n - 1 for n draws: the plain mean first, the value of the best draw last.
    """
    by = np.asarray(rewards, dtype=np.float64)
    worth = by if values is None else np.asarray(values, dtype=np.float64)
    if by.shape != worth.shape or by.ndim == 0 or by.shape[-1] == 0:
        raise UserError(f"best of n: rewards have shape {by.shape} and values {worth.shape}; give one of each a draw")
    if np.isnan(by).any():
        raise UserError("best of n: a reward is NaN, and nothing is better or worse than that")
    order = np.argsort(by, axis=-1, kind="stable")
    ranked, sorted_worth = np.take_along_axis(by, order, -1), np.take_along_axis(worth, order, -1)
    return _even_in_ties(ranked, sorted_worth) @ _weights(by.shape[-1]).T


def kl_bound(n: int) -> float:
    """Return log n - (n - 1)/n, in nats: the KL of the best-of-n policy from the one it samples from is at most this.

    Often quoted as the KL itself (after Stiennon et al. 2020, arXiv 2009.01325). It is an upper bound, approached where
    draws hardly ever repeat or tie; where they do, the KL is smaller (Beirami et al. 2024, arXiv 2401.01879).
    """
    if n < 1:
        raise UserError(f"best of n: n is {n}; it must be at least 1")
    return math.log(n) - (n - 1) / n


def _weights(draws: int) -> NDArray[np.float64]:
    """C(i - 1, n - 1) / C(N, n) at ``[n - 1, i - 1]``: the chance that the draw of rank i is the best of n."""
    rank = np.arange(1, draws + 1)
    out = np.full((draws, draws), 1.0 / draws)
    for n in range(1, draws):
        out[n] = out[n - 1] * (n + 1) / n * np.maximum(rank - n, 0) / (draws - n)
    return out


def _even_in_ties(ranked: NDArray[np.float64], worth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give every draw the mean value of the draws that have its reward; both ``[..., N]`` in ascending order."""
    rows = ranked.reshape(-1, ranked.shape[-1])
    first = np.concatenate([row.searchsorted(row) + start for row, start in zip(rows, _starts(rows), strict=True)])
    tie = np.unique(first, return_inverse=True)[1]
    means = np.bincount(tie, weights=worth.reshape(-1)) / np.bincount(tie)
    return means[tie].reshape(ranked.shape)


def _starts(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """The flat place of each row's first entry: draws of different rows never tie."""
    return np.arange(len(rows)) * rows.shape[1]
