"""The study in the terminal: one table and one panel of plain words."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trueup.study.findings import about_reward_models
from trueup.study.format import plain
from trueup.study.rows import Cell, arm_rows, shown_columns
from trueup.study.schema import Study

_HERE = ("gold", "proxy", "kl/sequence", "length")
_TITLES = {"kl/sequence": "KL"}


def study_table(study: Study) -> Table:
    """Return a row per arm: scores with their intervals, KL, length, possible ranks and findings.

    What health rules saw in the reward models, which have no row, stands below.
    Names come from files that others wrote: control characters are taken out and markup is not interpreted.
    """
    wanted = (study["primary_metric"], *_HERE)
    columns = [column for column in shown_columns(study) if column.metric in wanted]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Arm")  # rows are two lines high anyway, so it is the names that give way in a narrow terminal
    for column in columns:
        table.add_column(_TITLES.get(column.metric, column.title), justify="right", no_wrap=True)
    table.add_column("Rank", justify="center", no_wrap=True)
    table.add_column("Findings")
    for row in arm_rows(study, columns):
        cells = [_cell(cell, column.metric) for cell, column in zip(row.cells, columns, strict=True)]
        table.add_row(Text(plain(row.label)), *cells, Text(row.ranks), _findings(row.findings))
    table.caption, table.caption_justify = _reward_models(study), "left"
    return table


def verdict_panel(study: Study) -> RenderableType:
    """Return the question, the verdict in sentences and the cautions that go with it."""
    lines = [Text(plain(study["question"]), style="bold"), Text()]
    lines += [Text(plain(verdict)) for verdict in study["verdicts"]] or [Text("No verdict was reached.")]
    if study["cautions"]:
        lines += [Text(), Text("Read with care:", style="yellow")]
        lines += [Text(f"• {plain(caution)}") for caution in study["cautions"]]
    return Panel(Group(*lines), title="Verdict", title_align="left", padding=(1, 2))


def _cell(cell: Cell, metric: str) -> Text:
    """Length goes without its interval, so that the table fits into 80 columns."""
    shown = cell.interval and metric != "length"
    return Text.assemble(cell.value, *([("\n" + cell.interval, "dim")] if shown else []))


def _findings(words: str) -> Text:
    return Text(words, style="red" if "fatal" in words else "yellow" if "warning" in words else "dim")


def _reward_models(study: Study) -> Text | None:
    """One line: which rules fired in the reward models of which seeds."""
    fired = [f"{entry.severity} {plain(entry.rule)} ({entry.seeds})" for entry in about_reward_models(study)]
    return Text.assemble("Reward models: ", _findings("; ".join(fired))) if fired else None
