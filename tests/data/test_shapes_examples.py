"""Every shape of examples to imitate becomes the prompt and response that its authors meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.data.read import read_examples
from trueup.data.records import Message
from trueup.errors import UserError

ASK = {"role": "user", "content": "Name a fruit."}
TELL = {"role": "assistant", "content": "Plum."}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(folder: Path, *rows: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(write(folder, *rows)).whole()
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"instruction": "Name a fruit.", "input": "", "output": "Plum."}, "Alpaca"),
        ({"instruction": "Name a fruit.", "input": None, "output": "Plum."}, "Alpaca"),
        ({"instruction": "Name a fruit.", "output": "Plum."}, "Alpaca"),
        ({"prompt": "Name a fruit.", "completion": "Plum."}, "prompt and completion"),
        ({"prompt": [ASK], "completion": [TELL]}, "chat prompt and completion"),
        ({"prompt": "Name a fruit.", "response": "Plum."}, "prompt and response"),
        ({"messages": [ASK, TELL]}, "messages"),
        ({"messages": [{**ASK, "tool_calls": None}, TELL]}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "Name a fruit."}, {"from": "gpt", "value": "Plum."}]},
            "ShareGPT",
        ),
    ],
)
def test_one_question_one_answer_is_the_same_example_in_every_shape(tmp_path: Path, row: Any, shape: str) -> None:
    loaded = read_examples(write(tmp_path, row))
    (record,) = loaded.records
    assert record.prompt == (Message("user", "Name a fruit."),)
    assert record.response == "Plum."
    assert loaded.shape.startswith(f"{shape} (")
    assert (loaded.dropped, loaded.unused) == ({}, ())


def test_alpaca_input_follows_the_instruction_after_a_blank_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": "Translate.", "input": "  chat\n", "output": "cat"})
    assert read_examples(path).records[0].prompt == (Message("user", "Translate.\n\n  chat\n"),)


def test_only_the_last_reply_of_a_dialogue_is_the_response(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), ("human", "Hi"), ("gpt", "Hello."), ("human", "Bye"), ("gpt", "So long.")]
    path = write(tmp_path, {"conversations": [{"from": who, "value": said} for who, said in turns]})
    (record,) = read_examples(path).records
    roles = ["system", "user", "assistant", "user"]
    assert record.prompt == tuple(Message(role, said) for role, (_, said) in zip(roles, turns, strict=False))
    assert record.response == "So long."


def test_an_empty_system_turn_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [{"role": "system", "content": ""}, ASK, TELL]})
    assert read_examples(path).records[0].prompt[0] == Message("system", "")


def test_white_space_around_text_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": " a\n", "completion": "\tb "})
    (record,) = read_examples(path).records
    assert (record.prompt[0].content, record.response) == (" a\n", "\tb ")


def test_columns_that_are_ignored_are_listed_wherever_they_occur(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "response": "b", "source": "x"}, {"prompt": "c", "response": "d", "note": 3, "source": "y"}]
    assert read_examples(write(tmp_path, *rows)).unused == ("source", "note")


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({"messages": [ASK]}, "messages", "ends with the user's turn"),
        ({"messages": [TELL]}, "messages", "nothing before it"),
        ({"messages": []}, "messages", "has no turns"),
        ({"messages": "Name a fruit."}, "messages", "must be a list, but is text"),
        ({"messages": ["Name a fruit."]}, "messages", "messages[0] is text"),
        ({"messages": [ASK, TELL, TELL]}, "messages", "ends with the assistant"),
        ({"messages": [{"role": "system", "content": "x"}, TELL]}, "messages", "ends with the system"),
        ({"messages": [{"role": "tool", "content": "x"}, TELL]}, "messages", "'tool'"),
        ({"messages": [{"role": ["user"], "content": "x"}, TELL]}, "messages", "a list"),
        ({"messages": [{"role": "user"}, TELL]}, "messages", "messages[0] has 'role'"),
        ({"messages": [{"role": "user", "content": None}, TELL]}, "messages", "messages[0] has 'role'"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}, TELL]}, "messages", "messages[0] is a list"),
        ({"messages": [{**ASK, "tool_calls": [1]}, TELL]}, "messages", "'tool_calls'"),
        ({"messages": [ASK, {"role": "assistant", "content": " \n"}]}, "messages", "is empty"),
        ({"prompt": "a", "completion": ""}, "completion", "is empty"),
        ({"prompt": "  ", "completion": "b"}, "prompt", "is empty"),
        ({"prompt": 5, "completion": "b"}, "prompt", "must be text or a list, but is a number"),
        ({"prompt": "a", "completion": [TELL]}, "completion", "must be text, but is a list"),
        ({"prompt": "a", "completion": 3, "messages": 4}, "completion", "must be text or a list, but is a number"),
        ({"prompt": [ASK], "completion": [TELL, ASK]}, "completion", "has 2 turns"),
        ({"prompt": [ASK], "completion": [ASK]}, "completion", "spoken by the user"),
        ({"prompt": [ASK, TELL], "completion": [TELL]}, "prompt", "ends with the assistant"),
        ({"instruction": "a", "input": 7, "output": "b"}, "input", "is a number"),
        ({"instruction": "a", "output": ""}, "output", "is empty"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(tmp_path: Path, row: Any, field: str, problem: str) -> None:
    said = refusal(tmp_path, row)
    assert f"rows.jsonl:1: field {field!r} " in said
    assert problem in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"prompt": "c"}, "response"),
        ({"prompt": "c", "response": None}, "response"),
        ({"prompt": "c", "completion": "d"}, "response"),
        ({"prompt": "c", "response": "d", "label": False}, "label"),
        ({"prompt": "c", "response": "d", "completion": "e"}, "completion"),
        ({"prompt": [ASK], "response": "d"}, "prompt"),
    ],
)
def test_a_row_of_another_shape_than_the_first_is_named(tmp_path: Path, second: Any, field: str) -> None:
    assert f"rows.jsonl:2: field {field!r} " in refusal(tmp_path, {"prompt": "a", "response": "b"}, second)


def test_a_file_that_fits_two_shapes_is_refused_with_both(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"prompt": "a", "response": "b", "completion": "c"})
    assert "prompt and completion (prompt, completion) and prompt and response (prompt, response)" in said
    assert "columns seen: 'prompt', 'response', 'completion'" in said


def test_a_file_that_fits_no_shape_is_refused_with_what_was_seen_and_tried(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"prompt": "a", "respnse": "b"})
    assert "columns seen: 'prompt', 'respnse' ('respnse'; did you mean 'response'?)" in said
    assert "Alpaca (instruction, output, input?)" in said and "ShareGPT (conversations)" in said


@pytest.mark.parametrize(
    ("row", "verb"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "trueup dpo"),
        ({"messages": [ASK, TELL], "chosen": [ASK, TELL], "rejected": [ASK, TELL], "prompt": "x"}, "trueup dpo"),
        # Imitating what somebody judged bad is the mistake that must not pass.
        ({"messages": [ASK, TELL], "label": False}, "trueup kto"),
        ({"prompt": "a", "completion": "b", "label": True}, "trueup kto"),
    ],
)
def test_another_kind_of_data_is_sent_to_its_verb(tmp_path: Path, row: Any, verb: str) -> None:
    said = refusal(tmp_path, row)
    assert f"`{verb}`" in said and "columns seen: " in said
