"""A world so small that every response can be listed: the numeric oracle of the tests.

Sums over responses replace samples, so the normaliser, the optimal policy and the KL divergence are exact.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueup.errors import UserError

PAD, BOS, EOS = 0, 1, 2
FIRST_PROMPT = 3

BIGRAM_SCALE = 0.7  # against letter values of scale 1: strong enough that a policy without memory cannot be optimal
LENGTH_SCALE = 0.5  # reward per letter, drawn per prompt: some prompts want short responses, some long ones


@dataclass(frozen=True)
class EnumerableWorld:
    """P prompts, K listed responses, and a reward for each of the P x K.

    Token ids: pad 0, BOS 1, EOS 2, then one token per prompt, then the letters that responses are made of.

    Attributes:
        alphabet: Number of letters.
        max_length: Most letters of a response; each response has at least one, and then EOS.
        num_prompts: P.
        seed: Of the rewards.
    """

    alphabet: int = 6
    max_length: int = 3
    num_prompts: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("alphabet", "max_length", "num_prompts"):
            if getattr(self, field) < 1:
                raise UserError(f"EnumerableWorld.{field} is {getattr(self, field)}; it must be at least 1")

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return FIRST_PROMPT + self.num_prompts + self.alphabet

    @property
    def letters(self) -> range:
        """The token ids that responses are made of."""
        return range(FIRST_PROMPT + self.num_prompts, self.vocab_size)

    def prompts(self) -> list[tuple[int, int]]:
        """Return the P prompts, each BOS and its own token."""
        return [(BOS, FIRST_PROMPT + p) for p in range(self.num_prompts)]

    def responses(self) -> list[tuple[int, ...]]:
        """Return the K responses, EOS included, shortest first."""
        lengths = range(1, self.max_length + 1)
        return [(*word, EOS) for n in lengths for word in itertools.product(self.letters, repeat=n)]

    def rewards(self) -> NDArray[np.float64]:
        """Return the rewards ``[P,K]``: letter values and a length term that depend on the prompt, bonuses of bigrams.

        Shifted and scaled once for all, to mean 0 and standard deviation 1 over the whole table.
        """
        rng = np.random.default_rng(self.seed)
        values = rng.normal(size=(self.num_prompts, self.alphabet))
        bigrams = rng.normal(scale=BIGRAM_SCALE, size=(self.alphabet, self.alphabet))
        per_letter = rng.normal(scale=LENGTH_SCALE, size=self.num_prompts)
        columns = []
        for response in self.responses():
            word = [token - self.letters[0] for token in response[:-1]]
            bonus = sum(bigrams[pair] for pair in itertools.pairwise(word))
            columns.append(values[:, word].sum(axis=1) + bonus + per_letter * len(word))
        table = np.stack(columns, axis=1)
        spread = table.std()
        return (table - table.mean()) / (spread if spread > 0 else 1.0)

    def optimal_policy(self, reference_logps: NDArray[np.floating], beta: float) -> NDArray[np.float64]:
        """Return log pi*, the maximiser of E[reward] - beta KL(pi, reference) over the listed responses.

        pi*(y|x) is proportional to reference(y|x) exp(reward(x,y) / beta) (Rafailov et al. 2023, eq. 4).

        Args:
            reference_logps: ``[P,K]``, nats; need not be normalised over the listed responses.
            beta: Strength of the KL term, above 0.

        Returns:
            ``[P,K]`` log-probabilities; each row sums to 1 in probability.
        """
        if not beta > 0:
            raise UserError(f"beta is {beta}; the optimal policy exists for beta above 0 only")
        logits = np.asarray(reference_logps, dtype=np.float64) + self.rewards() / beta
        return logits - _logsumexp(logits)


def exact_kl(logps_p: NDArray[np.floating], logps_q: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return KL(p, q) = sum_k p_k (log p_k - log q_k) of each row.

    Args:
        logps_p: ``[P,K]`` log-probabilities of K outcomes, nats; -inf is allowed.
        logps_q: ``[P,K]``, of the same outcomes.

    Returns:
        ``[P]``, nats. An outcome of probability 0 under p counts 0; one that only q excludes gives inf.
    """
    p = np.asarray(logps_p, dtype=np.float64)
    q = np.asarray(logps_q, dtype=np.float64)
    possible = np.isfinite(p)
    ratio = np.where(possible, p, 0.0) - np.where(possible, q, 0.0)
    return (np.where(possible, np.exp(p), 0.0) * ratio).sum(axis=1)


def _logsumexp(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log of the sum of exponentials of each row, ``[P,1]``."""
    top = logits.max(axis=1, keepdims=True)
    return top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
