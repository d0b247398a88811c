"""The report in short, as Markdown for a pull request: verdicts, table, contrasts, findings and cautions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trueup.study.findings import entries
from trueup.study.format import fixed, plain, whole
from trueup.study.rows import Cell, arm_rows, contrast_rows, shown_columns
from trueup.study.schema import Study

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|#~@$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "})


def study_markdown(study: Study) -> str:
    """Return the whole text; every name and sentence of the study is escaped."""
    design = study["design"]
    basis = f"{len(design['seeds'])} seeds × {whole(design['prompts'])} prompts × {whole(design['draws'])} draws"
    effect = f"smallest effect of interest {fixed(study['smallest_effect'])}"
    blocks = [
        f"# {_text(study['name'])}",
        f"**{_text(study['question'])}**",
        *(_text(verdict) for verdict in study["verdicts"]),
        f"{basis}, world {_text(study['world']['name'])}, {effect}. Means over seeds with 95% intervals.",
        _scores(study),
        _section("Contrasts", _contrasts(study)),
        _section("Findings", "\n".join(_findings(study))),
        _section("Cautions", "\n".join(f"- {_text(caution)}" for caution in study["cautions"])),
        f"Written {_text(study['date'])} by {_code(study['command'])}.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _scores(study: Study) -> str:
    columns = shown_columns(study)
    titles = ["Arm", *(column.title for column in columns), "Rank", "Findings"]
    rows = arm_rows(study, columns)
    return _table(titles, ([row.label, *map(_cell, row.cells), row.ranks, row.findings] for row in rows))


def _contrasts(study: Study) -> str:
    rows = contrast_rows(study)
    if not rows:
        return ""
    titles = ["Contrast", "Metric", "Difference", "p (Holm)", "Verdict", "Prompts needed"]
    return _table(
        titles, ([f"{r.a} − {r.b}", r.metric, _cell(r.estimate), r.p_holm, r.verdict, r.n_needed] for r in rows)
    )


def _findings(study: Study) -> Iterable[str]:
    for entry in entries(study):
        what = f"**{entry.severity}** {_code(entry.rule)} in {_text(entry.arm)} ({entry.seeds})"
        yield f"- {what}: {_text(entry.message)} {_text(entry.remedy)}"


def _cell(cell: Cell) -> str:
    return f"{cell.value} {cell.interval}".strip()


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    body = [[_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [*lines, *body])


def _text(text: str) -> str:
    return plain(text).translate(_SPECIAL)


def _code(text: str) -> str:
    return f"`{plain(text).replace('`', chr(39)).replace(chr(10), ' ')}`"
