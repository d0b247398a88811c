"""Judged responses and prompts: the shapes of examples with a label, and any shape's prompts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.data.read import read_judged, read_prompts
from trueup.data.records import Judged, Message, PromptOnly
from trueup.errors import UserError

ASK = {"role": "user", "content": "Name a fruit."}
PLUM = {"role": "assistant", "content": "Plum."}
PROMPT = (Message("user", "Name a fruit."),)


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit.", "completion": "Plum."},
        {"prompt": [ASK], "completion": [PLUM]},
        {"prompt": "Name a fruit.", "response": "Plum."},
        {"messages": [ASK, PLUM]},
        {"instruction": "Name a fruit.", "input": "", "output": "Plum."},
        {"conversations": [{"from": "human", "value": "Name a fruit."}, {"from": "gpt", "value": "Plum."}]},
    ],
)
def test_one_judgement_is_the_same_record_in_every_shape(tmp_path: Path, row: Any, label: bool) -> None:
    loaded = read_judged(path := write(tmp_path, row | {"label": label}))
    assert loaded.records == (Judged(PROMPT, "Plum.", label, f"{path}:1"),)
    assert loaded.shape.startswith("judged ")
    assert loaded.unused == ()


@pytest.mark.parametrize("label", [0, 1, "true", 0.5, [True]])
def test_a_label_is_true_or_false_and_nothing_like_it(tmp_path: Path, label: Any) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:2: field 'label' must be true or false"):
        good, bad = ({"messages": [ASK, PLUM], "label": told} for told in (True, label))
        read_judged(write(tmp_path, good, bad)).whole()
    with pytest.raises(UserError, match=r"rows\.jsonl:1: field 'label' must be true or false"):
        read_judged(write(tmp_path, {"messages": [ASK, PLUM], "label": label})).whole()


def test_a_judged_dialogue_needs_a_reply(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="field 'messages' ends with the user's turn"):
        read_judged(write(tmp_path, {"messages": [ASK], "label": True})).whole()


def test_examples_without_a_label_are_sent_to_sft(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`trueup sft`"):
        read_judged(write(tmp_path, {"messages": [ASK, PLUM]})).whole()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a fruit."},
        {"prompt": [ASK]},
        {"instruction": "Name a fruit.", "input": ""},
        {"messages": [ASK]},
        {"messages": [ASK, PLUM]},
        {"messages": [ASK, PLUM], "label": False},
        {"prompt": "Name a fruit.", "response": "Plum."},
        {"prompt": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."},
        {"prompt": "Name a fruit.", "chosen": "Plum.", "rejected": "Plum."},
        {"prompt": "Name a fruit.", "responses": ["Plum.", "Pea."], "scores": [2, 1]},
        {"chosen": [ASK, PLUM], "rejected": [ASK, PLUM]},
        {"chosen": "\n\nHuman: Name a fruit.\n\nAssistant: a", "rejected": "\n\nHuman: Name a fruit.\n\nAssistant: b"},
    ],
)
def test_the_prompt_of_every_shape_can_be_read_alone(tmp_path: Path, row: Any) -> None:
    loaded = read_prompts(path := write(tmp_path, row | {"family": "fruit"}))
    assert loaded.records == (PromptOnly(PROMPT, f"{path}:1", "1", {"family": "fruit"}),)
    assert loaded.unused == ()


def test_an_id_names_the_prompt_and_a_row_number_stands_in(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "id": "x-7"}, {"prompt": "b", "id": 12}, {"prompt": "c", "content": ["k", 1]}]
    records = read_prompts(write(tmp_path, *rows)).records
    assert [record.id for record in records] == ["x-7", "12", "3"]
    assert records[2].meta == {"content": ["k", 1]}


@pytest.mark.parametrize("rows", [[{"id": "a"}, {"id": "b"}, {"id": "a"}], [{"id": 3}, {"id": 4}, {}]])
def test_two_prompts_of_one_id_are_refused_with_both_places(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"rows\.jsonl:3: field 'id' .*rows\.jsonl:1;"):
        read_prompts(write(tmp_path, *({"prompt": "p"} | row for row in rows))).whole()


@pytest.mark.parametrize("name", [True, 1.5, ["a"]])
def test_an_id_is_text_or_a_whole_number(tmp_path: Path, name: Any) -> None:
    with pytest.raises(UserError, match="field 'id'"):
        read_prompts(write(tmp_path, {"prompt": "p", "id": name})).whole()
