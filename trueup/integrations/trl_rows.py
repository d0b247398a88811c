"""What the trainer's real batches hold, read back: which tokens are trained on, pairs, lengths, beginnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueup.health.findings import Finding
from trueup.integrations.trl_bench import Batch, Bench
from trueup.preflight.outcome import Outcome, made, skipped

MASK, PAIRS, LENGTHS, BEGIN = "trained tokens read back", "pairs", "rows that are cut", "beginnings"
SHOWN = 60
"""Characters of a text that a finding quotes."""


@dataclass(frozen=True)
class Piece:
    """A row of a batch: its ids, those under the mask, and what these should be; None where that is not known."""

    ids: Sequence[int]
    trained: Sequence[int]
    prompt: Sequence[int] | None
    response: Sequence[int] | None
    text: str | None


def check_mask(bench: Bench) -> Outcome | None:
    """The tokens under the mask, decoded, are the response and one terminator, in every row of a real batch."""
    if bench.method not in ("dpo", "kto", "sft"):
        return None
    pieces = _pieces(bench, bench.batch(bench.few))
    if not pieces:
        return skipped(MASK, "the collator's batch has no mask that is known here")
    wrong = [(piece, why) for piece in pieces if (why := _fault(bench, piece))]
    told = f"{len(pieces) - len(wrong)} of {len(pieces)} rows decode to their response and one terminator"
    return made(MASK, told, [_misread(bench, wrong, len(pieces))] if wrong else [])


def _misread(bench: Bench, wrong: Sequence[tuple[Piece, str]], checked: int) -> Finding:
    piece, why = wrong[0]
    message = (
        f"In {len(wrong)} of {checked} rows of the trainer's own batch the mask is wrong: {why}. The first trains on "
    )
    message += f"{_quoted(bench, piece.trained)}"
    message += f", its response is {_quoted(bench, piece.response)}." if piece.response is not None else "."
    remedy = "Look at the collator, the chat template and where the prompt ends: these tokens are what the loss sees."
    kinds = Counter(why for _, why in wrong)
    severity = "fatal" if len(wrong) == checked and piece.response is not None else "warning"
    evidence = {"wrong": len(wrong), "checked": checked, "kinds": dict(kinds)}
    return Finding("mask-read-back", severity, 0, message, remedy, evidence, "P3 of the catalogue of silent failures")


def _quoted(bench: Bench, ids: Sequence[int]) -> str:
    text = bench.tokenizer.decode(list(ids))
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}")


def _fault(bench: Bench, piece: Piece) -> str:
    """What is wrong with a row; empty where nothing is, or where the row was cut at the limit."""
    taken, wanted = list(piece.trained), piece.response
    limit = getattr(bench.trainer.args, "max_length", None)
    cut = limit is not None and len(piece.ids) >= limit
    if not taken:
        return "" if cut else "no token is trained on"
    if wanted is not None and not _same(taken, list(wanted), cut):
        return _difference(taken, list(wanted), piece.prompt)
    if piece.text is not None and not cut and _letters(piece.text) not in _letters(_plain(bench, taken)):
        return "they do not decode to the response's text"
    return "" if cut else _ending(bench, taken)


def _same(taken: list[int], wanted: list[int], cut: bool) -> bool:
    return taken == wanted or (cut and taken in (wanted[: len(taken)], wanted[-len(taken) :]))


def _difference(taken: list[int], wanted: list[int], prompt: Sequence[int] | None) -> str:
    more = len(taken) - len(wanted)
    if more > 0 and taken[more:] == wanted:
        whole = prompt is not None and more == len(prompt)
        return "the prompt is trained on" if whole else f"{more} tokens before the response are trained on"
    if more > 0 and taken[: len(wanted)] == wanted:
        return "what follows the response is trained on"
    if more < 0 and taken == wanted[-len(taken) :]:
        return f"the first {-more} tokens of the response are not trained on"
    if more < 0 and taken == wanted[: len(taken)]:
        return f"the last {-more} tokens of the response are not trained on"
    return "the tokens under it are not the response's: it is shifted, or the sides are exchanged"


def _ending(bench: Bench, taken: list[int]) -> str:
    """One terminator at the end; white space that a chat template writes after it is allowed."""
    stops = _stops(bench)
    while taken and not bench.tokenizer.decode(taken[-1:]).strip():
        taken = taken[:-1]
    if not stops or not taken:
        return ""
    if taken[-1] not in stops:
        return "nothing that ends a response is trained on"
    return "two terminators are trained on" if taken[-2:-1] and taken[-2] in stops else ""


def _stops(bench: Bench) -> set[int]:
    """What ends a sampled response: the tokenizer's terminator and those of the generation settings."""
    more = getattr(getattr(bench.model, "generation_config", None), "eos_token_id", None)
    found = [bench.tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])]
    return {int(i) for i in found if i is not None}


