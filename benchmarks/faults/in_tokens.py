"""Faults between text and log-probability: templates, terminators, masks, shifts, sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faults.fault import Fault
from faults.in_data import chance
from faults.stage import Stage
from trueup.data import encode, template, trees
from trueup.data.template import Encoder
from trueup.data.trees import Tree
from trueup.models import attention, forward
from trueup.ops import logprobs
from trueup.ops.logprobs import Head
from trueup.train.objectives.sft import SftObjective
from trueup.types import SequenceLogps, TokenTrees

Ids = tuple[int, ...]


def _responses(change: Callable[[Encoder, int, Ids], Ids]) -> Callable[[Stage, float], None]:
    """A fault that changes the ids of every response (its number among those encoded together)."""

    def inject(stage: Stage, _: float) -> None:
        stage.wrap(
            Encoder,
            "responses",
            lambda old: lambda self, texts: [change(self, n, ids) for n, ids in enumerate(old(self, texts))],
        )

    return inject


def _prompts(change: Callable[[Encoder, Ids], Ids]) -> Callable[[Stage, float], None]:
    """A fault that changes the ids of every prompt."""

    def inject(stage: Stage, _: float) -> None:
        stage.wrap(Encoder, "prompts", lambda old: lambda self, turns: [change(self, ids) for ids in old(self, turns)])

    return inject


def _trees(change: Callable[[Tree], Tree]) -> Callable[[Stage, float], None]:
    """A fault that moves tokens between prompt and response."""

    def inject(stage: Stage, _: float) -> None:
        def wrap(old: Any) -> Any:
            def made(*arguments: Any) -> Iterator[Tree]:
                return (change(tree) for tree in old(*arguments))

            return made

        stage.wrap(encode, "_trees", wrap)

    return inject


def _from(place: int) -> Callable[[Tree], Tree]:
    """Supervision that begins at a place of the prompt."""
    return lambda t: Tree(t.prompt[:place], tuple((*t.prompt[place:], *response) for response in t.responses))


def rendered_prompts_lose(count: int) -> Callable[[Stage, float], None]:
    """Prompts of rollouts without the last tokens of the template."""
    return _prompts(lambda encoder, ids: ids[:-count])


def other_terminator(stage: Stage, _: float) -> None:
    """Another special token ends what is trained, and stops sampling."""

    def wrap(old: Any) -> Any:
        def made(tokenizer: Any) -> Encoder:
            other = tokenizer.pad_token_id
            return Encoder(tokenizer, other, frozenset({other}))

        return made

    stage.wrap(template, "make_encoder", wrap)


def cut_responses(stage: Stage, share: float) -> None:
    """Cut responses behind their fourth token, terminator and all."""

    def wrap(old: Any) -> Any:
        def made(*arguments: Any) -> Iterator[Tree]:
            for number, tree in enumerate(old(*arguments)):
                short = tuple(r[:4] for r in tree.responses)
                yield Tree(tree.prompt, short) if chance(stage, number, share) else tree

        return made

    stage.wrap(encode, "_trees", wrap)


def _filtered(keep: Callable[[TokenTrees], Tensor]) -> Callable[[Stage, float], None]:
    """A fault of the mask: response tokens that are not scored."""

    def inject(stage: Stage, _: float) -> None:
        def wrap(old: Any) -> Any:
            def made(*arguments: Any, **options: Any) -> TokenTrees:
                laid = old(*arguments, **options)
                kept = keep(laid)
                return replace(laid, source=laid.source[kept], target=laid.target[kept], branch=laid.branch[kept])

            return made

        stage.wrap(trees, "collate", wrap)

    return inject


def shifted(by: int) -> Callable[[Stage, float], None]:
    """Hidden states are read at other positions."""

    def inject(stage: Stage, _: float) -> None:
        def wrap(old: Any) -> Any:
            return lambda prompt_last, first, count: np.maximum(old(prompt_last, first, count) + by, 0)

        stage.wrap(logprobs, "predicting_positions", wrap)

    return inject


def prompt_scored(stage: Stage, sides: float) -> None:
    """The prompt is scored with the rejected response (1), or with both (2)."""

    def wrap(old: Any) -> Any:
        def place(self: Any, tree: Tree, row: int, column: int, branch: int, tree_index: int) -> int:
            end = old(self, tree, row, column, branch, tree_index)
            base = row * self.length + column
            own = np.arange(base, base + len(tree.prompt) - 1)
            for number in range(branch, branch + len(tree.responses)):
                if sides == 2 or number % 2:
                    source, target = self.index[number]
                    self.index[number] = (np.concatenate([own, source]), (*tree.prompt[1:], *target))
            return end

        return place

    stage.wrap(trees._Sheet, "place", wrap)


def _sums(change: Callable[[SequenceLogps, Tensor, Tensor], SequenceLogps]) -> Callable[[Stage, float], None]:
    """A fault in adding up tokens."""

    def inject(stage: Stage, _: float) -> None:
        def wrap(old: Any) -> Any:
            return lambda logps, branch, number: change(old(logps, branch, number), logps, branch)

        stage.wrap(logprobs, "sum_by_branch", wrap)

    return inject


def _without_last(sums: SequenceLogps, logps: Tensor, branch: Tensor) -> SequenceLogps:
    last = torch.ones_like(branch, dtype=torch.bool)
    last[:-1] = branch[1:] != branch[:-1]
    return replace(sums, total=sums.total.index_add(0, branch[last], -logps[last].to(sums.total.dtype)))


def rounded_logits(stage: Stage, _: float) -> None:
    """Round logits to bfloat16 before the softmax."""
    stage.wrap(Head, "logits", lambda old: lambda self, hidden: old(self, hidden).bfloat16().float())


def shape_noise(stage: Stage, sigma: float) -> None:
    """Noise in log-probabilities that is another for every shape of a batch."""

    def wrap(old: Any) -> Any:
        def scores(model: Any, batch: TokenTrees, *rest: Any, **options: Any) -> Any:
            out = old(model, batch, *rest, **options)
            rng = torch.Generator().manual_seed(batch.tokens.numel())
            return replace(out, logps=out.logps + sigma * torch.randn(out.logps.shape, generator=rng))

        return scores

    stage.wrap(forward, "token_scores", wrap)


def leak(stage: Stage, _: float) -> None:
    """Trees of a packed row see each other: one causal mask over the row."""
    stage.set("model.layout", "flat")

    def causal(trees: TokenTrees, config: Any) -> Tensor:
        length = trees.tokens.shape[1]
        return torch.ones(1, 1, length, length, dtype=torch.bool).tril()

    stage.replace(attention, "attention_mask", causal)


def per_micro_batch(stage: Stage, _: float) -> None:
    """Every micro-batch is averaged by itself, whatever its number of tokens."""

    def wrap(old: Any) -> Any:
        def call(self: Any, model: Any, batch: Any) -> Any:
            tally, own = old(self, model, batch), float(len(batch.trees.target))
            terms = {name: replace(term, total=term.total * (60.0 / own)) for name, term in tally.terms.items()}
            return replace(tally, terms=terms)

        return call

    stage.wrap(SftObjective, "__call__", wrap)


_END = _filtered(lambda laid: laid.target != 2)
_TOKENS = ("data",)

FAULTS = (
    Fault(
        "F01",
        "boundary one token late",
        ("sft", "dpo"),
        "log-probabilities",
        _trees(lambda t: Tree((*t.prompt, t.responses[0][0]), tuple(r[1:] for r in t.responses))),
        also=_TOKENS,
    ),
    Fault("F02", "prompt length is 2", ("sft",), "log-probabilities", _trees(_from(2)), also=_TOKENS),
    Fault("F03", "begins twice", ("sft", "dpo", "grpo"), "data", _prompts(lambda e, ids: (ids[0], *ids))),
    Fault("F04", "begin lost", ("sft", "grpo"), "data", _prompts(lambda e, ids: ids[1:])),
    Fault(
        "F05",
        "terminator absent",
        ("sft", "dpo"),
        "log-probabilities",
        _responses(lambda e, n, ids: ids[:-1]),
        also=("data", "rollout"),
    ),
    Fault("F06", "terminator masked", ("sft",), "log-probabilities", _END),
    Fault(
        "F07",
        "terminator twice",
        ("dpo", "reward"),
        "log-probabilities",
        _responses(lambda e, n, ids: (*ids, ids[-1])),
        also=_TOKENS,
    ),
    Fault(
        "F07",
        "terminator twice, chosen only",
        ("dpo",),
        "log-probabilities",
        _responses(lambda e, n, ids: ids if n % 2 else (*ids, ids[-1])),
        also=_TOKENS,
    ),
    Fault("F08", "another terminator", ("grpo", "sft"), "rollout", other_terminator, also=_TOKENS),
    Fault(
        "F09",
        "responses cut",
        ("sft", "dpo"),
        "log-probabilities",
        cut_responses,
        (0.1, 0.5),
        "share of rows",
        also=("data", "rollout"),
    ),
    Fault("F16", "no generation prompt", ("grpo", "sft"), "data", rendered_prompts_lose(1), also=("rollout",)),
    Fault(
        "F17", "half of the rows masked", ("sft",), "log-probabilities", _filtered(lambda laid: laid.branch % 2 == 0)
    ),
    Fault("F18", "everything supervised", ("sft",), "log-probabilities", _trees(_from(1)), also=_TOKENS),
    Fault(
        "F20",
        "prompt's end in response",
        ("sft", "dpo"),
        "log-probabilities",
        _responses(lambda e, n, ids: (*ids[:1], *ids)),
        also=_TOKENS,
    ),
    Fault("F21", "rows leak into each other", ("sft", "dpo"), "log-probabilities", leak),
    Fault("F26", "mask shifted by one", ("sft", "dpo", "kto", "orpo"), "log-probabilities", shifted(1)),
    Fault("F27", "shifted twice", ("sft", "dpo", "grpo"), "log-probabilities", shifted(-1)),
    Fault("F28", "prompt scored", ("orpo",), "log-probabilities", prompt_scored, (1.0, 2.0), "sides"),
    Fault("F28", "prompt in the loss", ("sft",), "log-probabilities", lambda stage, _: prompt_scored(stage, 2.0)),
    Fault(
        "F29",
        "mean instead of sum",
        ("dpo", "kto"),
        "log-probabilities",
        _sums(lambda s, logps, branch: replace(s, total=s.total / s.count.clamp(min=1))),
        also=("objective",),
    ),
    Fault("F30", "terminator missing from the sum", ("dpo", "orpo"), "log-probabilities", _sums(_without_last)),
    Fault("F32", "noise by batch shape", ("dpo",), "log-probabilities", shape_noise, (0.01, 0.1, 0.5), "nats"),
    Fault("F33", "softmax of rounded logits", ("dpo", "grpo"), "log-probabilities", rounded_logits, also=("numbers",)),
    Fault(
        "F43",
        "mean per micro-batch",
        ("sft",),
        "optimisation",
        per_micro_batch,
        settings={"optim.micro_batch_tokens": 256},
        also=("objective",),
    ),
)
