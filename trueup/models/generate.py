"""Batched sampling with a KV cache that also returns the log-probability of exactly what was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trueup.models.forward import head_of
from trueup.types import Decoding


@dataclass(frozen=True)
class Sample:
    """One sampled response.

    Attributes:
        tokens: the sampled ids, the terminator included if one was sampled.
        logps: float32 ``[len(tokens)]``, the log-probability each token was drawn with: temperature and top-k/top-p
            included, nats.
        ended: the last token is a terminator; False = truncated at the cap.
    """

    tokens: tuple[int, ...]
    logps: Tensor
    ended: bool


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
    """Sample ``draws`` responses for each prompt; the prompt is computed once for all its draws.

    Prompts are sorted by length and cut into batches of at most ``max_rows`` responses. The model is put into
    evaluation mode and returned to the mode it was in.

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
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[Sample]] = [[] for _ in prompts]
    width = max(1, max_rows // draws)
    for start in range(0, len(order), width):
        chosen = order[start : start + width]
        samples = _sample_batch(model, [prompts[i] for i in chosen], draws, decoding, terminators, generator)
        for place, index in enumerate(chosen):
            out[index] = samples[place * draws : (place + 1) * draws]
    model.train(was_training)
    return out


def _sample_batch(
    model: Any,
    prompts: Sequence[tuple[int, ...]],
    draws: int,
    decoding: Decoding,
    terminators: frozenset[int],
    generator: torch.Generator,
) -> list[Sample]:
    device = generator.device
    state = _Decoder(model, prompts, draws, device)
    rows = len(prompts) * draws
    tokens = torch.zeros(rows, decoding.max_new_tokens, dtype=torch.int64, device=device)
    logps = torch.zeros(rows, decoding.max_new_tokens, device=device)
    count = torch.zeros(rows, dtype=torch.int64, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    stop = torch.tensor(sorted(terminators), device=device)
    for position in range(decoding.max_new_tokens):
        picked, logp = draw(state.logits(), decoding, generator)
        going = ~ended[state.row]
        alive = state.row[going]
        tokens[alive, position], logps[alive, position] = picked[going], logp[going].float()
        count[alive] += 1
        ended[alive] = torch.isin(picked[going], stop)
        if bool(ended.all()) or position == decoding.max_new_tokens - 1:
            break
        state.advance(picked, ~ended[state.row])
    lengths, done = count.tolist(), ended.tolist()
    ids, scores = tokens.tolist(), logps.cpu()
    return [Sample(tuple(ids[r][:n]), scores[r, :n].clone(), done[r]) for r, n in enumerate(lengths)]


def draw(logits: Tensor, decoding: Decoding, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one token a row from logits ``[B,V]``; returns ids ``[B]`` and the log-probabilities of the draws."""
    if decoding.temperature == 0:
        picked = logits.argmax(dim=1)
        return picked, torch.zeros_like(picked, dtype=logits.dtype)
    log_p = (logits / decoding.temperature).log_softmax(dim=1)
    if 0 < decoding.top_k < logits.shape[1]:
        floor = log_p.topk(decoding.top_k, dim=1).values[:, -1:]
        log_p = log_p.masked_fill(log_p < floor, -torch.inf).log_softmax(dim=1)
    if decoding.top_p < 1:
        log_p = _nucleus(log_p, decoding.top_p).log_softmax(dim=1)
    picked = _inverse_cdf(log_p.exp(), generator)
    return picked, log_p.gather(1, picked[:, None]).squeeze(1)


def _inverse_cdf(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from each row of ``[B,V]`` with one uniform number a row, where torch.multinomial draws V."""
    total = probability.cumsum(dim=1)
    uniform = torch.rand(len(probability), 1, generator=generator, device=probability.device)
    # Scaled by the sum as rounded, and searched from the right: a token of probability 0 is never picked.
    picked = torch.searchsorted(total, uniform * total[:, -1:], right=True).squeeze(1)
    return picked.clamp(max=probability.shape[1] - 1)


def _nucleus(log_p: Tensor, top_p: float) -> Tensor:
    """Mask everything after the smallest most-probable set that reaches ``top_p``; the first token always stays."""
    ordered, index = log_p.sort(dim=1, descending=True)
    before = ordered.exp().cumsum(dim=1) - ordered.exp()
    return log_p.scatter(1, index, ordered.masked_fill(before >= top_p, -torch.inf))


class _Decoder:
    """The KV cache of a batch of responses, shrinking as responses end; ``row`` says whose each of its rows is."""

    def __init__(self, model: Any, prompts: Sequence[tuple[int, ...]], draws: int, device: torch.device) -> None:
        self.backbone, self.head = model.base_model, head_of(model)
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros(len(prompts), longest, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        output = self.backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
        self.cache = output.past_key_values
        self.cache.batch_repeat_interleave(draws)
        self.hidden = output.last_hidden_state[:, -1].repeat_interleave(draws, dim=0)
        self.mask = mask.repeat_interleave(draws, dim=0)
        self.position = positions[:, -1].repeat_interleave(draws)
        self.row = torch.arange(len(self.position), device=device)

    def logits(self) -> Tensor:
        """Next-token logits of the rows in the cache."""
        return self.head.logits(self.hidden)

    def advance(self, picked: Tensor, going: Tensor) -> None:
        """Feed the drawn tokens; rows that have ended leave the cache once they are a fifth of it.

        Copying the cache costs more than carrying a few rows that nobody looks at any more.
        """
        if int(going.sum()) < 0.8 * len(going):
            keep = going.nonzero().squeeze(1)
            self.cache.batch_select_indices(keep)
            picked, self.mask = picked[keep], self.mask[keep]
            self.position, self.row = self.position[keep], self.row[keep]
        self.position = self.position + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(picked), 1)], dim=1)
        output = self.backbone(
            input_ids=picked[:, None],
            attention_mask=self.mask,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.hidden = output.last_hidden_state[:, -1]