def _plain(bench: Bench, ids: Sequence[int]) -> str:
    return bench.tokenizer.decode(list(ids))


def _letters(text: str) -> str:
    return "".join(text.split())


def _pieces(bench: Bench, batch: Batch) -> list[Piece]:
    """The rows of a batch with what is known of them; empty where the batch has no mask."""
    if bench.method == "sft":
        mask = batch["labels"] != -100 if "labels" in batch else None
    else:
        mask = batch["completion_mask"] != 0 if "completion_mask" in batch else None
    if mask is None or "attention_mask" not in batch or mask.shape != batch["input_ids"].shape:
        return []
    rows = [bench.rows[i] for i in bench.few]
    sides = ("chosen", "rejected") if bench.method == "dpo" else ("completion",)
    known = [(row, side) for side in sides for row in rows]
    real = batch["attention_mask"] != 0
    if len(known) != len(mask):
        return []
    return [
        Piece(
            ids[live].tolist(), ids[under].tolist(), row.get("prompt_ids"), row.get(f"{side}_ids"), _text(row.get(side))
        )
        for ids, live, under, (row, side) in zip(batch["input_ids"], real, mask, known, strict=True)
    ]


def _text(value: Any) -> str | None:
    """A response's text: itself, or what its last message says."""
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        value = value[-1].get("content")
    return value if isinstance(value, str) else None


def check_pairs(bench: Bench) -> Outcome | None:
    """No pair has two sides that are the same."""
    pairs = [row for row in bench.rows if "chosen_ids" in row and "rejected_ids" in row]
    if not pairs:
        return None
    same = sum(row["chosen_ids"] == row["rejected_ids"] for row in pairs)
    told = f"{len(pairs) - same} of {len(pairs)} pairs have two different sides"
    if not same:
        return made(PAIRS, told)
    message = f"{same} of the first {len(pairs)} pairs have identical chosen and rejected responses."
    remedy = (
        "They carry no preference, and TRL counts them as wrong. Leave them out, and see how the rejected are made."
    )
    severity = "warning" if same >= 0.01 * len(pairs) else "note"
    finding = Finding("identical-pairs", severity, 0, message, remedy, {"pairs": same, "of": len(pairs)}, "F10; D01")
    return made(PAIRS, told, [finding])


def check_lengths(bench: Bench) -> Outcome | None:
    """The share of rows that the collator cuts."""
    limit = getattr(bench.trainer.args, "max_length", None)
    if bench.method not in ("dpo", "kto") or limit is None:
        return None
    sizes = [
        len(row["prompt_ids"]) + max(len(row.get(f"{side}_ids", ())) for side in ("chosen", "rejected", "completion"))
        for row in bench.rows
    ]
    cut = sum(size > limit for size in sizes)
    told = f"{cut} of {len(sizes)} rows are longer than max_length {limit}"
    if cut < 0.05 * len(sizes) or not cut:
        return made(LENGTHS, told)
    message = f"{cut} of the first {len(sizes)} rows are longer than max_length {limit} and are cut, most at their end."
    remedy = "Raise max_length or leave them out: a response that is cut teaches the model not to stop."
    evidence = {"rows": cut, "of": len(sizes)}
    return made(LENGTHS, told, [Finding("rows-too-long", "warning", 0, message, remedy, evidence, "F09, F14")])


def check_beginnings(bench: Bench) -> Outcome | None:
    """The token that begins a text stands once."""
    begin = bench.tokenizer.bos_token_id
    if bench.method in ("grpo", "rloo") or begin is None or begin == bench.tokenizer.eos_token_id:
        return None
    batch = bench.batch(bench.few)
    if "attention_mask" not in batch:
        return skipped(BEGIN, "rows are packed")
    rows = [ids[live].tolist() for ids, live in zip(batch["input_ids"], batch["attention_mask"] != 0, strict=True)]
    twice = sum(row[:2] == [begin, begin] for row in rows)
    told = f"{len(rows) - twice} of {len(rows)} rows begin at most once"
    if not twice:
        return made(BEGIN, told)
    message = f"{twice} of {len(rows)} rows begin with two {bench.tokenizer.bos_token!r}."
    remedy = "Template and tokenizer both write it: drop one of the two."
    return made(BEGIN, told, [Finding("begins-twice", "warning", 0, message, remedy, {"prompts": twice}, "F03")])
