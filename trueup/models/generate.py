"""Batched sampling that also returns the log-probability of exactly what was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trueup.models.decoder import Decoder, prefill, survivors
from trueup.models.draw import draw, uniforms
from trueup.types import Decoding


@dataclass(frozen=True)
class Sample:
    """One sampled response.

    With top-k or top-p the two log-probabilities differ, and neither alone makes an update right. Weights
    exp(full_logps - logps) cannot give back the tokens that were never drawn, so a gradient weighted by them is that of
    no distribution; and a policy scored over the whole vocabulary is not the one that was sampled. What would be right
    is to score policy and reference over the very tokens that could be drawn at each place, which needs these sets (up
    to the size of the vocabulary for each token) in the batch and in the head's backward pass. Rollouts are therefore
    sampled without a cut. ``full_logps - logps`` is the log of the probability that a cut kept.

    Attributes:
        tokens: the sampled ids, the terminator included if one was sampled.
        logps: float32 ``[len(tokens)]``, the log-probability each token was drawn with: temperature and top-k/top-p
            included, nats.
        full_logps: float32 ``[len(tokens)]``, the same under the whole vocabulary's softmax at that temperature; equal
            to ``logps`` where nothing is cut. What a scorer finds.
        ended: the last token is a terminator; False = truncated at the cap.
    """

    tokens: tuple[int, ...]
    logps: Tensor
    full_logps: Tensor
    ended: bool


class Sampler(Protocol):
    """Where rollouts come from."""

    def __call__(
        self,
        model: Any,
        prompts: Sequence[tuple[int, ...]],
        draws: int,
        decoding: Decoding,
        terminators: frozenset[int],
        generator: torch.Generator,
    ) -> list[list[Sample]]:
        """Return ``draws`` responses of ``model`` to each prompt, in the order of the prompts; see ``sample``."""
        ...


@dataclass(frozen=True)
class _Piece:
    """Draws ``first`` to ``first + count - 1`` of a prompt."""

    prompt: int
    first: int
    count: int


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    draws: int,
    decoding: Decoding,
    terminators: frozenset[int],
    generator: torch.Generator,
    max_rows: int = 1024,
) -> list[list[Sample]]:
    """Sample ``draws`` responses for each prompt in this process; the prompt is computed once for all its draws.

    Prompts are sorted by length and cut into batches of at most ``max_rows`` responses; a response leaves its batch
    when it ends. The generator gives one seed; the luck of a response is then a function of the place of its prompt in
    ``prompts`` and of its number among the draws, so how responses are batched changes none of them, up to the rounding
    of the logits. The model is put into evaluation mode and returned to the mode it was in.

    Args:
        model: a transformers causal model.
        prompts: token ids, each at least one token.
        draws: responses a prompt.
        decoding: temperature, top-k, top-p and the cap.
        terminators: sampling one of these ends a response.
        generator: the source of randomness, on the model's device.
        max_rows: largest number of responses in flight.

    Returns:
        For each prompt, in the order given, its samples.
    """
    was_training = model.training
    model.eval()
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    out: list[list[Sample]] = [[] for _ in prompts]
    for pieces in _batches(prompts, draws, max_rows):
        rows = [(p.prompt, n) for p in pieces for n in range(p.first, p.first + p.count)]
        luck = uniforms(seed, rows, decoding.max_new_tokens).to(generator.device)
        record = _Record(len(rows), decoding, terminators, luck)
        chosen, counts = [prompts[p.prompt] for p in pieces], [p.count for p in pieces]
        for decoder in prefill(model, chosen, counts, generator.device):
            record.run(decoder)
        for (prompt, _), response in zip(rows, record.samples(), strict=True):
            out[prompt].append(response)
    model.train(was_training)
    return out


def _batches(prompts: Sequence[tuple[int, ...]], draws: int, max_rows: int) -> list[list[_Piece]]:
    """Shortest prompts first; the draws of a prompt stay together unless they are more than ``max_rows``."""
    batches: list[list[_Piece]] = []
    room = 0
    for prompt in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        for first in range(0, draws, max_rows):
            piece = _Piece(prompt, first, min(max_rows, draws - first))
            if piece.count > room:
                batches.append([])
                room = max_rows
            batches[-1].append(piece)
            room -= piece.count
    return batches


class _Record:
    """What has been drawn for the responses of a batch."""

    def __init__(self, rows: int, decoding: Decoding, terminators: frozenset[int], luck: Tensor) -> None:
        shape, device = (rows, decoding.max_new_tokens), luck.device
        self.decoding, self.luck = decoding, luck
        self.stop = torch.tensor(sorted(terminators), dtype=torch.int64, device=device)
        self.tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        self.logps, self.full_logps = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.count = torch.zeros(rows, dtype=torch.int64, device=device)
        self.ended = torch.zeros(rows, dtype=torch.bool, device=device)

    def run(self, decoder: Decoder) -> None:
        """Draw until every response of the decoder has ended or met the cap."""
        for place in range(self.decoding.max_new_tokens):
            row = decoder.row
            drawn = draw(decoder.logits(), self.decoding, self.luck[row, place])
            self.tokens[row, place] = drawn.tokens
            self.logps[row, place], self.full_logps[row, place] = drawn.logps.float(), drawn.full_logps.float()
            self.count[row] += 1
            self.ended[row] = torch.isin(drawn.tokens, self.stop)
            keep = survivors(~self.ended[row])
            if not len(keep) or place == self.decoding.max_new_tokens - 1:
                return
            decoder.advance(drawn.tokens, keep)

    def samples(self) -> list[Sample]:
        """The responses, in the order of the batch."""
        tokens, ended, lengths = self.tokens.tolist(), self.ended.tolist(), self.count.tolist()
        logps, full = self.logps.cpu(), self.full_logps.cpu()
        return [
            Sample(tuple(tokens[r][:n]), logps[r, :n].clone(), full[r, :n].clone(), ended[r])
            for r, n in enumerate(lengths)
        ]
