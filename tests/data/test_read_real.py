"""The files that people have, read as they are: counts, and the very texts that are in them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from trueup.data.read import read_examples, read_judged, read_pairs, read_prompts

DATA = Path(os.environ.get("TRUEUP_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set TRUEUP_DATA to its folder")


def rows_of(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not name.endswith(".gz"):
        return json.loads(path.read_text(encoding="utf-8"))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_alpaca() -> None:
    loaded, rows = read_examples(DATA / "alpaca_en_demo.json"), rows_of("alpaca_en_demo.json")
    assert (len(loaded.records), loaded.dropped, loaded.unused) == (999, {}, ())
    assert [record.response for record in loaded.records] == [row["output"] for row in rows]
    asked = ["\n\n".join(part for part in (row["instruction"], row["input"]) if part) for row in rows]
    assert [record.prompt[0].content for record in loaded.records] == asked


def test_sharegpt_pairs() -> None:
    loaded, rows = read_pairs(DATA / "dpo_en_demo.json"), rows_of("dpo_en_demo.json")
    assert (len(loaded.records), loaded.dropped, loaded.unused) == (300, {}, ())
    for pair, row in zip(loaded.records, rows, strict=True):
        assert [turn.content for turn in pair.prompt] == [turn["value"] for turn in row["conversations"]]
        assert (pair.chosen, pair.rejected) == (row["chosen"]["value"], row["rejected"]["value"])


def test_kto_messages() -> None:
    loaded, rows = read_judged(DATA / "kto_en_demo.json"), rows_of("kto_en_demo.json")
    assert (len(loaded.records), loaded.dropped, loaded.unused) == (300, {}, ())
    assert sum(record.label for record in loaded.records) == 150
    for record, row in zip(loaded.records, rows, strict=True):
        assert [*(turn.content for turn in record.prompt), record.response] == [m["content"] for m in row["messages"]]
        assert record.label is row["label"]


def test_alpacaeval_pairs() -> None:
    name = "alpacaeval_pairs.jsonl.gz"
    loaded, rows = read_pairs(DATA / name), rows_of(name)
    assert (len(loaded.records), loaded.dropped) == (1350, {})
    assert loaded.unused == ("chosen_model", "rejected_model", "split")
    for pair, row in zip(loaded.records, rows, strict=True):
        assert (pair.prompt[0].content, pair.chosen, pair.rejected) == (row["prompt"], row["chosen"], row["rejected"])
        assert pair.margin == row["chosen_score"] - row["rejected_score"]


def test_hh_dialogues_put_together_again_are_the_strings_of_the_file() -> None:
    name = "hh_harmless_base_test.jsonl.gz"
    loaded, rows = read_pairs(DATA / name), rows_of(name)
    assert loaded.dropped == {"dialogues differ before the last reply": 5, "empty turn in a dialogue": 4}
    assert len(loaded.records) == len(rows) - 9 == 2303
    speakers = {"user": "Human", "assistant": "Assistant"}
    for pair in loaded.records:
        row = rows[int(pair.where.rpartition(":")[2]) - 1]
        shared = "".join(f"\n\n{speakers[turn.role]}: {turn.content}" for turn in pair.prompt)
        assert f"{shared}\n\nAssistant: {pair.chosen}" == row["chosen"]
        assert f"{shared}\n\nAssistant: {pair.rejected}" == row["rejected"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("alpaca_en_demo.json", 999),
        ("dpo_en_demo.json", 300),
        ("kto_en_demo.json", 300),
        ("alpacaeval_pairs.jsonl.gz", 1350),
        ("hh_harmless_base_test.jsonl.gz", 2303),
    ],
)
def test_the_prompts_of_each_file_can_be_read_alone(name: str, count: int) -> None:
    loaded = read_prompts(DATA / name)
    assert len(loaded.records) == len({record.id for record in loaded.records}) == count
    assert {record.prompt[-1].role for record in loaded.records} == {"user"}
