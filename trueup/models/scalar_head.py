"""The scalar head of a reward model: its precision, and the token that other programs read it at."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

HEADS = ("score", "classifier")
"""Names that transformers gives the head of a ``...ForSequenceClassification``: causal models, encoders."""


def scalar_head(model: Any) -> str | None:
    """The name of the model's scalar head; None where it has none."""
    return next((name for name in HEADS if hasattr(model, name)), None)


def widen_head(model: Any) -> Any:
    """Keep the head, and so the scores, in float32 whatever the backbone's dtype; returns the model.

    Between 8 and 16 bfloat16 numbers lie 1/16 apart: different responses would tie, and a margin below that is lost.
    """
    name = scalar_head(model)
    assert name is not None, "the model has no scalar head"
    getattr(model, name).float().register_forward_pre_hook(_in_float32)
    return model


def _in_float32(head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, Tensor) else value for value in inputs)


def read_at_terminator(model: Any, tokenizer: Any, terminator: int) -> str:
    """See that transformers' own forward pass reads a causal model at the response's last token, as this one does.

    It reads at the last token that is not ``config.pad_token_id``. Where that is the terminator, as in GPT-2, whose
    padding is its end of text, it would read the token before it. Another special token then becomes the padding, of
    the tokenizer too; where there is none, the padding is unset, and transformers scores one sequence at a time.

    Returns:
        What was changed, for people; empty where nothing was.
    """
    if not hasattr(model, "score"):
        return ""
    old = tokenizer.pad_token_id
    if old is not None and old != terminator:
        model.config.pad_token_id = old
        return ""
    other = _other_padding(tokenizer, terminator)
    model.config.pad_token_id = None if other is None else tokenizer.convert_tokens_to_ids(other)
    why = "the tokenizer has no padding token" if old is None else "the padding token also ends responses"
    if other is None:
        return f"{why}, and no other special token: transformers can score this model one response at a time only"
    tokenizer.pad_token = other
    return f"{why}, so that transformers would read scores at the wrong place: final/ pads with {other!r}"


def _other_padding(tokenizer: Any, terminator: int) -> str | None:
    """A special token that ends nothing, preferably one that is meant for padding."""
    ends = {terminator, tokenizer.eos_token_id}
    added = {i: str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = added | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    free = [known[i] for i in sorted(known) if i not in ends]
    return min(free, key=lambda token: "pad" not in token.lower(), default=None)
