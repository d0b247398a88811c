"""The protocols of a reward: over token ids for learned models, over text and metadata for everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from torch import Tensor

from trueup.data.records import Prompt, PromptOnly
from trueup.data.template import Encoder
from trueup.data.trees import Tree

_SHOWN = 160
"""Characters of a prompt or a response that an error shows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled response with what it answers, as rewards on text see it.

    Attributes:
        prompt: the turns that were answered.
        response: the text without its terminator.
        tokens: the sampled ids, the terminator included if one was sampled.
        ended: the response stopped by itself; False = cut off at its cap.
        meta: the columns of the prompt's row that made no prompt.
        where: file and line of the row.
        id: the row's id.
    """

    prompt: Prompt
    response: str
    tokens: tuple[int, ...] = ()
    ended: bool = True
    meta: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    id: str = ""

    def quote(self) -> str:
        """The response with its prompt, for errors; the middle of a long text is left out."""
        place = f" ({self.where})" if self.where else ""
        return f"response {shorten(self.response)} to prompt {shorten(self.prompt[-1].content)}{place}"


def shorten(text: str) -> str:
    """A text in quotes on one line, its middle left out if it is long."""
    half = _SHOWN // 2
    return repr(text if len(text) <= _SHOWN else f"{text[:half]} ... {text[-half:]}")


@dataclass(frozen=True)
class Completions:
    """Sampled responses to be scored.

    Attributes:
        trees: each prompt with its sampled responses, as token ids.
        rows: for each tree, the row of its prompt in the data set.
        ended: for each response, in tree order, whether it ended by itself.
        encoder: decodes responses; None where only learned models score.
        records: for each tree, its prompt's text and metadata; empty where only learned models score.
    """

    trees: Sequence[Tree]
    rows: Sequence[int]
    ended: Sequence[bool]
    encoder: Encoder | None = None
    records: Sequence[PromptOnly] = ()

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """All K responses as text, in tree order; decoded when first asked for, once for all rewards."""
        assert self.encoder is not None, "these completions came without what decodes them"
        pairs = zip(self.trees, self.records, strict=True)
        asked = [(record, tokens) for tree, record in pairs for tokens in tree.responses]
        return tuple(
            Answer(record.prompt, self.encoder.text(tokens), tokens, ended, record.meta, record.where, record.id)
            for (record, tokens), ended in zip(asked, self.ended, strict=True)
        )


@dataclass(frozen=True)
class Scores:
    """What responses are worth.

    Attributes:
        total: float ``[K]``, one raw score a response, in tree order.
        parts: name -> float ``[K]``, what the total was made of, before weights; NaN where a part does not apply.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Reward(Protocol):
    """Scores completions."""

    def __call__(self, completions: Completions) -> Scores:
        """Return one raw score a response, in tree order."""
        ...


@dataclass(frozen=True)
class TextReward:
    """A reward that is a function of text and metadata.

    Attributes:
        score: answers -> one number each; None where the reward does not apply.
        columns: metadata columns that it cannot do without.
        identity: all that its numbers depend on, so that a resumed run can tell whether it is the same.
    """

    score: Callable[[Sequence[Answer]], Sequence[float | None]]
    columns: tuple[str, ...] = ()
    identity: str = ""
