"""The audit on the files that people have, against counts made from their raw rows."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trueup.data.audit import audit
from trueup.data.audit_sheet import read_any
from trueup.data.read import read_prompts

PAIRS = "alpacaeval_pairs.jsonl.gz"


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix != ".gz":
        return json.loads(path.read_text(encoding="utf-8"))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def alpaca_eval(real_data: Path) -> dict[str, Any]:
    return audit(*read_any(real_data / PAIRS))


def test_repetitions_and_length_of_alpaca_eval(real_data: Path, alpaca_eval: dict[str, Any]) -> None:
    rows = rows_of(real_data / PAIRS)
    kinds = Counter((row["prompt"], row["chosen"], row["rejected"]) for row in rows)
    assert alpaca_eval["repeats"]["identical_rows"]["count"] == len(rows) - len(kinds) == 43
    assert alpaca_eval["repeats"]["repeated_prompts"]["prompts"] == len({row["prompt"] for row in rows})
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows)
    equal = sum(len(row["chosen"]) == len(row["rejected"]) for row in rows)
    wins = alpaca_eval["length_bias"]["longer_wins"]
    assert wins["estimate"] == pytest.approx((longer + equal / 2) / len(rows))
    # Six pairs a prompt: the interval is wider than that of 1,350 independent pairs.
    assert wins["low"] > 0.7 and wins["high"] - wins["low"] > 0.05
    assert alpaca_eval["reading"]["unused"] == ["chosen_model", "rejected_model", "split"]


def test_left_over_turns_in_hh(real_data: Path) -> None:
    name = "hh_harmless_base_test.jsonl.gz"
    found = audit(*read_any(real_data / name))
    replies = [
        row[side].rpartition("\n\nAssistant:")[2]
        for row in rows_of(real_data / name)
        for side in ("chosen", "rejected")
    ]
    left = [reply for reply in replies if re.search(r"^ ?(Human|Assistant): ", reply, re.MULTILINE)]
    # Raw rows that cannot be used are among the replies here.
    assert 0 <= len(left) - found["markers"]["count"] <= 2 * 9 and found["markers"]["count"] > 20
    assert {reason: tally["count"] for reason, tally in found["reading"]["dropped"].items()} == {
        "dialogues differ before the last reply": 5,
        "empty turn in a dialogue": 4,
    }


def test_what_the_two_demonstration_files_share(real_data: Path) -> None:
    kto, dpo = real_data / "kto_en_demo.json", real_data / "dpo_en_demo.json"
    found = audit(*read_any(kto), against=read_prompts(dpo))
    asked = [
        {" ".join(turn.content for turn in r.prompt if turn.role == "user") for r in read_prompts(p).records}
        for p in (kto, dpo)
    ]
    assert found["overlap"]["exact"]["count"] >= len(asked[0] & asked[1]) > 0
    assert found["separability"]["accuracy"]["low"] > 0.6
    assert any("*" in piece["piece"] for piece in found["separability"]["telling"])
