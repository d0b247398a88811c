"""Preference losses that need no reference: functions of the policy's own log-probabilities and lengths.

Every function takes ``PairLogps`` of B pairs, ignores its reference fields, and returns the unreduced loss ``[B]``.
The likelihood terms are means over the tokens of one response, so every pair weighs the same; TRL pools the tokens of
the batch, so its longer responses weigh more.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from trueup.losses.elementary import log_odds, per_token
from trueup.types import PairLogps


def sft(pairs: PairLogps, *, beta: float | None = None) -> Tensor:
    """Negative log-likelihood of the chosen response per token: -log π(y_w)/|y_w|; the regulariser of mixtures.

    ``beta`` is accepted so that all parts of a mixture are called alike; there is nothing that it could scale, and
    ``catalog.check_options`` refuses it where a user gives it to this loss. Chosen gradient: negative everywhere.
    """
    return -per_token(pairs.chosen, pairs.chosen_count)


def simpo(pairs: PairLogps, *, beta: float, gamma: float = 1.0) -> Tensor:
    """SimPO: -log σ(β log π(y_w)/|y_w| - β log π(y_l)/|y_l| - γ), γ the target margin.

    Meng et al. 2024, arXiv 2405.14734, Eq. 6; the authors tune γ/β, from 0.5. TRL's CPO trainer adds 1.0 times the
    likelihood term to its SimPO unless ``cpo_alpha`` is 0; this is the paper's loss.
    Chosen gradient: negative everywhere.
    """
    chosen = per_token(pairs.chosen, pairs.chosen_count)
    rejected = per_token(pairs.rejected, pairs.rejected_count)
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def orpo(pairs: PairLogps, *, beta: float) -> Tensor:
    """ORPO: -log π(y_w)/|y_w| - β log σ(log odds(y_w) - log odds(y_l)), odds = p/(1 - p).

    p is the geometric mean of a response's token probabilities; β is the paper's λ. Odds are limited to a million,
    where p is one within rounding. TRL takes its likelihood term over prompt and response; this is over the response.
    Hong et al. 2024, arXiv 2403.07691, Eq. 6 and 7. Chosen gradient: negative everywhere.
    """
    chosen = per_token(pairs.chosen, pairs.chosen_count)
    rejected = per_token(pairs.rejected, pairs.rejected_count)
    return -chosen - beta * F.logsigmoid(log_odds(chosen) - log_odds(rejected))


def cpo(pairs: PairLogps, *, beta: float, sft_weight: float = 1.0) -> Tensor:
    """CPO: -log σ(β log π(y_w) - β log π(y_l)) - c log π(y_w)/|y_w|, c = ``sft_weight``.

    DPO with a uniform reference, which cancels, and a likelihood term. The paper writes that term as a sum over tokens;
    its authors' code takes a mean, as here. Xu et al. 2024, arXiv 2401.08417. Chosen gradient: negative everywhere.
    """
    return -F.logsigmoid(beta * (pairs.chosen - pairs.rejected)) + sft_weight * sft(pairs)
