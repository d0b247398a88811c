"""What a tokenizer and its chat template make of a file: lengths, and text that does not come through as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trueup.data.audit_sheet import Sheet, tally
from trueup.data.records import Message
from trueup.data.template import Encoder

LIMITS = (512, 1024, 2048)
"""Values of ``data.max_length`` that are tried."""
_QUANTILES = (0, 10, 50, 90, 99, 100)
# A reply with what templates are known to cut from earlier turns or to trim.
_REPLY = "<think>one thought</think>\n\n the answer "
_BOUNDARY_TAIL = 40  # characters of a prompt that a merge across its end can reach into


class TokenAudit:
    """The rows of a sheet as token ids, encoded as training encodes them.

    Attributes:
        prompts: ids of each row's prompt.
        wanted, unwanted: ids of each side's responses, terminators included.
    """

    def __init__(self, sheet: Sheet, encoder: Encoder) -> None:
        self.sheet, self.encoder = sheet, encoder
        self.prompts = encoder.prompts(sheet.prompts)
        self.wanted, self.unwanted = (encoder.responses(side.texts) for side in (sheet.wanted, sheet.unwanted))

    def lengths(self, context: int | None) -> dict[str, Any]:
        """Percentiles of tokens, the share of rows that each ``max_length`` would leave out, prompts over ``context``.

        A row is as long as training has it: its prompt with its longest response. ``over_context`` are prompts that
        leave no room for a response; without ``data.max_length`` they stop a run.
        """
        prompts = np.array([len(ids) for ids in self.prompts])
        rows = prompts + self._longest()
        measured = {"prompt": prompts, "wanted": _sizes(self.wanted), "unwanted": _sizes(self.unwanted), "row": rows}
        over = [] if context is None else [self.sheet.where[row] for row in np.flatnonzero(prompts > context - 1)]
        return {
            "context": context,
            "percentiles": {
                name: {f"p{q}": float(np.percentile(values, q)) for q in _QUANTILES}
                for name, values in measured.items()
                if values.size
            },
            "left_out": {str(limit): float((rows > limit).mean()) for limit in LIMITS},
            "over_context": tally(over, len(self.prompts)),
        }

    def template(self) -> dict[str, Any]:
        """What the template and the tokenizer do to the texts of this file.

        ``special_in_responses``, ``special_in_prompts``: text that is the name of a special token; in a response it is
        trained as plain pieces, in a prompt it becomes the token itself. ``not_kept``: responses whose tokens decode to
        another text. ``merges``: responses whose beginning would merge with the end of the prompt if both were encoded
        as one text. ``begins_twice``: rows with two BOS tokens in a row. ``rewrites``: what `rewrites_turns` says.
        ``added``: what the template puts around a prompt of one turn.
        """
        tokenizer, total = self.encoder.tokenizer, len(self.prompts)
        responses = len(self.wanted) + len(self.unwanted)
        names = special_names(tokenizer)
        bos = tokenizer.bos_token_id
        twice = [place for ids, place in zip(self.prompts, self.sheet.where, strict=True) if ids[:2] == (bos, bos)]
        in_prompts = [
            f"{place} ({name})"
            for prompt, place in zip(self.sheet.prompts, self.sheet.where, strict=True)
            if (name := _first_in(names, "\n".join(turn.content for turn in prompt)))
        ]
        in_responses = [
            f"{self.sheet.where[row]} ({name})"
            for text, row in self.sheet.responses
            if (name := _first_in(names, text))
        ]
        return {
            "terminator": tokenizer.convert_ids_to_tokens(self.encoder.terminator),
            "pad_is_terminator": tokenizer.pad_token_id in self.encoder.stops,
            "has_template": tokenizer.chat_template is not None,
            "added": _around(tokenizer),
            "special_in_responses": tally(in_responses, responses),
            "special_in_prompts": tally(in_prompts, total),
            "not_kept": tally(self._not_kept(), responses),
            "merges": tally(self._merges(), responses),
            "begins_twice": tally(twice, total),
            "rewrites": rewrites_turns(tokenizer),
            "several_turns": sum(len([t for t in p if t.role != "system"]) > 1 for p in self.sheet.prompts),
        }

    def _longest(self) -> np.ndarray:
        longest = np.zeros(len(self.prompts), dtype=np.int64)
        for side, encoded in ((self.sheet.wanted, self.wanted), (self.sheet.unwanted, self.unwanted)):
            np.maximum.at(longest, side.rows, _sizes(encoded))
        return longest

    def _not_kept(self) -> list[str]:
        ids = [*self.wanted, *self.unwanted]
        pairs = zip(ids, self.sheet.responses, strict=True)
        return [self.sheet.where[row] for answer, (text, row) in pairs if self.encoder.text(answer) != text]

    def _merges(self) -> list[str]:
        """Compare the ids of end-of-prompt + response as one text with those of the two apart."""
        tokenizer, prompts = self.encoder.tokenizer, self.sheet.prompts
        rows = [row for _, row in self.sheet.responses]
        starts = [text[:_BOUNDARY_TAIL] for text, _ in self.sheet.responses]
        ends = [prompts[row][-1].content[-_BOUNDARY_TAIL:] for row in rows]
        if tokenizer.chat_template:
            ends = [tokenizer.decode(self.prompts[0][-1:])] * len(rows)
        joint = _plain(tokenizer, [end + start for end, start in zip(ends, starts, strict=True)])
        apart = zip(_plain(tokenizer, ends), _plain(tokenizer, starts), strict=True)
        return [
            self.sheet.where[row]
            for row, together, (end, start) in zip(rows, joint, apart, strict=True)
            if together != end + start
        ]


def special_names(tokenizer: Any) -> tuple[str, ...]:
    """Texts that a tokenizer takes for special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple({*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)})


def rewrites_turns(tokenizer: Any) -> str | None:
    """Say what happens to an earlier turn when the dialogue goes on, or None if it stays as it was written.

    The conversation up to an answer, with the answer put after it, must begin the conversation one turn later
    (faults.md F19). A template that trims or cuts earlier replies trains on contexts that were never sampled.
    """
    if tokenizer.chat_template is None:
        return None
    turns = [Message("user", "question"), Message("assistant", _REPLY), Message("user", "and then")]
    try:
        before, after = (_rendered(tokenizer, part) for part in (turns[:1], turns))
    except Exception as error:  # templates are programs of strangers, and raise what they like
        return f"refuses a second turn ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    if after.startswith(before + _REPLY):
        return None
    if "one thought" not in after:
        return "cuts <think> blocks from earlier replies"
    if before + _REPLY.strip() in after:
        return "trims white space around earlier replies"
    return "renders earlier turns otherwise than when they were answered"


def _rendered(tokenizer: Any, prompt: Sequence[Message]) -> str:
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def _around(tokenizer: Any) -> dict[str, str]:
    """What stands before and after a user's only turn."""
    if tokenizer.chat_template is None:
        return {"before": "", "after": ""}
    before, _, after = _rendered(tokenizer, (Message("user", "QUESTION"),)).partition("QUESTION")
    return {"before": before, "after": after}


def _first_in(names: Sequence[str], text: str) -> str | None:
    return next((name for name in names if name in text), None)


def _plain(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _sizes(encoded: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([len(ids) for ids in encoded], dtype=np.int64)
