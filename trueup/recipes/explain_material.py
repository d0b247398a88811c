"""The rows of an explanation, parted once: all reruns train on one pool, and arms are measured on the same rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trueup.config.schema import RecipeConfig
from trueup.data.encode import Bounds, encode_examples, encode_pairs
from trueup.data.read import read_examples, read_pairs
from trueup.data.records import Example, Loaded, Message, Pair
from trueup.data.template import Encoder, make_encoder
from trueup.errors import UserError
from trueup.models import hub
from trueup.recipes.counterfactuals import Variant
from trueup.runtime.seeding import python_random

HELD = 48
"""Held-out rows of each replicate: enough for a mean per token within about a tenth, few enough to be quick."""

LEAST = 4
"""Held-out rows without which a replicate says nothing."""

Text = Callable[[str], str]


@dataclass(frozen=True)
class Rows:
    """Records of the run's data (pairs or examples), parted by chance.

    Attributes:
        train: what every rerun trains on.
        held: for each replicate the rows it is measured on; replicates share none.
    """

    train: Sequence[Any]
    held: Sequence[Sequence[Any]]


def read_rows(verb: str, config: RecipeConfig, replicates: int, wanted: int) -> Rows:
    """Part the rows of a run with a data set; held-out rows come from ``data.validation`` where the run has one.

    Args:
        verb: ``dpo``, ``reward`` or ``sft``.
        config: the run's settings.
        replicates: how many sets of held-out rows are needed.
        wanted: training rows that are enough.
    """
    records = _records(verb, config, config.data.path, config.data.limit)
    python_random(config.run.seed, "explain", "rows").shuffle(records)
    if config.data.validation:
        pool = _records(verb, config, config.data.validation, None)
        python_random(config.run.seed, "explain", "held").shuffle(pool)
        rest = records
    else:
        size = min(HELD * replicates, len(records) // 3)
        pool, rest = records[:size], records[size:]
    each = min(HELD, len(pool) // replicates)
    if each < LEAST:
        raise UserError(
            f"{config.data.path}: {len(records)} usable rows are too few to hold {LEAST} out for each of {replicates} "
            "replicates: give --seeds 2, or a run with data.validation"
        )
    return Rows(rest[:wanted], [pool[i * each : (i + 1) * each] for i in range(replicates)])


def _records(verb: str, config: RecipeConfig, path: str, limit: int | None) -> list[Any]:
    """The records that the run would train on: those that its encoder keeps."""
    source = config.model.tokenizer or config.model.path or ""
    encoder = make_encoder(hub.load_tokenizer(source))
    context = hub.stored_context(config.model.path) if config.model.path else config.model.context
    bounds = Bounds(context or 1 << 30, config.data.max_length)
    loaded: Loaded[Any]
    if verb == "sft":
        loaded = read_examples(path, limit=limit)
        encoded = encode_examples(loaded, encoder, bounds)
    else:
        loaded = read_pairs(path, limit=limit)
        encoded = encode_pairs(loaded, encoder, bounds)
    return loaded.pick(encoded.row_numbers)


def write_rows(path: Path, records: Iterable[Pair | Example], text: Text = str) -> Path:
    """Write records in a chat shape that the readers know; ``text`` is applied to every response."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(_row(record, text), ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _row(record: Pair | Example, text: Text) -> Mapping[str, Any]:
    if isinstance(record, Example):
        turns = [*record.prompt, Message("assistant", text(record.response))]
        return {"messages": [_turn(turn) for turn in turns]}
    sides = {"chosen": record.chosen, "rejected": record.rejected}
    answers = {name: [_turn(Message("assistant", text(side)))] for name, side in sides.items()}
    return {"prompt": [_turn(turn) for turn in record.prompt], **answers}


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def capped(encoder: Encoder, cap: int) -> Text:
    """Cut a text to its first ``cap`` tokens; a text that would be left blank stays whole."""

    def cut(text: str) -> str:
        ids = encoder.response(text)
        short = encoder.text(ids[: cap - 1]) if len(ids) > cap else text
        return short if short.strip() else text

    return cut


def file_of(folder: Path, rows: Variant) -> Path:
    """Where the training rows of a variant lie."""
    return folder / "rows" / f"{rows.replace(' ', '-')}.jsonl"


def lengths_of(encoder: Encoder, pairs: Sequence[Pair]) -> tuple[tuple[float, float], int]:
    """Median tokens of chosen and of rejected responses, and the longest of all."""
    sides = [encoder.responses([getattr(pair, name) for pair in pairs]) for name in ("chosen", "rejected")]
    chosen, rejected = ([len(ids) for ids in side] for side in sides)
    return (median(chosen), median(rejected)), max(*chosen, *rejected)
