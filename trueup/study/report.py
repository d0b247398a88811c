"""The report of a study: one HTML file that opens offline, and the same in short as Markdown.

Whatever models wrote is hostile here. Text in the page is escaped by the template engine; data for the page's script
are JSON without ``<``, ``>`` and ``&``; the script sets text and never HTML; and a content security policy lets no
other script run and no address be contacted.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from trueup.errors import UserError
from trueup.study import format as write
from trueup.study.charts import Charts, build_charts
from trueup.study.findings import entries
from trueup.study.folder import read_items, read_study
from trueup.study.markdown import study_markdown
from trueup.study.responses import browser
from trueup.study.rows import (
    arm_rows,
    budget_rows,
    contrast_rows,
    part_columns,
    reward_model_findings,
    settings_table,
    shown_columns,
)
from trueup.study.schema import Study, baseline
from trueup.study.tiles import tiles

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: Path) -> Path:
    """Build ``report.html`` and ``report.md`` from a study folder's ``study.json`` and ``items.parquet`` alone.

    Returns:
        The path of ``report.html``.

    Raises:
        UserError: either file is missing or damaged, or the folder cannot be written.
    """
    study, items = read_study(folder), read_items(folder)
    page, short = study_page(study, items), study_markdown(study)
    _replace(folder / "report.md", short)
    return _replace(folder / "report.html", page)


def study_page(study: Study, items: pa.Table) -> str:
    """Return the whole page."""
    charts = build_charts(study, items)
    plotly, script = get_plotlyjs(), (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {f.__name__: f for f in (write.fixed, write.interval, write.whole, write.scaled, write.duration)}
    )
    return environment.get_template("report.html.j2").render(
        **_tables(study),
        study=study,
        baseline=baseline(study),
        tiles=tiles(study),
        findings=entries(study),
        charts=charts,
        chart_data=_figures(charts),
        response_data=_embed(browser(study, items)),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        policy=_policy(plotly, script),
    )


def _tables(study: Study) -> dict[str, Any]:
    columns, parts = shown_columns(study), part_columns(study)
    return {
        "columns": columns,
        "rows": arm_rows(study, columns),
        "parts": parts,
        "part_rows": arm_rows(study, parts),
        "contrasts": contrast_rows(study),
        "budgets": budget_rows(study),
        "settings": settings_table(study),
        "reward_model_findings": reward_model_findings(study),
    }


def _figures(charts: Charts) -> Markup:
    """Write the figures with six digits a number: more than a screen can show, half the size."""
    figures = {
        chart.key: json.loads(str(chart.figure.to_json()), parse_float=lambda text: float(f"{float(text):.6g}"))
        for chart in charts.all()
    }
    return _embed(figures)


def _embed(value: Any) -> Markup:
    return _inert(json.dumps(value, allow_nan=False, separators=(",", ":")))


def _inert(data: str) -> Markup:
    """Write JSON so that it cannot end its script element, begin a comment or hold an entity."""
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return Markup(data)


def _policy(*scripts: str) -> str:
    """Allow these very scripts, inline styles (the charts need them) and pictures made in the page; nothing else."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _replace(path: Path, text: str) -> Path:
    """Write aside and rename, so that a reader never meets half a report."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(text.encode("utf-8", errors="replace"))
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); free the space or choose another folder"
        ) from error
    return path
