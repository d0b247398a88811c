"""The rows of a data set as training sees them: token ids by name, what is trained, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trueup.data.audit_sheet import Kind, read_any
from trueup.data.encode import Bounds, EncodedSet, encode_examples, encode_judged, encode_pairs
from trueup.data.pieces import Piece, first_difference, split_pieces
from trueup.data.records import Dropped, Loaded
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Tree
from trueup.errors import UserError
from trueup.models import hub

SIDES: Mapping[Kind, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "judged": ("wanted", "unwanted"),
    "examples": ("response",),
}
"""What the responses of a kind are called; a judged row has one of the two."""

_ENCODE: Mapping[Kind, Callable[..., EncodedSet]] = {
    "pairs": encode_pairs,
    "judged": encode_judged,
    "examples": encode_examples,
}


@dataclass(frozen=True)
class ShownRow:
    """A row as it is trained on.

    Attributes:
        where: its place in the file.
        prompt: pieces of the prompt, which is read and not trained.
        responses: side -> pieces that are trained, the terminator last.
        left_out: why the row is not trained on; empty if it is.
        differ_at: of a pair, the index of the first response token at which the sides differ.
    """

    where: str
    prompt: list[Piece]
    responses: dict[str, list[Piece]]
    left_out: str
    differ_at: int | None


@dataclass(frozen=True)
class Shown:
    """Rows of a file, and what became of the others."""

    kind: Kind
    loaded: Loaded[Any]
    encoded: EncodedSet
    terminator: int
    rows: list[ShownRow]


def collect(
    file: str, kind: Kind | None, model: str, count: int, row: int | None = None, max_length: int | None = None
) -> Shown:
    """Encode a whole file as training does, and take the first ``count`` rows that are kept, or row ``row`` alone."""
    found, loaded = read_any(file, kind)
    encoder = make_encoder(hub.load_tokenizer(model))
    bounds = Bounds(hub.stored_context(model) or 1 << 30, max_length)
    encoded = _ENCODE[found](loaded, encoder, bounds)
    numbers = [row] if row is not None else encoded.row_numbers[:count].tolist()
    kept = {int(number): index for index, number in enumerate(encoded.row_numbers)}
    rows = [_row(found, loaded, encoder, number, "" if number in kept else _lost(bounds)) for number in numbers]
    return Shown(found, loaded, encoded, encoder.terminator, rows)


def _lost(bounds: Bounds) -> str:
    return f"longer than {bounds.limit} tokens"


def _row(kind: Kind, loaded: Loaded[Any], encoder: Encoder, number: int, left_out: str) -> ShownRow:
    record = _record(loaded, number)
    texts = (record.chosen, record.rejected) if kind == "pairs" else (record.response,)
    sides = SIDES[kind] if kind != "judged" else (SIDES[kind][0 if record.label else 1],)
    tree = Tree(encoder.prompt(record.prompt), tuple(encoder.responses(texts)))
    differ = first_difference(*tree.responses) if kind == "pairs" else None
    if kind == "pairs" and differ is None:
        left_out = "identical chosen and rejected tokens"
    pieces = [split_pieces(encoder.tokenizer, ids) for ids in tree.responses]
    prompt = split_pieces(encoder.tokenizer, tree.prompt)
    return ShownRow(record.where, prompt, dict(zip(sides, pieces, strict=True)), left_out, differ)


def _record(loaded: Loaded[Any], number: int) -> Any:
    rows = list(loaded.rows)
    if number > len(rows):
        raise UserError(f"--row {number}: {loaded.path} has {len(rows)} rows; they are counted from 1")
    record = rows[number - 1]
    if isinstance(record, Dropped):
        raise UserError(f"--row {number}: the reader of {loaded.path} leaves it out ({record.reason}); show another")
    return record


def as_dict(shown: Shown) -> dict[str, Any]:
    """The same for machines: every piece with its ids."""
    return {
        "file": shown.loaded.path,
        "kind": shown.kind,
        "shape": shown.loaded.shape,
        "kept": len(shown.encoded),
        "dropped": dict(shown.encoded.dropped),
        "unused": list(shown.loaded.unused),
        "terminator": shown.terminator,
        "rows": [
            {
                "where": row.where,
                "left_out": row.left_out or None,
                "first_difference": row.differ_at,
                "prompt": _listed(row.prompt),
                "responses": {side: _listed(pieces) for side, pieces in row.responses.items()},
            }
            for row in shown.rows
        ],
    }


def _listed(pieces: Sequence[Piece]) -> list[dict[str, Any]]:
    return [{"ids": list(piece.ids), "text": piece.text, "special": piece.special} for piece in pieces]
