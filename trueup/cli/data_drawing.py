"""Rows drawn token by token, so that what is trained on can be read off, with colour and without."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from trueup.cli.console import open_console
from trueup.cli.data_show import SIDES, Shown, ShownRow
from trueup.data.audit_sheet import Kind
from trueup.data.pieces import Piece

# Two shades, one token each by turns: where a token ends can be seen without a mark between them.
_SHADES = {
    "prompt": ("grey62", "grey42"),
    "chosen": ("black on green", "black on bright_green"),
    "rejected": ("white on red", "black on bright_red"),
}
_STYLE_OF = {"wanted": "chosen", "unwanted": "rejected", "response": "chosen"}
_TERMINATOR = "bold black on yellow"
_SPECIAL = "bold cyan"
_VISIBLE = {" ": "·", "\n": "⏎\n", "\t": "⇥", "\r": "␍"}


def _tokens(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.ids) for piece in pieces)


def draw(shown: Shown, console: Console | None = None) -> None:
    """Print legend, totals and rows."""
    console = console or open_console()
    colour = console.is_terminal and console.color_system is not None and not console.no_color

    def say(text: Text) -> None:
        console.print(text, soft_wrap=True)

    say(Text(shown.encoded.describe()))
    if shown.loaded.unused:
        say(Text(f"columns that nothing uses: {', '.join(shown.loaded.unused)}"))
    say(_legend(shown.kind, colour))
    for row in shown.rows:
        say(Text("\n") + Text(_heading(row), style="bold"))
        if row.left_out:
            say(Text(f"left out of training: {row.left_out}", style="bold red"))
        for name, pieces in (("prompt", row.prompt), *row.responses.items()):
            line = Text.assemble((f"{name} ", "bold"), _drawn(pieces, name, shown.terminator, colour))
            say(line) if not colour else console.print(line, overflow="fold")


def _heading(row: ShownRow) -> str:
    counts = [f"{name} {_tokens(pieces)}" for name, pieces in (("prompt", row.prompt), *row.responses.items())]
    longest = max(map(_tokens, row.responses.values()))
    text = f"{row.where}: tokens: {', '.join(counts)}; prompt + longest response {_tokens(row.prompt) + longest}"
    if row.differ_at is None:
        return text
    first, second = (_visible(_piece_at(pieces, row.differ_at)).rstrip("\n") for pieces in row.responses.values())
    return f"{text}; sides differ from response token {row.differ_at + 1} on: {first} | {second}"


def _piece_at(pieces: Sequence[Piece], token: int) -> str:
    """The text at a token; of a sequence that ended before it, nothing."""
    for piece in pieces:
        token -= len(piece.ids)
        if token < 0:
            return piece.text
    return "(end)"


def _legend(kind: Kind, colour: bool) -> Text:
    if not colour:
        return Text(
            "⟦ ⟧ trained tokens   │ between tokens   ■ before the terminator   · space   ⏎ line end   ⇥ tab   "
            "×n one character made of n tokens   everything outside ⟦ ⟧ is read and not trained"
        )
    legend = Text("prompt, read and not trained", style=_SHADES["prompt"][0])
    for side in SIDES[kind]:
        legend.append("  ").append(f" {side}, trained ", style=_SHADES[_STYLE_OF.get(side, side)][0])
    legend.append("  ").append(" terminator, trained ", style=_TERMINATOR)
    legend.append("  ").append("special token", style=_SPECIAL)
    return legend.append("  shade changes with every token  · space  ⏎ line end  ⇥ tab  ×n one character of n tokens")


def _drawn(pieces: Sequence[Piece], name: str, terminator: int, colour: bool) -> Text:
    """One sequence: shaded where there is colour, marked by signs where there is none."""
    text, trained = Text(), name != "prompt"
    shades = _SHADES[_STYLE_OF.get(name, name)]
    if trained and not colour:
        text.append("⟦")
    for index, piece in enumerate(pieces):
        ends = trained and index == len(pieces) - 1 and piece.ids == (terminator,)
        shown = _visible(piece.text) + (f"×{len(piece.ids)}" if len(piece.ids) > 1 else "")
        if colour:
            text.append(shown, style=_TERMINATOR if ends else _SPECIAL if piece.special else shades[index % 2])
        else:
            text.append(("│" if index else "") + ("■" if ends else "") + shown)
    return text.append("⟧") if trained and not colour else text


def _visible(text: str) -> str:
    """White space as signs, a line end with its line break, what has no shape (or steers a terminal) by its number."""
    return "".join(_VISIBLE.get(sign) or (f"\\u{ord(sign):04x}" if _hidden(sign) else sign) for sign in text)


def _hidden(sign: str) -> bool:
    return unicodedata.category(sign) in {"Cc", "Cf", "Zs", "Zl", "Zp", "Co", "Cn"}
