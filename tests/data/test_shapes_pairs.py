"""Every shape of preference pairs becomes prompt, chosen and rejected, and what is no preference is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trueup.data.read import read_examples, read_pairs, read_prompts
from trueup.data.records import Message, Pair
from trueup.errors import UserError

ASK = {"role": "user", "content": "Name a fruit."}
PLUM = {"role": "assistant", "content": "Plum."}
PEA = {"role": "assistant", "content": "Pea."}
HUMAN, PLUM_TURN, PEA_TURN = (
    {"from": "human", "value": "Name a fruit."},
    {"from": "gpt", "value": "Plum."},
    {"from": "gpt", "value": "Pea."},
)
HH_ASK = "\n\nHuman: Name a fruit.\n\nAssistant:"
GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(folder: Path, *rows: Any) -> str:
    with pytest.raises(UserError) as caught:
        read_pairs(write(folder, *rows)).whole()
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"prompt": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."}, "pair of responses"),
        ({"question": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."}, "question and pair of responses"),
        ({"system": " ", "question": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."}, "question and pair"),
        ({"system": None, "question": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."}, "question and pair"),
        ({"instruction": "Name a fruit.", "chosen": "Plum.", "rejected": "Pea."}, "Alpaca pair"),
        ({"instruction": "Name a fruit.", "input": "", "chosen": "Plum.", "rejected": "Pea."}, "Alpaca pair"),
        ({"prompt": [ASK], "chosen": [PLUM], "rejected": [PEA]}, "chat prompt and pair of responses"),
        ({"chosen": [ASK, PLUM], "rejected": [ASK, PEA]}, "pair of dialogues"),
        ({"prompt": "Name a fruit.", "chosen": [ASK, PLUM], "rejected": [ASK, PEA]}, "pair of dialogues with"),
        ({"chosen": f"{HH_ASK} Plum.", "rejected": f"{HH_ASK} Pea."}, "Anthropic HH dialogues"),
        ({"chosen": f"{HH_ASK}Plum.", "rejected": f"{HH_ASK}Pea."}, "Anthropic HH dialogues"),
        ({"conversations": [HUMAN], "chosen": PLUM_TURN, "rejected": PEA_TURN}, "ShareGPT pair"),
    ],
)
def test_one_preference_is_the_same_pair_in_every_shape(tmp_path: Path, row: Any, shape: str) -> None:
    loaded = read_pairs(path := write(tmp_path, row))
    assert loaded.records == (Pair((Message("user", "Name a fruit."),), "Plum.", "Pea.", f"{path}:1", None),)
    assert loaded.shape.startswith(shape)
    assert (loaded.dropped, loaded.unused) == ({}, ())


def test_the_system_column_is_the_turn_before_the_question(tmp_path: Path) -> None:
    row = {"chosen": "Plum.", "rejected": "Pea.", "question": " Name a fruit.\n", "system": "Be brief. "}
    bare = {"chosen": "Plum.", "rejected": "Pea.", "question": "Another?"}
    first, second = read_pairs(write(tmp_path, row, bare)).records
    assert first.prompt == (Message("system", "Be brief. "), Message("user", " Name a fruit.\n"))
    assert second.prompt == (Message("user", "Another?"),)
    assert read_prompts(write(tmp_path, row)).records[0].prompt == first.prompt


def test_an_alpaca_pair_has_the_prompt_of_an_alpaca_example(tmp_path: Path) -> None:
    told = {"instruction": "Translate.", "input": "  chat\n"}
    (pair,) = read_pairs(write(tmp_path, told | {"chosen": "cat", "rejected": "chat"})).records
    assert pair.prompt == read_examples(write(tmp_path, told | {"output": "cat"})).records[0].prompt
    assert pair.prompt[0].content.endswith("\n\n  chat\n")


@pytest.mark.parametrize("beside", ["question", "instruction"])
def test_dialogues_are_read_as_such_whatever_text_stands_beside_them(tmp_path: Path, beside: str) -> None:
    loaded = read_pairs(write(tmp_path, {"chosen": [ASK, PLUM], "rejected": [ASK, PEA], beside: "Name a fruit."}))
    assert loaded.shape.startswith("pair of dialogues (")
    assert loaded.unused == (beside,)


def test_best_and_worst_scored_responses_make_the_pair(tmp_path: Path) -> None:
    row = {"prompt": "p", "responses": ["mid", "worst", "best", "mid2"], "scores": [3, -1.5, 4, 3]}
    (pair,) = read_pairs(write(tmp_path, row)).records
    assert (pair.chosen, pair.rejected, pair.margin) == ("best", "worst", 5.5)


def test_scores_that_all_tie_are_counted_not_resolved_by_position(tmp_path: Path) -> None:
    tied = {"prompt": "p", "responses": ["a", "b"], "scores": [2, 2.0]}
    loaded = read_pairs(write(tmp_path, tied, {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}, tied))
    assert [pair.chosen for pair in loaded.records] == ["b"]
    assert loaded.dropped == {"tied scores": 2}


@pytest.mark.parametrize(
    ("columns", "margin"),
    [
        ({}, None),
        ({"margin": None}, None),
        ({"margin": 0}, 0.0),
        ({"margin": -2.5}, -2.5),
        ({"score_chosen": 7, "score_rejected": 9.5}, -2.5),
        ({"chosen_score": 0.75, "rejected_score": 0.25}, 0.5),
        ({"margin": 3, "score_chosen": 7, "score_rejected": 9.5}, 3.0),
    ],
)
def test_margin_is_chosen_minus_rejected_in_the_units_of_the_file(tmp_path: Path, columns: Any, margin: Any) -> None:
    loaded = read_pairs(write(tmp_path, GOOD | columns))
    assert loaded.records[0].margin == margin
    assert loaded.unused == ()


@pytest.mark.parametrize(
    ("same", "different"),
    [
        ({"prompt": "p", "chosen": "x", "rejected": "x"}, GOOD),
        ({"chosen": [ASK, PLUM], "rejected": [ASK, PLUM]}, {"chosen": [ASK, PLUM], "rejected": [ASK, PEA]}),
        (
            {"chosen": f"{HH_ASK} x", "rejected": f"{HH_ASK} x"},
            {"chosen": f"{HH_ASK} x", "rejected": f"{HH_ASK} x "},
        ),
        (
            {"prompt": "p", "responses": ["x", "x"], "scores": [1, 2]},
            {"prompt": "p", "responses": ["x", "y"], "scores": [1, 2]},
        ),
    ],
)
def test_identical_sides_are_dropped_with_a_count(tmp_path: Path, same: Any, different: Any) -> None:
    loaded = read_pairs(path := write(tmp_path, same, different, same))
    assert [pair.where for pair in loaded.records] == [f"{path}:2"]
    assert loaded.dropped == {"identical chosen and rejected": 2}


def test_a_file_of_nothing_but_dropped_rows_is_refused_with_the_counts(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "x", "rejected": "x"}
    assert "identical chosen and rejected: 2" in refusal(tmp_path, row, row)


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (["a", "b", "c", "x"], ["a", "B", "c", "y"]),
        # One side is the other's beginning: the longest common prefix would leave that side no response.
        (["a", "b"], ["a", "b", "c", "d"]),
        (["a", "b", "c", "d"], ["a", "b"]),
        (["a", "x"], ["b", "x"]),
    ],
)
def test_dialogues_that_part_before_the_last_reply_are_dropped(
    tmp_path: Path, chosen: list[str], rejected: list[str], as_text: bool
) -> None:
    bad = {"chosen": _dialogue(chosen, as_text), "rejected": _dialogue(rejected, as_text)}
    good = {"chosen": _dialogue(["a", "b"], as_text), "rejected": _dialogue(["a", "c"], as_text)}
    loaded = read_pairs(path := write(tmp_path, bad, good))
    assert [pair.where for pair in loaded.records] == [f"{path}:2"]
    assert loaded.dropped == {"dialogues differ before the last reply": 1}


def _dialogue(turns: list[str], as_text: bool) -> Any:
    if as_text:
        return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (f"{HH_ASK} ", f"{HH_ASK} b", "empty turn in a dialogue"),
        (HH_ASK, f"{HH_ASK} b", "empty turn in a dialogue"),
        (f"{HH_ASK} a", f"{HH_ASK} \n", "empty turn in a dialogue"),
        ("\n\nHuman: \n\nAssistant: a", "\n\nHuman: \n\nAssistant: b", "empty turn in a dialogue"),
        ("\n\nHuman: ", f"{HH_ASK} b", "dialogues differ before the last reply"),
    ],
)
def test_hh_rows_with_an_empty_turn_are_counted(tmp_path: Path, chosen: str, rejected: str, reason: str) -> None:
    good = {"chosen": f"{HH_ASK} a", "rejected": f"{HH_ASK} b"}
    loaded = read_pairs(write(tmp_path, good, {"chosen": chosen, "rejected": rejected}))
    assert (len(loaded.records), loaded.dropped) == (1, {reason: 1})


@pytest.mark.parametrize("tail", ["\n\nHuman: ", "\n\nAssistant: u\n\nAssistant: "])
def test_hh_rows_without_a_human_turn_and_a_reply_at_the_end_are_counted(tmp_path: Path, tail: str) -> None:
    bad = {"chosen": f"\n\nHuman: q{tail}x", "rejected": f"\n\nHuman: q{tail}y"}
    loaded = read_pairs(write(tmp_path, {"chosen": f"{HH_ASK} a", "rejected": f"{HH_ASK} b"}, bad))
    assert (len(loaded.records), loaded.dropped) == (1, {"dialogue does not end with a human turn and a reply": 1})


def test_hh_neighbours_of_one_speaker_stay_apart(tmp_path: Path) -> None:
    start = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant: "
    (pair,) = read_pairs(write(tmp_path, {"chosen": f"{start}x", "rejected": f"{start}y"})).records
    assert [turn.role for turn in pair.prompt] == ["user", "assistant", "assistant", "user"]


_TURN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda turn: turn.strip() and "\n\nHuman:" not in turn and "\n\nAssistant:" not in turn
)


@given(shared=st.lists(st.tuples(_TURN, _TURN), max_size=3), last=_TURN, chosen=_TURN, rejected=_TURN)
def test_hh_dialogues_split_at_turns_wherever_the_two_sides_agree(
    tmp_path_factory: pytest.TempPathFactory, shared: Any, last: str, chosen: str, rejected: str
) -> None:
    assume(chosen != rejected)
    turns = [*(turn for both in shared for turn in both), last]
    row = {name: _dialogue([*turns, reply], True) for name, reply in (("chosen", chosen), ("rejected", rejected))}
    (pair,) = read_pairs(write(tmp_path_factory.mktemp("hh"), row)).records
    assert [turn.content for turn in pair.prompt] == turns
    assert (pair.chosen, pair.rejected) == (chosen, rejected)


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": " "}, "rejected", "is empty"),
        ({"prompt": "p", "chosen": 3, "rejected": "b"}, "chosen", "must be text or a list, but is a number"),
        ({"prompt": [ASK], "chosen": [PLUM], "rejected": "b"}, "rejected", "must be a list, but is text"),
        ({"prompt": [ASK], "chosen": [ASK, PLUM], "rejected": [ASK, PEA]}, "chosen", "has 2 turns"),
        ({"prompt": "x", "chosen": [ASK, PLUM], "rejected": [ASK, PEA]}, "prompt", "is not a turn"),
        ({"chosen": [ASK], "rejected": [ASK, PEA]}, "chosen", "ends with the user's turn"),
        ({"chosen": "Plum.", "rejected": "Pea."}, "chosen", "does not begin with"),
        ({"query": "q", "chosen": "a", "rejected": "b"}, "chosen", "columns seen: 'query', 'chosen', 'rejected'; add"),
        ({"question": None, "chosen": "a", "rejected": "b"}, "chosen", "columns seen: 'question' (null), 'chosen'"),
        ({"question": 5, "chosen": "a", "rejected": "b"}, "question", "must be text, but is a number"),
        ({"question": "q", "system": 5, "chosen": "a", "rejected": "b"}, "system", "is a number"),
        ({"question": " ", "chosen": "a", "rejected": "b"}, "question", "is empty"),
        ({"instruction": "i", "input": ["x"], "chosen": "a", "rejected": "b"}, "input", "is a list"),
        ({"instruction": "i", "chosen": "a", "rejected": ""}, "rejected", "is empty"),
        ({"chosen": "x\n\nHuman: a\n\nAssistant: b", "rejected": "c"}, "chosen", "does not begin with"),
        ({"conversations": [HUMAN], "chosen": HUMAN, "rejected": PEA_TURN}, "chosen", "spoken by the user"),
        ({"conversations": [HUMAN, PLUM_TURN], "chosen": PLUM_TURN, "rejected": PEA_TURN}, "conversations", "ends"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1]}, "scores", "1 scores for 2 responses"),
        ({"prompt": "p", "responses": ["a"], "scores": [1]}, "scores", "1 scores for 1 responses"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, True]}, "scores", "is true or false"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, None]}, "scores", "is null"),
        ({"prompt": "p", "responses": ["a", ""], "scores": [1, 2]}, "responses", "responses[1]"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1, 10**400]}, "scores", "finite"),
        (GOOD | {"margin": "big"}, "margin", "must be a number, but is text"),
        (GOOD | {"score_chosen": 3}, "score_chosen", "'score_rejected' is missing"),
        (GOOD | {"score_chosen": 3, "score_rejected": None}, "score_chosen", "'score_rejected' is null"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(tmp_path: Path, row: Any, field: str, problem: str) -> None:
    said = refusal(tmp_path, row)
    assert f"rows.jsonl:1: field {field!r} " in said
    assert problem in said


def test_examples_to_imitate_are_sent_to_sft(tmp_path: Path) -> None:
    assert "`trueup sft`" in refusal(tmp_path, {"instruction": "a", "input": "", "output": "b"})


def test_a_misspelt_column_is_told_to_whom_it_is_one_of_the_shapes(tmp_path: Path) -> None:
    row = {"qestion": "q", "choosen": "a", "rejected": "b"}
    assert "('qestion'; did you mean 'question'?)" in refusal(tmp_path, row)
    with pytest.raises(UserError, match="no known shape of examples") as caught:
        read_examples(write(tmp_path, row))
    assert "question'?" not in str(caught.value)  # no shape of examples has it


def test_pairs_and_scored_responses_in_one_file_are_ambiguous(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD | {"responses": ["a", "b"], "scores": [1, 2]})
    assert "pair of responses (prompt, chosen, rejected) and scored responses (prompt, responses, scores)" in said


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (("prompt", "question"), ["pair of responses (", "question and pair of responses ("]),
        (("prompt", "instruction"), ["pair of responses (", "Alpaca pair ("]),
        (("question", "instruction"), ["question and pair of responses (", "Alpaca pair ("]),
    ],
)
def test_two_columns_that_may_both_be_the_prompt_are_ambiguous(
    tmp_path: Path, told: tuple[str, ...], names: list[str]
) -> None:
    said = refusal(tmp_path, {**dict.fromkeys(told, "p"), "chosen": "a", "rejected": "b"})
    assert "fits several shapes: " + names[0] in said and f" and {names[1]}" in said
