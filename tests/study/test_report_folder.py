"""A study folder that is missing, damaged or contradicts itself gets one line that names file and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_fixture import write_study

from trueup.errors import UserError
from trueup.study.folder import read_items, read_study
from trueup.study.schema import ITEM_COLUMNS, Study


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sound study as JSON."""
    folder = write_study(tmp_path_factory.mktemp("sound"), prompts=6, draws=1)
    return json.loads((folder / "study.json").read_text(encoding="utf-8"))


def refusal(folder: Path, content: Any) -> str:
    """Write a study.json and return the line with which it is refused."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_study(folder)
    message = str(error.value)
    assert "study.json" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("key", sorted(Study.__required_keys__))
def test_every_missing_key_is_named(tmp_path: Path, content: dict[str, Any], key: str) -> None:
    assert f": {key}:" in refusal(tmp_path, {name: value for name, value in content.items() if name != key})


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "deep key": (lambda s: s["arms"][3]["budgets"].pop("flops"), "arms.3.budgets.flops"),
    "metric without mean": (lambda s: s["arms"][0]["metrics"]["gold"].pop("mean"), "arms.0.metrics.gold.mean"),
    "text for a number": (lambda s: s["contrasts"][0].update(p="small"), "contrasts.0.p"),
    "unknown verdict": (lambda s: s["contrasts"][1].update(verdict="great"), "contrasts.1.verdict"),
    "unknown severity": (lambda s: s["findings"][0].update(severity="bad"), "findings.0.severity"),
    "rank that is not a pair": (lambda s: s["rank_sets"]["gold"].update(sft=[1]), "rank_sets.gold.sft"),
    "arm that is not listed": (lambda s: s["contrasts"][0].update(a="dpo-tunde"), "did you mean 'dpo-tuned'"),
    "arm listed twice": (lambda s: s["arms"].append(s["arms"][0]), "twice"),
    "no arms": (lambda s: s.update(arms=[]), "nothing to report"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_damage_inside_is_located(tmp_path: Path, content: dict[str, Any], case: str) -> None:
    change, words = CHANGES[case]
    copy = json.loads(json.dumps(content))
    change(copy)
    assert words in refusal(tmp_path, copy)


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    assert "line 2" in refusal(tmp_path, '{"schema": 1,\n"name" "x"}')
    assert "the file" in refusal(tmp_path, "[1, 2]")
    assert "not a study" in refusal(tmp_path, "[" * 100_000)
    (tmp_path / "study.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not a study"):
        read_study(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_study(tmp_path / "nowhere")


def test_numbers_that_are_not_finite_count_as_missing(tmp_path: Path, content: dict[str, Any]) -> None:
    copy = json.loads(json.dumps(content))
    copy["arms"][0]["metrics"]["gold"]["mean"] = float("nan")
    (tmp_path / "study.json").write_text(json.dumps(copy), encoding="utf-8")
    assert read_study(tmp_path)["arms"][0]["metrics"]["gold"]["mean"] is None


@pytest.mark.parametrize("column", ITEM_COLUMNS.names)
def test_every_missing_column_is_named(tmp_path: Path, column: str) -> None:
    table = ITEM_COLUMNS.empty_table().drop_columns([column])
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(UserError, match=rf"items\.parquet: column '{column}' is missing"):
        read_items(tmp_path)


def test_items_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items\.parquet: cannot be read"):
        read_items(tmp_path)
    path = tmp_path / "items.parquet"
    pq.write_table(ITEM_COLUMNS.empty_table(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"items\.parquet"):
        read_items(tmp_path)
    columns = {name: pa.array([], pa.string()) for name in ITEM_COLUMNS.names}
    pq.write_table(pa.table({**columns, "gold": ["high"], **{n: ["1"] for n in columns if n != "gold"}}), path)
    with pytest.raises(UserError, match="of another kind"):
        read_items(tmp_path)
