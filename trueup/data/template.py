"""From messages to token ids and back: the chat template, the terminator, the read-back of the mask."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from trueup.data.records import Message
from trueup.errors import UserError

_PROBE = "ok"


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with its chat template, as training and sampling both use it.

    Prompt and response are encoded apart, as they are at sampling time: a token can then never merge across the
    boundary, and the mask of a response is its own token count. Every response ends in exactly one ``terminator``.

    Attributes:
        tokenizer: a transformers tokenizer.
        terminator: the id that ends an assistant turn: what the chat template writes after one, else EOS.
        stops: ids at which sampling stops: the terminator and EOS.
    """

    tokenizer: Any
    terminator: int
    stops: frozenset[int]

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a conversation up to the point where the assistant answers."""
        return self.prompts([messages])[0]

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]:
        """Ids of several conversations; one call costs less than many."""
        texts = [_render(self.tokenizer, messages, generate=True) for messages in conversations]
        return self._ids(texts, add_special_tokens=self.tokenizer.chat_template is None)

    def response(self, text: str) -> tuple[int, ...]:
        """Ids of an answer, its terminator included. Special-token text inside an answer stays plain text."""
        return self.responses([text])[0]

    def responses(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids of several answers, each with its terminator."""
        ids = self._ids(texts, add_special_tokens=False, split_special_tokens=True)
        return [(*answer, self.terminator) for answer in ids]

    def _ids(self, texts: Sequence[str], **options: bool) -> list[tuple[int, ...]]:
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, **options)
        return [tuple(ids) for ids in encoded["input_ids"]]

    def text(self, response: Sequence[int]) -> str:
        """The text of a response, terminators left out."""
        return self.tokenizer.decode([i for i in response if i not in self.stops], skip_special_tokens=True)

    @property
    def pad(self) -> int:
        """A token for padding; masks never depend on its value, so it may equal EOS."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.terminator

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer as it saves itself, template included, and of the versions that run it."""
        digest = hashlib.sha256(repr([metadata.version(name) for name in ("tokenizers", "transformers")]).encode())
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                content = path.read_bytes()
                digest.update(f"{path.relative_to(folder).as_posix()} {len(content)} ".encode() + content)
        return digest.hexdigest()


def make_encoder(tokenizer: Any) -> Encoder:
    """Find the terminator of a tokenizer's assistant turns and return its encoder.

    Raises:
        UserError: the tokenizer has neither a template that ends turns nor an EOS token, so nothing could ever teach
            a model to stop.
    """
    eos = tokenizer.eos_token_id
    terminator = _turn_end(tokenizer) if tokenizer.chat_template else eos
    if terminator is None:
        raise UserError("the tokenizer has no EOS token and its chat template ends turns with none; set eos_token")
    return Encoder(tokenizer, terminator, frozenset({terminator} | ({eos} if eos is not None else set())))


def _turn_end(tokenizer: Any) -> int | None:
    """The first id after an assistant's text in the rendered template, if it is a special token; else EOS."""
    turns = [Message("user", _PROBE), Message("assistant", _PROBE)]
    tail = _render(tokenizer, turns, generate=False).rpartition(_PROBE)[2]
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    return ids[0] if ids and ids[0] in special else tokenizer.eos_token_id


def _render(tokenizer: Any, messages: Sequence[Message], generate: bool) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate)
    if len(turns) == 1:
        return turns[0]["content"]
    raise UserError(
        "the tokenizer has no chat template, so a conversation of several turns has no defined text; "
        "give a tokenizer with one (model.tokenizer) or single-turn prompts"
    )
