"""Alignment via optimal transport: losses on the sorted values of a batch (Melnyk et al. 2024, arXiv 2406.05882).

They ask that one distribution lie above another at every quantile, so the pairs of a batch do not act alone: splitting
a batch into micro-batches, or over ranks, changes the loss. Entry i of the result belongs to pair i, whatever its rank.
"""

from __future__ import annotations

from torch import Tensor

from trueup.losses.elementary import smoothed_logistic
from trueup.losses.implicit import log_ratios, reference_logps
from trueup.types import PairLogps


def _of_equal_rank(values: Tensor, others: Tensor) -> Tensor:
    """Return, for each of ``values``, the one of ``others`` that has the same rank, ``[B]``; ties by position."""
    rank = values.argsort(stable=True).argsort()
    return others.sort().values[rank]


def aot(pairs: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Paired AOT: -log σ(β (m - m_ref)) between equal ranks of the policy's and the reference's margins.

    m = log π(y_w) - log π(y_l), m_ref the same under the reference; ``label_smoothing`` as in ``sigmoid``.
    At policy = reference: log 2. Chosen gradient: negative everywhere for label_smoothing = 0.
    """
    ref_chosen, ref_rejected = reference_logps(pairs)
    margin, reference = pairs.chosen - pairs.rejected, ref_chosen - ref_rejected
    return smoothed_logistic(beta * (margin - _of_equal_rank(margin, reference)), label_smoothing)


def aot_unpaired(pairs: PairLogps, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Unpaired AOT: -log σ(β (r_w - r_l)) between equal ranks of the chosen and the rejected log-ratios.

    Which chosen response belongs to which rejected one does not matter; ``label_smoothing`` as in ``sigmoid``.
    At policy = reference: log 2. Chosen gradient: negative everywhere for label_smoothing = 0.
    """
    chosen, rejected = log_ratios(pairs)
    return smoothed_logistic(beta * (chosen - _of_equal_rank(chosen, rejected)), label_smoothing)
