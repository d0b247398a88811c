"""Tokenizers of a few hundred tokens, with the world's chat template or another."""

from __future__ import annotations

from typing import Any

from trueup.models import hub
from trueup.models.tokenizer import train_bpe


def small_tokenizer(template: str | None = None) -> Any:
    """A byte-level tokenizer; ``template`` replaces its own, an empty one removes it."""
    tokenizer = hub.wrap_tokenizer(train_bpe(["the cat sat on the mat", "name an animal", "yes no maybe"], 320))
    if template is not None:
        tokenizer.chat_template = template or None
    return tokenizer
